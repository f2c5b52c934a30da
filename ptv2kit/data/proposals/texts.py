"""Proposals for labels of texts: classes, several labels, numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from ptv2kit.data.proposals.columns import (
    LABEL_NAMES,
    WORD_NAMES,
    Columns,
    are_numbers,
    flag_columns,
    has_fraction,
    input_texts,
    label_column,
    mean_words,
    only_counts,
    pair_of,
    text_columns,
    word_counts,
)
from ptv2kit.data.proposals.proposal import MOST_LABELS, Proposal, key, left_out, longest, plain, template
from ptv2kit.spec.yaml import quoted

_NUMBER_NAMES = ("score", "similarity", "similarity_score", "rating", "value", "number", "relatedness")
_SEVERAL = ("labels", "tags", "topics", "categories", "genres", "emotions", "classes", "subjects", "keywords")
_MOST_LISTED = 60
_FREQUENT = 0.7
_RARE = "; weights: balanced lets the others count as much in the loss"
FLAGS = "flags"
"""The made column with the names of columns that hold yes."""


def find_classes(columns: Columns) -> Proposal | None:
    """A column of few values, and one or two of texts."""
    label = label_column(columns)
    texts = {} if label is None else input_texts(columns, label)
    if label is None or not texts:
        return None
    pair = pair_of(texts)
    counts = Counter(plain(value) if isinstance(value, bool) else str(value) for value in columns[label])
    names = sorted(counts, key=lambda name: (len(name), name) if name.isdecimal() else (0, name))
    names, unknown = _without_unknown(names)
    if len(names) > _MOST_LISTED:
        shown, doubts = "from_train", ("labels.names: from_train finds the classes in the training rows",)
    elif all(name.isdecimal() for name in names):
        shown = "{" + ", ".join(f"{quoted(name)}: class_{name}" for name in names) + "}"
        doubts = ("the classes are numbers: give them names in 'labels.names', or learn the number with scheme number",)
    else:
        shown, doubts = f"[{', '.join(map(key, names))}]", ()
    inputs = _text_input(texts, pair)
    most = counts.most_common(1)[0][1] / len(columns[label])
    doubts += left_out(texts, pair)
    chosen: dict[str, tuple[str, str]] = {}
    if unknown:
        doubts += (f"rows whose '{label}' is {unknown} are left out: nobody knows their class",)
        kept = f"{{{key(label)}: [{', '.join(map(quoted, names))}]}}"
        chosen = {"where": (kept, f"not {unknown}, which is no class")}
    return Proposal(
        "classes",
        f"column '{label}' has {len(names)} values",
        {
            **chosen,
            "input": (inputs, "max_length counts sub-words"),
            "labels": (
                f"{{scheme: classes, column: {key(label)}, names: {shown}}}",
                f"the most frequent class is {most:.0%} of the rows{_RARE if most > _FREQUENT else ''}",
            ),
            "metrics": (
                # Naming the frequent class alone has a high accuracy: the epoch is chosen by what all classes reach.
                "[macro_f1, accuracy]" if most > _FREQUENT else "[accuracy]",
                "the first one chooses the best epoch",
            ),
        },
        doubts,
    )


def _without_unknown(names: list[str]) -> tuple[list[str], str]:
    """The classes without what SNLI (`-`) and the hub (`-1`) write where there is none, and that.

    -1, 0 and 1 are classes, and so is - beside +: many write what is bad, neither, and good so.
    """
    if "+" in names:
        return names, ""
    for unknown, fewest in (("-", 2), ("-1", 3)):
        rest = [name for name in names if name != unknown]
        if fewest <= len(rest) < len(names) and (unknown == "-" or all(name.isdecimal() for name in rest)):
            return rest, unknown
    return names, ""


def find_labels(columns: Columns) -> Proposal | None:
    """A list of few different names, and a text."""
    for name, values in columns.items():
        lists = all(
            isinstance(value, list) and all(isinstance(item, str | int) for item in cast(list[Any], value))
            for value in values
        )
        one_each = lists and all(len(value) == 1 for value in values) and label_column(columns) is not None
        if lists and not one_each and name.lower() not in WORD_NAMES:
            found = Counter(str(item) for value in values for item in value)
            proposal = _labels_of(columns, name, found, f"column '{name}' holds lists of {len(found)} different labels")
            if proposal is not None and len(found) <= max(2, len(values) // 2):
                return proposal
    return None


def find_separated_labels(columns: Columns) -> Proposal | None:
    """A column called after several labels, whose texts hold few names with something between them."""
    for name, values in text_columns(columns).items():
        for separator in (",", "|", ";") if name.lower() in _SEVERAL else ():
            lists = [[part.strip() for part in text.split(separator) if part.strip()] for text in values]
            found = Counter(part for parts in lists for part in parts)
            if any(len(parts) > 1 for parts in lists) and len(found) <= max(2, len(values) // 2):
                why = f"column '{name}' holds {len(found)} different labels with '{separator}' between them"
                return _labels_of(columns, name, found, why, f", separator: {quoted(separator)}")
    return None


def find_flags(columns: Columns) -> Proposal | None:
    """A text, and a column of yes and no for each label."""
    flags = flag_columns(columns)
    rest = {name: values for name, values in columns.items() if name not in flags}
    if not flags or FLAGS in columns:
        return None
    why = f"columns {', '.join(flags)} hold yes and no"
    proposal = _labels_of({**rest, FLAGS: []}, FLAGS, flags, why)
    if proposal is None:
        return None
    derive = f"{{{FLAGS}: {{flags: [{', '.join(map(key, flags))}]}}}}"
    return replace(
        proposal, sections={"derive": (derive, "the names of the columns that hold yes"), **proposal.sections}
    )


def _labels_of(columns: Columns, name: str, found: Iterable[str], why: str, separator: str = "") -> Proposal | None:
    """Labels in a column beside a text; None without a text, or where they are too few or too many."""
    texts = {other: of for other, of in text_columns(columns).items() if other != name and of and mean_words(of) > 1}
    names = sorted(set(found), key=lambda each: (len(each), each) if each.isdecimal() else (0, each))
    if not texts or not 2 <= len(names) <= MOST_LABELS:
        return None
    text = max(texts, key=lambda column: mean_words(texts[column]))
    numbers = all(each.isdecimal() for each in names)
    shown = ", ".join(f"{quoted(each)}: label_{each}" if numbers else key(each) for each in names)
    inputs = f"{{text: {template(text)}, max_length: {longest(word_counts(texts[text]), pieces=2)}}}"
    listed = f"{{{shown}}}" if numbers else f"[{shown}]"
    return Proposal(
        "labels",
        why,
        {
            "input": (inputs, "max_length counts sub-words"),
            "labels": (
                f"{{scheme: labels, column: {key(name)}, names: {listed}{separator}}}",
                "threshold: best chooses the threshold on the validation split",
            ),
            "metrics": ("[micro_f1, macro_f1]", "the first one chooses the best epoch"),
        },
        (("the labels are numbers: give them names in 'labels.names'",) if numbers else ())
        + left_out(columns, (name, text)),
    )


def find_named_number(columns: Columns) -> Proposal | None:
    """A number with a fraction in a column whose name speaks of labels or scores."""
    named = [name for name in columns if name.lower() in (*LABEL_NAMES, *_NUMBER_NAMES)]
    fractions = [name for name in named if are_numbers(columns[name]) and any(map(has_fraction, columns[name]))]
    return _number_of(columns, fractions[0]) if fractions else None


def find_number(columns: Columns) -> Proposal | None:
    """Any other number, if nothing else is recognised and it does not only count the rows."""
    for name in columns:
        values = columns[name]
        if not only_counts(name) and are_numbers(values) and len(set(map(str, values))) > 1:
            return _number_of(columns, name)
    return None


def _number_of(columns: Mapping[str, list[Any]], label: str) -> Proposal | None:
    texts = input_texts(columns, label)
    if not texts:
        return None
    pair = pair_of(texts)
    numbers = [float(value) for value in columns[label]]
    return Proposal(
        "number",
        f"column '{label}' holds numbers from {min(numbers):g} to {max(numbers):g}",
        {
            "input": (_text_input(texts, pair), "max_length counts sub-words"),
            "labels": (f"{{scheme: number, column: {key(label)}}}", "in the unit of the data"),
            "metrics": ("[pearson_spearman, pearson, spearman, rmse]", "the first one chooses the best epoch"),
        },
        left_out(columns, (label, *pair)),
    )


def _text_input(texts: Mapping[str, Sequence[str]], pair: Sequence[str]) -> str:
    words = [sum(len(texts[name][row].split()) for name in pair) for row in range(len(texts[pair[0]]))]
    second = f", pair: {template(pair[1])}" if len(pair) > 1 else ""
    return f"{{text: {template(pair[0])}{second}, max_length: {longest(words, pieces=2)}}}"
