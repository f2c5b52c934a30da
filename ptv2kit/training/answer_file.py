"""Answers beside the rows they are for, in a file for other programs: a table, or JSON Lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, final

from ptv2kit.errors import ConfigError, DataError, TrainingError
from ptv2kit.files import whole_file
from ptv2kit.training.predict import Answer

_DELIMITERS = {".jsonl": None, ".csv": ",", ".tsv": "\t"}
_ADDED = ("prediction", "probability")


@contextmanager
def answer_file(path: Path) -> Generator[AnswerFile]:
    """A file that gets answers within the context, and has its name when that ends without an error.

    Raises:
        ConfigError: the name does not end in `.csv`, `.tsv` or `.jsonl`.
        TrainingError: the file cannot be written.
    """
    kind = path.suffix.lower()
    if kind not in _DELIMITERS:
        raise ConfigError(f"--to '{path}' does not end in .csv, .tsv or .jsonl")
    try:
        with whole_file(path) as file:
            yield AnswerFile(file, _DELIMITERS[kind])
    except OSError as error:
        raise TrainingError(f"cannot be written: {error.strerror or error}", location=str(path)) from error


@final
class AnswerFile:
    """Writes each row as it was read, and its answer behind.

    JSON Lines get all of it as `prediction`, or `error` of a row that could not be read. A table gets the columns
    `prediction`, which are the spans of tasks that have them, else the label, and `probability`, both empty for such a
    row; lists and mappings are JSON there.

    Args:
        file: is written.
        delimiter: between the columns of a table; None: JSON Lines.
    """

    def __init__(self, file: IO[bytes], delimiter: str | None) -> None:
        self._file = file
        self._delimiter = delimiter
        self._columns: tuple[str, ...] = ()

    def write(self, answer: Answer) -> None:
        """Add a row.

        Raises:
            DataError: a column of the row is called as one of the answer's, or the first row of a table lacks it.
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
        if self._delimiter is None:
            line = {**row, **(added if answer.values is None else {"prediction": added})}
            self._file.write(json.dumps(line, ensure_ascii=False, default=str).encode() + b"\n")
            return
        if not self._columns:
            self._columns = tuple(row)
            self._write_cells([*self._columns, *_ADDED])
        lacking = [column for column in row if column not in self._columns]
        if lacking:
            raise DataError(
                f"column '{lacking[0]}' is not in the first row, whose columns the table has",
                location=answer.location,
                hint="write JSON Lines: --to answers.jsonl",
            )
        found = [added.get("spans", added.get("label")), added.get("probability")]
        self._write_cells([*(row.get(column) for column in self._columns), *found])

    def _write_cells(self, cells: Iterable[Any]) -> None:
        assert self._delimiter is not None
        text = io.StringIO()
        csv.writer(text, delimiter=self._delimiter, lineterminator="\n").writerow(map(_cell, cells))
        self._file.write(text.getvalue().encode())


def _cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False, default=str)
