"""A first task file for data that is not described yet, from a look at its columns."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, final

from ptv2kit.data.rows import Row
from ptv2kit.errors import DataError
from ptv2kit.spec.yaml import quoted

_LABEL_NAMES = ("label", "labels", "class", "category", "target", "sentiment", "answer", "gold", "y")
_PAIRS = (
    ("premise", "hypothesis"),
    ("question", "passage"),
    ("question", "sentence"),
    ("question", "context"),
    ("sentence1", "sentence2"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("query", "document"),
)
_MOST_CLASSES = 50
_TAG = re.compile(r"O|[BIESLU]-\S+")


@final
@dataclass(frozen=True)
class Proposal:
    """The sections of a task file.

    Args:
        scheme: that was recognised.
        why: what it was recognised by.
        sections: key to YAML text, in order, each with a comment or none.
        doubts: what a person should look at.
    """

    scheme: str
    why: str
    sections: Mapping[str, tuple[str, str]]
    doubts: tuple[str, ...]


def propose(rows: Sequence[Row]) -> Proposal:
    """Recognise the label scheme by names, kinds and values of the columns.

    Args:
        rows: some of the training rows, at least one.

    Raises:
        DataError: no scheme fits.
    """
    columns = _columns(rows)
    for attempt in (_answers, _spans, _choices, _classes):
        found = attempt(columns)
        if found is not None:
            return found
    names = ", ".join(columns)
    raise DataError(
        f"no label scheme is recognised in the columns {names}",
        location=rows[0].location.rpartition(":")[0],
        hint="'ptv2kit schema task --markdown' lists the schemes; 'ptv2kit ls tasks' and 'ptv2kit cp' give examples",
    )


def _columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """The values of each column that all rows have."""
    names = [name for name in rows[0].values if all(name in row.values for row in rows)]
    return {name: [row.values[name] for row in rows] for name in names}


def _answers(columns: Mapping[str, list[Any]]) -> Proposal | None:
    """A question, a passage, and answers in SQuAD's layout or as texts that stand in the passage."""
    texts = _text_columns(columns)
    question = next((name for name in texts if "question" in name or "query" in name), None)
    passage = max((name for name in texts if name != question), key=lambda name: _mean_words(texts[name]), default=None)
    if question is None or passage is None:
        return None
    for name, values in columns.items():
        if all(
            isinstance(value, dict) and {"text", "answer_start"} <= set(cast(dict[str, Any], value)) for value in values
        ):
            empty = any(not value["text"] for value in values)
            labels = f"{{scheme: start_end, column: {_key(name)}, unanswerable: {_plain(empty)}}}"
            why = f"column '{name}' has 'text' and 'answer_start', as in SQuAD"
        elif name in texts and name not in (question, passage) and _stands_in(texts[name], texts[passage]):
            labels = f"{{scheme: start_end, text: {_key(name)}, unanswerable: {_plain('' in texts[name])}}}"
            why = f"what column '{name}' holds stands in column '{passage}'"
        else:
            continue
        inputs = f"{{question: {_template(question)}, context: {_template(passage)}, max_length: 384, stride: 128}}"
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


def _spans(columns: Mapping[str, list[Any]]) -> Proposal | None:
    """A list of words, and a list of tags of the same length."""
    lists = {
        name: cast(list[list[str]], values)
        for name, values in columns.items()
        if all(
            isinstance(value, list) and all(isinstance(item, str) for item in cast(list[Any], value))
            for value in values
        )
    }
    for name, values in lists.items():
        found = Counter(tag for tags in values for tag in tags)
        if not found or not all(_TAG.fullmatch(tag) for tag in found) or set(found) == {"O"}:
            continue
        words = next((other for other in lists if other != name and _same_lengths(lists[other], values)), None)
        if words is None:
            continue
        letters = {tag[0] for tag in found}
        encoding = "iobes" if letters & set("ESLU") else "iob2" if _is_iob2(values) else "iob1"
        types = sorted({tag[2:] for tag in found if tag != "O"})
        inputs = f"{{words: {_key(words)}, max_length: {_longest(map(len, lists[words]), pieces=2)}}}"
        labels = f"{{scheme: iob2, column: {_key(name)}, encoding: {encoding}, names: [{', '.join(map(_key, types))}]}}"
        return Proposal(
            "iob2",
            f"column '{name}' holds a tag for each word of column '{words}'",
            {
                "input": (inputs, "max_length counts sub-words"),
                "labels": (labels, f"{len(types)} types of spans"),
                "metrics": ("[span_f1]", ""),
            },
            _left_out(columns, (name, words)),
        )
    return None


def _choices(columns: Mapping[str, list[Any]]) -> Proposal | None:
    """Texts that are numbered, and a number that says which one is right."""
    texts = _text_columns(columns)
    numbered = [name for name in texts if re.search(r"(choice|option|ending|solution|answer)_?\d$", name)]
    label = _label_column(columns, exclude=numbered)
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
    listed = ", ".join(map(_template, numbered))
    return Proposal(
        "choices",
        f"columns {', '.join(numbered)} are numbered, and '{label}' says which one is right",
        {
            "input": (
                f"{{text: {quoted(text)}, choices: [{listed}], max_length: 128}}",
                "text stands before each choice",
            ),
            "labels": (f"{{scheme: choices, column: {_key(label)}}}", ""),
            "metrics": ("[accuracy]", ""),
        },
        doubts,
    )


def _classes(columns: Mapping[str, list[Any]]) -> Proposal | None:
    """A column of few values, and one or two of texts."""
    label = _label_column(columns)
    texts = {name: values for name, values in _text_columns(columns).items() if name != label}
    if label is None or not texts:
        return None
    pair = next((names for names in _PAIRS if set(names) <= set(texts)), None)
    if pair is None:
        pair = (max(texts, key=lambda name: _mean_words(texts[name])),)
    counts = Counter(_plain(value) if isinstance(value, bool) else str(value) for value in columns[label])
    names = sorted(counts, key=lambda name: (len(name), name) if name.isdecimal() else (0, name))
    if all(name.isdecimal() for name in names):
        shown = "{" + ", ".join(f"{quoted(name)}: class_{name}" for name in names) + "}"
        doubts = ("the classes are numbers: give them names in 'labels.names'",)
    else:
        shown, doubts = f"[{', '.join(map(_key, names))}]", ()
    words = [sum(len(texts[name][row].split()) for name in pair) for row in range(len(texts[pair[0]]))]
    second = f", pair: {_template(pair[1])}" if len(pair) > 1 else ""
    inputs = f"{{text: {_template(pair[0])}{second}, max_length: {_longest(words, pieces=2)}}}"
    most = counts.most_common(1)[0][1] / len(columns[label])
    doubts += _left_out(texts, pair)
    return Proposal(
        "classes",
        f"column '{label}' has {len(names)} values",
        {
            "input": (inputs, "max_length counts sub-words"),
            "labels": (
                f"{{scheme: classes, column: {_key(label)}, names: {shown}}}",
                f"the most frequent class is {most:.0%} of the rows",
            ),
            "metrics": ("[accuracy, macro_f1]" if most > 0.7 else "[accuracy]", "the first one chooses the best epoch"),
        },
        doubts,
    )


def _left_out(columns: Iterable[str], used: Iterable[str]) -> tuple[str, ...]:
    unused = sorted(set(columns) - set(used))
    return (f"columns that the input leaves out: {', '.join(unused)}",) if unused else ()


def _label_column(columns: Mapping[str, list[Any]], exclude: Sequence[str] = ()) -> str | None:
    """The column of few values whose name speaks of labels, else the one with the fewest."""
    few: dict[str, int] = {}
    for name, values in columns.items():
        plain = all(isinstance(value, str | bool | int) for value in values)
        kinds = len({str(value) for value in values}) if plain else 0
        if name not in exclude and 2 <= kinds <= min(_MOST_CLASSES, max(2, len(values) // 3)):
            few[name] = kinds
    named = [name for wanted in _LABEL_NAMES for name in few if name.lower() == wanted]
    return named[0] if named else min(few, key=lambda name: few[name], default=None)


def _text_columns(columns: Mapping[str, list[Any]]) -> dict[str, list[str]]:
    return {name: values for name, values in columns.items() if all(isinstance(value, str) for value in values)}


def _mean_words(texts: Sequence[str]) -> float:
    return sum(len(text.split()) for text in texts) / len(texts)


def _stands_in(answers: Sequence[str], passages: Sequence[str]) -> bool:
    given = [(answer, passage) for answer, passage in zip(answers, passages, strict=True) if answer]
    return bool(given) and all(answer in passage for answer, passage in given)


def _same_lengths(one: Sequence[Sequence[str]], other: Sequence[Sequence[str]]) -> bool:
    return all(len(words) == len(tags) for words, tags in zip(one, other, strict=True))


def _is_iob2(sentences: Sequence[Sequence[str]]) -> bool:
    """Whether every `I-` continues a span of its type."""
    for tags in sentences:
        before = ["O", *tags[:-1]]
        if any(tag[0] == "I" and previous[2:] != tag[2:] for tag, previous in zip(tags, before, strict=True)):
            return False
    return True


def _longest(words: Iterator[int] | Sequence[int], pieces: int) -> int:
    """A `max_length` that holds nearly all rows: a multiple of 32, at most 512."""
    ordered = sorted(words)
    most = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return min(512, max(32, -(-(most * pieces + 3) // 32) * 32))


def _template(column: str) -> str:
    return quoted(f"{{{column}}}")


def _key(text: str) -> str:
    """A text in a YAML flow mapping."""
    simple = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", text) and text.lower() not in (
        "true",
        "false",
        "null",
        "yes",
        "no",
    )
    return text if simple else quoted(text)


def _plain(value: bool) -> str:
    return str(value).lower()
