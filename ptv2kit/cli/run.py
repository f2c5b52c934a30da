"""`ptv2kit run`: train a recipe, or every cell of a suite."""

from __future__ import annotations

import argparse

from ptv2kit.cli.first import ask_early
from ptv2kit.cli.imports import without_collections
from ptv2kit.errors import ConfigError
from ptv2kit.files import is_folder
from ptv2kit.spec.catalog import find_file
from ptv2kit.spec.cells import load_suite
from ptv2kit.spec.load import file_kind, load_recipe


def run(args: argparse.Namespace) -> int:
    """Train the recipe or the suite that `args` names.

    Raises:
        ProjectError: see `ptv2kit/errors.py`; its exit code is the command's.
    """
    args.file = find_file(args.file, ["recipe", "suite"])
    file, folder = args.file, None
    if args.accept and not args.resume:
        raise ConfigError("--accept is for --resume")
    if is_folder(file):
        if not args.resume:
            raise ConfigError(f"'{file}' is a folder", hint="give a recipe, or --resume to resume a run")
        folder, file = file, file / "recipe.resolved.yaml"
    kind = file_kind(file)
    if kind == "task":
        hint = f"ptv2kit new recipe {file} writes a recipe for it; 'ptv2kit preview {file}' shows its rows"
        raise ConfigError(f"'{file}' is a task, which a recipe trains", hint=hint)
    if kind == "suite":
        suite = load_suite(file, args.overrides)
        if args.only:
            suite = suite.only(args.only)
        # Only now: torch takes seconds, and a mistake is shown before.
        with without_collections("ptv2kit.cli.run_suite"):
            from ptv2kit.cli.run_suite import run_suite

        return run_suite(args, suite)
    if args.only or args.jobs != "auto" or args.engine != "local" or args.address is not None or args.gpu is not None:
        raise ConfigError(
            "--only, --jobs, --engine, --address and --gpu are for suites",
            hint="distributed.gpus spreads one run over GPUs; 'ptv2kit plan --gpu NAME' plans it",
        )
    resolved = load_recipe(file, args.overrides)
    ask_early(resolved, data=args.data_root is None)
    with without_collections("ptv2kit.cli.run_recipe"):
        from ptv2kit.cli.run_recipe import run_recipe

    return run_recipe(args, resolved, folder)
