"""`ptv2kit validate`: check recipes and tasks without running anything."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ptv2kit.errors import ConfigError, Problem

EXAMPLES = """examples:
  ptv2kit validate recipes/quickstart.yaml
  ptv2kit validate recipes/*.yaml tasks/*.yaml
  ptv2kit validate recipes/quickstart.yaml --json
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "validate",
        help="check recipes and tasks",
        description="Check recipe and task files and print every problem of all of them. Nothing is run.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="recipe or task (YAML)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    parser.set_defaults(handler=run, trailing="files")


def run(args: argparse.Namespace) -> int:
    """Validate each file.

    Raises:
        ConfigError: with the problems of all files.
    """
    from ptv2kit.config.load import ResolvedRecipe, load_file

    problems: list[Problem] = []
    reports: list[dict[str, Any]] = []
    for path in map(Path, args.files):
        found: tuple[Problem, ...] = ()
        kind = ""
        try:
            kind = "recipe" if isinstance(load_file(path), ResolvedRecipe) else "task"
        except ConfigError as error:
            found = error.problems
        if not found and not args.json:
            print(f"{path}: ok ({kind})")
        problems += found
        reports.append(
            {
                "file": str(path),
                "ok": not found,
                "kind": kind,
                "problems": [
                    {"location": problem.location, "message": problem.message, "hint": problem.hint}
                    for problem in found
                ],
            }
        )
    if args.json:
        print(json.dumps({"ok": not problems, "files": reports}, indent=2))
        return ConfigError.exit_code if problems else 0
    if problems:
        raise ConfigError(dict.fromkeys(problems))
    return 0
