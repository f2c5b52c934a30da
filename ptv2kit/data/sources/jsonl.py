"""Lines of JSON objects."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn, cast

from ptv2kit.data.rows import Row
from ptv2kit.data.sources.lines import Fault, raise_fault, read_lines
from ptv2kit.errors import DataError


def read_jsonl(
    path: Path, *, on_fault: Fault = raise_fault, lines: Iterable[tuple[int, str]] | None = None
) -> Iterator[Row]:
    """One row for each line that is not blank.

    Args:
        path: of the file.
        on_fault: told of a line that is no JSON object; unless it raises, the lines after it are read.
        lines: with their numbers, instead of those of the file.

    Raises:
        DataError: the file is unreadable.
    """
    for number, line in read_lines(path) if lines is None else lines:
        if line.strip():
            location = f"{path}:{number}"
            try:
                row = Row(_parse_object(line, location), location)
            except DataError as error:
                on_fault(error)
            else:
                yield row


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
    raise ValueError(f"{text} is no JSON value; write null")
