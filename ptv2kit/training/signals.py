"""Signals of a user or a scheduler: the step that is running ends, what is there is saved, then the command ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from types import FrameType, MethodType
from typing import Literal, final

from ptv2kit.errors import HungUpRunError, InterruptedRunError, ProjectError, TerminatedRunError

EndedEarly = Literal["interrupted", "terminated", "hung_up"]
"""How a run ended that was stopped: by SIGINT, SIGTERM or SIGHUP."""

STOPPED: dict[EndedEarly, type[ProjectError]] = {
    "interrupted": InterruptedRunError,
    "terminated": TerminatedRunError,
    "hung_up": HungUpRunError,
}
"""The error of a run that was stopped, by its status."""

ENDINGS: dict[int, EndedEarly] = {error.exit_code: how for how, error in STOPPED.items()}
"""How a process was ended early, by its exit code: 128 and the signal's number."""

HANDLED = tuple(each for each in signal.Signals if each.name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"))
"""The signals that are dealt with; Windows has the first two alone, so that none is named as an attribute."""


@final
class StopSignals:
    """Within `with`, the first SIGINT, SIGTERM or SIGHUP is only remembered; a second SIGINT interrupts at once.

    Within another such block, what that one has received counts too: a suite's cell whose rows were still being read
    when the signal came ends with its first step. SIGUSR1 asks for a checkpoint. SIGHUP stays ignored where the parent
    process has ignored it, as `nohup` does. Signals are left as they are in a thread that is not the main one, which
    cannot take them.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._wants_checkpoint = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in HANDLED:
                if signal_name(number) == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN:
                    continue
                before = signal.signal(number, self._take)
                if isinstance(before, MethodType) and isinstance(before.__self__, StopSignals):
                    self.received = self.received or before.__self__.received
                self._before[number] = before
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.received is not None

    def wants_checkpoint(self) -> bool:
        """Whether SIGUSR1 came since the last call."""
        wanted, self._wants_checkpoint = self._wants_checkpoint, False
        return wanted

    @property
    def stopped(self) -> EndedEarly | None:
        """How what runs is to end early, None if it is not."""
        return None if self.received is None else ENDINGS[128 + self.received]

    def _take(self, number: int, frame: FrameType | None) -> None:
        if signal_name(number) == "SIGUSR1":
            self._wants_checkpoint = True
            return
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)


def signal_name(number: int) -> str:
    """The name of a signal, such as SIGTERM: names can be compared also where a system has not all of them."""
    return signal.Signals(number).name


def forward_signal(number: int, processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """Send a signal to the processes that still run. On Windows Ctrl-C reaches them without."""
    for process in processes:
        if sys.platform != "win32" and process.poll() is None:
            process.send_signal(number)
