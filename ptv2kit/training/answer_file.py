"""Answers beside the rows they are for, in a file for other programs: a table, Parquet, or JSON Lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, final

from ptv2kit.errors import ConfigError, DataError, TrainingError
from ptv2kit.files import whole_file
from ptv2kit.training.predict import Answer

if TYPE_CHECKING:
    import pyarrow
    from pyarrow import parquet

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_KINDS = (*_DELIMITERS, ".parquet", ".jsonl")
_ADDED = ("prediction", "probability")
_ROWS_AT_ONCE = 10_000
"""In a Parquet file's group of rows. The first ones tell the types of its columns."""


@contextmanager
def answer_file(path: Path) -> Generator[AnswerFile]:
    """A file that gets answers within the context, and has its name when that ends without an error.

    Raises:
        ConfigError: the name does not end in `.csv`, `.tsv`, `.parquet` or `.jsonl`.
        TrainingError: the file cannot be written.
    """
    kind = path.suffix.lower()
    if kind not in _KINDS:
        raise ConfigError(f"--to '{path}' does not end in .csv, .tsv, .parquet or .jsonl")
    try:
        with whole_file(path) as file:
            answers = AnswerFile(file, kind)
            try:
                yield answers
                answers.end()
            finally:
                answers.close()
    except OSError as error:
        raise TrainingError(f"cannot be written: {error.strerror or error}", location=str(path)) from error


@final
class AnswerFile:
    """Writes each row as it was read, and its answer behind.

    JSON Lines get all of it as `prediction`, or `error` of a row that could not be read. A table gets the columns
    `prediction`, which are the spans of tasks that have them, else the label, and `probability`, both empty for such a
    row; lists and mappings are JSON there. Parquet gets these columns with their types.

    Args:
        file: is written.
        kind: the ending of its name.
    """

    def __init__(self, file: IO[bytes], kind: str) -> None:
        self._file = file
        self._delimiter = _DELIMITERS.get(kind)
        self._parquet = _ParquetRows(file) if kind == ".parquet" else None
        self._columns: tuple[str, ...] = ()

    def write(self, answer: Answer) -> None:
        """Add a row.

        Raises:
            DataError: a column of the row is called as one of the answer's, the first row of a table lacks it, or
                Parquet has no type for its values.
        """
        row, added = answer.columns, answer.to_json()
        taken = [column for column in _ADDED if column in row]
        if taken:
            raise DataError(
                f"the rows have a column '{taken[0]}' already, which --to would add",
                location=answer.location,
                hint="rename it, or leave --to out and print answers with --json",
            )
        del added["location"]
        if self._delimiter is None and self._parquet is None:
            line = {**row, **(added if answer.values is None else {"prediction": added})}
            self._file.write(json.dumps(line, ensure_ascii=False, default=str).encode() + b"\n")
            return
        if not self._columns:
            self._columns = tuple(row)
            if self._parquet is None:
                self._write_cells([*self._columns, *_ADDED])
        lacking = [column for column in row if column not in self._columns]
        if lacking:
            raise DataError(
                f"column '{lacking[0]}' is not in the first row, whose columns the table has",
                location=answer.location,
                hint="write JSON Lines: --to answers.jsonl",
            )
        found = [added.get("spans", added.get("label")), added.get("probability")]
        cells = [*(row.get(column) for column in self._columns), *found]
        if self._parquet is None:
            self._write_cells(cells)
        else:
            cells = dict(zip((*self._columns, *_ADDED), cells, strict=True))
            self._parquet.write(cells, answer.location, spans="spans" in added)

    def end(self) -> None:
        """Write what is still kept.

        Raises:
            DataError: Parquet has no type for the values of a column.
        """
        if self._parquet is not None:
            self._parquet.end()

    def close(self) -> None:
        """Leave the file, whole or not, to whoever opened it.

        Raises:
            OSError: it cannot be written.
        """
        if self._parquet is not None:
            self._parquet.close()

    def _write_cells(self, cells: Iterable[Any]) -> None:
        assert self._delimiter is not None
        text = io.StringIO()
        csv.writer(text, delimiter=self._delimiter, lineterminator="\n").writerow(map(_cell, cells))
        self._file.write(text.getvalue().encode())


@final
class _ParquetRows:
    """Writes rows in groups.

    Args:
        file: is written.
    """

    def __init__(self, file: IO[bytes]) -> None:
        # Only this format needs pyarrow, whose import takes longer than answering a few rows.
        import pyarrow
        from pyarrow import parquet

        self._arrow = pyarrow
        self._open = partial(parquet.ParquetWriter, file)
        self._writer: parquet.ParquetWriter | None = None
        self._rows: list[dict[str, Any]] = []
        self._first = ""
        self._spans = False

    def write(self, row: dict[str, Any], location: str, *, spans: bool) -> None:
        """Add a row, and whether its prediction is spans.

        Raises:
            DataError: Parquet has no type for the values of a column.
        """
        self._first = self._first or location
        self._rows.append(row)
        self._spans |= spans
        if len(self._rows) == _ROWS_AT_ONCE:
            self._write_group()

    def end(self) -> None:
        """Write the last rows.

        Raises:
            DataError: as of `write`.
        """
        if self._rows or self._writer is None:
            self._write_group()

    def close(self) -> None:
        """Write the end of the file.

        Raises:
            OSError: it cannot be written.
        """
        if self._writer is None:
            return
        try:
            self._writer.close()
        except OSError:
            self._writer.is_open = False  # its destructor would try once more, and complain on stderr
            raise

    def _write_group(self) -> None:
        arrow = self._arrow
        try:
            found = arrow.Table.from_pylist(self._rows).schema
            if self._writer is None:
                fields = [arrow.field(column.name, self._type(column.name, column.type)) for column in found]
                self._writer = self._open(arrow.schema(fields))
            # Given a schema, Arrow cuts 1.5 to the integer 1 and drops fields that it lacks.
            for column, expected in zip(found, self._writer.schema, strict=True):
                if not self._fits(column.type, expected.type):
                    raise ValueError(f"'{column.name}' is {column.type}, before it was {expected.type}")
            table = arrow.Table.from_pylist(self._rows, schema=self._writer.schema)
        except (arrow.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise DataError(
                f"Parquet needs one type for all values of a column: {str(error).splitlines()[0]}",
                location=f"{self._first} and the rows after it",
                hint="write JSON Lines: --to answers.jsonl",
            ) from error
        self._writer.write_table(table)
        self._rows, self._first = [], ""

    def _type(self, column: str, found: pyarrow.DataType) -> pyarrow.DataType:
        """A column's type, which its first rows need not tell: they may have no value, or lists without an item."""
        arrow = self._arrow
        if column == "probability":
            return arrow.float64()
        if column == "prediction" and self._spans:
            text, number = arrow.string(), arrow.int64()
            kinds = {"type": text, "text": text, "start": number, "end": number, "words": arrow.list_(number)}
            return arrow.list_(arrow.struct([*kinds.items(), ("probability", arrow.float64())]))
        return self._known(found)

    def _fits(self, found: pyarrow.DataType, expected: pyarrow.DataType) -> bool:
        """Whether values of a type are values of another one, as they are."""
        types = self._arrow.types
        if types.is_list(found) and types.is_list(expected):
            return self._fits(found.value_type, expected.value_type)
        if types.is_struct(found) and types.is_struct(expected):
            kinds = {field.name: field.type for field in expected}
            return all(field.name in kinds and self._fits(field.type, kinds[field.name]) for field in found)
        whole = types.is_integer(found) and types.is_floating(expected)
        return types.is_null(found) or found == expected or whole

    def _known(self, found: pyarrow.DataType) -> pyarrow.DataType:
        arrow = self._arrow
        if arrow.types.is_null(found):
            return arrow.string()
        if arrow.types.is_list(found):
            return arrow.list_(self._known(found.value_type))
        if arrow.types.is_struct(found):
            return arrow.struct([(field.name, self._known(field.type)) for field in found])
        return found


def _cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False, default=str)
