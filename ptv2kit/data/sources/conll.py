"""One token a line in columns, a blank line after each sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ptv2kit.data.rows import Fault, Row, raise_fault
from ptv2kit.data.sources.lines import read_lines
from ptv2kit.errors import DataError
from ptv2kit.spec.sources import ConllSource

_DOCUMENT_START = "-DOCSTART-"
# ASCII only: `str.split()` would also part a token at a no-break space, which occurs inside tokens of web text.
_NO_WORD = re.compile(r"\d+[-.]\d+[ \t]")
_SEPARATORS = {"whitespace": re.compile(r"[ \t]+"), "tab": re.compile(r"\t"), "space": re.compile(r" ")}


def read_conll(path: Path, source: ConllSource, *, on_fault: Fault = raise_fault) -> Iterator[Row]:
    """One row for each sentence, with a list of texts for each column; its location is the line of its first token.

    Args:
        source: columns and separator.
        on_fault: told of a sentence with a malformed line; unless it raises, the sentences after it are read.

    Raises:
        DataError: the file is unreadable.
    """
    first_line = 0
    tokens: list[list[str]] = []
    fault: DataError | None = None

    def sentence() -> Iterator[Row]:
        """The sentence that ends here; with a malformed line it is told and left out whole."""
        nonlocal fault
        if fault is not None:
            on_fault(fault)
        elif tokens:
            yield _sentence(tokens, source, f"{path}:{first_line}")
        tokens.clear()
        fault = None

    for number, line in read_lines(path, encoding=source.encoding):
        content = line.rstrip("\r\n")
        if source.comment is not None and content.startswith(source.comment):
            continue
        if source.numbered and _NO_WORD.match(content):
            continue
        if not content.strip(" \t") or content.startswith(_DOCUMENT_START):
            yield from sentence()
            continue
        if fault is not None:
            continue
        try:
            token = _token(content, source, f"{path}:{number}")
        except DataError as error:
            fault = error
            continue
        if _DOCUMENT_START in token:  # in a column that is not the first
            yield from sentence()
            continue
        if not tokens:
            first_line = number
        tokens.append(token)
    yield from sentence()


def _sentence(tokens: list[list[str]], source: ConllSource, location: str) -> Row:
    columns = (list(values) for values in zip(*tokens, strict=True))
    return Row(dict(zip(source.columns, columns, strict=True)), location)


def _token(content: str, source: ConllSource, location: str) -> list[str]:
    """The values of one line in the order of `source.columns`."""
    text = content.strip(" \t") if source.separator == "whitespace" else content
    fields = _SEPARATORS[source.separator].split(text)
    values: list[str] = []
    cells: dict[int, str] = {}
    for name, index in source.columns.items():
        if not -len(fields) <= index < len(fields):
            raise DataError(
                f"column '{name}' has index {index}, but the line has {len(fields)} "
                f"{'column' if len(fields) == 1 else 'columns'}",
                location=location,
                hint=f"'data.separator' is {source.separator}; indices count from 0, or from -1 at the end",
            )
        cell = index % len(fields)
        if cell in cells:
            raise DataError(
                f"columns '{cells[cell]}' and '{name}' are the same cell, because the line has {len(fields)} "
                f"{'column' if len(fields) == 1 else 'columns'}",
                location=location,
                hint=f"'data.separator' is {source.separator}",
            )
        cells[cell] = name
        if not fields[index]:
            raise DataError(f"column '{name}' is empty", location=location)
        values.append(fields[index])
    return values
