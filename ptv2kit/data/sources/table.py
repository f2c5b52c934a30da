"""Comma- and tab-separated values."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from ptv2kit.data.rows import Fault, Row, raise_fault
from ptv2kit.data.sources.lines import read_lines
from ptv2kit.errors import DataError
from ptv2kit.spec.sources import TableSource


def read_table(path: Path, source: TableSource, *, on_fault: Fault = raise_fault) -> Iterator[Row]:
    """One row for each record; all values are text. Blank lines are skipped.

    Of a record with another number of fields than there are columns `on_fault` receives an error; unless it raises, the
    records after it are read.

    Without quoting a line is a record, whatever quotes it holds. With quoting (RFC 4180) a record may span lines; its
    location is the first one.

    Raises:
        DataError: the file is unreadable, a quote is out of place, a record has another number of fields than there
            are columns (from `on_fault`), or two columns have one name.
    """
    separator = source.delimiter or ("," if source.source == "csv" else "\t")
    quoting = source.source == "csv" if source.quoting is None else source.quoting
    records = _quoted_records(path, separator, source.quote) if quoting else _plain_records(path, separator)
    columns: Sequence[str] | None = source.columns
    if columns is not None:
        _check_columns(columns, str(path))
    for line, fields in records:
        location = f"{path}:{line}"
        if columns is None:
            _check_columns(fields, location)
            _check_delimiter(fields, location)
            columns = fields
        elif len(fields) != len(columns):
            message = f"expected {len(columns)} fields ({', '.join(columns)}). Got {len(fields)}"
            on_fault(DataError(message, location=location, hint=_field_hint(quoting)))
        else:
            yield Row(dict(zip(columns, fields, strict=True)), location)


def _plain_records(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in _text_lines(path):
        content = line.removesuffix("\n").removesuffix("\r")
        if content:
            yield number, content.split(separator)


def _quoted_records(path: Path, separator: str, quote: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader((line for _, line in _text_lines(path)), delimiter=separator, quotechar=quote, strict=True)
    while True:
        first_line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"malformed: {error}",
                location=f"{path}:{first_line}",
                hint="set 'data.quoting: false' if quotes are part of the text; JSON lines have no limit of length",
            ) from error
        if fields:
            yield first_line, fields


def _text_lines(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in read_lines(path):
        if "\0" in line:
            raise DataError(
                "the line holds a NUL byte", location=f"{path}:{number}", hint="save the file as UTF-8 text"
            )
        yield number, line


def _check_columns(columns: Sequence[str], location: str) -> None:
    repeated = [name for index, name in enumerate(columns) if name in columns[:index]]
    if repeated:
        raise DataError(f"column '{repeated[0]}' occurs twice", location=location)


def _check_delimiter(columns: Sequence[str], location: str) -> None:
    """A header of one column that holds another delimiter is a table that was written with that one."""
    other = next((character for character in ";\t|," if character in columns[0]), None)
    if len(columns) == 1 and other is not None:
        name = "\\t" if other == "\t" else other
        raise DataError(
            f"the header is one column, {columns[0]!r}", location=location, hint=f'set data.delimiter: "{name}"'
        )


def _field_hint(quoting: bool) -> str:
    if quoting:
        return "quote a field that holds the separator, or set 'data.quoting: false' if quotes are part of the text"
    return "set 'data.quoting: true' if fields are quoted"
