"""Rows without labels, and the words of plain texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptv2kit.data.rows import Row, raise_fault
from ptv2kit.data.unlabelled import given_columns, read_unlabelled, unlabelled_rows
from ptv2kit.data.words import spans_of, split_words, word_places
from ptv2kit.spec.load import load_task

TASKS = Path(__file__).parents[2] / "tasks"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Ada met Alan.", ["Ada", "met", "Alan", "."]),
        ("Jean-Luc's (AT&T) U.S. team!?", ["Jean-Luc's", "(", "AT&T", ")", "U.S", ".", "team", "!", "?"]),
        (" 東京 \u2014 Zoë ", ["東京", "\u2014", "Zoë"]),
        ("   ", []),
    ],
)
def test_words_of_a_text_stand_in_it(text: str, words: list[str]) -> None:
    assert split_words(text) == words
    assert [text[start:end] for start, end in word_places(text, words)] == words


def test_repeated_words_have_places_of_their_own() -> None:
    assert word_places("a aa a", ["a", "aa", "a"]) == [(0, 1), (2, 4), (5, 6)]


def test_spans_are_those_of_strict_iob2() -> None:
    tags = ["B-PER", "I-PER", "I-LOC", "O", "I-PER", "B-LOC", "B-LOC", "I-LOC"]
    assert spans_of(tags) == [("PER", 0, 1), ("LOC", 5, 5), ("LOC", 6, 7)]


@pytest.mark.parametrize(
    ("task", "given"),
    [
        ("copa", ["premise", "choice1", "question", "choice2"]),
        ("sst2", ["sentence"]),
        ("squad", ["question", "context"]),
        ("wikigold", ["tokens"]),
    ],
)
def test_what_a_task_reads_of_a_row(task: str, given: list[str]) -> None:
    assert sorted(given_columns(load_task(TASKS / f"{task}.yaml").task)) == sorted(given)


def test_only_what_the_input_needs_is_made() -> None:
    """ReCoRD's label is made from the right answers, which nobody has who asks."""
    task = load_task(TASKS / "record.yaml").task
    assert set(task.derive) - {"filled", "news"}
    row = Row({"passage": "Ada met Alan.", "query": "@placeholder met Alan", "entities": ["Ada", "Alan"]}, "x:1")
    made = list(unlabelled_rows(task, row, {}))
    assert [each.location for each in made] == ["x:1: entities[0]", "x:1: entities[1]"]
    assert [each.text("filled") for each in made] == ["Ada met Alan", "Alan met Alan"]
    assert not set(made[0].values) & (set(task.derive) - {"filled", "news"})
    assert sorted(given_columns(task)) == ["entities", "passage", "query"]


@pytest.mark.parametrize(
    ("name", "written", "encoding"),
    [
        ("new.csv", "who;n\nAda, müde;1\n", "cp1252"),
        ("new.csv", "who;n\nAda, müde;1\n", "utf-8"),  # told by its bytes
        ("new.tsv", "who\tn\nAda, müde\t1\n", "utf-8"),  # of another kind than the task's
    ],
)
def test_a_table_is_read_as_the_task_says(tmp_path: Path, name: str, written: str, encoding: str) -> None:
    data = "{source: csv, delimiter: ';', encoding: cp1252, splits: {train: rows.csv, validation: rows.csv}}"
    path = tmp_path / "t.yaml"
    path.write_text(f'task: t\ndata: {data}\ninput: {{text: "{{who}}"}}\nlabels: {{scheme: classes, column: label}}\n')
    (tmp_path / name).write_bytes(written.encode(encoding))
    [row] = read_unlabelled(tmp_path / name, None, load_task(path).task, raise_fault)
    assert row.values == {"who": "Ada, müde", "n": "1"}


def test_a_file_of_words_is_read_as_the_task_says(tmp_path: Path) -> None:
    columns = "columns: {at: 0, words: 1, tags: -1}, separator: tab, comment: '# '"
    data = f"{{source: conll, {columns}, splits: {{train: x, validation: x}}}}"
    path = tmp_path / "t.yaml"
    path.write_text(f"task: t\ndata: {data}\ninput: {{words: words}}\nlabels: {{scheme: iob2, column: tags}}\n")
    (tmp_path / "new.conll").write_text("# one\n1\tNew York\n2\tsleeps\n")
    [row] = read_unlabelled(tmp_path / "new.conll", None, load_task(path).task, raise_fault)
    assert row.values == {"words": ["New York", "sleeps"]}
