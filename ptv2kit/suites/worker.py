"""A worker takes the cells of a suite that are not finished, one after the other, and trains them in this process.

A suite's folder is all that workers share: a second command with the same folder, on this machine or another, is one
more worker. The lock of a cell is held while it is trained; the system frees it when its process ends, however.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, final

from filelock import FileLock

from ptv2kit.errors import ConfigError, DataError
from ptv2kit.files import is_locked, try_lock
from ptv2kit.report.records import CellRecord
from ptv2kit.spec.cells import Cell
from ptv2kit.suites.cell import Trained, blank_record, starting_from, train_cell, train_together, with_facts
from ptv2kit.suites.folder import SuiteFolder
from ptv2kit.training.checkpoint import Checkpoints
from ptv2kit.training.launch import cell_processes
from ptv2kit.training.resume import is_finished
from ptv2kit.training.run import Resume
from ptv2kit.training.signals import EndedEarly, StopSignals

if TYPE_CHECKING:
    from rich.console import Console

SESSION = "PTV2KIT_SESSION"
"""Environment variable with the session of the command that has started this worker."""
PROCESSES = "PTV2KIT_PROCESSES"
"""Environment variable with how many processes the cells of this worker have; without it it takes any."""
KILLED = "its process was killed; the machine may have run out of memory"
_LOOK = 0.5
"""Seconds between two looks at a cell that others wait for."""


@final
class Worker:
    """Trains the cells of a grid that are not finished: each once, after the one that its prompt starts from.

    Args:
        keys: of each, empty where it starts from a cell that is not finished.
        data_root: where data files are looked up first.
        key: makes the key of a cell whose prompt's start is known.
        session: of the command: a cell that failed is tried once in each.
        words: of the command line, after `ptv2kit`, for the processes of a cell that has several.
    """

    def __init__(
        self,
        folder: SuiteFolder,
        cells: Sequence[Cell],
        keys: Sequence[str],
        *,
        data_root: Path | None,
        messages: Console,
        key: Callable[[Cell], str],
        session: str,
        changed: Callable[[], None],
        words: Sequence[str] = (),
    ) -> None:
        self._folder = folder
        self._cells = {cell.name: cell for cell in cells}
        self._keys = dict(zip(self._cells, keys, strict=True))
        self._labels = {cell.name: f"[{index}/{len(cells)}] {cell.name}" for index, cell in enumerate(cells, start=1)}
        self._data_root = data_root
        self._messages = messages
        self._key = key
        self._session = session
        self._changed = changed
        self._words = words
        self._processes = int(os.environ.get(PROCESSES, "0"))

    def run(self) -> EndedEarly | None:
        """Train until nothing is left that this worker could take.

        Returns:
            How it was ended early, None if it was not.
        """
        for record in self.records():
            if record.status == "finished":
                self.say(record.name, "finished before")
        with StopSignals() as stop:
            while not stop():
                claimed, waits = self._claim()
                if claimed is not None:
                    cell, lock, before = claimed
                    with lock:
                        stopped = self._train(cell, before)
                    self._changed()
                    if stopped is not None:
                        return stopped
                elif waits:
                    time.sleep(_LOOK)
                else:
                    return None
        return stop.stopped

    def records(self) -> list[CellRecord]:
        """What is known of every cell now, in their order."""
        return [self._record(cell) for cell in self._cells.values()]

    def note_killed(self) -> None:
        """Write down the cells of this session whose process was killed: they count as failed until the next start."""
        for cell in self._cells.values():
            with_lock = try_lock(self._folder.lock(cell.name)) if self._record(cell).status == "interrupted" else None
            if with_lock is not None:
                with with_lock:
                    found = self._folder.record_of(cell.name)
                    if found is not None and found.status == "running" and found.session == self._session:
                        self._folder.write_record(_killed(found))

    def say(self, name: str, text: str) -> None:
        """A message about a cell."""
        self._messages.print(f"{self._labels[name]}: {text}", soft_wrap=True)

    def _record(self, cell: Cell) -> CellRecord:
        """What is known of a cell; `waiting` if nothing is."""
        return self._state(cell, self._folder.record_of(cell.name))

    def _state(self, cell: Cell, found: CellRecord | None) -> CellRecord:
        """What a record means now: one of other settings or of an earlier try says nothing."""
        key, lock = self._key_of(cell), self._folder.lock(cell.name)
        if found is None or not key or found.key != key:
            return blank_record(cell, "running" if is_locked(lock) else "waiting", key)
        if found.status == "running" and not is_locked(lock):
            found = with_facts(found, status="interrupted")
        if found.status == "failed" and found.session != self._session:
            found = blank_record(cell, "waiting", key)
        return with_facts(found, case=cell.case, settings=dict(cell.settings))

    def _key_of(self, cell: Cell) -> str:
        """The key of a cell; empty while what it starts from is not finished."""
        if not self._keys[cell.name] and cell.after is not None:
            first = self._record(self._cells[cell.after])
            if first.status == "finished":
                started = starting_from(cell, self._folder.run_of(first))
                try:
                    self._keys[cell.name] = self._key(started)
                except (ConfigError, DataError) as error:
                    self._fail(cell, error.problems[0].message, error.exit_code)
        return self._keys[cell.name]

    def _fail(self, cell: Cell, error: str, exit_code: int) -> None:
        """Note a cell that cannot be started; the key is one that no run has."""
        self._keys[cell.name] = "cannot start"
        failed = blank_record(cell, "failed", self._keys[cell.name])
        self._folder.write_record(with_facts(failed, error=error, exit_code=exit_code, session=self._session))
        self.say(cell.name, f"failed: {error}")

    def _claim(self) -> tuple[tuple[Cell, FileLock, CellRecord | None] | None, bool]:
        """The next cell with its lock and what was written of it; and whether cells wait for one that is trained."""
        waits = False
        for cell in self._cells.values():
            if cell.after is not None and not self._key_of(cell):
                first = self._record(self._cells[cell.after])
                if first.status == "failed":
                    self._fail(cell, f"needs cell '{cell.after}', which failed", first.exit_code)
                waits = waits or first.status == "running"
                continue
            if self._record(cell).status in ("finished", "failed"):
                continue
            # A worker that was started for cells of some processes leaves the others to its siblings.
            if self._processes not in (0, cell_processes(cell.resolved.recipe)):
                continue
            lock = try_lock(self._folder.lock(cell.name))
            if lock is None:
                continue
            # Only under the lock is the record final: another worker may have finished the cell meanwhile.
            before = self._folder.record_of(cell.name)
            if self._state(cell, before).status in ("finished", "failed"):  # by another worker, a moment ago
                lock.release()
                continue
            if before is not None and before.status == "running" and before.session == self._session:
                self._folder.write_record(_killed(before))
                self.say(cell.name, f"failed: {KILLED}")
                lock.release()
                continue
            return (cell, lock, before), waits
        return None, waits

    def _train(self, cell: Cell, before: CellRecord | None) -> EndedEarly | None:
        """Train a cell whose lock is held, and write its record."""
        key = self._keys[cell.name]
        if cell.after is not None:
            cell = starting_from(cell, self._folder.run_of(self._record(self._cells[cell.after])))
        running = with_facts(blank_record(cell, "running", key), session=self._session)
        resume = self._unfinished(before, key)
        if resume is not None and before is not None:
            running = with_facts(running, seconds=before.seconds)
        self._folder.write_record(running)
        self._messages.print(self._labels[cell.name], style="bold", soft_wrap=True)
        try:
            if cell_processes(cell.resolved.recipe) > 1:
                done = train_together(cell, running, self._folder, self._words, self._messages, resume)
            else:
                done = train_cell(
                    cell,
                    folder=self._folder.path,
                    data_root=self._data_root,
                    messages=self._messages,
                    resume=resume,
                )
        except KeyboardInterrupt:
            done = Trained(with_facts(running, status="interrupted", seconds=0.0), "interrupted")
        except BrokenPipeError:
            raise
        except Exception as error:  # noqa: BLE001 - a fault of ours in one cell must not cost the others
            self._messages.print(traceback.format_exc(), soft_wrap=True)
            found = f"internal error: {type(error).__name__}: {error}"
            done = Trained(with_facts(running, status="failed", error=found, exit_code=1, seconds=0.0))
        seconds = round(running.seconds + done.record.seconds, 3)
        self._folder.write_record(with_facts(done.record, key=key, seconds=seconds, session=self._session))
        return done.stopped

    def _unfinished(self, before: CellRecord | None, key: str) -> Resume | None:
        """The run of this very cell that was interrupted or whose process was killed.

        One that failed by itself would fail again: a new one is started.
        """
        if before is None or before.key != key:
            return None
        if before.status not in ("running", "interrupted") and not (before.status == "failed" and before.killed):
            return None
        runs = sorted(path.parent for path in (self._folder.runs / before.name).glob("*/recipe.resolved.yaml"))
        if not runs or is_finished(runs[-1]):
            return None
        try:
            found = Checkpoints(runs[-1] / "checkpoints", keep=1).latest()
        except DataError as error:
            self._messages.print(f"{error}; the cell starts anew", soft_wrap=True)
            return None
        return None if found is None else Resume(runs[-1])


def _killed(record: CellRecord) -> CellRecord:
    return with_facts(record, status="failed", error=KILLED, exit_code=1, killed=True)
