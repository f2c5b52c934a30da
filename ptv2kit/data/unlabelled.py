"""Rows without labels: what a task reads of them, and where they come from."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ptv2kit.data.rows import Fault, Row
from ptv2kit.data.sources.conll import read_conll
from ptv2kit.data.sources.jsonl import read_jsonl
from ptv2kit.data.sources.lines import CONLL, JSON_LINES, decoded_lines, encoding_of, ending_of, read_lines
from ptv2kit.data.sources.parquet import read_parquet
from ptv2kit.data.sources.table import read_table
from ptv2kit.data.templates import Before, expanded_rows, with_defaults, with_derived
from ptv2kit.errors import ConfigError, DataError
from ptv2kit.spec.rows import (
    Derivation,
    Flags,
    Joining,
    Lookup,
    Marking,
    Membership,
    Parsing,
    Previous,
    Replacement,
    Slice,
    SpanMarking,
    Splitting,
)
from ptv2kit.spec.sources import ConllSource, Splits, TableSource
from ptv2kit.spec.task import AnyTask
from ptv2kit.spec.template import parse_template

_ENDINGS = {
    "jsonl": JSON_LINES,
    "csv": ("csv",),
    "tsv": ("tsv",),
    "parquet": ("parquet",),
    "conll": CONLL,
    "text": ("txt",),
}
FORMATS = tuple(_ENDINGS)


def unlabelled_rows(task: AnyTask, row: Row, before: Before) -> Iterator[Row]:
    """What a task reads of a row that has no label: `defaults` and `expand` as ever, of `derive` only what the input
    needs; `where` and `distinct` choose rows to learn from, and have no say here.

    Args:
        before: what `previous` has seen in earlier rows of the same request; a row may also bring that column itself.

    Raises:
        DataError: a column is missing or of the wrong kind, or a new column already exists.
    """
    needed = _with_sources(task, task.input_columns())
    derive = {
        name: derivation
        for name, derivation in task.derive.items()
        if name in needed and not (isinstance(derivation, Previous) and name in row.values)
    }
    for expanded in expanded_rows(with_defaults(row, task.defaults), task.expand):
        yield with_derived(expanded, derive, before)


def has_labels(task: AnyTask, rows: Iterable[Row]) -> bool:
    """Whether any of some rows has a value in a column that the task's labels are read from; an empty one is none, and
    neither is -1."""
    labels = task.labels.model_dump()
    columns = _with_sources(task, [labels[key] for key in ("column", "text") if labels.get(key)])
    found = (row.values.get(name) for row in rows for name in {column.partition(".")[0] for column in columns})
    return any(value not in (None, "", "-", -1, "-1", [], {}) for value in found)


def given_columns(task: AnyTask) -> list[str]:
    """The columns that a request must have."""
    made = [*task.derive, *(step.item for step in task.expand), *task.defaults]
    columns = [column for column in _with_sources(task, task.input_columns()) if not _among(column, made)]
    return list(dict.fromkeys([*columns, *(step.column for step in task.expand if not _among(step.column, made))]))


def read_unlabelled(path: Path, kind: str | None, task: AnyTask, on_fault: Fault) -> Iterator[Row]:
    """The rows of a file, one after the other; a faulty one is reported and reading continues where the format allows.

    Args:
        path: of the file; its name tells the format.
        kind: one of `FORMATS`, instead of what the name tells.
        task: whose only column a line of plain text is.
        on_fault: receives each faulty row.

    Raises:
        ConfigError: the format is not known, or the task reads more than plain text can give.
        DataError: the file cannot be read, or not be read further.
    """
    kind = kind or _kind_of(path)
    match kind:
        case "jsonl":
            return read_jsonl(path, on_fault=on_fault)
        case "csv" | "tsv":
            source = task.data  # a file of the kind that the task was trained on is written like that one
            if not isinstance(source, TableSource) or source.source != kind:
                source = TableSource(source=kind, splits=Splits(train=str(path), validation=str(path)))
            return read_table(path, source.model_copy(update=_encoding(path, source.encoding)), on_fault=on_fault)
        case "parquet":
            return read_parquet(path)
        case "conll":
            source = _words_of(task, path)
            return read_conll(path, source.model_copy(update=_encoding(path, source.encoding)), on_fault=on_fault)
        case _:
            return _text_rows(read_lines(path), str(path), text_column(task))


def read_unlabelled_stream(stream: BinaryIO, kind: str | None, task: AnyTask, on_fault: Fault) -> Iterator[Row]:
    """`read_unlabelled` of standard input: JSON Lines unless `kind` says text; tables need a file.

    Raises:
        ConfigError: the format is not one of these, or the task reads more than plain text can give.
        DataError: the stream is not UTF-8.
    """
    name = Path("<stdin>")
    match kind or "jsonl":
        case "jsonl":
            return read_jsonl(name, on_fault=on_fault, lines=decoded_lines(stream, name))
        case "text":
            return _text_rows(decoded_lines(stream, name), str(name), text_column(task))
        case other:
            raise ConfigError(f"standard input cannot be read as {other}", hint="give a file, or JSON Lines")


def rows_in_memory(rows: Iterable[Any]) -> Iterable[Any]:
    """Rows as a program has them: those of a pandas table, an empty cell as nothing; all else as it is.

    Raises:
        ConfigError: it is one row, whose characters or columns would be taken for rows.
    """
    pandas: Any = sys.modules.get("pandas")  # who has a table of it has imported it
    if pandas is not None and isinstance(rows, pandas.DataFrame):
        table: Any = rows
        records: list[dict[str, Any]] = table.astype(object).where(table.notna(), None).to_dict("records")
        # pandas reads the lists of a Parquet file as arrays.
        return [
            {name: cell.tolist() if isinstance(cell, np.ndarray | np.generic) else cell for name, cell in row.items()}
            for row in records
        ]
    if isinstance(rows, str | bytes | Mapping):
        raise ConfigError("expected a list of rows. Got a single one", hint="put it into a list: [row]")
    return rows


def row_in_memory(task: AnyTask, row: Mapping[str, Any] | str, location: str, reader: str | None = None) -> Row:
    """A row as a program has it: its columns, or the text if the task reads one column only.

    Args:
        reader: what reads it, for errors; None: the task.

    Raises:
        ConfigError: it is a text, but the task reads several columns.
        DataError: it is neither.
    """
    if isinstance(row, Mapping):
        return Row(row, location)
    if not isinstance(row, str):  # pyright: ignore[reportUnnecessaryIsInstance] - programs give anything
        raise DataError(f"expected a mapping of columns, or a text. Got {type(row).__name__}", location=location)
    columns = given_columns(task)
    if len(columns) > 1:
        reader = f"task '{task.task}'" if reader is None else reader
        raise ConfigError(
            f"{location}: a text is one column, but {reader} reads {', '.join(columns)}",
            hint="give these columns by name",
        )
    return Row({columns[0]: row}, location)


def text_column(task: AnyTask) -> str:
    """The only column that a task reads.

    Raises:
        ConfigError: it reads several.
    """
    columns = given_columns(task)
    if len(columns) > 1:
        raise ConfigError(
            f"a file of plain text or words is one column, but task '{task.task}' reads {', '.join(columns)}",
            hint="give JSON Lines, CSV, TSV or Parquet with these columns",
        )
    return columns[0]


def _words_of(task: AnyTask, path: Path) -> ConllSource:
    """What the task reads of a file of words; its tags may be missing.

    Raises:
        ConfigError: it reads several columns, and its own files are not written so.
    """
    needed, splits = given_columns(task), Splits(train=str(path), validation=str(path))
    if ending_of(path) == "conllu" and not (isinstance(task.data, ConllSource) and task.data.numbered):
        columns = {text_column(task): 1}
        return ConllSource(source="conll", splits=splits, columns=columns, separator="tab", comment="#", numbered=True)
    if not isinstance(task.data, ConllSource):
        return ConllSource(source="conll", splits=splits, columns={text_column(task): 0})
    columns = {name: index for name, index in task.data.columns.items() if name in needed}
    return task.data.model_copy(update={"columns": columns})


def _encoding(path: Path, known: str) -> dict[str, str]:
    """UTF-8 wherever the file's bytes are, else the encoding of the task's own files."""
    return {"encoding": known if known == "utf-8" or encoding_of(path) != "utf-8" else "utf-8"}


def _text_rows(lines: Iterator[tuple[int, str]], name: str, column: str) -> Iterator[Row]:
    for number, line in lines:
        if line.strip():
            yield Row({column: line.rstrip("\r\n")}, f"{name}:{number}")


def _kind_of(path: Path) -> str:
    for kind, endings in _ENDINGS.items():
        if ending_of(path) in endings:
            return kind
    raise ConfigError(
        f"the name of '{path}' does not tell its format", hint=f"name it with --format: {', '.join(FORMATS)}"
    )


def _with_sources(task: AnyTask, columns: list[str]) -> list[str]:
    """Columns, and those that they are made from."""
    needed = list(columns)
    for name in reversed(task.derive):
        if any(column == name or column.startswith(f"{name}.") for column in needed):
            needed += _columns_of(task.derive[name])
    return list(dict.fromkeys(needed))


def _among(column: str, made: list[str]) -> bool:
    return any(column == name or column.startswith(f"{name}.") for name in made)


def _columns_of(derivation: Derivation) -> list[str]:
    match derivation:
        case Lookup() | Splitting() | Parsing() | Joining():
            return [derivation.column]
        case Flags():
            return list(derivation.flags)
        case Previous():
            return [derivation.column, derivation.previous]
        case SpanMarking():
            return [derivation.column, *(place for each in derivation.marks for place in (each.start, each.end))]
        case Membership():
            return [derivation.column, derivation.among]
        case Marking():
            return [derivation.column, derivation.word]
        case Slice():
            return [derivation.column, derivation.start, derivation.end]
        case Replacement():
            templates = [derivation.text, *derivation.replace.values()]
            return [column for template in templates for column in parse_template(template).columns]
