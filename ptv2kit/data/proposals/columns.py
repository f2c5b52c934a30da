"""What the columns of data hold that is not described yet, and columns that a task can make of them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, cast

from ptv2kit.data.rows import Row
from ptv2kit.data.templates import derived_value
from ptv2kit.errors import DataError
from ptv2kit.spec.rows import Derivation, Joining, Mark, Parsing, Previous, SpanMarking, Splitting

Columns = Mapping[str, list[Any]]
"""The values of each column, row by row."""

LABEL_NAMES = (
    "label",
    "labels",
    "class",
    "category",
    "target",
    "sentiment",
    "answer",
    "gold",
    "y",
    "relation",
    "intent",
)
PAIRS = (
    ("premise", "hypothesis"),
    ("question", "passage"),
    ("question", "sentence"),
    ("question", "context"),
    ("sentence1", "sentence2"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("query", "document"),
)
WORD_NAMES = ("token", "tokens", "word", "words", "sentence", "text")
_COUNTERS = re.compile(r"(.*_)?(id|idx|index|guid|uid|row|docid)|unnamed: 0", re.IGNORECASE)
_TALKS = re.compile(r"(dialog|dialogue|conversation|session|thread|call)(_?id)?", re.IGNORECASE)
_MOST_CLASSES, _MOST_NAMED = 50, 2000
"""Values of a column of classes; where its name speaks of labels."""
EARLIER = "before"
"""The made column with the turn before."""


class Made(NamedTuple):
    """Columns with one that `derive` makes.

    Args:
        columns: without those that it is made of.
        derive: of each made column.
    """

    columns: Columns
    derive: Mapping[str, Derivation]


def columns_of(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """The values of each column that all rows have."""
    names = [name for name in rows[0].values if all(name in row.values for row in rows)]
    return {name: [row.values[name] for row in rows] for name in names}


def text_columns(columns: Columns) -> dict[str, list[str]]:
    """The columns that hold texts only."""
    return {name: values for name, values in columns.items() if all(isinstance(value, str) for value in values)}


def word_columns(columns: Columns) -> dict[str, list[list[str]]]:
    """The columns that hold lists of texts only."""
    return {name: values for name, values in columns.items() if all(_are_texts(value) and value for value in values)}


def input_texts(columns: Columns, label: str) -> dict[str, list[str]]:
    """The texts that an input can be made of: neither the label, nor numbers, nor what only names the row."""
    return {
        name: of
        for name, of in text_columns(columns).items()
        if name != label and not are_numbers(of) and not _COUNTERS.fullmatch(name)
    }


def label_column(columns: Columns, exclude: Sequence[str] = ()) -> str | None:
    """The column of few values whose name speaks of labels, else the one with the fewest."""
    few: dict[str, int] = {}
    for name, values in columns.items():
        plain = all(isinstance(value, str | bool | int) for value in values)
        kinds = len({str(value) for value in values}) if plain else 0
        most = _MOST_NAMED if _last(name) in LABEL_NAMES else _MOST_CLASSES
        if name not in exclude and 2 <= kinds <= min(most, max(2, len(values) // 3)):
            few[name] = kinds
    named = [name for wanted in LABEL_NAMES for name in few if _last(name) == wanted]
    return named[0] if named else min(few, key=lambda name: few[name], default=None)


def _last(name: str) -> str:
    """What a column, or the last field of a path, is called."""
    return name.rpartition(".")[2].lower()


def flag_columns(columns: Columns) -> list[str]:
    """The columns of yes and no, each a label: three or more, or two where no column's name speaks of labels."""
    kinds = ({"0", "1"}, {"true", "false"}, {"yes", "no"})
    flags = [
        name
        for name, values in columns.items()
        if not only_counts(name) and any({str(value).strip().lower() for value in values} <= kind for kind in kinds)
    ]
    named = any(name.lower() in LABEL_NAMES for name in columns)
    return flags if len(flags) >= (3 if named else 2) else []


def only_counts(name: str) -> bool:
    """Whether a column's name says that it only names or counts the rows."""
    return _COUNTERS.fullmatch(name) is not None


def are_numbers(values: Iterable[Any]) -> bool:
    """Whether all are numbers, or texts that write one."""
    try:
        return all(not isinstance(value, bool) and math.isfinite(float(value)) for value in values)
    except (TypeError, ValueError, OverflowError):
        return False


def has_fraction(value: Any) -> bool:
    """Whether a number, or a text that writes one, is written with a fraction."""
    return not float(value).is_integer() or (isinstance(value, str) and "." in value)


def word_counts(texts: Iterable[str]) -> list[int]:
    """How many words each text has."""
    return [len(text.split()) for text in texts]


def mean_words(texts: Sequence[str]) -> float:
    """How many words a text has in the mean."""
    return sum(word_counts(texts)) / len(texts)


def pair_of(texts: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The two columns of a usual pair, else the one with the longest texts, behind the turn before if there is one."""
    pair = next((names for names in PAIRS if set(names) <= set(texts)), None)
    if pair is not None:
        return pair
    longest = max((name for name in texts if name != EARLIER), key=lambda name: mean_words(texts[name]))
    return (EARLIER, longest) if EARLIER in texts else (longest,)


def with_annotations(columns: Columns) -> Made | None:
    """What Label Studio exports: the fields of its data, and what the first person marked or chose."""
    if not {"data", "annotations"} <= set(columns):
        return None
    given = with_fields({"data": columns["data"]})
    spans = _values(columns, "annotations.0.result.*.value")
    several = _values(columns, "annotations.0.result.0.value.choices")
    if given is None or spans is None:
        return None
    if several is None:
        return Made({**given.columns, "annotations.0.result.*.value": spans}, {})
    one = _values(columns, "annotations.0.result.0.value.choices.0")
    if one is None or any(len(value) > 1 for value in several):
        return Made({**given.columns, "annotations.0.result.0.value.choices": several}, {})
    return Made({**given.columns, "annotations.0.result.0.value.choices.0": one}, {})


def with_fields(columns: Columns) -> Made | None:
    """The fields of columns that hold mappings, as columns."""
    found: dict[str, list[Any]] = {}
    for name, values in columns.items():
        if all(isinstance(value, Mapping) for value in values):
            paths = {f"{name}.{field}" for field in cast(Mapping[str, Any], values[0])}
            fields = {path: _values(columns, path) for path in sorted(paths)}
            found |= {path: of for path, of in fields.items() if of is not None}
        else:
            found[name] = values
    return Made(found, {}) if found.keys() != columns.keys() else None


def with_marks(columns: Columns) -> Made | None:
    """A text whose spans are marked, where `x_start` and `x_end` give the places of two spans or more in it."""
    starts = [name for name in columns if name.endswith("_start")]
    places = [(name, f"{name.removesuffix('_start')}_end") for name in starts]
    places = [pair for pair in places if pair[1] in columns]
    words, texts = word_columns(columns), text_columns(columns)
    for name in (*words, *texts):
        marks = tuple(
            Mark(start=start, end=end, mark=f"[{{span}}/{start.removesuffix('_start')}]") for start, end in places
        )
        for inclusive in (False, True):
            if len(marks) > 1 and (name in words or mean_words(texts[name]) > 1):
                derivation = SpanMarking(column=name, marks=marks, inclusive=inclusive)
                made = _made(columns, "marked", derivation, {name, *(place for pair in places for place in pair)})
                if made is not None:
                    return made
    return None


def with_joined(columns: Columns) -> Made | None:
    """A list of words, or paragraphs of sentences, as one text; of several the one with the most words."""
    found: list[tuple[float, Made]] = []
    for name, values in columns.items():
        nested = [name]
        if all(isinstance(value, Mapping) for value in values):
            nested = [f"{name}.{field}" for field in cast(Mapping[str, Any], values[0])]
        for path in nested:
            lists = [_field(value, path.removeprefix(f"{name}.") if path != name else "") for value in values]
            paragraphs = all(isinstance(each, list) and each and all(map(_are_texts, each)) for each in lists)
            if not paragraphs and not all(_are_texts(each) and each for each in lists):
                continue
            inner = [text for each in lists for part in each for text in part[1:]] if paragraphs else []
            within = "" if inner and all(text.startswith(" ") for text in inner) else " "
            derivation = Joining(column=path, join="\n" if paragraphs else " ", within=within)
            made = _made(columns, f"{name}_text", derivation, {name})
            if made is not None and mean_words(made.columns[f"{name}_text"]) > 1:
                found.append((mean_words(made.columns[f"{name}_text"]), made))
    return max(found, key=lambda pair: pair[0])[1] if found else None


def with_parsed(columns: Columns) -> Made | None:
    """Lists and mappings of texts that write them, as tables do."""
    found, steps = dict(columns), dict[str, Derivation]()
    for name, texts in text_columns(columns).items():
        if all(text.lstrip()[:1] in ("[", "{", "(") for text in texts):
            for language in ("json", "python"):
                made = _made(found, f"{name}_parsed", Parsing(column=name, parse=language), {name})
                if made is not None:
                    found, steps = dict(made.columns), {**steps, **made.derive}
                    break
    return Made(found, steps) if steps else None


def with_split(columns: Columns) -> Made | None:
    """Words and tags of texts that hold them between blanks."""
    found, steps = dict(columns), dict[str, Derivation]()
    texts = text_columns(columns)
    counts = {
        name: [len([word for word in text.split(" ") if word]) for text in values] for name, values in texts.items()
    }
    for name in texts:
        if max(counts[name]) > 1 and any(counts[name] == counts[other] for other in texts if other != name):
            made = _made(found, f"{name}_words", Splitting(column=name, split=" "), {name})
            if made is not None:
                found, steps = dict(made.columns), {**steps, **made.derive}
    return Made(found, steps) if steps else None


def with_turn_before(columns: Columns) -> Made | None:
    """The text of the row before, where a column says which rows are one dialogue."""
    talk = next((name for name in columns if _TALKS.fullmatch(name)), None)
    if talk is None or not any(one == other for one, other in pairwise(columns[talk])):
        return None
    texts = input_texts({name: of for name, of in columns.items() if name != talk}, label_column(columns) or "")
    if not texts:
        return None
    longest = max(texts, key=lambda name: mean_words(texts[name]))
    return _made(columns, EARLIER, Previous(column=longest, previous=talk), {talk})


def _made(columns: Columns, name: str, derivation: Derivation, replaced: set[str]) -> Made | None:
    """The columns with a made one in place of some; None if it cannot be made in every row."""
    if name in columns:
        return None
    before: dict[tuple[str, str], list[str]] = {}
    try:
        values = [
            derived_value(name, derivation, Row(dict(zip(columns, row, strict=True)), ""), before)
            for row in zip(*columns.values(), strict=True)
        ]
    except DataError:
        return None
    kept = {other: of for other, of in columns.items() if other not in replaced}
    return Made({**kept, name: values}, {name: derivation})


def _values(columns: Columns, path: str) -> list[Any] | None:
    """What each row has at a path; None if one has nothing there."""
    try:
        return [
            Row(dict(zip(columns, row, strict=True)), "").value(path) for row in zip(*columns.values(), strict=True)
        ]
    except DataError:
        return None


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in cast(list[Any], value))


def _field(value: Any, path: str) -> Any:
    return cast(Mapping[str, Any], value).get(path) if path else value
