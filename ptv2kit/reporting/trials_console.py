"""Progress of trials that are trained side by side: a line for each epoch of each trial."""

from __future__ import annotations

import time
from typing import final

from rich.console import Console
from rich.text import Text

from ptv2kit.reporting.console import duration

_LINE_SECONDS = 10.0


@final
class TrialsConsole:
    """What several trials say, one line at a time, and now and then how far they are.

    Args:
        console: of stderr.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._last_line = self._started

    def __enter__(self) -> TrialsConsole:
        self._started = self._last_line = time.monotonic()
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing is left on the screen."""

    def of(self, name: str, epochs: int) -> TrialLines:
        """What prints the lines of one trial."""
        return TrialLines(self, name, epochs)

    def line(self, text: Text) -> None:
        """Print a trial's line."""
        self._last_line = time.monotonic()
        self._console.print(text, soft_wrap=True)

    def on_step(self, step: int, total_steps: int) -> None:
        """Say how far the trials are if nothing was said for a while."""
        now = time.monotonic()
        if now - self._last_line >= _LINE_SECONDS:
            self._last_line = now
            left = (now - self._started) / step * (total_steps - step)
            self._console.print(f"step {step}/{total_steps} of each trial  left {duration(left)}", soft_wrap=True)


@final
class TrialLines:
    """Prints the epochs of one trial.

    Args:
        console: of all trials.
        name: of the trial.
        epochs: that it will have.
    """

    def __init__(self, console: TrialsConsole, name: str, epochs: int) -> None:
        self._console = console
        self._name = name
        self._epochs = epochs
        self._losses: list[float] = []
        self._rate = 0.0

    def on_step(self, step: int, total_steps: int, epoch: float, loss: float, learning_rate: float) -> None:
        """Note the loss."""
        self._losses.append(loss)
        self._rate = learning_rate
        self._console.on_step(step, total_steps)

    def on_evaluating(self, done: int, total: int) -> None:
        """Nothing to say."""

    def on_evaluation(self, epoch: int, values: dict[str, float], best: bool, seconds: float) -> None:
        """A line for each epoch."""
        loss = sum(self._losses) / max(1, len(self._losses))
        self._losses = []
        shown = "  ".join(f"{name} {value:.2f}" for name, value in values.items())
        text = f"{self._name}  epoch {epoch:>3}/{self._epochs}  loss {loss:.4f}  rate {self._rate:.1e}  {shown}"
        line = Text(text)
        self._console.line(line.append("  best", style="green") if best else line)
