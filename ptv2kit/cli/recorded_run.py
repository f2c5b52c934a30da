"""A run that is set up: its training writes into the run's folder, and at its end the results are written."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, final

from rich.console import Console

from ptv2kit.cli.record import RunWriter, prediction_lines, predictions_path, prompt_folder
from ptv2kit.cli.resume import ResumePoint
from ptv2kit.cli.signals import StopSignals
from ptv2kit.config.recipe import MEAN, Train
from ptv2kit.data.schemes.base import Scores
from ptv2kit.errors import TrainingError
from ptv2kit.evaluation.evaluate import evaluate
from ptv2kit.models.counts import ParameterCount
from ptv2kit.models.model import PromptedModel
from ptv2kit.reporting.console import RowsConsole, TrainingConsole
from ptv2kit.reporting.model_card import model_card
from ptv2kit.reporting.results import Outcome, Status, TaskOutcome
from ptv2kit.reporting.run_folder import RunFolder, RunRecorder
from ptv2kit.reporting.trackers import TrackerEvents, tracking
from ptv2kit.training.checkpoints import load_prompt
from ptv2kit.training.compilation import compile_backbone
from ptv2kit.training.distributed import Chosen, StrategyFactory
from ptv2kit.training.parts import TaskPart
from ptv2kit.training.prepare import Prepared
from ptv2kit.training.processes import Processes
from ptv2kit.training.trainer import Trainer, TrainingEvents, TrainingResult
from ptv2kit.training.trunk_cache import keep_trunk

if TYPE_CHECKING:
    import torch


@final
class RecordedRun:
    """A run that is set up.

    Args:
        prepared: its tasks.
        models: one for each task.
        settings: the recipe's, with a micro-batch that fits.
        folder: gets everything.
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
        self._prepared = prepared
        self._models = models
        self.settings = settings
        self.folder = folder
        self._messages = messages
        self._request = request
        self._start = start
        self._strategy = strategy
        self._processes = processes
        self._several = len(prepared) > 1
        self.parts = [
            TaskPart(each.task.task, model, each.scheme, each.splits["train"], each.splits["validation"])
            for each, model in zip(prepared, models, strict=True)
        ]

    def keep_trunk(self, chosen: Chosen, epochs: int | None = None) -> None:
        """Compute what the layers below the lowest prompt give, if the recipe has it kept.

        Args:
            epochs: how often each example is trained on; None: as the recipe says.
        """

        def say(note: str) -> None:
            self._messages.print(note, soft_wrap=True)
            self.folder.log(note)

        first, size = self._prepared[0], self._processes.size
        settings = first.recipe.train.model_copy(update={"epochs": epochs or first.recipe.train.epochs})
        recipe = first.recipe.model_copy(update={"train": settings})
        with RowsConsole(self._messages) as rows:
            self.parts = keep_trunk(
                recipe, first.spec, self.parts, first.device, rows.on_rows, say, strategy=chosen, processes=size
            )

    def compile(self) -> None:
        """Compile the backbone in the first passes, if the recipe says so."""
        if self._prepared[0].recipe.train.compile:
            self._messages.print("the backbone is compiled in the first steps, which take longer")
            compile_backbone(self._models[0])

    def train(self, watchers: Sequence[TrainingEvents]) -> Outcome:
        """Train, score the splits with the best prompt of each task, and write everything down."""
        metric = MEAN if self._several else self._prepared[0].task.metrics[0]
        epochs = self._prepared[0].recipe.train.epochs
        with self.tracking() as trackers:
            console = TrainingConsole(self._messages, metric, epochs)
            with StopSignals() as stop, console, self.training_errors():
                result = self.trainer([console, trackers, *watchers], stop, stop.wants_checkpoint).train()
                scores, interrupted = self.score(result, console.on_evaluating, stop)
            outcome = self.write_results(result, scores, stop.status if interrupted else result.ending)
            trackers.summarize(outcome.scores)
        return outcome

    @property
    def device(self) -> torch.device:
        """Where it is computed."""
        return self._prepared[0].device

    def tracking(self) -> AbstractContextManager[TrackerEvents]:
        """The trackers of the recipe, which end with the context."""
        recipe = self._prepared[0].recipe
        names = recipe.trackers if self.folder.writes else ()
        step = 0 if self._start is None or self._start.state is None else self._start.state.progress.step
        return tracking(names, self.folder.path, recipe.model_dump(mode="json"), step)

    def trainer(
        self, watchers: Sequence[TrainingEvents], stop: Callable[[], bool], wants_checkpoint: Callable[[], bool]
    ) -> Trainer:
        """What trains the run's tasks and writes into its folder.

        Args:
            stop: asked between steps whether to end.
            wants_checkpoint: asked between steps whether to save one.
        """
        first = self._prepared[0]
        state, extra = (None, {}) if self._start is None else (self._start.state, self._start.extra)
        lines = int(extra.get("lines", 0))
        self.folder.cut_metrics(lines)
        recorder = RunRecorder(self.folder, every=10, losses=extra.get("losses", ()), lines=lines)
        writer = RunWriter(self.folder, first.self_contained()[0], self.parts, recorder, self._request)
        if state is not None:
            writer.restore(state)
        trainer = Trainer(
            self.parts,
            self.settings,
            first.device,
            _Events(recorder, *watchers),
            writer,
            strategy=self._strategy,
            processes=self._processes,
            start=state,
            stop=stop,
            wants_checkpoint=wants_checkpoint,
        )
        if state is not None:
            done = f"step {state.progress.step} of {trainer.total_steps}"
            self._messages.print(f"resuming after {done}", soft_wrap=True)
            self.folder.log(f"resuming after {done}")
        return trainer

    @contextmanager
    def training_errors(self) -> Generator[None]:
        """Within the context, an error of the training says where to find what was kept."""
        try:
            yield
        except TrainingError as error:
            self.folder.log(str(error))
            where = f"what was kept is in '{self.folder.path}'"
            raise TrainingError(
                replace(problem, hint=f"{problem.hint}; {where}" if problem.hint else where)
                for problem in error.problems
            ) from error

    def score(
        self, result: TrainingResult, progress: Callable[[int, int], None], stop: Callable[[], bool]
    ) -> tuple[list[dict[str, Scores]], bool]:
        """The scores of the best epoch of each task by split, those of tests too; and whether the user interrupted."""
        scores: list[dict[str, Scores]] = [
            {} if best.scores is None else {"validation": best.scores} for best in result.tasks
        ]
        interrupted = result.ending == "interrupted"
        if result.ending == "finished":
            interrupted = not self._score_tests(result, progress, stop, scores)
        return scores, interrupted

    def write_results(self, result: TrainingResult, scores: Sequence[dict[str, Scores]], status: Status) -> Outcome:
        """Write `results.json` and the model card."""
        folder = self.folder
        outcome = Outcome(
            recipe=self._prepared[0].recipe,
            tasks=tuple(
                TaskOutcome(each.task, best.epoch, found, each.skipped)
                for each, best, found in zip(self._prepared, result.tasks, scores, strict=True)
            ),
            status=status,
            parameters=count_parameters(self._models),
            best_epoch=result.best_epoch,
            epochs=result.epochs,
            seconds=result.seconds,
            history=result.history,
        )
        folder.write_json("results.json", outcome.to_json())
        folder.write_text("README.md", model_card(outcome))
        folder.log(f"{outcome.status} after {outcome.epochs} epochs")
        return outcome

    def _score_tests(
        self,
        result: TrainingResult,
        on_evaluating: Callable[[int, int], None],
        stop: Callable[[], bool],
        scores: list[dict[str, Scores]],
    ) -> bool:
        """Score the test splits with the best tensors of each task, into `scores`; whether nobody interrupted it."""

        def progress(done: int, total: int) -> None:
            on_evaluating(done, total)
            if stop() and self._processes.size == 1:
                raise KeyboardInterrupt

        for each, part, best, found in zip(self._prepared, self.parts, result.tasks, scores, strict=True):
            task = part.name if self._several else None
            tests = [name for name in each.splits if name.startswith("test")]
            if tests and best.scores is not None:
                folder = prompt_folder(self.folder.path, task)
                tensors = load_prompt(folder)[0] if self.folder.writes else None
                part.model.fold_prompt()
                part.model.load_trained_state(self._processes.gather(tensors)[0])
            for name in tests:
                split, size = each.splits[name], each.recipe.train.eval_batch_size
                try:
                    test = evaluate(part.model, part.scheme, split, size, each.device, progress, self._processes)
                except KeyboardInterrupt:
                    return False
                found[name] = test.scores
                self.folder.write_text(
                    predictions_path(task, name), prediction_lines(split.data.rows, test.predictions)
                )
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


def count_parameters(models: Sequence[PromptedModel]) -> ParameterCount:
    """Parameters of all tasks' models together."""
    counts = [model.parameter_count() for model in models]
    return replace(counts[0], head=sum(count.head for count in counts))


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
