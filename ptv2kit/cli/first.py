"""What a verb looks up before its module, and with it torch, is loaded: a wrong name is said at once."""

from __future__ import annotations

import argparse
from pathlib import Path

from ptv2kit.errors import ConfigError
from ptv2kit.exchange.hub import find_run
from ptv2kit.files import is_folder
from ptv2kit.machine import ask_hub
from ptv2kit.spec.catalog import find_file
from ptv2kit.spec.cells import ResolvedSuite, load_file
from ptv2kit.spec.layers import OWN_BACKBONES
from ptv2kit.spec.load import ResolvedRecipe, ResolvedTask, file_kind, load_recipe
from ptv2kit.spec.sources import HubSource


def ask_early(resolved: ResolvedRecipe | ResolvedTask, *, data: bool) -> None:
    """Ask the hub while libraries are loaded, if a backbone, or with `data` a task's rows, may have to come from it.

    Args:
        resolved: a recipe, or a task alone.
        data: whether rows are needed and no data root is given, which may have them: then the hub is asked once they
            are found to be missing.
    """
    recipe = isinstance(resolved, ResolvedRecipe)
    tasks = resolved.tasks if recipe else (resolved,)
    sources = [each.task.data for each in tasks] if data else []
    needed = [source.path for source in sources if isinstance(source, HubSource)]
    if recipe and resolved.recipe.backbone.name not in OWN_BACKBONES:
        needed.append(resolved.recipe.backbone.name)
    if any(not is_folder(Path(name)) for name in needed):
        ask_hub()


def find_run_folder(args: argparse.Namespace) -> None:
    """Find the folder of the run, as `args.folder`.

    Raises:
        ConfigError: there is no such run.
    """
    args.folder = find_run(args.run)


def read_recipe(args: argparse.Namespace) -> None:
    """Load the recipe of `plan`, as `args.resolved`.

    Raises:
        ConfigError: the file is wrong, or of another kind.
    """
    args.file = find_file(args.file, ["recipe", "suite"])
    kind = file_kind(args.file)
    if kind != "recipe":
        hint = f"ptv2kit run {args.file} --dry-run " if kind == "suite" else "give a recipe"
        raise ConfigError(f"'{args.file}' is a {kind}, and plan takes a recipe", hint=hint)
    args.resolved = load_recipe(args.file, args.overrides)
    ask_early(args.resolved, data=False)


def read_task(args: argparse.Namespace) -> None:
    """Load the task or recipe of `preview`, as `args.resolved`.

    Raises:
        ConfigError: the file is wrong, or a suite.
    """
    args.resolved = load_file(find_file(args.file, ["task", "recipe"]))
    if isinstance(args.resolved, ResolvedSuite):
        raise ConfigError("a suite has no rows", location=str(args.file), hint="give a task, or one of its recipes")
    ask_early(args.resolved, data=args.data_root is None)
