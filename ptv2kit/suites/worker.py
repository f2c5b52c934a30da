"""A worker takes the cells of a suite that are not finished, one after the other, and trains them in this process.

A suite's folder is all that workers share: a second command with the same folder, on this machine or another, is one
more worker. The lock of a cell is held while it is trained; the system frees it when its process ends, however.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, final

from filelock import FileLock

from ptv2kit.errors import ConfigError, DataError, ProjectError, TrainingError
from ptv2kit.files import is_locked, try_lock
from ptv2kit.report.records import CellRecord, CellStatus
from ptv2kit.spec.cells import Cell
from ptv2kit.spec.merge import Setting
from ptv2kit.spec.suite import keeps_tensors
from ptv2kit.suites.folder import SuiteFolder
from ptv2kit.training.checkpoint import Checkpoints
from ptv2kit.training.distributed import Workers, workers
from ptv2kit.training.launch import cell_processes, launch, local_processes
from ptv2kit.training.results import Outcome, first_metric
from ptv2kit.training.resume import is_finished
from ptv2kit.training.run import Resume, train_recipe
from ptv2kit.training.signals import StopSignals
from ptv2kit.training.state import Log

if TYPE_CHECKING:
    from rich.console import Console

SESSION = "PTV2KIT_SESSION"
"""Environment variable with the session of the command that has started this worker."""
PROCESSES = "PTV2KIT_PROCESSES"
"""Environment variable with how many processes the cells of this worker have; without it it takes any."""
CELL = "PTV2KIT_CELL"
"""Environment variable with the name of the cell that this process trains together with others."""
_RESUMED = "PTV2KIT_CELL_RUN"
"""Environment variable with the run of that cell that is resumed; empty for a new one."""
KILLED = "its process was killed; the machine may have run out of memory"
_LOOK = 0.5
"""Seconds between two looks at a cell that others wait for."""


@final
@dataclass(frozen=True)
class Trained:
    """What came of a training.

    Args:
        record: of the cell, without its key.
        stopped: the signal that interrupted it, None if none did.
    """

    record: CellRecord
    stopped: signal.Signals | None = None


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

    def run(self) -> signal.Signals | None:
        """Train until nothing is left that this worker could take.

        Returns:
            The signal that ended it early, None if none did.
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
        return stop.received

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
            return _blank(cell, "running" if is_locked(lock) else "waiting", key)
        if found.status == "running" and not is_locked(lock):
            found = _with(found, status="interrupted")
        if found.status == "failed" and found.session != self._session:
            found = _blank(cell, "waiting", key)
        return _with(found, case=cell.case, settings=dict(cell.settings))

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
        failed = _blank(cell, "failed", self._keys[cell.name])
        self._folder.write_record(_with(failed, error=error, exit_code=exit_code, session=self._session))
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
            if self._processes not in (0, cell_processes(cell.resolved.recipe)):
                continue
            lock = try_lock(self._folder.lock(cell.name))
            if lock is None:
                continue
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

    def _train(self, cell: Cell, before: CellRecord | None) -> signal.Signals | None:
        """Train a cell whose lock is held, and write its record."""
        key = self._keys[cell.name]
        if cell.after is not None:
            cell = starting_from(cell, self._folder.run_of(self._record(self._cells[cell.after])))
        running = _with(_blank(cell, "running", key), session=self._session)
        resume = self._unfinished(before, key)
        if resume is not None and before is not None:
            running = _with(running, seconds=before.seconds)
        self._folder.write_record(running)
        self._messages.print(self._labels[cell.name], style="bold", soft_wrap=True)
        try:
            if cell_processes(cell.resolved.recipe) > 1:
                done = self._train_together(cell, running, resume)
            else:
                done = train_cell(
                    cell,
                    folder=self._folder.path,
                    data_root=self._data_root,
                    messages=self._messages,
                    resume=resume,
                )
        except KeyboardInterrupt:
            done = Trained(_with(running, status="interrupted", seconds=0.0), signal.SIGINT)
        except BrokenPipeError:
            raise
        except Exception as error:  # noqa: BLE001 - a fault of ours in one cell must not cost the others
            self._messages.print(traceback.format_exc(), soft_wrap=True)
            found = f"internal error: {type(error).__name__}: {error}"
            done = Trained(_with(running, status="failed", error=found, exit_code=1, seconds=0.0))
        seconds = round(running.seconds + done.record.seconds, 3)
        self._folder.write_record(_with(done.record, key=key, seconds=seconds, session=self._session))
        return done.stopped

    def _train_together(self, cell: Cell, running: CellRecord, resume: Resume | None) -> Trained:
        """Train a cell in processes of its own; the first of them writes its record, which is read here."""
        environment = {CELL: cell.name, _RESUMED: "" if resume is None else str(resume.folder)}
        try:
            code = launch(local_processes(cell.resolved.recipe), self._words, environment)
        except ProjectError as error:
            self._messages.print(f"failed: {error}", soft_wrap=True)
            killed = isinstance(error, TrainingError)
            facts = {"error": error.problems[0].message, "exit_code": error.exit_code, "killed": killed}
            return Trained(_with(running, status="failed", seconds=0.0, **facts))
        found = self._folder.record_of(cell.name)
        if found is None or found.status == "running":
            error = "one of its processes failed; what it printed is shown above or in the worker's log"
            return Trained(_with(running, status="failed", error=error, exit_code=code or 1, seconds=0.0))
        return Trained(found, signal.Signals(code - 128) if found.status == "interrupted" else None)

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
    return _with(record, status="failed", error=KILLED, exit_code=1, killed=True)


def _blank(cell: Cell, status: CellStatus, key: str = "") -> CellRecord:
    """A cell of which nothing but its status is known."""
    return CellRecord(name=cell.name, case=cell.case, settings=dict(cell.settings), status=status, key=key)


def _with(record: CellRecord, **facts: object) -> CellRecord:
    return record.model_copy(update=facts)


def starting_from(cell: Cell, run: Path) -> Cell:
    """A cell whose prompt starts from a run.

    Args:
        cell: with `after`.
        run: folder of the run.
    """
    assert cell.after is not None
    resolved, value = cell.resolved, str(run.absolute())
    start = Setting("init_from", value, resolved.merged.place(("init_from",)))
    kept = [each for each in cell.overrides if not (isinstance(each, Setting) and each.key == "init_from")]
    return replace(
        cell,
        overrides=(*kept, start),
        resolved=replace(
            resolved,
            recipe=resolved.recipe.model_copy(update={"init_from": value}),
            merged=replace(resolved.merged, values={**resolved.merged.values, "init_from": value}),
        ),
    )


def train_part(cell: Cell, folder: SuiteFolder, data_root: Path | None, messages: Console) -> int:
    """Train a cell as one of the processes that its worker has started; the first one writes the record.

    Returns:
        The exit code: that of an error, 128 and the signal's number if it was stopped by one.
    """
    running, found, resumed = folder.record_of(cell.name), workers(), os.environ[_RESUMED]
    assert running is not None
    assert found is not None
    if cell.after is not None:
        first = folder.record_of(cell.after)
        assert first is not None
        cell = starting_from(cell, folder.run_of(first))
    done = train_cell(
        cell,
        folder=folder.path,
        data_root=data_root,
        messages=messages,
        resume=Resume(Path(resumed)) if resumed else None,
        found=found,
    )
    if found.rank == 0:
        folder.write_record(_with(done.record, key=running.key, session=running.session))
    return done.record.exit_code if done.stopped is None else 128 + done.stopped


def train_cell(
    cell: Cell,
    *,
    folder: Path,
    data_root: Path | None,
    messages: Console,
    watchers: Sequence[Log] = (),
    resume: Resume | None = None,
    found: Workers | None = None,
) -> Trained:
    """Train one cell; an error of the project is part of its record, any other is raised.

    Args:
        data_root: where data files are looked up first.
        resume: a run of this cell to resume; None: a new one.
        found: this process's place among several that train it together.
    """
    try:
        run, outcome = train_recipe(
            cell.resolved,
            data_root=data_root,
            runs_dir=SuiteFolder(folder).runs,
            messages=messages,
            overrides=[str(override) for override in cell.overrides],
            watchers=watchers,
            name=cell.name,
            resume=resume,
            found=found,
        )
    except ProjectError as error:
        messages.print(f"failed: {error}", soft_wrap=True)
        failed = _blank(cell, "failed")
        return Trained(_with(failed, error=error.problems[0].message, exit_code=error.exit_code))
    if outcome.status == "finished" and (found is None or found.rank == 0):
        _drop_what_is_not_kept(cell, run.path)
    return _trained(cell, outcome, run.path.relative_to(folder).as_posix())


def _trained(cell: Cell, outcome: Outcome, run: str) -> Trained:
    """Record what came out of a cell; `run` is its run's folder, relative to the suite's."""
    stopped = {"interrupted": signal.SIGINT, "terminated": signal.SIGTERM, "hung_up": signal.SIGHUP}.get(outcome.status)
    ended = "stopped" if outcome.status == "stopped" else "finished"
    record = _with(
        _blank(cell, ended if stopped is None else "interrupted"),
        score=outcome.score,
        metrics={split: dict(scores.values) for split, scores in outcome.scores.items()},
        best_epoch=outcome.best_epoch,
        epochs=outcome.epochs,
        seconds=round(outcome.seconds, 3),
        trained=outcome.parameters.trained,
        run=run,
        task=" ".join(each.task.task for each in outcome.tasks),
        metric=first_metric([each.task for each in outcome.tasks]),
    )
    return Trained(record, stopped)


def _drop_what_is_not_kept(cell: Cell, run: Path) -> None:
    """Remove the checkpoints of a finished cell, which nothing resumes from, and what its suite does not keep."""
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    if not keeps_tensors(cell.keep, cell.resolved.recipe.method):
        shutil.rmtree(run / "prompt", ignore_errors=True)
