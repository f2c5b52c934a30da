"""How far the cells have come that other processes train: live lines on a terminal, else a line for each epoch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, final

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

from ptv2kit.cli.cell_lock import read_holder
from ptv2kit.reporting.console import duration

if TYPE_CHECKING:
    from rich.console import Console

    from ptv2kit.reporting.suite_folder import CellRecord

_EVERY = 1.0
"""Seconds between two looks at the locks."""
_LINE_SECONDS = 10.0
"""Seconds between two lines of a job, off a terminal."""


@final
class CellProgress:
    """Shows the jobs. Use it with `with`.

    Args:
        messages: of stderr.
    """

    def __init__(self, messages: Console) -> None:
        self._messages = messages
        self._bars = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[text]}", markup=False, table_column=Column(no_wrap=True)),
            TimeElapsedColumn(),
            console=messages,
            transient=True,
            disable=not messages.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._said: dict[str, tuple[str, float]] = {}
        self._labels: dict[str, str] = {}
        self._looked = 0.0

    def __enter__(self) -> CellProgress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bars.stop()

    def start(self, name: str, label: str, where: str) -> None:
        """A job was started."""
        self._labels[name] = label
        self._said[name] = ("", 0.0)
        self._tasks[name] = self._bars.add_task(label, total=None, text=f"starts on {where}")
        if not self._messages.is_terminal:
            self._messages.print(f"{label}: starts on {where}", soft_wrap=True)

    def show(self, locks: Mapping[str, Path]) -> None:
        """Look how far the jobs are, now and then.

        Args:
            locks: of each that runs, by the name of its cell.
        """
        if time.monotonic() - self._looked < _EVERY:
            return
        self._looked = time.monotonic()
        for name, path in locks.items():
            found = read_holder(path)
            if found is None:
                continue
            self._bars.update(
                self._tasks[name], completed=found.done, total=found.total or None, text=found.text or "trains"
            )
            if found.text != self._said[name][0] and self._looked - self._said[name][1] > _LINE_SECONDS:
                self._said[name] = (found.text, self._looked)
                if not self._messages.is_terminal:
                    self._messages.print(f"{self._labels[name]}: {found.text}", soft_wrap=True)

    def end(self, name: str, label: str, record: CellRecord) -> None:
        """A job has ended."""
        self._bars.remove_task(self._tasks.pop(name))
        text = record.status
        if record.status == "finished" and record.score is not None:
            text = f"finished, {record.score:.2f}, {duration(record.seconds)}"
        elif record.error:
            text = f"{record.status}: {record.error}"
        self._messages.print(f"{label}: {text}", soft_wrap=True)
