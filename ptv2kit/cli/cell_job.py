"""One cell of a suite: what must be known to train it, and training it, in this process or in one of its own."""

from __future__ import annotations

import pickle
import shutil
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, final

from ptv2kit.cli.cell_lock import CellLock
from ptv2kit.errors import DataError, ProjectError

if TYPE_CHECKING:
    from rich.console import Console

    from ptv2kit.cli.train import Resume
    from ptv2kit.config.cells import Cell
    from ptv2kit.reporting.results import Outcome
    from ptv2kit.reporting.suite_folder import CellRecord, SuiteFolder
    from ptv2kit.training.trainer import TrainingEvents

LOG = "output.log"
"""What the process of a cell prints, in the cell's folder."""


@final
@dataclass(frozen=True)
class CellJob:
    """A cell that shall be trained.

    Args:
        cell: with all that its prompt starts from.
        key: stands for what decides its outcome.
        label: for people, such as `[2/12] length=8`.
        folder: of the suite.
        data_root: where data files are looked up first.
    """

    cell: Cell
    key: str
    label: str
    folder: Path
    data_root: Path | None


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


def train_cell(
    cell: Cell,
    *,
    folder: Path,
    data_root: Path | None,
    messages: Console,
    watchers: Sequence[TrainingEvents] = (),
    resume: Resume | None = None,
) -> Trained:
    """Train one cell; an error of the project is part of its record, any other is raised.

    Args:
        cell: of the suite.
        folder: of the suite.
        data_root: where data files are looked up first.
        messages: of stderr.
        watchers: told how training goes on.
        resume: a run of this cell that goes on; None: a new one.
    """
    from ptv2kit.cli.train import train_recipe
    from ptv2kit.reporting.suite_folder import SuiteFolder

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
        )
    except ProjectError as error:
        return failed_cell(cell, error, messages)
    if outcome.status == "finished":
        _drop_what_is_not_kept(cell, run.path)
    return trained_cell(cell, outcome, run.path.relative_to(folder).as_posix())


def _drop_what_is_not_kept(cell: Cell, run: Path) -> None:
    """Remove the checkpoints of a finished cell, which nothing resumes from, and what its suite does not keep."""
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    tuned = cell.resolved.recipe.method == "fine_tuning"
    if cell.keep == "scores" or (cell.keep == "prompt" and tuned):
        shutil.rmtree(run / "prompt", ignore_errors=True)


def failed_cell(cell: Cell, error: ProjectError, messages: Console) -> Trained:
    """Say and record that a cell failed."""
    from ptv2kit.reporting.suite_folder import CellRecord

    messages.print(f"failed: {error}", soft_wrap=True)
    blank = CellRecord(cell.name, cell.case, cell.settings, "failed")
    return Trained(replace(blank, error=error.problems[0].message, exit_code=error.exit_code))


def trained_cell(cell: Cell, outcome: Outcome, run: str) -> Trained:
    """Record what came out of a cell; `run` is its run's folder, relative to the suite's."""
    from ptv2kit.reporting.results import first_metric
    from ptv2kit.reporting.suite_folder import CellRecord

    stopped = {"interrupted": signal.SIGINT, "terminated": signal.SIGTERM, "hung_up": signal.SIGHUP}.get(outcome.status)
    ended = "stopped" if outcome.status == "stopped" else "finished"
    record = CellRecord(
        name=cell.name,
        case=cell.case,
        settings=cell.settings,
        status=ended if stopped is None else "interrupted",
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


def do_job(job: CellJob, messages: Console) -> Trained:
    """Train a cell unless another process does or has done so, and write its record.

    Raises:
        ConfigError: the file system has no locks.
        DataError: the record that is there is none.
    """
    from ptv2kit.reporting.suite_folder import CellRecord, SuiteFolder

    cell, folder = job.cell, SuiteFolder(job.folder)
    running = CellRecord(cell.name, cell.case, cell.settings, "running", job.key)
    lock = CellLock.take(folder.lock(cell.name), folder.guard)
    if lock is None:
        messages.print(f"{job.label}: another process trains it", soft_wrap=True)
        return Trained(running)
    with lock:
        before = folder.record_of(cell.name)
        if before is not None and before.key == job.key and before.status == "finished":
            return Trained(before)
        resume = _unfinished(folder, before, job.key, messages)
        if resume is not None and before is not None:
            running = replace(running, seconds=before.seconds)
        folder.write_record(running)
        try:
            done = train_cell(
                cell,
                folder=job.folder,
                data_root=job.data_root,
                messages=messages,
                watchers=[_Progress(lock, cell.resolved.recipe.train.epochs)],
                resume=resume,
            )
        except KeyboardInterrupt:
            done = Trained(replace(running, status="interrupted", seconds=0.0), signal.SIGINT)
        except BrokenPipeError:
            raise
        except Exception as error:  # noqa: BLE001 - a fault of ours in one cell must not cost the others
            messages.print(traceback.format_exc(), soft_wrap=True)
            found = f"internal error: {type(error).__name__}: {error}"
            done = Trained(replace(running, status="failed", error=found, exit_code=1, seconds=0.0))
        record = replace(done.record, key=job.key, seconds=round(running.seconds + done.record.seconds, 3))
        folder.write_record(record)
    return Trained(record, done.stopped)


def _unfinished(folder: SuiteFolder, before: CellRecord | None, key: str, messages: Console) -> Resume | None:
    """The run of this very cell that was interrupted or whose process was killed.

    One that failed by itself would fail again: a new one is started.
    """
    from ptv2kit.cli.resume import is_finished
    from ptv2kit.cli.train import Resume
    from ptv2kit.training.resume import Checkpoints

    if before is None or before.key != key:
        return None
    if before.status not in ("running", "interrupted") and not (before.status == "failed" and before.killed):
        return None
    runs = sorted(path.parent for path in (folder.runs / before.name).glob("*/recipe.resolved.yaml"))
    if not runs or is_finished(runs[-1]):
        return None
    try:
        found = Checkpoints(runs[-1] / "checkpoints", keep=1).latest()
    except DataError as error:
        messages.print(f"{error}; the cell starts anew", soft_wrap=True)
        return None
    return None if found is None else Resume(runs[-1])


@final
class _Progress:
    """Writes how far a training has come into the lock of its cell."""

    def __init__(self, lock: CellLock, epochs: int) -> None:
        self._lock = lock
        self._epochs = epochs

    def on_step(self, step: int, total_steps: int, epoch: float, loss: float, learning_rate: float) -> None:
        self._lock.say(done=step, total=total_steps)

    def on_evaluating(self, done: int, total: int) -> None:
        """Nothing to tell."""

    def on_evaluation(self, epoch: int, values: dict[str, float], best: bool, seconds: float) -> None:
        name, value = next(iter(values.items()))
        self._lock.say(text=f"epoch {epoch}/{self._epochs}, {name} {value:.2f}{' (best)' if best else ''}")


def main() -> int:
    """Train the cell that the process that started this one wrote to stdin; what is printed goes to the cell's log.

    Returns:
        0 if there is a record, also one of a failure; 130 or 143 if it was interrupted.
    """

    from ptv2kit.cli.launch import end_with_parent
    from ptv2kit.cli.subject import silence_libraries
    from ptv2kit.reporting.console import open_console

    end_with_parent()
    # From the parent process through a pipe, never from a file: nobody else can have written it.
    job = pickle.load(sys.stdin.buffer)
    assert isinstance(job, CellJob)
    silence_libraries()
    done = do_job(job, open_console(stderr=True, width=160))
    return 0 if done.stopped is None else 128 + done.stopped
