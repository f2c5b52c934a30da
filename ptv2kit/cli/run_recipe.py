"""`ptv2kit run RECIPE`: train one recipe, in this process or in several, and show what came out."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ptv2kit.cli.output import show
from ptv2kit.cli.plan import print_summary
from ptv2kit.cli.terminal import open_console, print_table
from ptv2kit.errors import ConfigError, ExpectationMissedError, Problem
from ptv2kit.models.backbones import find_backbone
from ptv2kit.models.checkpoints import load_tokenizer, silence_libraries
from ptv2kit.spec.load import ResolvedRecipe, resolved_yaml
from ptv2kit.training.console import duration, scores_table
from ptv2kit.training.folder import RunFolder, require_writable
from ptv2kit.training.initial import read_initial
from ptv2kit.training.launch import end_with_parent, launch, launch_machines, local_processes
from ptv2kit.training.prepare import choose_device, locate_data
from ptv2kit.training.processes import workers
from ptv2kit.training.results import Outcome
from ptv2kit.training.resume import is_finished, unfinished_run
from ptv2kit.training.run import Resume, train_recipe
from ptv2kit.training.signals import STOPPED

if TYPE_CHECKING:
    from rich.console import Console


def run_recipe(args: argparse.Namespace, resolved: ResolvedRecipe, folder: Path | None) -> int:
    """Train a recipe, or print it for `--dry-run`.

    Args:
        folder: of the run to resume; None: the newest unfinished one where `--resume` asks for it.

    Raises:
        ProjectError: see `ptv2kit/errors.py`; its exit code is the command's.
    """
    messages = open_console(stderr=True, quiet=args.quiet)
    silence_libraries(quiet=args.quiet)
    if args.dry_run:
        return _dry_run(resolved, args, messages)

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
    """The run to resume."""
    if folder is None:
        folder = unfinished_run(args.runs_dir / resolved.recipe.recipe)
    elif is_finished(folder) and "train.epochs" not in args.accept:
        raise ConfigError(
            f"the run '{folder}' has ended", hint="--accept train.epochs train.epochs=N continues it for more epochs"
        )
    return Resume(folder, tuple(args.accept))


def _report(outcome: Outcome, folder: RunFolder, *, as_json: bool, quiet: bool) -> None:
    """Print the result, and end with an error if the run was interrupted or missed what it should reach."""
    if as_json:
        show(json.dumps({"run": str(folder.path), **outcome.to_json()}, indent=2) + "\n", end="")
    else:
        console = open_console()
        for item in outcome.tasks:
            name = outcome.recipe.recipe if len(outcome.tasks) == 1 else item.task.task
            for split, scores in item.scores.items():
                print_table(console, scores_table(scores, f"{name}: {split}, epoch {item.best_epoch:g}"))
        if not quiet:
            console.print(f"{outcome.epochs} epochs in {duration(outcome.seconds)}")
        console.print(f"run: {folder.path}", soft_wrap=True)
    if outcome.status in STOPPED:
        best = f"the best prompt so far is in '{folder.path / 'prompt'}'"
        how = outcome.status.replace("_", " ")
        raise STOPPED[outcome.status](f"{how}; {best}", hint=f"resume: ptv2kit run {folder.path} --resume")
    missed = outcome.missed()
    if missed:
        raise ExpectationMissedError([Problem(sentence) for sentence in missed])


def _dry_run(resolved: ResolvedRecipe, args: argparse.Namespace, messages: Console) -> int:
    """Check configuration, files and backbone; print the resolved YAML of recipe and task."""
    require_writable(args.runs_dir)
    choose_device(resolved.recipe.train.device)
    spec = find_backbone(resolved.recipe.backbone_settings, planning=True)
    for task in resolved.tasks:
        located = locate_data(task.task, task.path, args.data_root)
        if spec.at_hand:
            load_tokenizer(spec, words=task.task.reads_words)
        for split, found in located.items():
            name = split if len(resolved.tasks) == 1 else f"{task.task.task} {split}"
            messages.print(f"{name}: {'from the hub' if found is None else found.pattern}", soft_wrap=True)
    read_initial(resolved.recipe, spec)
    messages.print(f"backbone: {spec.source}, {spec.depth} layers", soft_wrap=True)
    print_summary(messages, resolved, spec)
    messages.print("dry run: nothing was trained or written")
    show("---\n".join(map(resolved_yaml, [resolved.recipe, *(task.task for task in resolved.tasks)])), end="")
    return 0
