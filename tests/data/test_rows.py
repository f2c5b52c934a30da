"""Reading columns of a row."""

from __future__ import annotations

from typing import Any

import pytest

from ptv2kit.data.rows import Row
from ptv2kit.errors import DataError, Problem

VALUES: dict[str, Any] = {
    "question": "why",
    "idx": {"paragraph": 3, "path": {"to": "x"}},
    "answers": [{"text": "first"}, {"text": "second"}],
    "exact.name": "whole",
    "exact": {"name": "part", "other": "o"},
    "tokens": ["a", "b"],
    "grid": [["p", "q"]],
    "nothing": None,
}


def row(**values: Any) -> Row:
    return Row(values or VALUES, "file.jsonl:7")


def problem_of(info: pytest.ExceptionInfo[DataError]) -> Problem:
    (problem,) = info.value.problems
    return problem


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("question", "why"),
        ("idx.paragraph", 3),
        ("idx.path.to", "x"),
        ("answers.1.text", "second"),
        ("tokens.0", "a"),
        ("grid.0.1", "q"),
        ("exact.name", "whole"),
        ("exact.other", "o"),
        ("nothing", None),
    ],
)
def test_value_reads_nested_columns(column: str, expected: object) -> None:
    assert row().value(column) == expected


@pytest.mark.parametrize(
    ("column", "hint"),
    [
        ("qestion", "did you mean 'question'?"),
        ("idx.paragrph", "did you mean 'idx.paragraph'?"),
        ("tokens.2", "did you mean 'tokens'?"),
        ("tokens.-1", "did you mean 'tokens'?"),
        ("question.length", "did you mean 'question'?"),
        ("nothing.x", "did you mean 'nothing'?"),
        (
            "zzz",
            "known: question, idx, idx.paragraph, idx.path, answers, exact.name, exact, exact.other, "
            "tokens, grid, nothing",
        ),
    ],
)
def test_missing_column(column: str, hint: str) -> None:
    with pytest.raises(DataError) as info:
        row().value(column)
    assert problem_of(info) == Problem(f"no column '{column}'", location="file.jsonl:7", hint=hint)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("", ""), ("é{x}", "é{x}"), (0, "0"), (-12, "-12"), (10**400, "1" + "0" * 400), (2.5, "2.5")],
)
def test_text_of_text_and_numbers(value: object, expected: str) -> None:
    assert row(x=value).text("x") == expected


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        ([], "an empty list"),
        (["a"], "a list of 1 item"),
        (["a", "b"], "a list of 2 items"),
        ({"a": "b"}, "a mapping"),
        (float("nan"), "the number nan"),
        (float("inf"), "the number inf"),
        (b"x", "a value of type bytes"),
    ],
)
def test_text_refuses_what_is_no_text(value: object, found: str) -> None:
    with pytest.raises(DataError) as info:
        row(x=value).text("x")
    assert problem_of(info) == Problem(f"column 'x' must hold text. Got {found}", location="file.jsonl:7")


def test_words() -> None:
    assert row(x=["New", "York"]).words("x") == ["New", "York"]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("New York", "Got the text 'New York'"),
        ("x" * 50, f"Got the text '{'x' * 37}...'"),
        ([], "Got an empty list"),
        (None, "Got null"),
        (3, "Got the number 3"),
        (["a", 3], "Item 2 of 2 is the number 3"),
        ([None], "Item 1 of 1 is null"),
        ([["a"]], "Item 1 of 1 is a list of 1 item"),
    ],
)
def test_words_refuses_what_is_no_list_of_texts(value: object, found: str) -> None:
    with pytest.raises(DataError) as info:
        row(x=value).words("x")
    assert problem_of(info) == Problem(f"column 'x' must hold a list of words. {found}", location="file.jsonl:7")


@pytest.mark.parametrize("read", [Row.text, Row.words])
def test_text_and_words_of_a_missing_column(read: Any) -> None:
    with pytest.raises(DataError, match="no column 'toke'"):
        read(row(), "toke")


def test_columns_whose_names_have_dots() -> None:
    row = Row({"a.b": {"c": 1}, "a": {"b": {"d": 2}}}, "x")
    assert (row.value("a.b.c"), row.value("a.b")) == (1, {"c": 1})
