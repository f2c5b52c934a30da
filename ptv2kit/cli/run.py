"""`ptv2kit run`: train a recipe."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from ptv2kit.cli.data_root import add_data_root
from ptv2kit.cli.subject import silence_libraries
from ptv2kit.errors import ExpectationMissedError, InterruptedRunError, OutOfMemoryError, Problem, TrainingError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from rich.console import Console

    from ptv2kit.config.load import ResolvedRecipe
    from ptv2kit.data.schemes.base import Prediction
    from ptv2kit.models.model import ParameterCount
    from ptv2kit.reporting.results import Outcome
    from ptv2kit.reporting.run_folder import RunFolder
    from ptv2kit.training.prepare import Prepared
    from ptv2kit.training.trainer import TrainingEvents

EXAMPLES = """examples:
  ptv2kit run recipes/quickstart.yaml
  ptv2kit run recipes/mini-wikigold.yaml --data-root data train.seed=12 prompt.length=64
  ptv2kit run recipes/mini-wikigold.yaml --data-root data --dry-run
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "run",
        help="train a recipe",
        description="Train the prompt of a recipe, score it, and keep everything in a new folder runs/<recipe>/….",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="recipe (YAML)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="replace a value of the recipe")
    add_data_root(parser)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), metavar="DIR", help="default: runs")
    parser.add_argument(
        "--dry-run", action="store_true", help="check all but rows and weights, print the resolved YAML"
    )
    parser.add_argument("--json", action="store_true", help="print results.json instead of the table")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr, only errors")
    parser.set_defaults(handler=run, trailing="overrides")


def run(args: argparse.Namespace) -> int:
    """Train the recipe that `args` names.

    Raises:
        ProjectError: see `ptv2kit/errors.py`; its exit code is the command's.
    """
    from ptv2kit.config.load import load_recipe

    resolved = load_recipe(args.file, args.overrides)
    from rich.console import Console

    messages = Console(stderr=True, quiet=args.quiet, highlight=False, markup=False, emoji=False)
    silence_libraries()
    if args.dry_run:
        return _dry_run(resolved, args, messages)

    from ptv2kit.reporting.console import RowsConsole
    from ptv2kit.reporting.run_folder import RunFolder, require_writable
    from ptv2kit.training.prepare import prepare
    from ptv2kit.training.trainer import seed_everything

    require_writable(args.runs_dir)
    with RowsConsole(messages) as rows:
        prepared = prepare(resolved.recipe, resolved.task.task, resolved.task.path, args.data_root, rows.on_rows)
    for name, split in prepared.splits.items():
        cut = f", {split.truncated:,} of them cut off at max_length" if split.truncated else ""
        messages.print(f"{name}: {len(split.data.rows):,} rows from {split.data.source}{cut}", soft_wrap=True)
    seed_everything(prepared.recipe.train.seed)
    with _memory_errors(prepared):
        model = prepared.build_model()
        _print_parameters(messages, prepared.recipe.backbone.name, model.parameter_count())
        key = _key(prepared)
        folder = RunFolder.create(args.runs_dir, prepared.recipe.recipe, key)
        messages.print(f"run folder: {folder.path}", soft_wrap=True)
        try:
            _write_request(folder, key, resolved, prepared, args)
            outcome = _train(prepared, model, folder, messages)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise TrainingError(
                f"the run folder cannot be written: {error.strerror or error}",
                location=str(folder.path),
                hint="the last prompt that was written whole is still there",
            ) from error
    _report(outcome, folder, as_json=args.json, quiet=args.quiet)
    return 0


def _train(prepared: Prepared, model: Any, folder: RunFolder, messages: Console) -> Outcome:
    """Train, score the splits with the best prompt, and write everything down."""
    from ptv2kit.evaluation.evaluate import evaluate
    from ptv2kit.reporting.console import TrainingConsole
    from ptv2kit.reporting.results import Outcome
    from ptv2kit.reporting.run_folder import RunRecorder
    from ptv2kit.training.checkpoints import load_prompt, save_prompt
    from ptv2kit.training.trainer import Trainer

    recipe, splits = prepared.recipe, prepared.splits
    facts = {
        "recipe": recipe.recipe,
        "task": prepared.task.task,
        "backbone": recipe.backbone.name,
        "names": list(prepared.scheme.names),
        "method": recipe.method,
        "prompt_length": recipe.prompt_length,
    }

    def keep(tensors: dict[str, Any], epoch: int, values: dict[str, float]) -> None:
        save_prompt(folder.path / "prompt", tensors, {**facts, "epoch": epoch, "validation": values})

    try:
        with TrainingConsole(messages, prepared.task.metrics[0], recipe.train.epochs) as console:
            trainer = Trainer(
                model,
                prepared.scheme,
                splits["train"],
                splits["validation"],
                recipe.train,
                prepared.device,
                _Both(console, RunRecorder(folder, every=10)),
                keep,
            )
            result = trainer.train()
            scores = {} if result.best is None else {"validation": result.best.scores}
            if result.best is not None:
                _write_predictions(folder, prepared, "validation", result.best.predictions)
            interrupted = result.interrupted
            tests = [name for name in splits if name.startswith("test")]
            if tests and not interrupted:
                model.fold_prompt()
                model.load_trained_state(load_prompt(folder.path / "prompt")[0])
            for name in [] if interrupted else tests:
                try:
                    test = evaluate(
                        model,
                        prepared.scheme,
                        splits[name],
                        recipe.train.eval_batch_size,
                        prepared.device,
                        console.on_evaluating,
                    )
                except KeyboardInterrupt:
                    interrupted = True
                    break
                scores[name] = test.scores
                _write_predictions(folder, prepared, name, test.predictions)
    except TrainingError as error:
        folder.log(str(error))
        where = f"what was kept lies in '{folder.path}'"
        raise TrainingError(replace(problem, hint=f"{problem.hint}; {where}") for problem in error.problems) from error
    outcome = Outcome(
        recipe=recipe,
        task=prepared.task,
        status="interrupted" if interrupted else "finished",
        parameters=model.parameter_count(),
        best_epoch=result.best_epoch,
        epochs=result.epochs,
        seconds=result.seconds,
        scores=scores,
        history=result.history,
    )
    folder.write_json("results.json", outcome.to_json())
    folder.write_text("README.md", outcome.model_card())
    folder.log(f"{outcome.status} after {outcome.epochs} epochs")
    return outcome


def _report(outcome: Outcome, folder: RunFolder, *, as_json: bool, quiet: bool) -> None:
    """Print the result, and end with an error if the run was interrupted or missed what it should reach."""
    from rich.console import Console

    from ptv2kit.reporting.console import duration, scores_table

    if as_json:
        sys.stdout.write(json.dumps({"run": str(folder.path), **outcome.to_json()}, indent=2) + "\n")
    else:
        console = Console(highlight=False, markup=False, emoji=False)
        for split, scores in outcome.scores.items():
            console.print(scores_table(scores, f"{outcome.recipe.recipe}: {split}, epoch {outcome.best_epoch}"))
        if not quiet:
            console.print(f"{outcome.epochs} epochs in {duration(outcome.seconds)}")
        console.print(f"run: {folder.path}", soft_wrap=True)
    if outcome.status == "interrupted":
        raise InterruptedRunError(f"interrupted; the best prompt so far is in '{folder.path / 'prompt'}'")
    missed = outcome.missed()
    if missed:
        raise ExpectationMissedError([Problem(sentence) for sentence in missed])


def _dry_run(resolved: ResolvedRecipe, args: argparse.Namespace, messages: Console) -> int:
    """Check configuration, files and backbone; print the resolved YAML of recipe and task."""
    from ptv2kit.config.load import resolved_yaml
    from ptv2kit.config.task import Iob2Task
    from ptv2kit.models.backbones import load_tokenizer
    from ptv2kit.reporting.run_folder import require_writable
    from ptv2kit.training.prepare import check_backbone, choose_device, locate_data

    require_writable(args.runs_dir)
    choose_device(resolved.recipe.train.device)
    located = locate_data(resolved.task.task, resolved.task.path, args.data_root)
    spec, _ = check_backbone(resolved.recipe, resolved.task.task)
    load_tokenizer(spec, words=isinstance(resolved.task.task, Iob2Task))
    for split, found in located.items():
        messages.print(f"{split}: {'from the hub' if found is None else found.pattern}", soft_wrap=True)
    messages.print(f"backbone: {spec.source}, {len(spec.layers)} layers", soft_wrap=True)
    messages.print("dry run: nothing was trained or written")
    sys.stdout.write(resolved_yaml(resolved.recipe) + "---\n" + resolved_yaml(resolved.task.task))
    return 0


def _key(prepared: Prepared) -> str:
    """Stands for what decides the outcome; where the files lie does not."""
    from ptv2kit import __version__
    from ptv2kit.reporting.run_folder import run_key

    recipe, task = prepared.self_contained()
    return run_key(
        {
            "recipe": recipe.model_dump(mode="json", exclude={"description", "expect", "task"}),
            "task": task.model_dump(mode="json", exclude={"description": True, "licence": True, "data": {"splits"}}),
            "data": {name: split.data.fingerprint for name, split in prepared.splits.items()},
            "backbone": prepared.spec.commit,
            "ptv2kit": __version__,
        }
    )


def _write_request(
    folder: RunFolder, key: str, resolved: ResolvedRecipe, prepared: Prepared, args: argparse.Namespace
) -> None:
    """What was asked for and where it came from."""
    from ptv2kit.config.explain import explain
    from ptv2kit.config.load import resolved_yaml
    from ptv2kit.reporting.run_folder import environment

    recipe, task = prepared.self_contained()
    folder.write_text("recipe.resolved.yaml", resolved_yaml(recipe.model_copy(update={"task": "task.resolved.yaml"})))
    folder.write_text("task.resolved.yaml", resolved_yaml(task))
    folder.write_json(
        "provenance.json",
        {
            "key": key,
            "recipe": str(resolved.path),
            "task": str(resolved.task.path),
            "overrides": list(args.overrides),
            "data_root": None if args.data_root is None else str(args.data_root),
            "data": {
                name: {"source": split.data.source, "sha256": split.data.fingerprint, "rows": len(split.data.rows)}
                for name, split in prepared.splits.items()
            },
            "backbone": {"source": prepared.spec.source, "commit": prepared.spec.commit},
            "origins": {
                name: {row.key: row.origin for row in explain(section) if row.origin != "default"}
                for name, section in (("recipe", resolved), ("task", resolved.task))
            },
        },
    )
    folder.write_json("environment.json", environment())


@contextmanager
def _memory_errors(prepared: Prepared) -> Generator[None]:
    """Turn the ways in which memory runs out into one error; torch says it in a RuntimeError on the CPU."""
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        memory = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not memory and "not enough memory" not in str(error) and "can't allocate memory" not in str(error):
            raise
        recipe = prepared.recipe
        raise OutOfMemoryError(
            f"out of memory on {prepared.device}",
            hint=f"set train.micro_batch_size below {recipe.train.batch_size}"
            + (f", or lower prompt.length (now {recipe.prompt.length})" if recipe.prompt_length else "")
            + ("" if recipe.train.gradient_checkpointing else ", or set train.gradient_checkpointing: true"),
        ) from error


def _write_predictions(folder: RunFolder, prepared: Prepared, split: str, predictions: Sequence[Prediction]) -> None:
    rows = prepared.splits[split].data.rows
    lines = (prediction.to_json(rows[prediction.row].location) for prediction in predictions)
    folder.write_lines(f"predictions/{split}.jsonl", lines)


def _print_parameters(messages: Console, backbone: str, count: ParameterCount) -> None:
    messages.print(
        f"backbone {backbone}: {count.backbone:,} parameters, {'trained' if count.tuned else 'frozen'}; trained: "
        f"{count.trained:,} (prompt {count.prompt:,} + head {count.head:,}), {count.share:.2%} of the backbone",
        soft_wrap=True,
    )


@final
class _Both:
    """Passes each event to several receivers."""

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
