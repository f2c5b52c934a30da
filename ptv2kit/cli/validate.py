"""`ptv2kit validate`: check recipes, tasks and suites, and with `--data` every row, without training anything."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ptv2kit.cli.first import ask_early
from ptv2kit.cli.imports import without_collections
from ptv2kit.cli.output import show
from ptv2kit.errors import ConfigError, DataError, Problem
from ptv2kit.spec.catalog import find_file
from ptv2kit.spec.cells import ResolvedSuite, load_file
from ptv2kit.spec.load import ResolvedRecipe


def run(args: argparse.Namespace) -> int:
    """Validate each file.

    Raises:
        ConfigError: with the problems of all files.
        DataError: with the problems of all rows; only if the files are without problems.
    """
    problems: list[Problem] = []
    bad_rows: list[Problem] = []
    reports: list[dict[str, Any]] = []
    overrides = [word for word in args.files if "=" in word]
    names = [Path(word) for word in args.files if "=" not in word]
    if not names:
        raise ConfigError("there is no file to check", hint="ptv2kit validate recipes/quickstart.yaml train.epochs=3")
    for path in (find_file(name, ["recipe", "suite", "task"]) for name in names):
        found: tuple[Problem, ...] = ()
        kind = ""
        report: dict[str, Any] = {}
        try:
            resolved = load_file(path, overrides)
            suite = isinstance(resolved, ResolvedSuite)
            kind = "suite" if suite else "recipe" if isinstance(resolved, ResolvedRecipe) else "task"
            if not args.json:
                show(f"{path}: ok ({kind})")
            if args.data and isinstance(resolved, ResolvedSuite):
                hint = "give its recipes"
                raise ConfigError("--data checks the rows of recipes and tasks", location=str(path), hint=hint)
            if args.data and not isinstance(resolved, ResolvedSuite):
                ask_early(resolved, data=args.data_root is None)
                with without_collections("ptv2kit.cli.inspect_rows"):  # a tokenizer needs transformers, and seconds
                    from ptv2kit.cli.inspect_rows import inspect_rows

                inspected = inspect_rows(resolved, args)
                report = {"tasks": [each.to_json() for each in inspected]} if len(inspected) > 1 else {}
                report |= inspected[0].to_json() if len(inspected) == 1 else {}
                for each in inspected:
                    bad_rows += each.bad_rows()
                    if not args.json:
                        each.show(named=len(inspected) > 1)
        except ConfigError as error:
            found = error.problems
            problems += found
        except DataError as error:
            found = error.problems
            bad_rows += found
        lines = [{"location": item.location, "message": item.message, "hint": item.hint} for item in found]
        tasks = report.get("tasks", [report])
        faulty = bool(found) or any(split["problems"] for task in tasks for split in task.get("splits", []))
        reports.append({"file": str(path), "ok": not faulty, "kind": kind, "problems": lines, **report})
    if args.json:
        show(json.dumps({"ok": not problems and not bad_rows, "files": reports}, indent=2))
        return ConfigError.exit_code if problems else DataError.exit_code if bad_rows else 0
    if problems:
        raise ConfigError(dict.fromkeys([*problems, *bad_rows]))
    if bad_rows:
        raise DataError(dict.fromkeys(bad_rows))
    return 0
