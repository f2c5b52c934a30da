"""`ptv2kit run`: train a recipe."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptv2kit.cli.data_root import add_data_root
from ptv2kit.cli.subject import silence_libraries
from ptv2kit.errors import ExpectationMissedError, InterruptedRunError, Problem

if TYPE_CHECKING:
    from rich.console import Console

    from ptv2kit.config.load import ResolvedRecipe
    from ptv2kit.reporting.results import Outcome
    from ptv2kit.reporting.run_folder import RunFolder

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

    from ptv2kit.cli.train import train_recipe

    folder, outcome = train_recipe(
        resolved,
        data_root=args.data_root,
        runs_dir=args.runs_dir,
        messages=messages,
        overrides=args.overrides,
    )
    _report(outcome, folder, as_json=args.json, quiet=args.quiet)
    return 0


def _report(outcome: Outcome, folder: RunFolder, *, as_json: bool, quiet: bool) -> None:
    """Print the result, and end with an error if the run was interrupted or missed what it should reach."""
    from rich.console import Console

    from ptv2kit.reporting.console import duration, scores_table

    if as_json:
        sys.stdout.write(json.dumps({"run": str(folder.path), **outcome.to_json()}, indent=2) + "\n")
    else:
        console = Console(highlight=False, markup=False, emoji=False)
        for item in outcome.tasks:
            name = outcome.recipe.recipe if len(outcome.tasks) == 1 else item.task.task
            for split, scores in item.scores.items():
                console.print(scores_table(scores, f"{name}: {split}, epoch {item.best_epoch}"))
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
    from ptv2kit.models.backbones import find_backbone, load_tokenizer
    from ptv2kit.reporting.run_folder import require_writable
    from ptv2kit.training.initial import read_initial
    from ptv2kit.training.prepare import check_backbone, choose_device, locate_data

    require_writable(args.runs_dir)
    choose_device(resolved.recipe.train.device)
    for task in resolved.tasks:
        located = locate_data(task.task, task.path, args.data_root)
        spec, _ = check_backbone(resolved.recipe, task.task)
        load_tokenizer(spec, words=isinstance(task.task, Iob2Task))
        for split, found in located.items():
            name = split if len(resolved.tasks) == 1 else f"{task.task.task} {split}"
            messages.print(f"{name}: {'from the hub' if found is None else found.pattern}", soft_wrap=True)
    spec = find_backbone(resolved.recipe.backbone)
    read_initial(resolved.recipe, spec)
    messages.print(f"backbone: {spec.source}, {len(spec.layers)} layers", soft_wrap=True)
    messages.print("dry run: nothing was trained or written")
    sys.stdout.write("---\n".join(map(resolved_yaml, [resolved.recipe, *(task.task for task in resolved.tasks)])))
    return 0
