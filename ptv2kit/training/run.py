"""One run, from a resolved recipe to its folder: prepare, place, build, fit, score, write."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import torch
from rich.console import Console

from ptv2kit.data.schemes.records import Scores
from ptv2kit.errors import ConfigError, OutOfMemoryError, TrainingError
from ptv2kit.models.checkpoints import weights_are_here
from ptv2kit.models.counts import ParameterCount
from ptv2kit.models.model import PromptedModel
from ptv2kit.spec.load import ResolvedRecipe
from ptv2kit.training.card import model_card
from ptv2kit.training.compilation import compile_backbone
from ptv2kit.training.console import RowsConsole, TrainingConsole
from ptv2kit.training.distributed import prepare_strategy
from ptv2kit.training.evaluate import evaluate, prediction_lines
from ptv2kit.training.folder import RunFolder, require_writable, run_key
from ptv2kit.training.initial import read_initial
from ptv2kit.training.parts import TaskPart
from ptv2kit.training.placement import memory_advice, place
from ptv2kit.training.prepare import Prepared, build_models, prepare_tasks
from ptv2kit.training.processes import Processes, Workers, process_group
from ptv2kit.training.prompt_file import load_prompt
from ptv2kit.training.request import request_of, write_request
from ptv2kit.training.results import Outcome, TaskOutcome, first_metric
from ptv2kit.training.resume import find_resume_point
from ptv2kit.training.signals import StopSignals
from ptv2kit.training.state import Log, LogEntry, OnProgress
from ptv2kit.training.trackers import require_trackers, tracking
from ptv2kit.training.trainer import Trainer, TrainingResult, seed_everything
from ptv2kit.training.trunk_cache import keep_trunk
from ptv2kit.training.writer import RunWriter, predictions_path, prompt_folder


@final
@dataclass(frozen=True)
class Resume:
    """A run that is to be resumed; `accepted` are keys that may have changed since it was started."""

    folder: Path
    accepted: Sequence[str] = ()


def train_recipe(
    resolved: ResolvedRecipe,
    *,
    data_root: Path | None,
    runs_dir: Path,
    messages: Console,
    overrides: Sequence[str] = (),
    watchers: Sequence[Log] = (),
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
        watchers: receive what the trainer says; one may raise `StopTraining` at a row of kind `validation`.
        name: of the folder, instead of the recipe's.
        resume: continue in this folder; None: in a new one.
        found: this process's place among several that train together.

    Raises:
        ProjectError: see `ptv2kit/errors.py`.
    """
    if found is not None and found.rank > 0:
        messages = Console(quiet=True)
    require_writable(runs_dir if resume is None else resume.folder)
    require_trackers(resolved.recipe.trackers)

    with ExitStack() as stack:
        # Prepare: read and encode the rows, and find out what a resumed run has done.
        if resume is not None and (found is None or found.rank == 0):
            stack.enter_context(RunFolder(resume.folder).locked())
        with RowsConsole(messages) as rows:
            tasks = [(task.task, task.path) for task in resolved.tasks]
            prepared = prepare_tasks(resolved.recipe, tasks, data_root, rows.on_rows)
        notes = [note for each in prepared for note in split_notes(each, several=len(prepared) > 1)]
        for note in notes:
            messages.print(note, soft_wrap=True)
        recipe, device = prepared[0].recipe, prepared[0].device
        initial = read_initial(recipe, prepared[0].spec)
        request = request_of(prepared, initial)
        start = None if resume is None else find_resume_point(resume.folder, request, resume.accepted, messages)

        # Place: decide how the processes share the work, and how much of a batch fits.
        processes = stack.enter_context(process_group(found, device))
        placement = place(prepared, processes, messages)
        stack.enter_context(torch_errors(prepared, found))
        strategy, sharding = prepare_strategy(recipe, placement.strategy, device, processes.size)
        settings = recipe.train
        if placement.micro_batch is not None:
            settings = settings.model_copy(update={"micro_batch_size": placement.micro_batch})

        # Build: a model for each task; they share backbone and prompt.
        seed_everything(recipe.train.seed)
        if not weights_are_here(prepared[0].spec):
            messages.print(f"the weights of backbone '{recipe.backbone.name}' are loaded from the hub", soft_wrap=True)
        models = build_models(prepared, sharding)
        parameters = count_parameters(models)
        for note in (parameters_note(recipe.backbone.name, parameters), prepared[0].spec.layers_note):
            if note:
                notes.append(note)
                messages.print(note, soft_wrap=True)
        if initial is not None:
            pairs = zip(prepared, models, strict=True)
            heads = [each.task.task for each, m in pairs if initial.put_into(m, each.task.task, each.scheme.names)]
            with_heads = f", and the head of {' and '.join(heads)}" if heads else "; heads are fresh"
            messages.print(f"starts from the prompt in {initial.source}{with_heads}", soft_wrap=True)
        parts = [
            TaskPart(each.task.task, model, each.scheme, each.splits["train"], each.splits["validation"])
            for each, model in zip(prepared, models, strict=True)
        ]

        # The folder: from here on, everything is written down.
        path = None if start is None else start.folder
        if path is None and processes.rank == 0:
            path = RunFolder.create(runs_dir, name or recipe.recipe, run_key(request)).path
        folder = RunFolder(processes.gather(path)[0], writes=processes.rank == 0)
        if resume is None:
            stack.enter_context(folder.locked())
        messages.print(f"run folder: {folder.path}", soft_wrap=True)
        stack.enter_context(disk_errors(folder))

        def say(note: str) -> None:
            messages.print(note, soft_wrap=True)
            folder.log(note)

        for note in notes:
            folder.log(note)
        write_request(folder, run_key(request), resolved, prepared, overrides, data_root, initial)
        wall, processor = time.monotonic(), time.process_time()
        with RowsConsole(messages) as rows:
            parts = keep_trunk(
                recipe,
                prepared[0].spec,
                parts,
                device,
                rows.on_rows,
                say,
                strategy=placement.strategy,
                processes=processes.size,
            )
        spent = time.monotonic() - wall, time.process_time() - processor
        if recipe.train.compile:
            messages.print("the backbone is compiled in the first steps, which take longer")
            compile_backbone(models[0])

        # Fit: train, and keep the best epoch of each task.
        state, extra = (None, {}) if start is None else (start.state, start.extra)
        writer = RunWriter(folder, prepared[0].self_contained()[0], parts, request, extra)
        if state is not None:
            writer.restore(state)
        step = 0 if state is None else state.progress.step
        trackers = stack.enter_context(
            tracking(recipe.trackers if folder.writes else (), folder.path, recipe.model_dump(mode="json"), step)
        )
        console = TrainingConsole(messages, first_metric([each.task for each in prepared]), recipe.train.epochs)
        logs: list[Log] = [writer.log, console.log, trackers.log, *watchers]

        def log(row: LogEntry) -> None:
            for each in logs:  # a watcher, which may stop the training, comes last
                each(row)

        with StopSignals() as stop, console, training_errors(folder):
            trainer = Trainer(
                parts,
                settings,
                device,
                writer,
                log=log,
                progress=console.progress,
                strategy=strategy,
                processes=processes,
                start=state,
                spent=spent,
                stop=stop,
                wants_checkpoint=stop.wants_checkpoint,
            )
            if state is not None:
                say(f"resuming after step {step} of {trainer.total_steps}")
            result = trainer.train()

            # Score: the test splits, with the best tensors of each task.
            scores, interrupted = score(prepared, parts, result, folder, processes, console.progress, stop)

        # Write: results and card.
        outcome = Outcome(
            recipe=recipe,
            tasks=tuple(
                TaskOutcome(each.task, best.epoch, found_scores, each.skipped)
                for each, best, found_scores in zip(prepared, result.tasks, scores, strict=True)
            ),
            status=stop.stopped or "interrupted" if interrupted else result.ending,
            parameters=parameters,
            best_epoch=result.best_epoch,
            epochs=result.epochs,
            seconds=result.seconds,
            history=result.history,
            evaluated=result.evaluated,
        )
        folder.write_json("results.json", outcome.to_json())
        folder.write_text("README.md", model_card(outcome))
        folder.log(f"{outcome.status} after {outcome.epochs} epochs")
        trackers.summarize(outcome.scores)
        return folder, outcome


def score(
    prepared: Sequence[Prepared],
    parts: Sequence[TaskPart],
    result: TrainingResult,
    folder: RunFolder,
    processes: Processes,
    progress: OnProgress,
    stop: Callable[[], bool],
) -> tuple[list[dict[str, Scores]], bool]:
    """The scores of each task's best epoch by split, those of tests too; and whether the user interrupted it."""
    scores: list[dict[str, Scores]] = [
        {} if best.scores is None else {"validation": best.scores} for best in result.tasks
    ]
    if result.ending != "finished":
        return scores, result.ending == "interrupted"

    def on_progress(done: int, total: int) -> None:
        progress(done, total)
        if stop() and processes.size == 1:
            raise KeyboardInterrupt

    for each, part, found in zip(prepared, parts, scores, strict=True):
        task = part.name if len(parts) > 1 else None
        tests = [name for name in each.splits if name.startswith("test")] if found else []
        if tests:
            tensors = load_prompt(prompt_folder(folder.path, task))[0] if folder.writes else None
            part.model.fold_prompt()
            part.model.load_trained_state(processes.gather(tensors)[0])
        scheme = part.scheme.with_scores(found["validation"].values) if found else part.scheme
        for name in tests:
            split, size = each.splits[name], each.recipe.train.eval_batch_size
            try:
                test = evaluate(part.model, scheme, split, size, each.device, on_progress, processes)
            except KeyboardInterrupt:
                return scores, True
            found[name] = test.scores
            lines = prediction_lines(scheme, split.data.rows, test.predictions)
            folder.write_text(predictions_path(task, name), lines)
    return scores, False


def count_parameters(models: Sequence[PromptedModel]) -> ParameterCount:
    """Parameters of all tasks' models together."""
    counts = [model.parameter_count() for model in models]
    return replace(counts[0], head=sum(count.head for count in counts))


@contextmanager
def training_errors(folder: RunFolder) -> Generator[None]:
    """Within the context, an error of the training says where the run's folder is."""
    try:
        yield
    except TrainingError as error:
        folder.log(str(error))
        where = f"the run's folder is '{folder.path}'"
        raise TrainingError(
            replace(problem, hint=f"{problem.hint}; {where}" if problem.hint else where) for problem in error.problems
        ) from error


@contextmanager
def disk_errors(folder: RunFolder) -> Generator[None]:
    """Turn what the disk refuses into one error."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise TrainingError(
            f"the run folder cannot be written: {error.strerror or error}",
            location=str(folder.path),
            hint="the last prompt and checkpoint that were written whole are still there; --resume continues from them",
        ) from error


@contextmanager
def torch_errors(prepared: Sequence[Prepared], found: Workers | None) -> Generator[None]:
    """Turn the ways in which memory runs out into one error, and those in which code cannot be made into another.

    torch says both in a RuntimeError on the CPU.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if type(error).__module__ in ("torch._dynamo.exc", "torch._inductor.exc"):
            reason = str(error).strip().split("\n", 1)[0]
            raise ConfigError(f"the backbone cannot be compiled: {reason}", hint="set train.compile: false") from error
        memory = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not memory and "not enough memory" not in str(error) and "can't allocate memory" not in str(error):
            raise
        hint = memory_advice(prepared, found)
        raise OutOfMemoryError(f"out of memory on {prepared[0].device}", hint=hint) from error


def split_notes(prepared: Prepared, *, several: bool) -> list[str]:
    """How many rows each split has and where they come from; of one of several tasks, with the task's name."""
    notes: list[str] = []
    for name, split in prepared.splits.items():
        cut = f", {split.truncated:,} of them cut off at max_length" if split.truncated else ""
        what = f"{prepared.task.task} {name}" if several else name
        notes.append(f"{what}: {len(split.data.rows):,} rows from {split.data.source}{cut}")
        if name == "train":
            seen = {kind for feature in split.features for kind in prepared.scheme.counted(feature.reference)}
            lacking = [kind for kind in prepared.scheme.kinds if kind not in seen]
            if lacking:
                notes.append(f"{what}: no row has {', '.join(map(repr, lacking))}, which labels.names lists")
            if prepared.weights:
                weights = zip(prepared.scheme.names, prepared.weights, strict=True)
                notes.append(f"{what}: weights in the loss: " + ", ".join(f"{name} {w:.3g}" for name, w in weights))
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
        f"{count.trained:,} ({count.text}), {count.percent} of the backbone"
    )
