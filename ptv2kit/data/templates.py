"""A row's texts: templates filled with its columns, and columns looked up from others."""

from __future__ import annotations

from collections.abc import Mapping

from ptv2kit.config.task import Lookup
from ptv2kit.config.template import Template
from ptv2kit.data.rows import Row
from ptv2kit.errors import DataError, did_you_mean


def render(template: Template, row: Row) -> str:
    """The template with the row's texts in place of the columns. Braces in the row's texts mean nothing.

    Raises:
        DataError: a column is missing or holds no text.
    """
    return "".join(row.text(part) if is_column else part for is_column, part in template.parts)


def with_derived(row: Row, lookups: Mapping[str, Lookup]) -> Row:
    """The row with the columns of `derive`. Each reads the row's own columns; booleans read `true` and `false`.

    Raises:
        DataError: a column is missing or holds no text, its value is not in the map, or the new column already exists.
    """
    if not lookups:
        return row
    derived: dict[str, str] = {}
    for name, lookup in lookups.items():
        if name in row.values:
            raise DataError(
                f"column '{name}' of 'derive' is already a column of the data",
                location=row.location,
                hint="give the derived column another name",
            )
        value = row.value(lookup.column)
        key = str(value).lower() if isinstance(value, bool) else row.text(lookup.column)
        if key not in lookup.map:
            raise DataError(
                f"value '{key}' of column '{lookup.column}' is not in 'derive.{name}.map', "
                f"which has {', '.join(repr(known) for known in lookup.map)}",
                location=row.location,
                hint=did_you_mean(key, list(lookup.map)),
            )
        derived[name] = lookup.map[key]
    return Row({**row.values, **derived}, row.location)
