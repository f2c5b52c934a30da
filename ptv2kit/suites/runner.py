"""What a suite's cells came to: trained here or by several workers, recorded, shown and judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, final

from ptv2kit.errors import (
    TrainingError,
)
from ptv2kit.report.records import CellRecord
from ptv2kit.spec.cells import Cell
from ptv2kit.suites.cell import train_cell
from ptv2kit.suites.folder import SuiteFolder, bests_of, missed
from ptv2kit.suites.preflight import Preflight
from ptv2kit.suites.worker import Worker
from ptv2kit.training.launch import cell_processes
from ptv2kit.training.signals import EndedEarly
from ptv2kit.training.state import Log

if TYPE_CHECKING:
    from rich.console import Console


@final
class SuiteRunner:
    """Trains cells one after the other, keeps a record of each, and reports them.

    Args:
        data_root: where data files are looked up first.
        whole: whether all cells of the suite are there; of a part the folder gets no tables.
    """

    def __init__(
        self, folder: SuiteFolder, messages: Console, data_root: Path | None, title: str, *, whole: bool
    ) -> None:
        self.folder = folder
        self.messages = messages
        self._data_root = data_root
        self._title = title
        self._whole = whole
        self.records: list[CellRecord] = []
        self.failed: list[CellRecord] = []
        self.missed: list[str] = []
        self.elsewhere = 0
        self.interrupted = False
        self.stopped_by: EndedEarly | None = None

    def run_cells(
        self,
        cells: Sequence[Cell],
        keys: Sequence[str],
        preflight: Preflight,
        session: str,
        words: Sequence[str],
        crew: Callable[[int, Callable[[], None]], EndedEarly | None] | None,
    ) -> None:
        """Train the cells that are not finished; a failed one is tried again, and stops none of the others.

        Args:
            keys: from `_check`.
            preflight: makes the keys that are not known yet.
            words: of the command line, after `ptv2kit`.
            crew: runs several workers, given the processes of a cell; None: this process is the only one.
        """
        worker = Worker(
            self.folder,
            cells,
            keys,
            data_root=self._data_root,
            messages=self.messages,
            key=lambda cell: preflight.key(cell.resolved),
            session=session,
            changed=lambda: self._look(worker),
            words=words,
        )
        if crew is None:
            self.stopped(worker.run())
        else:
            for record in worker.records():
                if record.status == "finished":
                    worker.say(record.name, "finished before")
            shown: dict[str, str] = {record.name: record.status for record in worker.records()}
            left = _waiting(worker)
            before: list[str] = []
            while left and left != before and not self.interrupted:  # a start may have more processes than what follows
                before = left
                for processes in sorted({cell_processes(cell.resolved.recipe) for cell in cells if cell.name in left}):
                    if not self.interrupted:
                        self.stopped(crew(processes, lambda: _say_changes(worker, shown)))
                worker.note_killed()
                _say_changes(worker, shown)
                left = _waiting(worker)
            if left and not self.interrupted:
                raise TrainingError(
                    f"the workers ended and left {len(left)} cells untouched, the first is '{left[0]}'",
                    hint=f"what they printed is in '{self.folder.path}/worker-*.log'",
                )
        self._look(worker)
        self.interrupted = self.interrupted or any(record.status == "interrupted" for record in self.records)
        self.elsewhere = sum(record.status == "running" for record in self.records)
        self.failed = [record for record in self.records if record.status == "failed"]
        for cell, record in zip(cells, self.records, strict=True):
            if record.status == "finished":
                self.missed += [f"{cell.name}: {text}" for text in missed(record, cell.resolved)]

    def _look(self, worker: Worker) -> None:
        self.records = worker.records()
        self.write_tables()

    def stopped(self, how: EndedEarly | None) -> None:
        """Note how the cells were ended early, if they were."""
        if how is not None:
            self.interrupted = True
            self.stopped_by = how

    def train(self, cell: Cell, watchers: Sequence[Log] = ()) -> CellRecord:
        """Train one cell in this process; an error of the project is part of its record, any other is raised."""
        done = train_cell(
            cell, folder=self.folder.path, data_root=self._data_root, messages=self.messages, watchers=watchers
        )
        self.stopped_by = done.stopped
        return done.record

    def write_tables(self) -> None:
        """Show what is known so far."""
        if not self._whole:
            return
        self.folder.write_tables(self._title, self.records)
        bests = bests_of(self.records)
        for path in self.folder.path.glob("best*.yaml"):
            if path.stem not in bests:  # written while fewer cells were finished
                path.unlink()
        for name, best in bests.items():
            if not self.folder.write_best(best, f"{name}.yaml"):
                self.messages.print(f"{name}.yaml is not written: the run of {best.name} is on another machine")


def _waiting(worker: Worker) -> list[str]:
    """The cells that were not begun yet, or that were interrupted before."""
    return [record.name for record in worker.records() if record.status in ("waiting", "interrupted")]


def _say_changes(worker: Worker, shown: dict[str, str]) -> None:
    """Say which cells have begun or ended since the last call."""
    for record in worker.records():
        if record.status != shown[record.name]:
            shown[record.name] = record.status
            score = "" if record.score is None else f", {record.score:.2f}"
            error = f": {record.error}" if record.error else ""
            worker.say(record.name, f"{'starts' if record.status == 'running' else record.status}{score}{error}")
