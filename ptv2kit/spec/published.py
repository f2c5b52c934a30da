"""Values that a suite's cells should reach, from a table: `expect: {file: paper.csv, table: table2}`."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from ptv2kit.errors import ConfigError, Problem
from ptv2kit.spec.merge import Merged, Origin, Override
from ptv2kit.spec.yaml import KeyPath, Position, scalar

_TABLE = "table"
_NUMBERS = ("value", "tolerance")
_OF_EXPECTATION = ("metric", "split", *_NUMBERS, "source", "origin")


def with_published(merged: Merged) -> Merged:
    """A suite's values with a rule for each row of the table that its `expect` names; without one, as they are.

    The columns metric, split, value, tolerance, source and origin are what is expected; `table` chooses the rows; every
    other column that is not empty is a condition of the rule's `where`, such as `case`, `task` or `prompt.length`.

    Raises:
        ConfigError: the file cannot be read, a row has no metric or no number, or the table has no row.
    """
    written = merged.values.get("expect")
    if not isinstance(written, dict):
        return merged
    named = cast("dict[str, Any]", written)
    file, table = named.get("file"), named.get(_TABLE)
    if not isinstance(file, str) or not isinstance(table, str):
        return merged  # validation says it
    place = merged.place(("expect", "file"))
    path = (place.folder if isinstance(place, Override) else Path(place.path).parent) / file
    rules: list[Any] = [*(merged.values.get("rules") or [])]
    keys: dict[KeyPath, Origin] = dict(merged.keys)
    places: dict[KeyPath, Origin] = dict(merged.places)
    found = 0
    for line, row in _rows(path, place):
        if row.get(_TABLE) != table:
            continue
        found += 1
        origin = Position(str(path), line, 1, ",".join(row.values()))
        rules.append(_rule(row, origin))
        keys["rules", len(rules) - 1] = places["rules", len(rules) - 1] = origin
    if not found:
        raise ConfigError([merged.place(("expect", _TABLE)).problem(f"'{path}' has no row whose table is '{table}'")])
    return replace(merged, values={**merged.values, "rules": rules}, keys=keys, places=places)


def _rows(path: Path, place: Origin) -> list[tuple[int, dict[str, str]]]:
    """The rows of the file, by column, each with its line."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, restval="")
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError([place.problem(f"'{path}' cannot be read: {reason}")]) from error
    lacking = [name for name in (_TABLE, "metric", "value") if name not in (reader.fieldnames or ())]
    if lacking:
        message = f"expected a column '{lacking[0]}', found {', '.join(reader.fieldnames or ()) or 'no column'}"
        raise ConfigError(message, location=f"{path}:1")
    long = next((line for line, row in rows if None in row), None)
    if long is not None:
        raise ConfigError("the row has more cells than there are columns", location=f"{path}:{long}")
    return rows


def _rule(row: dict[str, str], origin: Position) -> dict[str, Any]:
    """The rule of a row; what is empty is left out."""
    expected: dict[str, Any] = {name: row[name] for name in _OF_EXPECTATION if row.get(name)}
    for name in _NUMBERS:
        if name not in expected and name != "value":
            continue
        number = scalar(row[name])
        if not isinstance(number, int | float) or isinstance(number, bool):
            raise ConfigError([Problem(f"'{name}' must be a number. Got {row[name]!r}", location=str(origin))])
        expected[name] = float(number)
    where = {name: scalar(value) for name, value in row.items() if value and name not in (_TABLE, *_OF_EXPECTATION)}
    return {"where": where, "expect": [expected]}
