"""Ctrl-C and the scheduler's SIGTERM: the step that is running ends, what is there is saved, then the command ends."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Literal, final


@final
class StopSignals:
    """Within `with`, the first SIGINT or SIGTERM is only remembered; a second SIGINT interrupts at once.

    Signals are left as they are in a thread that is not the main one, which cannot take them.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.received is not None

    @property
    def status(self) -> Literal["interrupted", "terminated"]:
        """How a run ended that was stopped."""
        return "terminated" if self.received == signal.SIGTERM else "interrupted"

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
