"""Answers as a Parquet file, whose columns have one type each."""

from __future__ import annotations

import errno
import gc
import io
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from ptv2kit.errors import DataError
from ptv2kit.training import answer_file as module
from ptv2kit.training.answer_file import AnswerFile, answer_file
from ptv2kit.training.predict import Answer

SPAN = {"type": "PER", "text": "Ada", "start": 0, "end": 3, "words": [0, 1], "probability": 0.5}


@pytest.fixture(autouse=True)
def two_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 2)


def written(path: Path, rows: Sequence[dict[str, Any]], values: Sequence[dict[str, Any] | None]) -> pyarrow.Table:
    with answer_file(path) as file:
        for number, (row, value) in enumerate(zip(rows, values, strict=True), 1):
            error = DataError("no column 'x'") if value is None else None
            file.write(Answer(f"rows: row {number}", value, error, columns=row))
    return pyarrow.parquet.read_table(path)


def test_columns_keep_their_types(tmp_path: Path) -> None:
    rows = [
        {"id": number, "share": number / 2, "words": ["Ada", "left"], "more": {"a": [number]}, "none": None}
        for number in range(5)
    ]
    labels = [{"label": f"l{number}", "probability": 0.5, "probabilities": {}} for number in range(5)]
    table = written(tmp_path / "found.parquet", rows, [*labels[:2], None, *labels[3:]])
    assert table.drop(["prediction", "probability"]).to_pylist() == rows
    assert table["prediction"].to_pylist() == ["l0", "l1", None, "l3", "l4"]
    assert table["probability"].to_pylist() == [0.5, 0.5, None, 0.5, 0.5]
    assert pyarrow.parquet.ParquetFile(tmp_path / "found.parquet").num_row_groups == 3


def test_what_the_first_rows_do_not_tell(tmp_path: Path) -> None:
    """Neither a value of a column, nor a span, nor whether a list or a field holds texts."""
    empty = {"note": None, "tags": [], "more": {"a": None}}
    rows = [empty, empty, {"note": "here", "tags": ["x"], "more": {"a": "y"}}]
    found = [None, {"label": ["O"], "spans": [], "probability": None}, {"label": [], "spans": [SPAN], "probability": 1}]
    table = written(tmp_path / "found.parquet", rows, found)
    assert table.drop(["prediction", "probability"]).to_pylist() == rows
    assert table["prediction"].to_pylist() == [None, [], [SPAN]]
    assert table["probability"].to_pylist() == [None, None, 1.0]


def test_whole_numbers_stand_among_others(tmp_path: Path) -> None:
    rows = [{"id": value, "more": {"a": [value]}} for value in (0.5, 1, 2, 3)]
    table = written(tmp_path / "found.parquet", rows, [{"label": "x", "probability": None}] * 4)
    assert table.drop(["prediction", "probability"]).to_pylist() == rows


def test_lists_of_labels_and_numbers(tmp_path: Path) -> None:
    lists = [{"label": label, "probability": None} for label in ([], [], ["a", "b"])]
    assert written(tmp_path / "a.parquet", [{}] * 3, lists)["prediction"].to_pylist() == [[], [], ["a", "b"]]
    numbers = [{"label": label, "probability": None} for label in (1.5, 2.0)]
    assert written(tmp_path / "b.parquet", [{}] * 2, numbers)["prediction"].to_pylist() == [1.5, 2.0]


@pytest.mark.parametrize(
    ("column", "place"),
    [
        ([1, "one"], "row 1"),
        ([1, 2, 3, "four"], "row 3"),
        ([1, 2, 1.5], "row 3"),
        (["1", "2", 3], "row 3"),
        ([[1], [2], ["x"]], "row 3"),
        ([{"a": 1}, {"a": 2}, {"a": 3, "b": 4}], "row 3"),
        ([None, None, 1], "row 3"),
    ],
)
def test_values_of_several_types_are_an_error_that_says_what_to_do(
    column: list[Any], place: str, tmp_path: Path
) -> None:
    target = tmp_path / "found.parquet"
    target.write_text("before")
    rows = [{"id": value} for value in column]
    with pytest.raises(DataError, match="Parquet needs one type for all values of a column: ") as caught:
        written(target, rows, [{"label": "a", "probability": 1.0} for _ in rows])
    assert f"rows: {place} and the rows after it" in str(caught.value)
    assert "--to answers.jsonl" in str(caught.value)
    assert target.read_text() == "before"
    assert not list(tmp_path.glob(".*.tmp"))


class FullDisk(io.BytesIO):
    """Takes the first bytes of a file."""

    def write(self, data: Any, /) -> int:
        if self.tell() + len(data) > 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


def test_a_full_disk_is_one_error() -> None:
    """And no complaint of a writer that is thrown away, which would fail here as all warnings do."""
    answers = AnswerFile(FullDisk(), ".parquet")
    answers.write(Answer("rows: row 1", {"label": "a", "probability": 1.0}, columns={"id": 1}))
    with pytest.raises(OSError, match="No space left on device"):
        answers.end()
    with suppress(OSError):  # nothing if Arrow has given up already
        answers.close()
    del answers
    gc.collect()
