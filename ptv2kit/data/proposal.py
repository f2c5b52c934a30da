"""A first task file for data that is not described yet, from a look at its columns."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple, cast, final

from ptv2kit.data.character_spans import CharacterSpan, read_span
from ptv2kit.data.columns import (
    LABEL_NAMES,
    WORD_NAMES,
    Columns,
    Made,
    are_numbers,
    columns_of,
    flag_columns,
    has_fraction,
    input_texts,
    label_column,
    mean_words,
    only_counts,
    pair_of,
    text_columns,
    with_annotations,
    with_fields,
    with_joined,
    with_marks,
    with_parsed,
    with_split,
    with_turn_before,
    word_columns,
    word_counts,
)
from ptv2kit.data.rows import Row
from ptv2kit.data.spans import style_of, to_iob2
from ptv2kit.data.words import fine_places
from ptv2kit.errors import DataError
from ptv2kit.spec.yaml import quoted

_NUMBER_NAMES = ("score", "similarity", "similarity_score", "rating", "value", "number", "relatedness")
_SEVERAL = ("labels", "tags", "topics", "categories", "genres", "emotions", "classes", "subjects", "keywords")
_MOST_LABELS, _MOST_LISTED = 200, 60
_MOST_INSIDE = 0.9
"""Share of spans that must be places of a text, for it to be the text that they are of."""
_VERDICT, _VERDICTS = "answer", {"accept", "reject", "ignore"}
"""The column in which Prodigy keeps what a person said of a row, and what it can be."""
FLAGS = "flags"
"""The made column with the names of columns that hold yes."""


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
    """Recognise the label scheme by names, kinds and values of the columns, or of columns that can be made of them.

    Args:
        rows: some of the training rows, at least one.

    Raises:
        DataError: no scheme fits.
    """
    columns = columns_of(rows)
    for make, attempts in _ATTEMPTS:
        made = make(columns)
        found = None if made is None else _first(made, attempts)
        if found is not None:
            return _accepted_only(found, columns)
    names = ", ".join(columns)
    raise DataError(
        f"no label scheme is recognised in the columns {names}",
        location=rows[0].location.rpartition(":")[0],
        hint="'ptv2kit schema task --markdown' lists the schemes; 'ptv2kit ls tasks' and 'ptv2kit cp' give examples",
    )


def _accepted_only(proposal: Proposal, columns: Columns) -> Proposal:
    """Without rows that a person has rejected or passed over in Prodigy, unless that is what is learned."""
    verdicts = set(map(str, columns.get(_VERDICT, [])))
    learned = re.search(rf"\b{_VERDICT}\b", proposal.sections["labels"][0]) or "where" in proposal.sections
    if learned or "accept" not in verdicts or not {"reject", "ignore"} & verdicts or verdicts - _VERDICTS:
        return proposal
    where = {"where": (f"{{{_VERDICT}: [accept]}}", "not what was rejected or passed over")}
    doubt = f"rows whose '{_VERDICT}' is not accept are left out"
    return replace(proposal, sections={**where, **proposal.sections}, doubts=(doubt, *proposal.doubts))


def _first(made: Made, attempts: Iterable[Callable[[Columns], Proposal | None]]) -> Proposal | None:
    """The first attempt that fits, with what it needs of `derive`."""
    found = next((proposal for proposal in (attempt(made.columns) for attempt in attempts) if proposal), None)
    if found is None or not made.derive:
        return found
    read = f"{found.sections['input'][0]} {found.sections['labels'][0]}"
    used = {name: step for name, step in made.derive.items() if re.search(rf"\b{re.escape(name)}\b", read)}
    if not used:
        return None
    steps = {name: step.model_dump(exclude_defaults=True) for name, step in used.items()}
    lines = (f"{_key(name)}: {json.dumps(step, ensure_ascii=False)}" for name, step in steps.items())
    derive = f"{{{', '.join(lines)}}}"
    return replace(found, sections={"derive": (derive, "a column that is made of others"), **found.sections})


def _as_they_are(columns: Columns) -> Made:
    return Made(columns, {})


def _answers(columns: Columns) -> Proposal | None:
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


def _spans(columns: Columns) -> Proposal | None:
    """A list of words, and a list of tags of the same length, or of the numbers of tags."""
    words = word_columns(columns)
    for name in sorted(columns, key=lambda name: "ner" not in name.lower()):  # before parts of speech and chunks
        values = columns[name]
        read = next((other for other in words if other != name and _same_lengths(words[other], values)), None)
        found = Counter(tag for tags in values for tag in tags) if read is not None else Counter[Any]()
        doubts: tuple[str, ...] = ()
        if read is not None and name in words and (style := style_of(found)) is not None:
            encoding, form = style
            plain = [to_iob2(tags, "iob2", form) for tags in words[name]]
            types = sorted({tag[2:] for tags in plain for tag in tags if tag != "O"})
            encoding = "iob1" if encoding == "iob2" and not _is_iob2(plain) else encoding
            names = f"[{', '.join(map(_key, types))}]"
            style_keys = f"encoding: {encoding}" + ("" if form == "B-PER" else f", form: {quoted(form)}")
            comment = f"types of spans: {len(types)}"
        elif read is not None and found and all(type(tag) is int and 0 <= tag < _MOST_LABELS for tag in found):
            # Most data sets count so, outside first.
            tags = ["O", *(f"{letter}-{number}" for number in range(1, max(found) // 2 + 2) for letter in "BI")]
            style_keys = "encoding: iob2"
            if not _is_iob2([[tags[tag] for tag in row] for row in values]):  # a number for each type then
                tags, style_keys = ["O", *(f"I-{number}" for number in range(1, max(found) + 1))], "encoding: io"
            names = f"{{{', '.join(f'{quoted(str(number))}: {tags[number]}' for number in range(max(found) + 1))}}}"
            comment = "the tag of each number"
            doubts = (f"the tags are numbers: write the right tag of each in 'labels.names', such as PER in {tags[1]}",)
        else:
            continue
        inputs = f"{{words: {_key(read)}, max_length: {_longest(map(len, words[read]), pieces=2)}}}"
        return Proposal(
            "iob2",
            f"column '{name}' holds a tag for each word of column '{read}'",
            {
                "input": (inputs, "max_length counts sub-words"),
                "labels": (f"{{scheme: iob2, column: {_key(name)}, {style_keys}, names: {names}}}", comment),
                "metrics": ("[span_f1]", ""),
            },
            doubts + _left_out(columns, (name, read)),
        )
    return None


def _tags(columns: Columns) -> Proposal | None:
    """A list of words, and a list of the same length with one of few names for each."""
    words = word_columns(columns)
    names = [name for name in words if name.lower() not in WORD_NAMES]
    for name in sorted(names, key=lambda name: "pos" not in name.lower()):
        read = next((other for other in words if other != name and _same_lengths(words[other], columns[name])), None)
        found = {tag for tags in words[name] for tag in tags}
        count = sum(map(len, words[name]))
        if read is None or len(columns[name]) < 2 or not 2 <= len(found) <= min(_MOST_LABELS, count // 3):
            continue
        inputs = f"{{words: {_key(read)}, max_length: {_longest(map(len, words[read]), pieces=2)}}}"
        labels = f"{{scheme: tags, column: {_key(name)}, names: [{', '.join(map(_key, sorted(found)))}]}}"
        return Proposal(
            "tags",
            f"column '{name}' holds one of {len(found)} names for each word of column '{read}'",
            {
                "input": (inputs, "max_length counts sub-words"),
                "labels": (labels, ""),
                "metrics": ("[token_accuracy, macro_f1]", "the first one chooses the best epoch"),
            },
            _left_out(columns, (name, read)),
        )
    return None


def _character_spans(columns: Columns) -> Proposal | None:
    """A text, and a list of spans by its characters."""
    texts = text_columns(columns)
    for name, values in columns.items():
        if not all(isinstance(value, list) for value in values) or not any(values):
            continue
        rows = [[read_span(item) for item in cast(list[Any], value)] for value in values]
        spans = [[span for span in of_row if span is not None] for of_row in rows]
        types = sorted({span.name for of_row in spans for span in of_row})
        inside = {other: _share_inside(texts[other], spans) for other in texts if other != name}
        text = max(inside, key=lambda other: (inside[other], mean_words(texts[other])), default=None)
        if rows != spans or not types or text is None or inside[text] < _MOST_INSIDE:
            continue
        inputs = f"{{text: {_key(text)}, max_length: {_longest(word_counts(texts[text]), pieces=2)}}}"
        keys, doubts = "", ()
        if any(map(_overlap, spans)):
            keys, doubts = ", overlapping: longest", ("some spans overlap: the longest of them is learned",)
        if not all(map(_of_whole_words, texts[text], spans)):
            keys += ", misaligned: widen"
            doubts += ("some spans begin or end within a word: they are widened to it",)
        labels = f"{{scheme: spans, column: {_key(name)}, names: [{', '.join(map(_key, types))}]{keys}}}"
        return Proposal(
            "spans",
            f"column '{name}' holds spans by characters of column '{text}'",
            {
                "input": (inputs, "a longer text is read in windows"),
                "labels": (labels, f"types of spans: {len(types)}"),
                "metrics": ("[span_f1]", ""),
            },
            doubts + _left_out(columns, (name, text)),
        )
    return None


def _options(columns: Columns) -> Proposal | None:
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
        inputs = f"{{text: {quoted(text)}, options: {_key(name + layout.path)}, max_length: 128}}"
        labels = f"{{scheme: choices, column: {_key(label)}{keys}}}"
        return Proposal(
            "choices",
            f"column '{name}' holds lists of options, and '{label}' says which one is right",
            {
                "input": (inputs, "text stands before each option"),
                "labels": (labels, ""),
                "metrics": ("[accuracy]", ""),
            },
            _left_out(columns, (name, label, *rest)),
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
            return label, f", among: {_key(among)}"
        if all(str(value).isdecimal() and int(value) < len(of_row) for value, of_row in pairs):
            return label, ""
        letters = "ABCDEFGHIJ"[: max(map(len, options))]
        if all(str(value) in letters[: len(of_row)] and value for value, of_row in pairs):
            return label, f", names: [{', '.join(map(_key, letters))}]"
    return None, ""


def _labels(columns: Columns) -> Proposal | None:
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


def _separated_labels(columns: Columns) -> Proposal | None:
    """A column called after several labels, whose texts hold few names with something between them."""
    for name, values in text_columns(columns).items():
        for separator in (",", "|", ";") if name.lower() in _SEVERAL else ():
            lists = [[part.strip() for part in text.split(separator) if part.strip()] for text in values]
            found = Counter(part for parts in lists for part in parts)
            if any(len(parts) > 1 for parts in lists) and len(found) <= max(2, len(values) // 2):
                why = f"column '{name}' holds {len(found)} different labels with '{separator}' between them"
                return _labels_of(columns, name, found, why, f", separator: {quoted(separator)}")
    return None


def _flags(columns: Columns) -> Proposal | None:
    """A text, and a column of yes and no for each label."""
    flags = flag_columns(columns)
    rest = {name: values for name, values in columns.items() if name not in flags}
    if not flags or FLAGS in columns:
        return None
    why = f"columns {', '.join(flags)} hold yes and no"
    proposal = _labels_of({**rest, FLAGS: []}, FLAGS, flags, why)
    if proposal is None:
        return None
    derive = f"{{{FLAGS}: {{flags: [{', '.join(map(_key, flags))}]}}}}"
    return replace(
        proposal, sections={"derive": (derive, "the names of the columns that hold yes"), **proposal.sections}
    )


def _labels_of(columns: Columns, name: str, found: Iterable[str], why: str, separator: str = "") -> Proposal | None:
    """Labels in a column beside a text; None without a text, or where they are too few or too many."""
    texts = {other: of for other, of in text_columns(columns).items() if other != name and of and mean_words(of) > 1}
    names = sorted(set(found), key=lambda each: (len(each), each) if each.isdecimal() else (0, each))
    if not texts or not 2 <= len(names) <= _MOST_LABELS:
        return None
    text = max(texts, key=lambda column: mean_words(texts[column]))
    numbers = all(each.isdecimal() for each in names)
    shown = ", ".join(f"{quoted(each)}: label_{each}" if numbers else _key(each) for each in names)
    inputs = f"{{text: {_template(text)}, max_length: {_longest(word_counts(texts[text]), pieces=2)}}}"
    listed = f"{{{shown}}}" if numbers else f"[{shown}]"
    return Proposal(
        "labels",
        why,
        {
            "input": (inputs, "max_length counts sub-words"),
            "labels": (
                f"{{scheme: labels, column: {_key(name)}, names: {listed}{separator}}}",
                "threshold: best chooses the threshold on the validation split",
            ),
            "metrics": ("[micro_f1, macro_f1]", "the first one chooses the best epoch"),
        },
        (("the labels are numbers: give them names in 'labels.names'",) if numbers else ())
        + _left_out(columns, (name, text)),
    )


def _named_number(columns: Columns) -> Proposal | None:
    """A number with a fraction in a column whose name speaks of labels or scores."""
    named = [name for name in columns if name.lower() in (*LABEL_NAMES, *_NUMBER_NAMES)]
    fractions = [name for name in named if are_numbers(columns[name]) and any(map(has_fraction, columns[name]))]
    return _number_of(columns, fractions[0]) if fractions else None


def _number(columns: Columns) -> Proposal | None:
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
            "labels": (f"{{scheme: number, column: {_key(label)}}}", "in the unit of the data"),
            "metrics": ("[pearson_spearman, pearson, spearman, rmse]", "the first one chooses the best epoch"),
        },
        _left_out(columns, (label, *pair)),
    )


def _text_input(texts: Mapping[str, Sequence[str]], pair: Sequence[str]) -> str:
    words = [sum(len(texts[name][row].split()) for name in pair) for row in range(len(texts[pair[0]]))]
    second = f", pair: {_template(pair[1])}" if len(pair) > 1 else ""
    return f"{{text: {_template(pair[0])}{second}, max_length: {_longest(words, pieces=2)}}}"


def _choices(columns: Columns) -> Proposal | None:
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


def _classes(columns: Columns) -> Proposal | None:
    """A column of few values, and one or two of texts."""
    label = label_column(columns)
    texts = {} if label is None else input_texts(columns, label)
    if label is None or not texts:
        return None
    pair = pair_of(texts)
    counts = Counter(_plain(value) if isinstance(value, bool) else str(value) for value in columns[label])
    names = sorted(counts, key=lambda name: (len(name), name) if name.isdecimal() else (0, name))
    names, unknown = _without_unknown(names)
    if len(names) > _MOST_LISTED:
        shown, doubts = "from_train", ("labels.names: from_train finds the classes in the training rows",)
    elif all(name.isdecimal() for name in names):
        shown = "{" + ", ".join(f"{quoted(name)}: class_{name}" for name in names) + "}"
        doubts = ("the classes are numbers: give them names in 'labels.names', or learn the number with scheme number",)
    else:
        shown, doubts = f"[{', '.join(map(_key, names))}]", ()
    inputs = _text_input(texts, pair)
    most = counts.most_common(1)[0][1] / len(columns[label])
    doubts += _left_out(texts, pair)
    chosen: dict[str, tuple[str, str]] = {}
    if unknown:
        doubts += (f"rows whose '{label}' is {unknown} are left out: nobody knows their class",)
        kept = f"{{{_key(label)}: [{', '.join(map(quoted, names))}]}}"
        chosen = {"where": (kept, f"not {unknown}, which is no class")}
    return Proposal(
        "classes",
        f"column '{label}' has {len(names)} values",
        {
            **chosen,
            "input": (inputs, "max_length counts sub-words"),
            "labels": (
                f"{{scheme: classes, column: {_key(label)}, names: {shown}}}",
                f"the most frequent class is {most:.0%} of the rows",
            ),
            "metrics": ("[accuracy, macro_f1]" if most > 0.7 else "[accuracy]", "the first one chooses the best epoch"),
        },
        doubts,
    )


def _without_unknown(names: list[str]) -> tuple[list[str], str]:
    """The classes without what SNLI (`-`) and the hub (`-1`) write where there is none, and that.

    -1, 0 and 1 are classes: many write what is bad, neither, and good so.
    """
    for unknown, fewest in (("-", 2), ("-1", 3)):
        rest = [name for name in names if name != unknown]
        if fewest <= len(rest) < len(names) and (unknown == "-" or all(name.isdecimal() for name in rest)):
            return rest, unknown
    return names, ""


def _left_out(columns: Iterable[str], used: Iterable[str]) -> tuple[str, ...]:
    unused = sorted(set(columns) - set(used))
    return (f"columns that the input leaves out: {', '.join(unused)}",) if unused else ()


def _stands_in(answers: Sequence[str], passages: Sequence[str]) -> bool:
    given = [(answer, passage) for answer, passage in zip(answers, passages, strict=True) if answer]
    return bool(given) and all(answer in passage for answer, passage in given)


def _same_lengths(words: Sequence[Sequence[str]], values: Sequence[Any]) -> bool:
    """Whether each row has a text or a number for each of its words."""
    return all(
        isinstance(tags, list)
        and len(each) == len(cast(list[Any], tags))
        and all(isinstance(tag, str | int) for tag in cast(list[Any], tags))
        for each, tags in zip(words, values, strict=True)
    )


def _share_inside(texts: Sequence[str], spans: Sequence[Sequence[CharacterSpan]]) -> float:
    """The share of spans whose places are within their row's text."""
    inside = [
        0 <= span.start < span.end <= len(text) for text, of_row in zip(texts, spans, strict=True) for span in of_row
    ]
    return sum(inside) / max(1, len(inside))


def _of_whole_words(text: str, spans: Sequence[CharacterSpan]) -> bool:
    """Whether no span begins or ends within a word; blanks at its edges do not count."""
    starts, ends = (set(places) for places in zip(*fine_places(text), strict=True)) if text.strip() else (set(), set())
    for span in spans:
        given = text[span.start : span.end]
        start, end = span.start + len(given) - len(given.lstrip()), span.end - len(given) + len(given.rstrip())
        if not given.strip() or start not in starts or end not in ends:
            return False
    return True


def _overlap(spans: Sequence[CharacterSpan]) -> bool:
    ordered = sorted(set(spans))
    return any(one.end > other.start for one, other in pairwise(ordered))


def _is_iob2(sentences: Sequence[Sequence[str]]) -> bool:
    """Whether every `I-` continues a span of its type."""
    for tags in sentences:
        before = ["O", *tags[:-1]]
        if any(tag[0] == "I" and previous[2:] != tag[2:] for tag, previous in zip(tags, before, strict=True)):
            return False
    return True


def _longest(words: Iterable[int], pieces: int) -> int:
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


_ANY = (_labels, _flags, _separated_labels, _named_number, _classes, _number)
_ATTEMPTS: tuple[tuple[Callable[[Columns], Made | None], tuple[Callable[[Columns], Proposal | None], ...]], ...] = (
    (with_annotations, (_character_spans, _labels, _classes)),
    (_as_they_are, (_answers, _character_spans, _spans, _tags, _options, _choices)),
    (with_marks, (_classes,)),
    (with_joined, (_answers,)),
    (with_turn_before, (_classes,)),
    (with_parsed, (_answers, _character_spans, _spans, _tags, _options, _labels)),
    (with_split, (_spans, _tags)),
    (_as_they_are, _ANY),
    (with_joined, (_labels, _named_number, _classes, _number)),
    (with_fields, (_answers, _character_spans, _spans, _tags, _options, *_ANY)),
)
"""What is tried, in order: columns as they are or with a made one, and schemes."""
