"""Templates filled with a row, and derived columns."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from ptv2kit.data.rows import Row
from ptv2kit.data.templates import render, task_rows, with_derived
from ptv2kit.errors import DataError, Problem
from ptv2kit.spec.rows import Derivation, Flags, Lookup, Parsing
from ptv2kit.spec.task_base import TaskBase
from ptv2kit.spec.template import parse_template


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
    derived = with_derived(row(question="effect", n=1), joiner(), {})
    assert derived == row(question="effect", n=1, joiner="so")


def test_derived_column_of_a_nested_one() -> None:
    assert with_derived(row(meta={"kind": "cause"}), joiner("meta.kind"), {}).text("joiner") == "because"


@pytest.mark.parametrize(("value", "key"), [(True, "true"), (False, "false"), (1, "1"), (0.5, "0.5")])
def test_derive_from_booleans_and_numbers(value: object, key: str) -> None:
    lookups = {"name": Lookup(column="x", map={key: "found"})}
    assert with_derived(row(x=value), lookups, {}).text("name") == "found"


@pytest.mark.parametrize(
    ("language", "text", "value"),
    [
        ("json", '["Ada", 1, null]', ["Ada", 1, None]),
        ("json", '{"text": ["a"], "start": [0]}', {"text": ["a"], "start": [0]}),
        ("python", "['Ada', \"isn't\"]", ["Ada", "isn't"]),
        ("python", " [(0, 4, 'LOC')] ", [[0, 4, "LOC"]]),
        ("python", "{'text': ['a'], 'start': [0]}", {"text": ["a"], "start": [0]}),
        ("python", "[]", []),
    ],
)
def test_derive_what_a_text_writes(language: Literal["json", "python"], text: str, value: object) -> None:
    assert with_derived(row(x=text), {"y": Parsing(column="x", parse=language)}, {}).value("y") == value


@pytest.mark.parametrize(
    ("language", "text", "reason"),
    [
        ("json", "['Ada']", "must hold JSON (Expecting value). Got \"['Ada']\""),
        ("python", "['Ada' 'left']", "two texts without a comma between them, as numpy writes arrays"),
        ("python", "['Ada'\n 'left']", "two texts without a comma between them"),
        ("python", "open('x')", "must hold a value as Python writes it"),
        ("python", "['Ada'", "must hold a value as Python writes it"),
        ("python", "[" * 500, "must hold a value as Python writes it"),
        ("python", "", "must hold a value as Python writes it"),
    ],
)
def test_derive_from_a_text_that_writes_nothing(language: Literal["json", "python"], text: str, reason: str) -> None:
    with pytest.raises(DataError) as info:
        with_derived(row(x=text), {"y": Parsing(column="x", parse=language)}, {})
    assert reason in str(info.value)
    assert "copa.jsonl:3" in str(info.value)


def test_derive_the_names_of_flags() -> None:
    flags = {"labels": Flags(flags=("toxic", "rude", "meta.old", "kind"))}
    assert with_derived(row(toxic="1", rude=0, meta={"old": True}, kind="No"), flags, {}).value("labels") == [
        "toxic",
        "meta.old",
    ]
    assert with_derived(row(toxic="", rude=None, meta={"old": 0.0}, kind="False"), flags, {}).value("labels") == []
    with pytest.raises(DataError, match=r"column 'rude' must hold yes or no, such as 1 or 0\. Got '2'"):
        with_derived(row(toxic=1, rude=2, meta={"old": 1}, kind=0), flags, {})


def test_nothing_to_derive_returns_the_row() -> None:
    plain = row(x=1)
    assert with_derived(plain, {}, {}) is plain


def test_derive_of_an_unknown_value() -> None:
    with pytest.raises(DataError) as info:
        with_derived(row(question="efect"), joiner(), {})
    message = "value 'efect' of column 'question' is not in 'derive.joiner.map', which has 'cause', 'effect'"
    assert info.value.problems == (Problem(message, "copa.jsonl:3", hint="did you mean 'effect'?"),)


def test_derive_does_not_replace_a_column() -> None:
    with pytest.raises(DataError) as info:
        with_derived(row(question="cause", joiner="x"), joiner(), {})
    (problem,) = info.value.problems
    assert problem.message == "column 'joiner' of 'derive' is already a column of the data"
    assert problem.location == "copa.jsonl:3"


@pytest.mark.parametrize(
    ("values", "message"),
    [({"other": "cause"}, "no column 'question'"), ({"question": ["cause"]}, "column 'question' must hold text")],
)
def test_derive_from_an_unusable_column(values: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        with_derived(row(**values), joiner(), {})


DERIVATIONS: TypeAdapter[dict[str, Derivation]] = TypeAdapter(dict[str, Derivation])


def derived(name: str, section: dict[str, Any], **values: Any) -> Any:
    return with_derived(row(**values), DERIVATIONS.validate_python({name: section}), {}).value(name)


def test_pieces_are_replaced_by_columns() -> None:
    section = {"text": "{query}", "replace": {"@placeholder": "{entity}", "\n": " "}}
    assert derived("filled", section, query="in @placeholder\nand @placeholder", entity="{x}") == "in {x} and {x}"


@pytest.mark.parametrize(("entity", "right"), [("Rome", True), ("rome", False)])
def test_membership(entity: str, right: bool) -> None:
    assert derived("right", {"column": "e", "among": "a.*.text"}, e=entity, a=[{"text": "Rome"}]) is right


def test_membership_compares_texts() -> None:
    assert derived("right", {"column": "e", "among": "a"}, e=1, a=[1, 2]) is True
    with pytest.raises(DataError, match=r"column 'a' must hold text\. Got a mapping"):
        derived("right", {"column": "e", "among": "a"}, e="x", a=[{"text": "x"}])


def test_a_word_is_marked() -> None:
    section = {"column": "text", "word": "at", "mark": "*{word}*"}
    assert derived("m", section, text="Nell  thanked\nher.", at="2") == "Nell thanked *her.*"
    with pytest.raises(DataError, match="column 'at' holds 3, but 'text' has 3 words"):
        derived("m", section, text="Nell thanked her.", at=3)


def test_a_text_is_cut_by_characters() -> None:
    section = {"column": "p.text", "start": "s.start", "end": "s.end"}
    values = {"p": {"text": "Orla Finch bakes"}, "s": {"start": 5, "end": 9}}
    assert derived("e", section, **values) == "Finc"
    assert derived("e", {**section, "inclusive": True}, **values) == "Finch"
    with pytest.raises(
        DataError, match=r"span 5 to 99 \(columns '[^']+', '[^']+'\) is outside 'p.text', which has 16 characters"
    ):
        derived("e", section, p=values["p"], s={"start": 5, "end": 99})


def test_a_text_becomes_words() -> None:
    assert derived("w", {"column": "t", "split": " "}, t="one two  three") == ["one", "two", "three"]


def test_a_derived_column_may_use_those_above_it() -> None:
    sections = {"w": {"column": "t", "split": " "}, "in": {"column": "x", "among": "w"}}
    assert with_derived(row(t="a b", x="b"), DERIVATIONS.validate_python(sections), {}).value("in") is True


def task(**sections: Any) -> TaskBase:
    data = {"source": "jsonl", "splits": {"train": "a", "validation": "b"}}
    return TaskBase.model_validate({"task": "t", "data": data, **sections})


def test_expand_makes_a_row_of_each_item() -> None:
    steps = [{"column": "passage.questions", "item": "q"}, {"column": "q.answers", "item": "a"}]
    questions = [{"n": 1, "answers": ["x", "y"]}, {"n": 2, "answers": []}, {"n": 3, "answers": ["z"]}]
    found = list(task_rows(task(expand=steps), [row(passage={"questions": questions})]))
    assert [(item.value("q.n"), item.value("a")) for item in found] == [(1, "x"), (1, "y"), (3, "z")]
    assert found[2].location == "copa.jsonl:3: passage.questions[2]: q.answers[0]"


def test_distinct_keeps_the_first() -> None:
    rows = [row(id=1, e="a"), row(id=1, e="a"), row(id=1, e="b"), row(id=2, e="a")]
    assert [item.values for item in task_rows(task(distinct="{id}-{e}"), rows)] == [
        rows[index].values for index in (0, 2, 3)
    ]


def test_expand_of_what_is_no_list() -> None:
    with pytest.raises(DataError, match=r"column 'a' must hold a list\. Got the text 'x'"):
        list(task_rows(task(expand=[{"column": "a", "item": "b"}]), [row(a="x")]))
    with pytest.raises(DataError, match="column 'a' of 'expand' is already a column of the data"):
        list(task_rows(task(expand=[{"column": "a", "item": "a"}]), [row(a=["x"])]))


def test_where_keeps_rows_with_one_of_the_texts() -> None:
    rows = [row(pos="VB", id=1), row(pos="NN", id=2), row(pos="VBD", id=1), row(pos="VB", id=3)]
    kept = task_rows(task(where={"pos": ["VB", "VBD"], "id": ["1"]}, distinct="{pos}"), rows)
    assert [item.values for item in kept] == [rows[0].values, rows[2].values]
    derived_column = task_rows(task(derive={"w": {"column": "pos", "split": "B"}}, where={"pos": ["NN"]}), rows)
    assert [item.value("w") for item in derived_column] == [["NN"]]
    with pytest.raises(DataError, match="column 'tag'"):
        list(task_rows(task(where={"tag": ["VB"]}), rows))
