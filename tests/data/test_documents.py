"""Documents that have a file each, brat's entities, and fastText's lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ptv2kit.data.sources import read_split
from ptv2kit.data.sources.formats import read_rows
from ptv2kit.errors import DataError
from ptv2kit.spec.sources import BratSource, FastTextSource, Splits
from tests.data.small_tasks import SECTIONS, task_of

SPLITS = Splits(train="a", validation="b")
TEXT = "Anna Bell and her\nbrother saw Bonn."


def brat(folder: Path, annotations: str, text: str | None = TEXT, **keys: Any) -> list[Any]:
    if text is not None:
        (folder / "a.txt").write_text(text)
    (folder / "a.ann").write_text(annotations)
    [row] = read_rows(folder / "a.ann", BratSource(source="brat", splits=SPLITS, **keys))
    assert (row.value("text"), row.value("file"), row.location) == (text, "a.ann", str(folder / "a.ann"))
    return row.value("spans")


def test_entities_are_read_and_other_lines_are_not(tmp_path: Path) -> None:
    lines = (
        "T1\tPER 0 9\tAnna Bell\n"
        "T2\tLOC 30 34\tBonn\n"
        "R1\tSees Arg1:T1 Arg2:T2\n"
        "E1\tSee:T1\n"
        "A1\tKnown T1\n"
        "#1\tAnnotatorNotes T1\tsure\n"
    )
    assert brat(tmp_path, lines) == [[0, 9, "PER"], [30, 34, "LOC"]]
    assert brat(tmp_path, "") == []


def test_an_entity_across_lines_is_one_span(tmp_path: Path) -> None:
    assert brat(tmp_path, "T1\tPER 14 17;18 25\ther brother\n") == [[14, 25, "PER"]]


def test_what_becomes_of_an_entity_in_pieces(tmp_path: Path) -> None:
    line = "T1\tPER 0 4;18 25\tAnna brother\n"
    assert brat(tmp_path, line, discontinuous="widen") == [[0, 25, "PER"]]
    assert brat(tmp_path, line, discontinuous="drop") == []
    with pytest.raises(DataError, match="the entity 'Anna brother' is in 2 pieces") as raised:
        brat(tmp_path, line)
    assert raised.value.problems[0].hint == "set data.discontinuous to widen or drop"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("T1\tPER 1 5\tAnna\n", r"a.ann:1: error: characters 1 5 of the text are 'nna', not 'Anna'"),
        ("T1 PER 0 4 Anna\n", "a.ann:1: error: expected 'T1', type, start and end"),
        ("T1\tPER 0 x\tAnna\n", "a.ann:1: error: expected 'T1', type, start and end"),
        ("T1\tPER 0 4\n", "a.ann:1: error: expected 'T1', type, start and end"),
    ],
)
def test_malformed_entities_are_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        brat(tmp_path, line)


def test_a_document_without_a_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.txt: error: cannot be read: No such file"):
        brat(tmp_path, "", text=None)


def test_a_share_is_kept_and_a_faulty_document_skipped(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}.txt").write_text(TEXT)
        (tmp_path / f"{number}.ann").write_text(f"T1\tPER 0 {9 if number else 8}\tAnna Bell\n")
    section = {**SECTIONS["spans"], "input": {"text": "text"}}
    splits = {"train": "*.ann", "validation": "10%"}
    found: dict[str, Any] = {}
    for name in ("train", "validation"):
        data = {"source": "brat", "splits": splits, "on_fault": "skip"}
        task = task_of(section, data=data)
        found[name] = read_split(task, name, task_path=tmp_path / "task.yaml", data_root=None)
    assert [len(split.rows) for split in found.values()] == [17, 2]
    assert not {row.location for row in found["train"].rows} & {row.location for row in found["validation"].rows}
    [problem] = found["train"].skipped
    assert "are 'Anna Bel', not 'Anna Bell'" in problem.message
    before = found["train"].fingerprint
    (tmp_path / "7.txt").write_text(f"{TEXT} And more.")
    changed = read_split(task, "train", task_path=tmp_path / "task.yaml", data_root=None)
    assert changed.fingerprint != before, "the texts are part of the data"


def test_labels_of_fasttext(tmp_path: Path) -> None:
    path = tmp_path / "x.train"
    path.write_text("@a @b one  two\n\n three @c\n")
    rows = list(read_rows(path, FastTextSource(source="fasttext", splits=SPLITS, prefix="@")))
    assert [dict(row.values) for row in rows] == [
        {"text": "one two", "label": "a", "labels": ["a", "b"]},
        {"text": "three", "label": "c", "labels": ["c"]},
    ]
    assert rows[1].location == f"{path}:3"
    with pytest.raises(DataError, match=r"x\.train:1: error: no word begins with '__label__'"):
        list(read_rows(path, FastTextSource(source="fasttext", splits=SPLITS)))
