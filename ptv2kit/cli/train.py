"""One run from a resolved recipe to its folder; for `ptv2kit run` and for each run of a suite."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

from rich.console import Console

from ptv2kit.cli.launch import memory_advice, place
from ptv2kit.cli.recorded_run import RecordedRun, count_parameters, disk_errors
from ptv2kit.cli.request import request_of, write_request
from ptv2kit.cli.resume import find_resume_point
from ptv2kit.cli.terminal import open_console
from ptv2kit.config.load import ResolvedRecipe
from ptv2kit.errors import OutOfMemoryError
from ptv2kit.models.counts import ParameterCount
from ptv2kit.models.model import PromptedModel
from ptv2kit.reporting.console import RowsConsole
from ptv2kit.reporting.results import Outcome
from ptv2kit.reporting.run_folder import RunFolder, require_writable, run_key
from ptv2kit.reporting.trackers import require_trackers
from ptv2kit.training.distributed import Workers, prepare_strategy, process_group
from ptv2kit.training.initial import InitialTensors, read_initial
from ptv2kit.training.prepare import Prepared, build_models, prepare_tasks
from ptv2kit.training.trainer import TrainingEvents, seed_everything


@final
@dataclass(frozen=True)
class Resume:
    """A run that shall go on.

    Args:
        accepted: keys that may have changed since it was started.
    """

    folder: Path
    accepted: Sequence[str] = ()


def train_recipe(
    resolved: ResolvedRecipe,
    *,
    data_root: Path | None,
    runs_dir: Path,
    messages: Console,
    overrides: Sequence[str] = (),
    watchers: Sequence[TrainingEvents] = (),
    name: str | None = None,
    resume: Resume | None = None,
    found: Workers | None = None,
) -> tuple[RunFolder, Outcome]:
    """Read the data, build the model, train it, score it with the best prompt, and keep everything in a run's folder.

    Of several processes all do the same, each with its part of every batch; the first one writes.

    Args:
        data_root: where data files are looked up first.
        runs_dir: gets the folder `<recipe>/<time>-<key>`.
        overrides: from the command line, for the record.
        watchers: told how training goes on; one may raise `StopTraining` from `on_evaluation`.
        name: of the folder, instead of the recipe's.
        resume: go on in this folder; None: in a new one.
        found: this process's place among several that train together.

    Raises:
        ProjectError: see `ptv2kit/errors.py`.
    """
    if found is not None and found.rank > 0:
        messages = open_console(quiet=True)
    require_writable(runs_dir if resume is None else resume.folder)
    require_trackers(resolved.recipe.trackers)
    tasks = [(task.task, task.path) for task in resolved.tasks]
    with ExitStack() as stack:
        if resume is not None and (found is None or found.rank == 0):
            stack.enter_context(RunFolder(resume.folder).locked())
        with RowsConsole(messages) as rows:
            prepared = prepare_tasks(resolved.recipe, tasks, data_root, rows.on_rows)
        notes = [note for each in prepared for note in split_notes(each, several=len(prepared) > 1)]
        for note in notes:
            messages.print(note, soft_wrap=True)
        recipe = resolved.recipe
        initial = read_initial(recipe, prepared[0].spec)
        request = request_of(prepared, initial)
        start = None
        if resume is not None:
            start = find_resume_point(resume.folder, request, resume.accepted, messages)
        device = prepared[0].device
        placement = place(prepared, found, messages)
        with memory_errors(prepared, found), process_group(found, device) as processes:
            strategy, sharding = prepare_strategy(recipe, placement.strategy, device, processes.size)
            seed_everything(recipe.train.seed)
            models = build_models(prepared, sharding)
            notes.append(parameters_note(recipe.backbone.name, count_parameters(models)))
            messages.print(notes[-1], soft_wrap=True)
            if initial is not None:
                start_from(initial, prepared, models, messages)
            key = run_key(request)
            path = None if start is None else start.folder
            if path is None and processes.rank == 0:
                path = RunFolder.create(runs_dir, name or recipe.recipe, key).path
            folder = RunFolder(processes.gather(path)[0], writes=processes.rank == 0)
            if resume is None:
                stack.enter_context(folder.locked())
            messages.print(f"run folder: {folder.path}", soft_wrap=True)
            with disk_errors(folder):
                for note in notes:
                    folder.log(note)
                write_request(folder, key, resolved, prepared, overrides, data_root, initial)
                if placement.micro_batch is not None:
                    recipe = recipe.model_copy(
                        update={"train": recipe.train.model_copy(update={"micro_batch_size": placement.micro_batch})}
                    )
                run = RecordedRun(prepared, models, recipe.train, folder, messages, request, start, strategy, processes)
                run.keep_trunk(placement.strategy)
                run.compile()
                return folder, run.train(watchers)


def start_from(
    initial: InitialTensors, prepared: Sequence[Prepared], models: Sequence[PromptedModel], messages: Console
) -> None:
    heads = [
        each.task.task
        for each, model in zip(prepared, models, strict=True)
        if initial.put_into(model, each.task.task, each.scheme.names)
    ]
    with_heads = f", and the head of {' and '.join(heads)}" if heads else "; heads are fresh"
    messages.print(f"starts from the prompt in {initial.source}{with_heads}", soft_wrap=True)


@contextmanager
def memory_errors(prepared: Sequence[Prepared], found: Workers | None, advice: str = "") -> Generator[None]:
    """Turn the ways in which memory runs out into one error; torch says it in a RuntimeError on the CPU.

    `advice` is what to try first.
    """
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        memory = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not memory and "not enough memory" not in str(error) and "can't allocate memory" not in str(error):
            raise
        hint = advice + memory_advice(prepared, found)
        raise OutOfMemoryError(f"out of memory on {prepared[0].device}", hint=hint) from error


def split_notes(prepared: Prepared, *, several: bool) -> list[str]:
    """How many rows each split has and where they come from; of one of several tasks, with the task's name."""
    notes: list[str] = []
    for name, split in prepared.splits.items():
        cut = f", {split.truncated:,} of them cut off at max_length" if split.truncated else ""
        what = f"{prepared.task.task} {name}" if several else name
        notes.append(f"{what}: {len(split.data.rows):,} rows from {split.data.source}{cut}")
        if split.data.skipped:
            first = split.data.skipped[0]
            notes.append(
                f"{what}: {len(split.data.skipped):,} malformed rows were left out, first "
                f"{first.location}: {first.message}"
            )
    return notes


def parameters_note(backbone: str, count: ParameterCount) -> str:
    """How many parameters there are and how many are trained."""
    return (
        f"backbone {backbone}: {count.backbone:,} parameters, {'trained' if count.tuned else 'frozen'}; trained: "
        f"{count.trained:,} (prompt {count.prompt:,} + head {count.head:,}), {count.share:.2%} of the backbone"
    )
