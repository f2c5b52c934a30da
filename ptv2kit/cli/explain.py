"""`ptv2kit explain`: every resolved value and where it came from."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ptv2kit.cli.output import show
from ptv2kit.errors import ConfigError
from ptv2kit.spec.catalog import find_file
from ptv2kit.spec.cells import ResolvedSuite, load_file
from ptv2kit.spec.explain import Explained, differences, explain
from ptv2kit.spec.load import ResolvedRecipe, ResolvedTask


def run(args: argparse.Namespace) -> int:
    """Print the values.

    Raises:
        ConfigError: the file is not valid, or there is no such key.
    """
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
    return load_file(path / "recipe.resolved.yaml" if path.is_dir() else path, overrides)
