"""Templates filled with a row, and derived columns."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptv2kit.config.rows import Lookup
from ptv2kit.config.template import parse_template
from ptv2kit.data.rows import Row
from ptv2kit.data.templates import render, with_derived
from ptv2kit.errors import DataError, Problem


def row(**values: Any) -> Row:
    return Row(values, "copa.jsonl:3")


def joiner(column: str = "question") -> dict[str, Lookup]:
    return {"joiner": Lookup(column=column, map={"cause": "because", "effect": "so"})}


def test_render_fills_columns() -> None:
    template = parse_template("{premise} {{{idx.answer}}} {premise}!")
    assert render(template, row(premise="It rained", idx={"answer": 4})) == "It rained {4} It rained!"


@given(st.text(), st.text(), st.integers())
def test_render_keeps_any_text(first: str, second: str, number: int) -> None:
    rendered = render(parse_template("{a}|{b} {n}"), row(a=first, b=second, n=number))
    assert rendered == first + "|" + second + " " + str(number)


def test_render_without_columns() -> None:
    assert render(parse_template("plain"), row()) == "plain"


def test_render_of_a_missing_column() -> None:
    with pytest.raises(DataError) as info:
        render(parse_template("{premise} {chioce}"), row(premise="x", choice="y"))
    assert info.value.problems == (Problem("no column 'chioce'", "copa.jsonl:3", hint="did you mean 'choice'?"),)


def test_render_of_a_column_without_text() -> None:
    with pytest.raises(DataError) as info:
        render(parse_template("{premise}"), row(premise=None))
    assert info.value.problems == (Problem("column 'premise' must hold text. Got null", "copa.jsonl:3"),)


def test_derived_column_is_added() -> None:
    derived = with_derived(row(question="effect", n=1), joiner())
    assert derived == row(question="effect", n=1, joiner="so")


def test_derived_column_of_a_nested_one() -> None:
    assert with_derived(row(meta={"kind": "cause"}), joiner("meta.kind")).text("joiner") == "because"


@pytest.mark.parametrize(("value", "key"), [(True, "true"), (False, "false"), (1, "1"), (0.5, "0.5")])
def test_derive_from_booleans_and_numbers(value: object, key: str) -> None:
    lookups = {"name": Lookup(column="x", map={key: "found"})}
    assert with_derived(row(x=value), lookups).text("name") == "found"


def test_nothing_to_derive_returns_the_row() -> None:
    plain = row(x=1)
    assert with_derived(plain, {}) is plain


def test_derive_of_an_unknown_value() -> None:
    with pytest.raises(DataError) as info:
        with_derived(row(question="efect"), joiner())
    message = "value 'efect' of column 'question' is not in 'derive.joiner.map', which has 'cause', 'effect'"
    assert info.value.problems == (Problem(message, "copa.jsonl:3", hint="did you mean 'effect'?"),)


def test_derive_does_not_replace_a_column() -> None:
    with pytest.raises(DataError) as info:
        with_derived(row(question="cause", joiner="x"), joiner())
    (problem,) = info.value.problems
    assert problem.message == "column 'joiner' of 'derive' is already a column of the data"
    assert problem.location == "copa.jsonl:3"


@pytest.mark.parametrize(
    ("values", "message"),
    [({"other": "cause"}, "no column 'question'"), ({"question": ["cause"]}, "column 'question' must hold text")],
)
def test_derive_from_an_unusable_column(values: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        with_derived(row(**values), joiner())
