"""Progress and results on a terminal, or line by line where there is none. Everything goes to the given console."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from ptv2kit.data.schemes.records import Scores
from ptv2kit.training.state import LogEntry, Step

_LINE_SECONDS = 10.0


@final
class _StateColumn(ProgressColumn):
    """Loss, learning rate, metric and best, as far as they are known."""

    def render(self, task: Task) -> Text:
        return Text(str(task.fields["state"]), style="cyan")


@final
class TrainingConsole:
    """Show the progress of a training: a live bar on a terminal, otherwise a line every ten seconds and each epoch.

    Args:
        metric: name of the metric that chooses the best epoch.
    """

    def __init__(self, console: Console, metric: str, epochs: int) -> None:
        self._console = console
        self._metric = metric
        self._epochs = epochs
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=10),
            TaskProgressColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            _StateColumn(table_column=Column(no_wrap=True, overflow="ellipsis")),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._bar = self._progress.add_task("epoch 0", total=None, state="")
        self._started = time.monotonic()
        self._last_line = self._started
        self._losses: list[float] = []
        self._rate = 0.0
        self._best = 0.0
        self._now = ""

    def __enter__(self) -> TrainingConsole:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def log(self, row: LogEntry) -> None:
        """Move the bar, or off a terminal write a line every ten seconds; write a line for each evaluation."""
        if isinstance(row, Step):
            self._losses.append(row.loss)
            self._rate = row.learning_rate
            mean = sum(self._losses[-20:]) / len(self._losses[-20:])
            state = f"loss {mean:.3f} rate {self._rate:.1e}{self._now}"
            epoch = f"epoch {min(int(row.epoch) + 1, self._epochs)}/{self._epochs}"
            self._progress.update(self._bar, total=row.total_steps, completed=row.step, description=epoch, state=state)
            now = time.monotonic()
            if not self._console.is_terminal and now - self._last_line >= _LINE_SECONDS:
                self._last_line = now
                left = duration((now - self._started) / row.step * (row.total_steps - row.step))
                self._console.print(f"step {row.step}/{row.total_steps}  {state}  left {left}", soft_wrap=True)
            return
        loss = sum(self._losses) / max(1, len(self._losses))
        self._losses = []
        self._last_line = time.monotonic()
        shown = "  ".join(f"{name} {value:.2f}" for name, value in row.values.items())
        value = row.values[self._metric]
        self._best = value if row.best else self._best
        self._now = f" {self._metric} {value:.2f} best {self._best:.2f}"
        line = Text(f"epoch {row.epoch:>3g}/{self._epochs}  loss {loss:.4f}  rate {self._rate:.1e}  {shown}")
        self._console.print(line.append("  best", style="green") if row.best else line, soft_wrap=True)

    def progress(self, done: int, total: int) -> None:
        """Say that the validation split is being predicted."""
        self._progress.update(self._bar, state=f"evaluating {done}/{total}{self._now}")
        if not self._console.is_terminal and time.monotonic() - self._last_line >= _LINE_SECONDS:
            self._last_line = time.monotonic()
            self._console.print(f"evaluating {done:,} of {total:,} inputs", soft_wrap=True)


@final
class RowsConsole:
    """Show how rows are encoded: a live bar on a terminal, otherwise a line every ten seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._bars: dict[str, int] = {}
        self._last_line = time.monotonic()

    def __enter__(self) -> RowsConsole:
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def on_rows(self, what: str, done: int, total: int | None) -> None:
        """Move the bar of `what`; `total` is None where the number of rows is not known before the end."""
        self._progress.start()  # not before there are rows, so that bars of downloads are not drawn within it
        if what not in self._bars:
            self._bars[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._progress.task_ids[list(self._bars).index(what)], completed=done)
        if not self._console.is_terminal and time.monotonic() - self._last_line >= _LINE_SECONDS:
            self._last_line = time.monotonic()
            of = "" if total is None else f" of {total:,}"
            self._console.print(f"{what}: {done:,}{of} rows", soft_wrap=True)


def duration(seconds: float) -> str:
    """Seconds as `1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


_MOST_TYPES = 60
"""Classes or types of spans that a table shows."""


def scores_table(scores: Scores, title: str) -> Table:
    """The result by class or span type, and the task's metrics below."""
    table = Table(title=title, title_justify="left", show_footer=False)
    if not scores.types:
        table.add_column("metric")
        table.add_column("value", justify="right")
        for name, value in scores.values.items():
            table.add_row(name, f"{value:.2f}", style="bold")
        return table
    table.add_column("type")
    for name in ("precision", "recall", "F1", "in data"):
        table.add_column(name, justify="right")
    most = sorted(scores.types, key=lambda row: -row.support)[:_MOST_TYPES]
    for row in scores.types:
        if row in most:
            table.add_row(row.name, *_numbers(row.precision, row.recall, row.f1), str(row.support))
    if len(most) < len(scores.types):
        table.add_row(f"{len(scores.types) - len(most):,} rarer ones: --json, or results.json", style="dim")
    table.add_section()
    for name, value in scores.values.items():
        of = scores.counts.get(name, str(sum(row.support for row in scores.types)))
        table.add_row(name, "", "", f"{value:.2f}", of, style="bold")
    return table


def _numbers(*values: float) -> Sequence[str]:
    return [f"{value:.2f}" for value in values]
