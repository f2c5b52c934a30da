"""One row of a data set, and where it came from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, cast, final

from ptv2kit.errors import DataError, did_you_mean

# Python refuses to convert thousands of digits, and no index has as many as these.
_MOST_DIGITS = 18
LONGEST_TEXT = 1_000_000
"""Characters; a long novel. A tokenizer needs about a hundred bytes for each."""
MOST_WORDS = 250_000
"""Words of one row."""


Fault = Callable[[DataError], None]
"""Called with the error of a row that cannot be read; raises to end the reading."""


def raise_fault(error: DataError) -> NoReturn:
    """End the reading at the first malformed row."""
    raise error


@final
@dataclass(frozen=True, slots=True)
class Row:
    """The values of one row.

    Args:
        values: column to value; values may be nested.
        location: `path:line` of a file of lines, else `path: row 7`; both count from 1.
    """

    values: Mapping[str, Any]
    location: str

    def value(self, column: str) -> Any:
        """The value of `column`; `a.b` is field `b` of column `a` unless a column is called `a.b`, `a.0` is an item,
        `a.*.b` the list of all items' fields `b`.

        Raises:
            DataError: there is no such column.
        """
        if column in self.values:
            return self.values[column]
        try:
            return _descend(self.values, column)
        except KeyError:
            hint = did_you_mean(column, _columns(self.values))
            raise DataError(f"no column '{column}'", location=self.location, hint=hint) from None

    def text(self, column: str) -> str:
        """The text of `column`; numbers become their digits.

        Raises:
            DataError: there is no such column, or it holds neither text nor a finite number.
        """
        value = self.value(column)
        if isinstance(value, str):
            if len(value) > LONGEST_TEXT:
                message = f"column '{column}' holds {len(value):,} characters. Expected {LONGEST_TEXT:,} or fewer"
                raise DataError(message, location=self.location, hint="cut it into several rows")
            return value
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        if is_integer or (isinstance(value, float) and math.isfinite(value)):
            return str(value)
        raise DataError(f"column '{column}' must hold text. Got {_kind(value)}", location=self.location)

    def integer(self, column: str) -> int:
        """The whole number in `column`, which may be written as text.

        Raises:
            DataError: there is no such column, or it holds no whole number from 0 on.
        """
        value = self.value(column)
        if isinstance(value, str) and value.strip().isdecimal() and len(value.strip()) <= _MOST_DIGITS:
            return int(value)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        raise DataError(
            f"column '{column}' must hold a whole number from 0 on. Got {_kind(value)}", location=self.location
        )

    def items(self, column: str) -> list[Any]:
        """The list in `column`, which may be empty.

        Raises:
            DataError: there is no such column, or it holds no list.
        """
        value = self.value(column)
        if not isinstance(value, list):
            raise DataError(f"column '{column}' must hold a list. Got {_kind(value)}", location=self.location)
        return cast(list[Any], value)

    def texts(self, column: str) -> list[str]:
        """The texts of the list in `column`, which may be empty; numbers become their digits.

        Raises:
            DataError: there is no such column, or it holds no list, or an item is neither text nor a finite number.
        """
        return [Row({column: item}, self.location).text(column) for item in self.items(column)]

    def words(self, column: str) -> list[str]:
        """The words of `column`.

        Raises:
            DataError: there is no such column, or it does not hold a list of one text or more.
        """
        value = self.value(column)
        if not isinstance(value, list) or not value:
            raise DataError(f"column '{column}' must hold a list of words. Got {_kind(value)}", location=self.location)
        items = cast(list[object], value)
        if len(items) > MOST_WORDS:
            message = f"column '{column}' holds {len(items):,} words. Expected {MOST_WORDS:,} or fewer"
            raise DataError(message, location=self.location, hint="cut it into several rows")
        for position, item in enumerate(items, start=1):
            if not isinstance(item, str):
                raise DataError(
                    f"column '{column}' must hold a list of words. Item {position} of {len(items)} is {_kind(item)}",
                    location=self.location,
                )
        return cast(list[str], items)


def _descend(value: object, path: str) -> Any:
    head, dot, rest = path.partition(".")
    if isinstance(value, Mapping):
        fields = cast(Mapping[str, object], value)
        parts = path.split(".")
        for count in range(len(parts), 0, -1):  # a column's own name may have dots
            name = ".".join(parts[:count])
            if name in fields:
                return _descend(fields[name], ".".join(parts[count:])) if count < len(parts) else fields[name]
    elif isinstance(value, list) and head == "*":
        return [_descend(item, rest) if dot else item for item in cast(list[object], value)]
    elif isinstance(value, list) and head.isdecimal() and len(head) <= _MOST_DIGITS:
        items = cast(list[object], value)
        if int(head) < len(items):
            return _descend(items[int(head)], rest) if dot else items[int(head)]
    raise KeyError(path)


def _columns(values: Mapping[str, object]) -> list[str]:
    names: list[str] = []
    for name, value in values.items():
        names.append(name)
        if isinstance(value, Mapping):
            names += [f"{name}.{field}" for field in cast(Mapping[str, object], value)]
    return list(dict.fromkeys(names))


def _kind(value: object) -> str:
    """What a message calls `value`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {_short(value)}"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        length = len(cast(list[object], value))
        return f"a list of {length} {'item' if length == 1 else 'items'}" if length else "an empty list"
    return f"a value of type {type(value).__name__}"


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
