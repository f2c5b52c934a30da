"""The training of one cell: in this process, or in several that train it together."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, final

from ptv2kit.errors import ProjectError, TrainingError
from ptv2kit.report.records import CellRecord, CellStatus
from ptv2kit.spec.cells import Cell
from ptv2kit.spec.merge import Setting
from ptv2kit.spec.suite import keeps_tensors
from ptv2kit.suites.folder import SuiteFolder
from ptv2kit.training.launch import launch, local_processes
from ptv2kit.training.processes import Workers, workers
from ptv2kit.training.results import Outcome, first_metric
from ptv2kit.training.run import Resume, train_recipe
from ptv2kit.training.signals import ENDINGS, STOPPED, EndedEarly
from ptv2kit.training.state import Log

if TYPE_CHECKING:
    from rich.console import Console

CELL = "PTV2KIT_CELL"
"""Environment variable with the name of the cell that this process trains together with others."""
_RESUMED = "PTV2KIT_CELL_RUN"
"""Environment variable with the run of that cell that is resumed; empty for a new one."""


@final
@dataclass(frozen=True)
class Trained:
    """What came of a training.

    Args:
        record: of the cell, without its key.
        stopped: how it was ended early, None if it was not.
    """

    record: CellRecord
    stopped: EndedEarly | None = None


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
        failed = blank_record(cell, "failed")
        return Trained(with_facts(failed, error=error.problems[0].message, exit_code=error.exit_code))
    if outcome.status == "finished" and (found is None or found.rank == 0):
        _drop_what_is_not_kept(cell, run.path)
    return _trained(cell, outcome, run.path.relative_to(folder).as_posix())


def train_together(
    cell: Cell,
    running: CellRecord,
    folder: SuiteFolder,
    words: Sequence[str],
    messages: Console,
    resume: Resume | None,
) -> Trained:
    """Train a cell in processes of its own; the first of them writes its record, which is read here.

    Args:
        running: its record as it stands.
        words: of the command line, after `ptv2kit`, which is the same for them.
        resume: a run of this cell to resume; None: a new one.
    """
    environment = {CELL: cell.name, _RESUMED: "" if resume is None else str(resume.folder)}
    try:
        code = launch(local_processes(cell.resolved.recipe), words, environment)
    except ProjectError as error:
        messages.print(f"failed: {error}", soft_wrap=True)
        killed = isinstance(error, TrainingError)
        facts = {"error": error.problems[0].message, "exit_code": error.exit_code, "killed": killed}
        return Trained(with_facts(running, status="failed", seconds=0.0, **facts))
    found = folder.record_of(cell.name)
    if found is None or found.status == "running":
        error = "one of its processes failed; what it printed is shown above or in the worker's log"
        return Trained(with_facts(running, status="failed", error=error, exit_code=code or 1, seconds=0.0))
    if found.status != "interrupted":
        return Trained(found)
    # Another process may have failed because of it, with a code of its own.
    return Trained(found, ENDINGS.get(code, "terminated"))


def train_part(cell: Cell, folder: SuiteFolder, data_root: Path | None, messages: Console) -> int:
    """Train a cell as one of the processes that its worker has started; the first one writes the record.

    Returns:
        The exit code: that of its error, or of how it was stopped.
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
        folder.write_record(with_facts(done.record, key=running.key, session=running.session))
    return done.record.exit_code if done.stopped is None else STOPPED[done.stopped].exit_code


def blank_record(cell: Cell, status: CellStatus, key: str = "") -> CellRecord:
    """A cell of which nothing but its status is known."""
    return CellRecord(name=cell.name, case=cell.case, settings=dict(cell.settings), status=status, key=key)


def with_facts(record: CellRecord, **facts: object) -> CellRecord:
    """A record with other values."""
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


def _trained(cell: Cell, outcome: Outcome, run: str) -> Trained:
    """Record what came out of a cell; `run` is its run's folder, relative to the suite's."""
    stopped = outcome.status if outcome.status in STOPPED else None
    ended = "stopped" if outcome.status == "stopped" else "finished"
    record = with_facts(
        blank_record(cell, ended if stopped is None else "interrupted"),
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
