"""`ptv2kit explain`: every resolved value and where it came from."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

EXAMPLES = """examples:
  ptv2kit explain recipes/quickstart.yaml
  ptv2kit explain recipes/quickstart.yaml train
  ptv2kit explain recipes/quickstart.yaml train.learning_rate train.learning_rate=1e-3
  ptv2kit explain tasks/rte.yaml input --json
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
    parser.add_argument("file", type=Path, metavar="FILE", help="recipe, task or suite (YAML)")
    parser.add_argument("words", nargs="*", metavar="key | key=value", help="what to show; what to replace first")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of columns")
    parser.set_defaults(handler=run, trailing="words")


def run(args: argparse.Namespace) -> int:
    """Print the values.

    Raises:
        ConfigError: the file is not valid, or there is no such key.
    """
    from ptv2kit.config.explain import explain
    from ptv2kit.config.load import load_file

    overrides = [word for word in args.words if "=" in word]
    keys = [word for word in args.words if "=" not in word] or [""]
    resolved = load_file(args.file, overrides)
    rows = [row for key in keys for row in explain(resolved, key)]
    if args.json:
        print(json.dumps({row.key: {"value": row.value, "origin": row.origin} for row in rows}, indent=2))
        return 0
    values = [json.dumps(row.value, ensure_ascii=False) for row in rows]
    key_width = max(len(row.key) for row in rows)
    value_width = min(40, max(len(value) for value in values))
    for row, value in zip(rows, values, strict=True):
        print(f"{row.key:<{key_width}}  {value:<{value_width}}  {row.origin}")
    return 0
