"""Comma- and tab-separated values."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ptv2kit.data.rows import Fault, Row, raise_fault
from ptv2kit.data.sources.lines import read_lines
from ptv2kit.errors import DataError
from ptv2kit.spec.sources import TableSource


def read_table(path: Path, source: TableSource, *, on_fault: Fault = raise_fault) -> Iterator[Row]:
    """One row for each record, or for each sentence where a record is a word; all values are text. Blank lines, records
    whose fields are all empty and columns without a name are left out.

    Of a record with another number of fields than there are columns `on_fault` receives an error; unless it raises, the
    records after it are read.

    Without quoting a line is a record, whatever quotes it holds. With quoting (RFC 4180) a record may span lines; its
    location is the first one.

    Raises:
        DataError: the file is unreadable, a quote is out of place, a record has another number of fields than there
            are columns (from `on_fault`), two columns have one name, or there is no column `source.sentence`.
    """
    if source.sentence is None:
        return _records(path, source, on_fault)
    return _sentences(path, source, source.sentence, on_fault)


def split_records(
    path: Path, separator: str, *, quoting: bool, quote: str, encoding: str
) -> Iterator[tuple[int, list[str]]]:
    """Line numbers from 1, and the fields of each record, the header among them.

    Raises:
        DataError: the file is unreadable, or a quote is out of place.
    """
    lines = _text_lines(path, encoding)
    return _quoted_records(path, lines, separator, quote) if quoting else _plain_records(lines, separator)


def delimiter_of(source: TableSource) -> str:
    """What stands between two fields."""
    return source.delimiter or ("," if source.source == "csv" else "\t")


def is_quoted(source: TableSource) -> bool:
    """Whether fields may be quoted."""
    return source.source == "csv" if source.quoting is None else source.quoting


def _records(path: Path, source: TableSource, on_fault: Fault) -> Iterator[Row]:
    quoting = is_quoted(source)
    records = split_records(path, delimiter_of(source), quoting=quoting, quote=source.quote, encoding=source.encoding)
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
            wanted = f"{len(columns)} {'field' if len(columns) == 1 else 'fields'}"
            message = f"expected {wanted} ({', '.join(columns)}). Got {len(fields)}"
            on_fault(DataError(message, location=location, hint=_field_hint(quoting)))
        elif any(fields):
            yield Row({name: field for name, field in zip(columns, fields, strict=True) if name}, location)


def _sentences(path: Path, source: TableSource, column: str, on_fault: Fault) -> Iterator[Row]:
    """The sentences of a file of words. One with a malformed record, or that may begin with it, is left out whole."""
    words: list[Row] = []
    faults: list[DataError] = []  # since the last word
    fault: DataError | None = None  # of the sentence

    def sentence() -> Iterator[Row]:
        if fault is not None:
            on_fault(fault)
        elif words:
            lists = {name: [word.text(name) for word in words] for name in words[0].values if name != column}
            yield Row({column: words[0].text(column), **lists}, words[0].location)

    for word in _records(path, source, faults.append):
        if column not in word.values:
            hint = f"its columns are {', '.join(word.values)}"
            raise DataError(f"no column '{column}', as 'data.sentence' says", location=str(path), hint=hint)
        lost = faults[0] if faults else None
        faults.clear()
        if words and word.text(column) not in ("", words[-1].text(column) or words[0].text(column)):
            fault = fault or lost
            yield from sentence()
            words.clear()
            fault = None
        fault = fault or lost
        words.append(word)
    fault = fault or (faults[0] if faults else None)
    yield from sentence()


def _plain_records(lines: Iterable[tuple[int, str]], separator: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in lines:
        content = line.removesuffix("\n").removesuffix("\r")
        if content:
            yield number, content.split(separator)


def _quoted_records(
    path: Path, lines: Iterable[tuple[int, str]], separator: str, quote: str
) -> Iterator[tuple[int, list[str]]]:
    """Where each field of the first line but the first begins with a blank, blanks behind delimiters mean nothing."""
    numbered = iter(lines)
    first = [line for _, line in itertools.islice(numbered, 1)]
    fields = first[0].split(separator) if first else []
    reader = csv.reader(
        itertools.chain(first, (line for _, line in numbered)),
        delimiter=separator,
        quotechar=quote,
        skipinitialspace=len(fields) > 1 and all(field.startswith(" ") for field in fields[1:]),
        strict=True,
    )
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


def _text_lines(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    for number, line in read_lines(path, encoding=encoding):
        if "\0" in line:
            raise DataError(
                "the line holds a NUL byte", location=f"{path}:{number}", hint="save the file as UTF-8 text"
            )
        yield number, line


def _check_columns(columns: Sequence[str], location: str) -> None:
    repeated = [name for index, name in enumerate(columns) if name and name in columns[:index]]
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
