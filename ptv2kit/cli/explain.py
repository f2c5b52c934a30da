"""`ptv2kit explain`: every resolved value and where it came from."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptv2kit.cli.output import show
from ptv2kit.errors import ConfigError

if TYPE_CHECKING:
    from ptv2kit.config.cells import ResolvedSuite
    from ptv2kit.config.load import ResolvedRecipe, ResolvedTask

EXAMPLES = """examples:
  ptv2kit explain recipes/quickstart.yaml
  ptv2kit explain recipes/quickstart.yaml train
  ptv2kit explain recipes/quickstart.yaml train.learning_rate train.learning_rate=1e-3
  ptv2kit explain tasks/rte.yaml input --json
  ptv2kit explain --diff recipes/mini-rte.yaml recipes/mini-cb.yaml
  ptv2kit explain --diff runs/quickstart/20261123-130443-1f2e3d4c recipes/quickstart.yaml train
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "explain",
        help="show each value and where it came from",
        description="Show the resolved values of a recipe, task or suite and where each one came from: a file's line, "
        "the command line, or the default.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="recipe, task or suite: a file or a name; with --diff a run's folder too",
    )
    parser.add_argument("words", nargs="*", metavar="key | key=value", help="what to show; what to replace first")
    parser.add_argument(
        "--diff",
        action="store_true",
        help="show what differs in a second FILE, which stands after the first; key=value replaces in the second",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of columns")
    parser.set_defaults(handler=run, trailing="words")


def run(args: argparse.Namespace) -> int:
    """Print the values.

    Raises:
        ConfigError: the file is not valid, or there is no such key.
    """
    from ptv2kit.config.catalog import find_file
    from ptv2kit.config.explain import explain
    from ptv2kit.config.load import load_file

    args.file = find_file(args.file, ["recipe", "task", "suite"])
    if args.diff:
        return _print_differences(args)
    overrides = [word for word in args.words if "=" in word]
    keys = [word for word in args.words if "=" not in word] or [""]
    resolved = load_file(args.file, overrides)
    rows = [row for key in keys for row in explain(resolved, key)]
    if args.json:
        show(json.dumps({row.key: {"value": row.value, "origin": row.origin} for row in rows}, indent=2))
        return 0
    values = [json.dumps(row.value, ensure_ascii=False) for row in rows]
    key_width = max(len(row.key) for row in rows)
    value_width = min(40, max(len(value) for value in values))
    for row, value in zip(rows, values, strict=True):
        show(f"{row.key:<{key_width}}  {value:<{value_width}}  {row.origin}")
    return 0


def _print_differences(args: argparse.Namespace) -> int:
    """Print the keys with different values, both values, and where each came from."""
    from ptv2kit.config.explain import Explained, differences

    files = [word for word in args.words if "=" not in word]
    if not files:
        raise ConfigError("--diff needs two files", hint="ptv2kit explain --diff A.yaml B.yaml")
    one = _load(args.file, [])
    other = _load(Path(files[0]), [word for word in args.words if "=" in word])
    pairs = [pair for key in files[1:] or [""] for pair in differences(one, other, key)]

    def plain(row: Explained | None) -> dict[str, Any]:
        return {"value": None, "origin": "absent"} if row is None else {"value": row.value, "origin": row.origin}

    if args.json:
        show(json.dumps({pair.key: [plain(pair.one), plain(pair.other)] for pair in pairs}, indent=2))
        return 0
    for pair in pairs:
        show(pair.key)
        for sign, row in (("-", pair.one), ("+", pair.other)):
            value = "" if row is None else json.dumps(row.value, ensure_ascii=False)
            show(f"  {sign} {value:<40}  {plain(row)['origin']}")
    if not pairs:
        show("no value differs")
    return 0


def _load(path: Path, overrides: list[str]) -> ResolvedRecipe | ResolvedTask | ResolvedSuite:
    """A file, or the recipe of a run's folder."""
    from ptv2kit.config.load import load_file

    return load_file(path / "recipe.resolved.yaml" if path.is_dir() else path, overrides)
