"""`ptv2kit run`: train a recipe, or every cell of a suite."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ptv2kit.cli.data_root import add_data_root
from ptv2kit.cli.output import show
from ptv2kit.cli.signals import STOPPED
from ptv2kit.cli.subject import silence_libraries
from ptv2kit.errors import ConfigError, ExpectationMissedError, Problem
from ptv2kit.files import is_folder

if TYPE_CHECKING:
    from rich.console import Console

    from ptv2kit.cli.train import Resume
    from ptv2kit.config.load import ResolvedRecipe
    from ptv2kit.reporting.results import Outcome
    from ptv2kit.reporting.run_folder import RunFolder

EXAMPLES = """examples:
  ptv2kit run recipes/quickstart.yaml
  ptv2kit run recipes/mini-wikigold.yaml --data-root data train.seed=12 prompt.length=64
  ptv2kit run recipes/mini-wikigold.yaml --data-root data --dry-run
  ptv2kit run recipes/suites/quickstart-search.yaml search.trials=4
  ptv2kit run recipes/suites/quickstart-search.yaml --jobs 2
  ptv2kit run recipes/mini-wikigold.yaml --data-root data --resume
  ptv2kit run runs/mini-wikigold/20261123-130443-1f2e3d4c --resume --accept train.epochs train.epochs=30
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "run",
        help="train a recipe, or all runs of a suite",
        description="Train the prompt of a recipe, score it, and keep everything in a new folder runs/<recipe>/…. Of a "
        "suite, train every cell or search, and keep all in runs/<suite>; run it again to go on.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="recipe or suite: a file, or a name (ptv2kit ls recipes)"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="replace a value of recipe or cells")
    add_data_root(parser)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), metavar="DIR", help="default: runs")
    parser.add_argument(
        "--dry-run", action="store_true", help="check all but rows and weights, print the resolved YAML"
    )
    parser.add_argument("--json", action="store_true", help="print results.json instead of the table")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr, only errors")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the newest unfinished run of the recipe, or with the run whose folder FILE is",
    )
    parser.add_argument(
        "--accept",
        action="append",
        default=[],
        metavar="KEY",
        help="with --resume: a key that may have changed since the run was started, such as train.epochs",
    )
    suites = parser.add_argument_group("of a suite")
    suites.add_argument(
        "--jobs",
        type=_jobs,
        default="auto",
        metavar="N|auto",
        help="cells or trials at one time, a process each; auto: one for each visible GPU, 1 without any (default)",
    )
    suites.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="local: processes of this machine (default); ray: tasks of a Ray cluster",
    )
    suites.add_argument(
        "--address", metavar="ADDRESS", help="with --engine ray: of the cluster, auto or HOST:PORT (default: Ray's)"
    )
    suites.add_argument("--gpu", metavar="NAME", help="with --dry-run: plan hours for this GPU, as 'ptv2kit plan'")
    parser.set_defaults(handler=run, trailing="overrides")


def _jobs(text: str) -> int | Literal["auto"]:
    """The value of `--jobs`."""
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, or auto. Got {text!r}")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Train the recipe or the suite that `args` names.

    Raises:
        ProjectError: see `ptv2kit/errors.py`; its exit code is the command's.
    """
    from ptv2kit.config.catalog import find_file
    from ptv2kit.config.load import file_kind, load_recipe
    from ptv2kit.reporting.console import open_console

    args.file = find_file(args.file, ["recipe", "suite"])
    file, folder = args.file, None
    if args.accept and not args.resume:
        raise ConfigError("--accept is for --resume")
    if is_folder(file):
        if not args.resume:
            raise ConfigError(f"'{file}' is a folder", hint="give a recipe, or --resume to go on with a run")
        folder, file = file, file / "recipe.resolved.yaml"
    kind = file_kind(file)
    if kind == "task":
        hint = f"ptv2kit new recipe {file} writes a recipe for it; 'ptv2kit preview {file}' shows its rows"
        raise ConfigError(f"'{file}' is a task, which a recipe trains", hint=hint)
    if kind == "suite":
        from ptv2kit.cli.run_suite import run_suite

        return run_suite(args)
    if args.jobs != "auto" or args.engine != "local" or args.address is not None or args.gpu is not None:
        raise ConfigError(
            "--jobs, --engine, --address and --gpu are for suites",
            hint="distributed.gpus spreads one run over GPUs; 'ptv2kit plan --gpu NAME' plans it",
        )
    resolved = load_recipe(file, args.overrides)

    messages = open_console(stderr=True, quiet=args.quiet)
    silence_libraries()
    if args.dry_run:
        return _dry_run(resolved, args, messages)

    from ptv2kit.cli.launch import end_with_parent, launch, launch_machines, local_processes
    from ptv2kit.cli.train import train_recipe
    from ptv2kit.training.distributed import workers

    found = workers()
    if found is None:
        hostfile = resolved.recipe.distributed.hostfile
        if hostfile is not None:
            return launch_machines(resolved.path.parent / hostfile, args.command_line)
        count = local_processes(resolved.recipe)
        if count > 1:
            return launch(count, args.command_line)
    end_with_parent()
    run_folder, outcome = train_recipe(
        resolved,
        data_root=args.data_root,
        runs_dir=args.runs_dir,
        messages=messages,
        overrides=args.overrides,
        resume=_find_run(folder, args, resolved) if args.resume else None,
        found=found,
    )
    if found is not None and found.rank > 0:
        return 0
    _report(outcome, run_folder, as_json=args.json, quiet=args.quiet)
    return 0


def _find_run(folder: Path | None, args: argparse.Namespace, resolved: ResolvedRecipe) -> Resume:
    """The run that shall go on."""
    from ptv2kit.cli.resume import is_finished, unfinished_run
    from ptv2kit.cli.train import Resume

    if folder is None:
        folder = unfinished_run(args.runs_dir / resolved.recipe.recipe)
    elif is_finished(folder) and "train.epochs" not in args.accept:
        raise ConfigError(
            f"the run '{folder}' has ended", hint="--accept train.epochs train.epochs=N lets it go on for more epochs"
        )
    return Resume(folder, tuple(args.accept))


def _report(outcome: Outcome, folder: RunFolder, *, as_json: bool, quiet: bool) -> None:
    """Print the result, and end with an error if the run was interrupted or missed what it should reach."""

    from ptv2kit.reporting.console import duration, open_console, scores_table

    if as_json:
        show(json.dumps({"run": str(folder.path), **outcome.to_json()}, indent=2) + "\n", end="")
    else:
        console = open_console()
        for item in outcome.tasks:
            name = outcome.recipe.recipe if len(outcome.tasks) == 1 else item.task.task
            for split, scores in item.scores.items():
                console.print(scores_table(scores, f"{name}: {split}, epoch {item.best_epoch}"))
        if not quiet:
            console.print(f"{outcome.epochs} epochs in {duration(outcome.seconds)}")
        console.print(f"run: {folder.path}", soft_wrap=True)
    if outcome.status in STOPPED:
        best = f"the best prompt so far is in '{folder.path / 'prompt'}'"
        how = outcome.status.replace("_", " ")
        raise STOPPED[outcome.status](f"{how}; {best}", hint=f"go on: ptv2kit run {folder.path} --resume")
    missed = outcome.missed()
    if missed:
        raise ExpectationMissedError([Problem(sentence) for sentence in missed])


def _dry_run(resolved: ResolvedRecipe, args: argparse.Namespace, messages: Console) -> int:
    """Check configuration, files and backbone; print the resolved YAML of recipe and task."""
    from ptv2kit.cli.plan import print_summary
    from ptv2kit.config.load import resolved_yaml
    from ptv2kit.config.task import Iob2Task
    from ptv2kit.models.backbones import find_backbone, load_tokenizer
    from ptv2kit.reporting.run_folder import require_writable
    from ptv2kit.training.initial import read_initial
    from ptv2kit.training.prepare import choose_device, locate_data

    require_writable(args.runs_dir)
    choose_device(resolved.recipe.train.device)
    spec = find_backbone(resolved.recipe.backbone, planning=True)
    for task in resolved.tasks:
        located = locate_data(task.task, task.path, args.data_root)
        if spec.at_hand:
            load_tokenizer(spec, words=isinstance(task.task, Iob2Task))
        for split, found in located.items():
            name = split if len(resolved.tasks) == 1 else f"{task.task.task} {split}"
            messages.print(f"{name}: {'from the hub' if found is None else found.pattern}", soft_wrap=True)
    read_initial(resolved.recipe, spec)
    messages.print(f"backbone: {spec.source}, {len(spec.layers)} layers", soft_wrap=True)
    print_summary(messages, resolved, spec)
    messages.print("dry run: nothing was trained or written")
    show("---\n".join(map(resolved_yaml, [resolved.recipe, *(task.task for task in resolved.tasks)])), end="")
    return 0
