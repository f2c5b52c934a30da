"""One run from a resolved recipe to its folder; for `ptv2kit run` and for each run of a suite."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from ptv2kit.errors import OutOfMemoryError, TrainingError

if TYPE_CHECKING:
    from rich.console import Console

    from ptv2kit.config.load import ResolvedRecipe
    from ptv2kit.config.recipe import Recipe
    from ptv2kit.data.schemes.base import Prediction, Scores
    from ptv2kit.models.model import ParameterCount, PromptedModel
    from ptv2kit.reporting.results import Outcome
    from ptv2kit.reporting.run_folder import RunFolder
    from ptv2kit.training.initial import InitialTensors
    from ptv2kit.training.prepare import Prepared
    from ptv2kit.training.trainer import TaskPart, TrainingEvents, TrainingResult


def train_recipe(
    resolved: ResolvedRecipe,
    *,
    data_root: Path | None,
    runs_dir: Path,
    messages: Console,
    overrides: Sequence[str] = (),
    watchers: Sequence[TrainingEvents] = (),
) -> tuple[RunFolder, Outcome]:
    """Read the data, build the model, train it, score it with the best prompt, and keep everything in a new folder.

    Args:
        resolved: the recipe and its tasks.
        data_root: where data files are looked up first.
        runs_dir: gets the folder `<recipe>/<time>-<key>`.
        messages: of stderr.
        overrides: from the command line, for the record.
        watchers: told how training goes on; one may raise `StopTraining` from `on_evaluation`.

    Raises:
        ProjectError: see `ptv2kit/errors.py`.
    """
    from ptv2kit.reporting.console import RowsConsole
    from ptv2kit.reporting.run_folder import RunFolder, require_writable
    from ptv2kit.training.initial import read_initial
    from ptv2kit.training.prepare import build_models, prepare_tasks
    from ptv2kit.training.trainer import seed_everything

    require_writable(runs_dir)
    tasks = [(task.task, task.path) for task in resolved.tasks]
    with RowsConsole(messages) as rows:
        prepared = prepare_tasks(resolved.recipe, tasks, data_root, rows.on_rows)
    for each in prepared:
        _print_splits(messages, each, several=len(prepared) > 1)
    recipe = resolved.recipe
    initial = read_initial(recipe, prepared[0].spec)
    seed_everything(recipe.train.seed)
    with _memory_errors(recipe, str(prepared[0].device)):
        models = build_models(prepared)
        _print_parameters(messages, recipe.backbone.name, _count(models))
        if initial is not None:
            _start_from(initial, prepared, models, messages)
        key = _key(prepared, initial)
        folder = RunFolder.create(runs_dir, recipe.recipe, key)
        messages.print(f"run folder: {folder.path}", soft_wrap=True)
        try:
            _write_request(folder, key, resolved, prepared, overrides, data_root, initial)
            outcome = _train(prepared, models, folder, messages, watchers)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise TrainingError(
                f"the run folder cannot be written: {error.strerror or error}",
                location=str(folder.path),
                hint="the last prompt that was written whole is still there",
            ) from error
    return folder, outcome


def _train(
    prepared: Sequence[Prepared],
    models: Sequence[PromptedModel],
    folder: RunFolder,
    messages: Console,
    watchers: Sequence[TrainingEvents],
) -> Outcome:
    """Train, score the splits with the best prompt of each task, and write everything down."""
    from ptv2kit.config.recipe import MEAN
    from ptv2kit.reporting.console import TrainingConsole
    from ptv2kit.reporting.results import Outcome, TaskOutcome
    from ptv2kit.reporting.run_folder import RunRecorder
    from ptv2kit.training.trainer import TaskPart, Trainer

    recipe = prepared[0].recipe
    several = len(prepared) > 1
    parts = [
        TaskPart(each.task.task, model, each.scheme, each.splits["train"], each.splits["validation"])
        for each, model in zip(prepared, models, strict=True)
    ]
    try:
        metric = MEAN if several else prepared[0].task.metrics[0]
        with TrainingConsole(messages, metric, recipe.train.epochs) as console:
            events = _Events(console, RunRecorder(folder, every=10), *watchers)
            keep = _Keep(prepared[0].self_contained()[0], parts, folder)
            result = Trainer(parts, recipe.train, prepared[0].device, events, keep).train()
            scores: list[dict[str, Scores]] = []
            for each, best in zip(prepared, result.tasks, strict=True):
                scores.append({} if best.evaluation is None else {"validation": best.evaluation.scores})
                if best.evaluation is not None:
                    _write_predictions(folder, each, "validation", best.evaluation.predictions, several)
            interrupted = result.ending == "interrupted"
            if result.ending == "finished":
                interrupted = not _score_tests(prepared, parts, result, folder, console, scores)
    except TrainingError as error:
        folder.log(str(error))
        where = f"what was kept lies in '{folder.path}'"
        raise TrainingError(replace(problem, hint=f"{problem.hint}; {where}") for problem in error.problems) from error
    outcome = Outcome(
        recipe=recipe,
        tasks=tuple(
            TaskOutcome(each.task, best.epoch, found)
            for each, best, found in zip(prepared, result.tasks, scores, strict=True)
        ),
        status="interrupted" if interrupted else result.ending,
        parameters=_count(models),
        best_epoch=result.best_epoch,
        epochs=result.epochs,
        seconds=result.seconds,
        history=result.history,
    )
    folder.write_json("results.json", outcome.to_json())
    folder.write_text("README.md", outcome.model_card())
    folder.log(f"{outcome.status} after {outcome.epochs} epochs")
    return outcome


def _score_tests(
    prepared: Sequence[Prepared],
    parts: Sequence[TaskPart],
    result: TrainingResult,
    folder: RunFolder,
    events: TrainingEvents,
    scores: list[dict[str, Scores]],
) -> bool:
    """Score the test splits with the best tensors of each task, into `scores`; whether nobody interrupted it."""
    from ptv2kit.evaluation.evaluate import evaluate
    from ptv2kit.training.checkpoints import load_prompt

    several = len(parts) > 1
    for each, part, best, found in zip(prepared, parts, result.tasks, scores, strict=True):
        tests = [name for name in each.splits if name.startswith("test")]
        if tests and best.evaluation is not None:
            part.model.fold_prompt()
            part.model.load_trained_state(load_prompt(_prompt_folder(folder, part.name if several else None))[0])
        for name in tests:
            try:
                test = evaluate(
                    part.model,
                    part.scheme,
                    each.splits[name],
                    each.recipe.train.eval_batch_size,
                    each.device,
                    events.on_evaluating,
                )
            except KeyboardInterrupt:
                return False
            found[name] = test.scores
            _write_predictions(folder, each, name, test.predictions, several)
    return True


@final
class _Keep:
    """Writes what is kept: `prompt/`, and of several tasks `prompt/<task>/` with the best epoch of each.

    Args:
        recipe: of the run, self-contained.
        parts: its tasks.
        folder: of the run.
    """

    def __init__(self, recipe: Recipe, parts: Sequence[TaskPart], folder: RunFolder) -> None:
        self._several = len(parts) > 1
        self._folder = folder
        self._parts = parts
        self._facts = {
            "recipe": recipe.recipe,
            "backbone": recipe.backbone.name,
            "method": recipe.method,
            "prompt_length": recipe.prompt_length,
        }

    def __call__(self, part: TaskPart | None, tensors: dict[str, Any], epoch: int, values: dict[str, float]) -> None:
        """Write the tensors of a task, or of all tasks."""
        from ptv2kit.training.checkpoints import save_prompt

        facts: dict[str, Any] = {**self._facts, "epoch": epoch, "validation": values}
        if part is None:
            facts |= {
                "task": [each.name for each in self._parts],
                "names": {each.name: list(each.scheme.names) for each in self._parts},
            }
        else:
            facts |= {"task": part.name, "names": list(part.scheme.names)}
        save_prompt(_prompt_folder(self._folder, part.name if part and self._several else None), tensors, facts)


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


def _prompt_folder(folder: RunFolder, task: str | None) -> Path:
    return folder.path / "prompt" if task is None else folder.path / "prompt" / task


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


def _key(prepared: Sequence[Prepared], initial: InitialTensors | None) -> str:
    """Stands for what decides the outcome; where the files lie does not."""
    from ptv2kit import __version__
    from ptv2kit.reporting.run_folder import run_key

    recipe = prepared[0].self_contained()[0]
    tasks = [each.self_contained()[1] for each in prepared]
    return run_key(
        {
            "recipe": recipe.model_dump(mode="json", exclude={"description", "expect", "task", "init_from"}),
            "tasks": [
                task.model_dump(mode="json", exclude={"description": True, "licence": True, "data": {"splits"}})
                for task in tasks
            ],
            "data": [{name: split.data.fingerprint for name, split in each.splits.items()} for each in prepared],
            "backbone": prepared[0].spec.commit,
            "init_from": None if initial is None else initial.sha256,
            "ptv2kit": __version__,
        }
    )


def _write_request(
    folder: RunFolder,
    key: str,
    resolved: ResolvedRecipe,
    prepared: Sequence[Prepared],
    overrides: Sequence[str],
    data_root: Path | None,
    initial: InitialTensors | None,
) -> None:
    """What was asked for and where it came from."""
    from ptv2kit.config.explain import explain
    from ptv2kit.config.load import resolved_yaml
    from ptv2kit.reporting.run_folder import environment

    several = len(prepared) > 1
    recipe = prepared[0].self_contained()[0]
    files = [f"task.{each.task.task}.resolved.yaml" if several else "task.resolved.yaml" for each in prepared]
    start = None if recipe.init_from is None else str(Path(recipe.init_from).expanduser().absolute())
    update = {"task": tuple(files) if several else files[0], "init_from": start}
    folder.write_text("recipe.resolved.yaml", resolved_yaml(recipe.model_copy(update=update)))
    for each, file in zip(prepared, files, strict=True):
        folder.write_text(file, resolved_yaml(each.self_contained()[1]))
    data = [
        {
            name: {"source": split.data.source, "sha256": split.data.fingerprint, "rows": len(split.data.rows)}
            for name, split in each.splits.items()
        }
        for each in prepared
    ]
    names = [each.task.task for each in prepared]
    tasks = {f"task {name}" if several else "task": task for name, task in zip(names, resolved.tasks, strict=True)}
    folder.write_json(
        "provenance.json",
        {
            "key": key,
            "recipe": str(resolved.path),
            "task": [str(task.path) for task in resolved.tasks] if several else str(resolved.task.path),
            "overrides": list(overrides),
            "data_root": None if data_root is None else str(data_root),
            "data": dict(zip(names, data, strict=True)) if several else data[0],
            "backbone": {"source": prepared[0].spec.source, "commit": prepared[0].spec.commit},
            "init_from": None if initial is None else {"run": str(initial.source), "sha256": initial.sha256},
            "origins": {
                name: {row.key: row.origin for row in explain(section) if row.origin != "default"}
                for name, section in ({"recipe": resolved} | tasks).items()
            },
        },
    )
    folder.write_json("environment.json", environment())


@contextmanager
def _memory_errors(recipe: Recipe, device: str) -> Generator[None]:
    """Turn the ways in which memory runs out into one error; torch says it in a RuntimeError on the CPU."""
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        memory = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not memory and "not enough memory" not in str(error) and "can't allocate memory" not in str(error):
            raise
        raise OutOfMemoryError(
            f"out of memory on {device}",
            hint=f"set train.micro_batch_size below {recipe.train.batch_size}"
            + (f", or lower prompt.length (now {recipe.prompt.length})" if recipe.prompt_length else "")
            + ("" if recipe.train.gradient_checkpointing else ", or set train.gradient_checkpointing: true"),
        ) from error


def _write_predictions(
    folder: RunFolder, prepared: Prepared, split: str, predictions: Sequence[Prediction], several: bool
) -> None:
    rows = prepared.splits[split].data.rows
    lines = (prediction.to_json(rows[prediction.row].location) for prediction in predictions)
    folder.write_lines(f"predictions/{f'{prepared.task.task}/' if several else ''}{split}.jsonl", lines)


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
