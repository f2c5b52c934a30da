"""Proposals for answers in a passage, and for choices."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from ptv2kit.data.proposals.columns import Columns, label_column, mean_words, text_columns
from ptv2kit.data.proposals.proposal import Proposal, key, left_out, plain, template
from ptv2kit.data.rows import Row
from ptv2kit.errors import DataError
from ptv2kit.spec.yaml import quoted


class _OptionLayout(NamedTuple):
    """How a column holds a row's options.

    Args:
        path: from the column to the texts, as a task writes it.
        called: from the column to what the row calls them; empty without such names.
    """

    path: str
    called: str

    def fits(self, value: Any) -> bool:
        """Whether a value has this layout."""
        try:
            row = Row({"options": value}, "")
            texts = row.texts(f"options{self.path}")
            named = not self.called or len(row.texts(f"options{self.called}")) == len(texts)
        except DataError:
            return False
        return len(texts) > 1 and named and all(isinstance(text, str) for text in row.items(f"options{self.path}"))

    def texts(self, value: Any) -> list[str]:
        """The options."""
        return Row({"options": value}, "").texts(f"options{self.path}")

    def names(self, value: Any) -> list[str]:
        """What the row calls them."""
        return Row({"options": value}, "").texts(f"options{self.called}")


_OPTION_LAYOUTS = (
    _OptionLayout(".text", ".label"),
    _OptionLayout(".*.text", ".*.label"),
    _OptionLayout("", ""),
)


def find_answers(columns: Columns) -> Proposal | None:
    """A question, a passage, and answers in SQuAD's layout or as texts that stand in the passage."""
    texts = text_columns(columns)
    question = next((name for name in texts if "question" in name or "query" in name), None)
    passage = max((name for name in texts if name != question), key=lambda name: mean_words(texts[name]), default=None)
    if question is None or passage is None:
        return None
    for name, values in columns.items():
        if all(
            isinstance(value, dict) and {"text", "answer_start"} <= set(cast(dict[str, Any], value)) for value in values
        ):
            empty = any(not value["text"] for value in values)
            labels = f"{{scheme: start_end, column: {key(name)}, unanswerable: {plain(empty)}}}"
            why = f"column '{name}' has 'text' and 'answer_start', as in SQuAD"
        elif name in texts and name not in (question, passage) and _stands_in(texts[name], texts[passage]):
            labels = f"{{scheme: start_end, text: {key(name)}, unanswerable: {plain('' in texts[name])}}}"
            why = f"what column '{name}' holds stands in column '{passage}'"
        else:
            continue
        inputs = f"{{question: {template(question)}, context: {template(passage)}, max_length: 384, stride: 128}}"
        return Proposal(
            "start_end",
            why,
            {
                "input": (inputs, "a long passage is read in windows that share `stride` sub-words"),
                "labels": (labels, "unanswerable: may a question have no answer?"),
                "metrics": ("[squad_f1, squad_exact_match]", ""),
            },
            (),
        )
    return None


def _stands_in(answers: Sequence[str], passages: Sequence[str]) -> bool:
    given = [(answer, passage) for answer, passage in zip(answers, passages, strict=True) if answer]
    return bool(given) and all(answer in passage for answer, passage in given)


def find_options(columns: Columns) -> Proposal | None:
    """A column with lists of options, and one that says which is right."""
    texts = text_columns(columns)
    for name, values in columns.items():
        layout = next((each for each in _OPTION_LAYOUTS if all(each.fits(value) for value in values)), None)
        if layout is None:
            continue
        options = [layout.texts(value) for value in values]
        called = [layout.names(value) for value in values] if layout.called else None
        label, keys = _right_option(columns, name, options, called, f"{name}{layout.called}")
        rest = [column for column in texts if column not in (name, label) and mean_words(texts[column]) > 1]
        if label is None or not rest:
            continue
        text = " ".join(f"{{{column}}}" for column in rest)
        inputs = f"{{text: {quoted(text)}, options: {key(name + layout.path)}, max_length: 128}}"
        labels = f"{{scheme: choices, column: {key(label)}{keys}}}"
        return Proposal(
            "choices",
            f"column '{name}' holds lists of options, and '{label}' says which one is right",
            {
                "input": (inputs, "text stands before each option"),
                "labels": (labels, ""),
                "metrics": ("[accuracy]", ""),
            },
            left_out(columns, (name, label, *rest)),
        )
    return None


def _right_option(
    columns: Columns,
    name: str,
    options: Sequence[Sequence[str]],
    called: Sequence[Sequence[str]] | None,
    among: str,
) -> tuple[str | None, str]:
    """The column that says which option is right, and what `labels` needs besides; None without such a column."""
    for label, values in columns.items():
        pairs = list(zip(values, options, strict=True))
        if label == name or not all(isinstance(value, str | int) and not isinstance(value, bool) for value in values):
            continue
        if called is not None and all(str(value) in of_row for value, of_row in zip(values, called, strict=True)):
            return label, f", among: {key(among)}"
        if all(str(value).isdecimal() and int(value) < len(of_row) for value, of_row in pairs):
            return label, ""
        letters = "ABCDEFGHIJ"[: max(map(len, options))]
        if all(str(value) in letters[: len(of_row)] and value for value, of_row in pairs):
            return label, f", names: [{', '.join(map(key, letters))}]"
    return None, ""


def find_choices(columns: Columns) -> Proposal | None:
    """Texts that are numbered, and a number that says which one is right."""
    texts = text_columns(columns)
    numbered = [name for name in texts if re.search(r"(choice|option|ending|solution|answer)_?\d$", name)]
    label = label_column(columns, exclude=numbered)
    rest = [name for name in texts if name not in numbered and name != label]
    if len(numbered) < 2 or label is None or not rest:
        return None
    values = [str(value) for value in columns[label]]
    if not all(value.isdecimal() and len(value) < 10 for value in values):
        return None
    numbered.sort()
    doubts = ()
    if max(map(int, values)) >= len(numbered) or "0" not in values:
        doubts = (f"labels count from 0, but column '{label}' holds {', '.join(sorted(set(values)))}",)
    text = " ".join(f"{{{name}}}" for name in rest)
    listed = ", ".join(map(template, numbered))
    return Proposal(
        "choices",
        f"columns {', '.join(numbered)} are numbered, and '{label}' says which one is right",
        {
            "input": (
                f"{{text: {quoted(text)}, choices: [{listed}], max_length: 128}}",
                "text stands before each choice",
            ),
            "labels": (f"{{scheme: choices, column: {key(label)}}}", ""),
            "metrics": ("[accuracy]", ""),
        },
        doubts,
    )
