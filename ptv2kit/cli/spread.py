"""The order in which a suite's cells are trained, on as many engines' slots as there are, and what became of each."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, final

from ptv2kit.cli.cell_job import CellJob, do_job
from ptv2kit.cli.cell_lock import living_holder
from ptv2kit.cli.cell_progress import CellProgress
from ptv2kit.cli.signals import StopSignals
from ptv2kit.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rich.console import Console

    from ptv2kit.config.cells import Cell
    from ptv2kit.reporting.suite_folder import CellRecord, SuiteFolder

_LOOK = 0.1
"""Seconds between two looks at what has ended."""
_ASK = 2.0
"""Seconds between two looks at cells that other commands train."""


@final
@dataclass(frozen=True)
class Ended:
    """A job that has ended.

    Args:
        name: of the cell.
        error: why it may have left no record, empty if it ended in order.
        stopped: the signal that interrupted it, None if none did.
    """

    name: str
    error: str = ""
    stopped: signal.Signals | None = None


class Engine(Protocol):
    """Where cells are trained."""

    @property
    def slots(self) -> int:
        """How many cells at one time."""
        ...

    @property
    def inside(self) -> bool:
        """Whether they are trained within this process, which takes the signals itself."""
        ...

    def start(self, job: CellJob) -> str:
        """Start a job; returns where, for people."""
        ...

    def ended(self) -> list[Ended]:
        """The jobs that have ended since the last call."""
        ...

    def stop(self, number: signal.Signals) -> None:
        """Ask all jobs to save and end."""
        ...

    def close(self) -> None:
        """End what still runs."""
        ...


@final
class Inside:
    """Trains one cell after the other in this process.

    Args:
        messages: of stderr.
    """

    slots = 1
    inside = True

    def __init__(self, messages: Console) -> None:
        self._messages = messages
        self._ended: list[Ended] = []

    def start(self, job: CellJob) -> str:
        """Train it; it has ended when this returns."""
        done = do_job(job, self._messages)
        stopped = signal.SIGINT if done.record.status == "interrupted" else None
        self._ended.append(Ended(job.cell.name, stopped=done.stopped or stopped))
        return ""

    def ended(self) -> list[Ended]:
        """The jobs that have ended since the last call."""
        ended, self._ended = self._ended, []
        return ended

    def stop(self, number: signal.Signals) -> None:
        """Nothing runs beside this call."""

    def close(self) -> None:
        """Nothing is left."""


@final
class Spread:
    """Trains the cells of a grid that are not finished: each once, after the one that its prompt starts from.

    Args:
        folder: of the suite.
        engine: where they are trained.
        messages: of stderr.
        data_root: where data files are looked up first.
        key: the key of a cell whose prompt's start is known.
        changed: told of all records after each change.
    """

    def __init__(
        self,
        folder: SuiteFolder,
        engine: Engine,
        messages: Console,
        data_root: Path | None,
        key: Callable[[Cell], str],
        changed: Callable[[Sequence[CellRecord]], None],
    ) -> None:
        self._folder = folder
        self._engine = engine
        self._messages = messages
        self._data_root = data_root
        self._key = key
        self._changed = changed
        self._records: dict[str, CellRecord] = {}
        self._cells: dict[str, Cell] = {}
        self._labels: dict[str, str] = {}
        self._running: set[str] = set()
        self._tried: set[str] = set()
        self._before: dict[str, CellRecord | None] = {}
        self._asked = 0.0
        self.stopped: signal.Signals | None = None

    def run(self, cells: Sequence[Cell], keys: Sequence[str]) -> list[CellRecord]:
        """Train what is not finished; a cell that fails stops none but those that start from it.

        Args:
            cells: of the suite.
            keys: of each, empty where it starts from a cell that is not finished.

        Returns:
            A record of each cell.
        """
        from ptv2kit.reporting.suite_folder import CellRecord

        self._cells = {cell.name: cell for cell in cells}
        self._labels = {cell.name: f"[{index}/{len(cells)}] {cell.name}" for index, cell in enumerate(cells, start=1)}
        with ExitStack() as stack:
            stop = None if self._engine.inside else stack.enter_context(StopSignals())
            stack.callback(self._engine.close)
            for cell, key in zip(cells, keys, strict=True):
                self._records[cell.name] = CellRecord(cell.name, cell.case, cell.settings, "waiting", key)
                if self._look_up(cell.name) == "finished":
                    self._say(cell.name, "finished before")
            progress = None if self._engine.inside else stack.enter_context(CellProgress(self._messages))
            while True:
                for ended in self._engine.ended():
                    self._take(ended, progress)
                if stop is not None and stop.received is not None and self.stopped is None:
                    self.stopped = stop.received
                    self._messages.print("ending: the cells save what they have; a second Ctrl-C ends them at once")
                    self._engine.stop(self.stopped)
                if self.stopped is None:
                    self._start_ready(progress)
                if not self._running and (self.stopped is not None or not self._more()):
                    break
                if progress is not None:
                    progress.show({name: self._folder.lock(name) for name in self._running})
                    time.sleep(_LOOK)
        self._changed(self.records)
        return self.records

    @property
    def records(self) -> list[CellRecord]:
        """Of every cell, in their order."""
        return [self._records[name] for name in self._cells]

    def _start_ready(self, progress: CellProgress | None) -> None:
        ask = time.monotonic() - self._asked > _ASK
        self._asked = time.monotonic() if ask else self._asked
        wanted = ("waiting", "running") if ask else ("waiting",)
        for name, cell in self._cells.items():
            if len(self._running) >= self._engine.slots or self.stopped is not None:
                return
            if name in self._running or name in self._tried or self._records[name].status not in wanted:
                continue
            ready = self._ready(cell)
            if ready is None or self._look_up(name) != "waiting":
                continue
            self._running.add(name)
            self._tried.add(name)
            self._before[name] = self._folder.record_of(name)
            job = CellJob(ready, self._records[name].key, self._labels[name], self._folder.path, self._data_root)
            if self._engine.inside:
                self._messages.print(self._labels[name], style="bold", soft_wrap=True)
            where = self._engine.start(job)
            if progress is not None:
                progress.start(name, self._labels[name], where)
            if self._engine.inside:
                for ended in self._engine.ended():
                    self._take(ended, progress)

    def _ready(self, cell: Cell) -> Cell | None:
        """The cell with what it starts from; None while that is not there, or never will be."""
        if cell.after is None:
            return cell
        first = self._records[cell.after]
        if first.status == "failed":
            reason = f"needs cell '{cell.after}', which failed"
            self._fail(cell.name, reason, first.exit_code)
        if first.status != "finished":
            return None
        started = starting_from(cell, self._folder.path / first.run)
        if not self._records[cell.name].key:
            try:
                key = self._key(started)
            except (ConfigError, DataError) as error:
                self._fail(cell.name, error.problems[0].message, error.exit_code)
                return None
            self._records[cell.name] = replace(self._records[cell.name], key=key)
            if self._look_up(cell.name) == "finished":
                self._say(cell.name, "finished before")
        return started

    def _fail(self, name: str, error: str, exit_code: int) -> None:
        """A cell that cannot be started."""
        record = replace(self._records[name], status="failed", error=error, exit_code=exit_code)
        self._records[name] = record
        self._folder.write_record(record)
        self._say(name, f"failed: {error}")
        self._changed(self.records)

    def _look_up(self, name: str) -> str:
        """The status of a cell as it is now, in whatever process; `waiting` where it is to be trained."""
        record = self._records[name]
        if not record.key:
            return record.status
        found = self._folder.record_of(name)
        own = self._cells[name]
        if found is not None and found.key == record.key and found.status == "finished":
            self._records[name] = replace(found, case=own.case, settings=own.settings)
        else:
            holder = living_holder(self._folder.lock(name), self._folder.guard)
            if holder is not None and record.status != "running":
                self._say(name, f"{holder.shown} trains it")
            self._records[name] = replace(record, status="waiting" if holder is None else "running")
        return self._records[name].status

    def _more(self) -> bool:
        """Whether something may still become ready: one that another command gave up, or one that waits for it."""
        for name, record in list(self._records.items()):
            if record.status == "running":
                self._look_up(name)
        waiting = [self._cells[name] for name, record in self._records.items() if record.status == "waiting"]
        firsts = {cell.after for cell in waiting if cell.after is not None}
        if not any(self._records[name].status == "running" for name in firsts):
            return any(self._startable(cell) for cell in waiting)
        time.sleep(_ASK)
        return True

    def _startable(self, cell: Cell) -> bool:
        return cell.name not in self._tried and (
            cell.after is None or self._records[cell.after].status in ("finished", "failed")
        )

    def _take(self, ended: Ended, progress: CellProgress | None) -> None:
        """Note what became of a job: what its process wrote, or why it wrote nothing."""
        name = ended.name
        self._running.discard(name)
        record = self._written(ended) or self._unwritten(ended)
        self._records[name] = record
        if record.status == "running":
            self._tried.discard(name)  # lost to another command; if that one dies, the cell is ours again
        if self._engine.inside and record.status == "interrupted":
            self.stopped = ended.stopped or signal.SIGINT
        if progress is not None:
            progress.end(name, self._labels[name], record)
        self._changed(self.records)

    def _written(self, ended: Ended) -> CellRecord | None:
        """What the process of a job wrote; None if it wrote nothing, or only that it began."""
        own, found = self._records[ended.name], self._folder.record_of(ended.name)
        if found is None or found.key != own.key or found.status not in ("finished", "failed", "interrupted"):
            return None
        if ended.error and found == self._before[ended.name]:
            return None  # an earlier attempt wrote it
        return replace(found, case=own.case, settings=own.settings)

    def _unwritten(self, ended: Ended) -> CellRecord:
        """What is known of a job whose process wrote nothing: it was killed, stopped, or left the cell to another."""
        own, found = self._records[ended.name], self._folder.record_of(ended.name)
        held = self._look_up(ended.name) == "running"
        if held and not ended.error:
            return self._records[ended.name]
        if self.stopped is not None or ended.stopped is not None:
            began = found is not None and found != self._before[ended.name]
            record = replace(own, status="interrupted" if began else "waiting")
        else:
            error = ended.error or "its process left no record; see its output.log"
            record = replace(own, status="failed", error=error, exit_code=1, killed=True)
        if not held and record.status != "waiting":  # who holds the lock writes the record, also a worker that is lost
            self._folder.write_record(record)
        return record

    def _say(self, name: str, text: str) -> None:
        self._messages.print(f"{self._labels[name]}: {text}", soft_wrap=True)


def starting_from(cell: Cell, run: Path) -> Cell:
    """A cell whose prompt starts from a run.

    Args:
        cell: with `after`.
        run: folder of the run.
    """
    from ptv2kit.config.merge import Setting

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
