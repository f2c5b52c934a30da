"""One run from a resolved recipe to its folder; for `ptv2kit run` and for each run of a suite."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, final

from rich.console import Console

from ptv2kit.cli.record import RunWriter, prompt_folder, write_predictions
from ptv2kit.cli.request import request_of, write_request
from ptv2kit.cli.resume import ResumePoint, find_resume_point
from ptv2kit.cli.signals import StopSignals
from ptv2kit.errors import OutOfMemoryError, TrainingError

if TYPE_CHECKING:
    from ptv2kit.config.load import ResolvedRecipe
    from ptv2kit.config.recipe import Train
    from ptv2kit.data.schemes.base import Scores
    from ptv2kit.models.model import ParameterCount, PromptedModel
    from ptv2kit.reporting.results import Outcome
    from ptv2kit.reporting.run_folder import RunFolder
    from ptv2kit.training.distributed import Chosen, StrategyFactory, Workers
    from ptv2kit.training.initial import InitialTensors
    from ptv2kit.training.prepare import Prepared
    from ptv2kit.training.processes import Processes
    from ptv2kit.training.trainer import TrainingEvents, TrainingResult


@final
@dataclass(frozen=True)
class Resume:
    """A run that shall go on.

    Args:
        folder: of the run.
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
        resolved: the recipe and its tasks.
        data_root: where data files are looked up first.
        runs_dir: gets the folder `<recipe>/<time>-<key>`.
        messages: of stderr.
        overrides: from the command line, for the record.
        watchers: told how training goes on; one may raise `StopTraining` from `on_evaluation`.
        name: of the folder, instead of the recipe's.
        resume: go on in this folder; None: in a new one.
        found: this process's place among several that train together.

    Raises:
        ProjectError: see `ptv2kit/errors.py`.
    """
    from ptv2kit.cli.launch import place
    from ptv2kit.reporting.console import RowsConsole
    from ptv2kit.reporting.run_folder import RunFolder, require_writable, run_key
    from ptv2kit.reporting.trackers import require_trackers
    from ptv2kit.training.distributed import prepare_strategy, process_group
    from ptv2kit.training.initial import read_initial
    from ptv2kit.training.prepare import build_models, prepare_tasks
    from ptv2kit.training.trainer import seed_everything

    if found is not None and found.rank > 0:
        messages = Console(quiet=True)
    require_writable(runs_dir if resume is None else resume.folder)
    require_trackers(resolved.recipe.trackers)
    tasks = [(task.task, task.path) for task in resolved.tasks]
    with RowsConsole(messages) as rows:
        prepared = prepare_tasks(resolved.recipe, tasks, data_root, rows.on_rows)
    for each in prepared:
        _print_splits(messages, each, several=len(prepared) > 1)
    recipe = resolved.recipe
    initial = read_initial(recipe, prepared[0].spec)
    request = request_of(prepared, initial)
    start = None
    if resume is not None:
        start = find_resume_point(resume.folder, request, resume.accepted, messages)
    device = prepared[0].device
    placement = place(prepared, found, messages)
    with _memory_errors(prepared, found), process_group(found, device) as processes:
        strategy, sharding = prepare_strategy(recipe, placement.strategy, device, processes.size)
        seed_everything(recipe.train.seed)
        models = build_models(prepared, sharding)
        _print_parameters(messages, recipe.backbone.name, _count(models))
        if initial is not None:
            _start_from(initial, prepared, models, messages)
        key = run_key(request)
        path = None if start is None else start.folder
        if path is None and processes.rank == 0:
            path = RunFolder.create(runs_dir, name or recipe.recipe, key).path
        folder = RunFolder(processes.gather(path)[0], writes=processes.rank == 0)
        messages.print(f"run folder: {folder.path}", soft_wrap=True)
        with _disk_errors(folder):
            write_request(folder, key, resolved, prepared, overrides, data_root, initial)
            if placement.micro_batch is not None:
                recipe = recipe.model_copy(
                    update={"train": recipe.train.model_copy(update={"micro_batch_size": placement.micro_batch})}
                )
            run = _Run(prepared, models, recipe.train, folder, messages, request, start, strategy, processes)
            run.keep_trunk(placement.strategy)
            return folder, run.train(watchers)


@final
class _Run:
    """A run that is set up.

    Args:
        prepared: its tasks.
        models: one for each task.
        settings: the recipe's, with a micro-batch that fits.
        folder: gets everything.
        messages: of stderr.
        request: what decides the outcome.
        start: where it goes on; None: at the beginning.
        strategy: makes the steps.
        processes: that train together.
    """

    def __init__(
        self,
        prepared: Sequence[Prepared],
        models: Sequence[PromptedModel],
        settings: Train,
        folder: RunFolder,
        messages: Console,
        request: dict[str, object],
        start: ResumePoint | None,
        strategy: StrategyFactory,
        processes: Processes,
    ) -> None:
        from ptv2kit.training.parts import TaskPart

        self._prepared = prepared
        self._models = models
        self._settings = settings
        self._folder = folder
        self._messages = messages
        self._request = request
        self._start = start
        self._strategy = strategy
        self._processes = processes
        self._several = len(prepared) > 1
        self._parts = [
            TaskPart(each.task.task, model, each.scheme, each.splits["train"], each.splits["validation"])
            for each, model in zip(prepared, models, strict=True)
        ]

    def keep_trunk(self, chosen: Chosen) -> None:
        """Compute what the layers below the lowest prompt give, if the recipe has it kept; `chosen`: the strategy."""
        from ptv2kit.reporting.console import RowsConsole
        from ptv2kit.training.trunk_cache import keep_trunk

        def say(note: str) -> None:
            self._messages.print(note, soft_wrap=True)
            self._folder.log(note)

        first = self._prepared[0]
        size = self._processes.size
        with RowsConsole(self._messages) as rows:
            self._parts = keep_trunk(
                first.recipe, first.spec, self._parts, first.device, rows.on_rows, say, strategy=chosen, processes=size
            )

    def train(self, watchers: Sequence[TrainingEvents]) -> Outcome:
        """Train, score the splits with the best prompt of each task, and write everything down."""
        from ptv2kit.reporting.trackers import tracking

        recipe = self._prepared[0].recipe
        names = recipe.trackers if self._folder.writes else ()
        state = None if self._start is None else self._start.state
        step = 0 if state is None else state.progress.step
        with tracking(names, self._folder.path, recipe.model_dump(mode="json"), step) as trackers:
            outcome = self._train([trackers, *watchers])
            trackers.summarize(outcome.scores)
        return outcome

    def _train(self, watchers: Sequence[TrainingEvents]) -> Outcome:
        from ptv2kit.config.recipe import MEAN
        from ptv2kit.reporting.console import TrainingConsole
        from ptv2kit.reporting.model_card import model_card
        from ptv2kit.reporting.results import Outcome, TaskOutcome

        recipe, folder = self._prepared[0].recipe, self._folder
        try:
            metric = MEAN if self._several else self._prepared[0].task.metrics[0]
            with StopSignals() as stop, TrainingConsole(self._messages, metric, recipe.train.epochs) as console:
                result = self._fit(console, watchers, stop)
                scores: list[dict[str, Scores]] = [
                    {} if best.scores is None else {"validation": best.scores} for best in result.tasks
                ]
                interrupted = result.ending == "interrupted"
                if result.ending == "finished":
                    interrupted = not self._score_tests(result, console, stop, scores)
        except TrainingError as error:
            folder.log(str(error))
            where = f"what was kept lies in '{folder.path}'"
            raise TrainingError(
                replace(problem, hint=f"{problem.hint}; {where}") for problem in error.problems
            ) from error
        outcome = Outcome(
            recipe=recipe,
            tasks=tuple(
                TaskOutcome(each.task, best.epoch, found)
                for each, best, found in zip(self._prepared, result.tasks, scores, strict=True)
            ),
            status=stop.status if interrupted else result.ending,
            parameters=_count(self._models),
            best_epoch=result.best_epoch,
            epochs=result.epochs,
            seconds=result.seconds,
            history=result.history,
        )
        folder.write_json("results.json", outcome.to_json())
        folder.write_text("README.md", model_card(outcome))
        folder.log(f"{outcome.status} after {outcome.epochs} epochs")
        return outcome

    def _fit(self, console: TrainingEvents, watchers: Sequence[TrainingEvents], stop: StopSignals) -> TrainingResult:
        from ptv2kit.reporting.run_folder import RunRecorder
        from ptv2kit.training.trainer import Trainer

        first = self._prepared[0]
        state, extra = (None, {}) if self._start is None else (self._start.state, self._start.extra)
        lines = int(extra.get("lines", 0))
        self._folder.cut_metrics(lines)
        recorder = RunRecorder(self._folder, every=10, losses=extra.get("losses", ()), lines=lines)
        writer = RunWriter(self._folder, first.self_contained()[0], self._parts, recorder, self._request)
        trainer = Trainer(
            self._parts,
            self._settings,
            first.device,
            _Events(console, recorder, *watchers),
            writer,
            strategy=self._strategy,
            processes=self._processes,
            start=state,
            stop=stop,
        )
        if state is not None:
            done = f"step {state.progress.step} of {trainer.total_steps}"
            self._messages.print(f"goes on after {done}", soft_wrap=True)
            self._folder.log(f"goes on after {done}")
        return trainer.train()

    def _score_tests(
        self, result: TrainingResult, events: TrainingEvents, stop: StopSignals, scores: list[dict[str, Scores]]
    ) -> bool:
        """Score the test splits with the best tensors of each task, into `scores`; whether nobody interrupted it."""
        from ptv2kit.evaluation.evaluate import evaluate
        from ptv2kit.training.checkpoints import load_prompt

        def progress(done: int, total: int) -> None:
            events.on_evaluating(done, total)
            if stop() and self._processes.size == 1:
                raise KeyboardInterrupt

        for each, part, best, found in zip(self._prepared, self._parts, result.tasks, scores, strict=True):
            task = part.name if self._several else None
            tests = [name for name in each.splits if name.startswith("test")]
            if tests and best.scores is not None:
                folder = prompt_folder(self._folder.path, task)
                tensors = load_prompt(folder)[0] if self._folder.writes else None
                part.model.fold_prompt()
                part.model.load_trained_state(self._processes.gather(tensors)[0])
            for name in tests:
                split, size = each.splits[name], each.recipe.train.eval_batch_size
                try:
                    test = evaluate(part.model, part.scheme, split, size, each.device, progress, self._processes)
                except KeyboardInterrupt:
                    return False
                found[name] = test.scores
                write_predictions(self._folder, task, name, split.data.rows, test.predictions)
        return True


@final
class _Events:
    """Passes each event to several receivers; all of them hear of an evaluation before one may stop the training."""

    def __init__(self, *receivers: TrainingEvents) -> None:
        self._receivers = receivers

    def on_step(self, step: int, total_steps: int, epoch: float, loss: float, learning_rate: float) -> None:
        for receiver in self._receivers:
            receiver.on_step(step, total_steps, epoch, loss, learning_rate)

    def on_evaluating(self, done: int, total: int) -> None:
        for receiver in self._receivers:
            receiver.on_evaluating(done, total)

    def on_evaluation(self, epoch: int, values: dict[str, float], best: bool, seconds: float) -> None:
        for receiver in self._receivers:
            receiver.on_evaluation(epoch, values, best, seconds)


def _start_from(
    initial: InitialTensors, prepared: Sequence[Prepared], models: Sequence[PromptedModel], messages: Console
) -> None:
    heads = [
        each.task.task
        for each, model in zip(prepared, models, strict=True)
        if initial.put_into(model, each.task.task, each.scheme.names)
    ]
    with_heads = f", and the head of {' and '.join(heads)}" if heads else "; heads are fresh"
    messages.print(f"starts from the prompt in {initial.source}{with_heads}", soft_wrap=True)


def _count(models: Sequence[PromptedModel]) -> ParameterCount:
    """Parameters of all tasks' models together."""
    counts = [model.parameter_count() for model in models]
    return replace(counts[0], head=sum(count.head for count in counts))


@contextmanager
def _disk_errors(folder: RunFolder) -> Generator[None]:
    """Turn what the disk refuses into one error."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise TrainingError(
            f"the run folder cannot be written: {error.strerror or error}",
            location=str(folder.path),
            hint="the last prompt and checkpoint that were written whole are still there; --resume goes on from them",
        ) from error


@contextmanager
def _memory_errors(prepared: Sequence[Prepared], found: Workers | None) -> Generator[None]:
    """Turn the ways in which memory runs out into one error; torch says it in a RuntimeError on the CPU."""
    import torch

    from ptv2kit.cli.launch import memory_advice

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        memory = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not memory and "not enough memory" not in str(error) and "can't allocate memory" not in str(error):
            raise
        raise OutOfMemoryError(f"out of memory on {prepared[0].device}", hint=memory_advice(prepared, found)) from error


def _print_splits(messages: Console, prepared: Prepared, *, several: bool) -> None:
    for name, split in prepared.splits.items():
        cut = f", {split.truncated:,} of them cut off at max_length" if split.truncated else ""
        what = f"{prepared.task.task} {name}" if several else name
        messages.print(f"{what}: {len(split.data.rows):,} rows from {split.data.source}{cut}", soft_wrap=True)


def _print_parameters(messages: Console, backbone: str, count: ParameterCount) -> None:
    messages.print(
        f"backbone {backbone}: {count.backbone:,} parameters, {'trained' if count.tuned else 'frozen'}; trained: "
        f"{count.trained:,} (prompt {count.prompt:,} + head {count.head:,}), {count.share:.2%} of the backbone",
        soft_wrap=True,
    )
