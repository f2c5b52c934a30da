"""Trials of a search that are trained side by side on one backbone; each writes a run folder as if it were alone."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from rich.console import Console

from ptv2kit.cli.cell_job import Trained, failed_cell, trained_cell
from ptv2kit.cli.recorded_run import RecordedRun, count_parameters, disk_errors
from ptv2kit.cli.request import request_of, write_request
from ptv2kit.cli.signals import StopSignals
from ptv2kit.cli.train import memory_errors, print_parameters, print_splits, start_from
from ptv2kit.errors import ConfigError, ProjectError, TrainingError

if TYPE_CHECKING:
    from ptv2kit.cli.launch import Placement
    from ptv2kit.config.cells import Cell
    from ptv2kit.models.model import PromptedModel
    from ptv2kit.reporting.results import Outcome
    from ptv2kit.training.prepare import Prepared
    from ptv2kit.training.requests import TrainingResult
    from ptv2kit.training.streams import RandomStream
    from ptv2kit.training.trainer import TrainingEvents


@final
@dataclass(frozen=True)
class TrialJob:
    """A trial that shall be trained.

    Args:
        cell: what is trained.
        watcher: told how the training goes on; may end it.
        ended: told once what came of it, as soon as that is known.
    """

    cell: Cell
    watcher: TrainingEvents
    ended: Callable[[Trained], None]


def train_trials(
    jobs: Sequence[TrialJob], *, folder: Path, data_root: Path | None, messages: Console
) -> signal.Signals | None:
    """Train cells side by side; an error of the project is part of a cell's record, any other is raised.

    Args:
        jobs: at least one; `shared_settings` of their cells are the same.
        folder: of the suite.
        data_root: where data files are looked up first.
        messages: of stderr.

    Returns:
        The signal that interrupted them, None if none did.
    """
    waiting = dict(enumerate(jobs))
    try:
        prepared, placement = _prepare(jobs, data_root, messages)
        whole = _with_batches_of_all(prepared[0], len(jobs))
        with StopSignals() as stop, memory_errors([whole], None, "lower train.parallel_trials, or "):
            runs = _set_up(jobs, prepared, placement, folder, data_root, messages)
            for index, trained in _train(jobs, runs, folder, messages, stop):
                waiting.pop(index).ended(trained)
    except ProjectError as error:
        for job in waiting.values():
            job.ended(failed_cell(job.cell, error, messages))
        return None
    return stop.received


@final
@dataclass(frozen=True)
class _SetUp:
    """A trial with its model.

    Args:
        run: writes into its folder.
        stream: its random numbers.
    """

    run: RecordedRun
    stream: RandomStream


def _prepare(jobs: Sequence[TrialJob], data_root: Path | None, messages: Console) -> tuple[list[Prepared], Placement]:
    """The data, read and encoded once, for each trial's recipe, and how much of a batch fits a forward pass.

    Raises:
        ProjectError: none of the trials can be trained.
    """
    from ptv2kit.cli.launch import place
    from ptv2kit.reporting.console import RowsConsole
    from ptv2kit.reporting.trackers import require_trackers
    from ptv2kit.training.prepare import prepare_tasks

    first = jobs[0].cell.resolved
    require_trackers(first.recipe.trackers)
    with RowsConsole(messages) as rows:
        tasks = [(task.task, task.path) for task in first.tasks]
        prepared = prepare_tasks(first.recipe, tasks, data_root, rows.on_rows)[0]
    print_splits(messages, prepared, several=False)
    placement = place([_with_batches_of_all(prepared, len(jobs))], None, messages)
    if placement.strategy != "none":
        raise ConfigError(
            f"train.parallel_trials needs strategy none, but by the plan the backbone needs {placement.strategy}",
            hint="set train.parallel_trials to 1",
        )
    return [prepared.for_recipe(job.cell.resolved.recipe) for job in jobs], placement


def _with_batches_of_all(prepared: Prepared, trials: int) -> Prepared:
    """A recipe whose batches are as large as those of all trials together."""
    train = prepared.recipe.train
    key = "batch_size" if train.batch_tokens is None else "batch_tokens"
    sizes: dict[str, Any] = {key: (train.batch_size or train.batch_tokens or 1) * trials}
    if train.micro_batch_size != "auto":
        sizes["micro_batch_size"] = train.micro_batch_size * trials
    recipe = prepared.recipe.model_copy(update={"train": train.model_copy(update=sizes)})
    return replace(prepared, recipe=recipe)


def _set_up(
    jobs: Sequence[TrialJob],
    prepared: Sequence[Prepared],
    placement: Placement,
    folder: Path,
    data_root: Path | None,
    messages: Console,
) -> list[_SetUp]:
    """A run folder for each trial, and a model on one backbone.

    Raises:
        ProjectError: none of the trials can be trained.
    """
    from ptv2kit.reporting.run_folder import RunFolder, run_key
    from ptv2kit.reporting.suite_folder import SuiteFolder
    from ptv2kit.training.initial import read_initial
    from ptv2kit.training.processes import Alone
    from ptv2kit.training.strategy import Replicated
    from ptv2kit.training.streams import RandomStream
    from ptv2kit.training.trainer import seed_everything

    initial = read_initial(prepared[0].recipe, prepared[0].spec)
    runs = SuiteFolder(folder).runs
    done: list[_SetUp] = []
    first: PromptedModel | None = None
    for job, own in zip(jobs, prepared, strict=True):
        cell, settings = job.cell, own.recipe.train
        stream = RandomStream(own.device)
        with stream.active():
            seed_everything(settings.seed)
            model = own.build_model(beside=first)
        if initial is not None:
            start_from(initial, [own], [model], messages if first is None else Console(quiet=True))
        if first is None:
            first = model
            print_parameters(messages, own.recipe.backbone.name, count_parameters([model]))
        if placement.micro_batch is not None:
            share = max(1, placement.micro_batch // len(jobs))
            settings = settings.model_copy(update={"micro_batch_size": share})
        request = request_of([own], initial)
        key = run_key(request)
        run_folder = RunFolder.create(runs, cell.name, key)
        with disk_errors(run_folder):
            overrides = [str(override) for override in cell.overrides]
            write_request(run_folder, key, cell.resolved, [own], overrides, data_root, initial)
            run_folder.log(f"trained side by side with {len(jobs) - 1} other trials")
        run = RecordedRun([own], [model], settings, run_folder, messages, request, None, Replicated, Alone())
        if done:
            run.take_splits(done[0].run)
        else:
            run.check_packing(placement.strategy)
            run.keep_trunk(placement.strategy, epochs=sum(each.recipe.train.epochs for each in prepared))
        done.append(_SetUp(run, stream))
    return done


def _train(
    jobs: Sequence[TrialJob], ready: Sequence[_SetUp], folder: Path, messages: Console, stop: StopSignals
) -> Iterator[tuple[int, Trained]]:
    """Train, and give what came out of each trial as soon as it has ended."""
    from ptv2kit.reporting.trials_console import TrialsConsole
    from ptv2kit.training.side_by_side import SideBySide, Trial

    with ExitStack() as stack:
        console = stack.enter_context(TrialsConsole(messages))
        trackers = [stack.enter_context(each.run.tracking()) for each in ready]
        trials: list[Trial] = []
        for job, each, tracker in zip(jobs, ready, trackers, strict=True):
            watchers = [console.of(job.cell.name, job.cell.resolved.recipe.train.epochs), tracker, job.watcher]
            with disk_errors(each.run.folder), each.stream.active():
                trainer = each.run.trainer(watchers, stop)
            trials.append(Trial(each.run.parts[0], trainer, each.stream))
        for ended in SideBySide(trials, ready[0].run.settings, ready[0].run.device).train():
            job, run = jobs[ended.trial], ready[ended.trial].run
            try:
                with disk_errors(run.folder):
                    outcome = _finish(run, ended.result, stop)
            except ProjectError as error:
                yield ended.trial, failed_cell(job.cell, error, messages)
                continue
            trackers[ended.trial].summarize(outcome.scores)
            where = run.folder.path.relative_to(folder).as_posix()
            messages.print(f"{job.cell.name} {outcome.status}, run folder: {run.folder.path}", soft_wrap=True)
            yield ended.trial, trained_cell(job.cell, outcome, where)


def _finish(run: RecordedRun, result: TrainingResult | TrainingError | OSError, stop: StopSignals) -> Outcome:
    """Score the tests and write the results.

    Raises:
        TrainingError: the training failed.
        OSError: the disk did.
    """

    def silent(done: int, total: int) -> None:
        """Tests are scored while other trials wait."""

    with run.training_errors():
        if isinstance(result, Exception):
            raise result
        scores, interrupted = run.score(result, silent, stop)
    return run.write_results(result, scores, stop.status if interrupted else result.ending)
