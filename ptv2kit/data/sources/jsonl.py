"""Lines of JSON objects."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn, cast

from ptv2kit.data.rows import Fault, Row, raise_fault
from ptv2kit.data.sources.lines import LONGEST_FILE, LONGEST_ROW, read_lines
from ptv2kit.errors import DataError


def read_jsonl(
    path: Path,
    *,
    on_fault: Fault = raise_fault,
    lines: Iterable[tuple[int, str]] | None = None,
    records: str | None = None,
) -> Iterator[Row]:
    """One row for each line that is not blank, or for each object of a file that is one JSON array.

    Args:
        records: of a file that is one JSON object, where in it the array is.
        on_fault: receives a line that is not a JSON object; unless it raises, the lines after it are read.
        lines: with their numbers, instead of those of the file.

    Raises:
        DataError: the file is unreadable.
    """
    if records is not None:
        yield from _read_array(path, on_fault, records)
        return
    for number, line in read_lines(path, LONGEST_FILE) if lines is None else lines:
        if number == 1 and lines is None and line.lstrip().startswith("["):
            yield from _read_array(path, on_fault)
            return
        if len(line) > LONGEST_ROW:
            message = f"the line has {len(line):,} characters. Expected {LONGEST_ROW:,} or fewer"
            on_fault(DataError(message, location=f"{path}:{number}", hint="give each row a line of its own"))
        elif line.strip():
            location = f"{path}:{number}"
            try:
                row = Row(_parse_object(line, location), location)
            except DataError as error:
                on_fault(error)
            else:
                yield row


def _read_array(path: Path, on_fault: Fault, records: str | None = None) -> Iterator[Row]:
    """The rows of a file that is one JSON array of objects, or one object that holds it."""
    text = "".join(line for _, line in read_lines(path, LONGEST_FILE))
    try:
        whole: Any = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise DataError(f"not JSON: {error.msg} at column {error.colno}", location=f"{path}:{error.lineno}") from error
    except RecursionError as error:
        raise DataError("not readable: the JSON is nested too deeply", location=str(path)) from error
    except ValueError as error:
        raise DataError(f"not JSON: {error}", location=str(path)) from error
    values: list[object] = whole if records is None else _array_within(whole, records, path)
    for number, value in enumerate(values, start=1):
        location = f"{path}: row {number}"
        if isinstance(value, dict):
            yield Row(cast("dict[str, Any]", value), location)
        else:
            on_fault(DataError(f"expected a JSON object. Got {type(value).__name__}", location=location))


def _array_within(whole: Any, records: str, path: Path) -> list[object]:
    for field in records.split("."):
        fields = cast("dict[str, Any]", whole) if isinstance(whole, dict) else {}
        if field not in fields:
            hint = f"there is {', '.join(fields)}" if fields else ""
            raise DataError(f"no field '{field}', as 'data.records' says", location=str(path), hint=hint)
        whole = fields[field]
    if not isinstance(whole, list):
        raise DataError(f"'{records}', as 'data.records' says, must hold an array", location=str(path))
    return cast("list[object]", whole)


def _parse_object(line: str, location: str) -> dict[str, Any]:
    try:
        value: object = json.loads(line, parse_constant=_refuse_constant)
        if "\\u" in line:
            # An escaped half of a surrogate pair parses, but no tokenizer takes it and no file can hold it.
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise DataError(f"not JSON: {error.msg} at column {error.colno}", location=location) from error
    except UnicodeEncodeError as error:
        raise DataError("not Unicode: '\\u' escapes half of a surrogate pair", location=location) from error
    except RecursionError as error:
        raise DataError("not readable: the JSON is nested too deeply", location=location) from error
    except ValueError as error:
        raise DataError(f"not JSON: {error}", location=location) from error
    if not isinstance(value, dict):
        raise DataError(f"expected a JSON object. Got {type(value).__name__} {line.strip()[:40]}", location=location)
    return cast(dict[str, Any], value)


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON value; write null")
