"""Proposals for labels of words and of spans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

from ptv2kit.data.character_spans import CharacterSpan, read_span
from ptv2kit.data.proposals.columns import WORD_NAMES, Columns, mean_words, text_columns, word_columns, word_counts
from ptv2kit.data.proposals.proposal import MOST_LABELS, Proposal, key, left_out, longest
from ptv2kit.data.spans import style_of, to_iob2
from ptv2kit.data.words import fine_places
from ptv2kit.spec.yaml import quoted

_MOST_INSIDE = 0.9
"""Share of spans that must be places of a text, for it to be the text that they are of."""


def find_spans(columns: Columns) -> Proposal | None:
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
            names = f"[{', '.join(map(key, types))}]"
            style_keys = f"encoding: {encoding}" + ("" if form == "B-PER" else f", form: {quoted(form)}")
            comment = f"types of spans: {len(types)}"
        elif read is not None and found and all(type(tag) is int and 0 <= tag < MOST_LABELS for tag in found):
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
        inputs = f"{{words: {key(read)}, max_length: {longest(map(len, words[read]), pieces=2)}}}"
        return Proposal(
            "iob2",
            f"column '{name}' holds a tag for each word of column '{read}'",
            {
                "input": (inputs, "max_length counts sub-words"),
                "labels": (f"{{scheme: iob2, column: {key(name)}, {style_keys}, names: {names}}}", comment),
                "metrics": ("[span_f1]", ""),
            },
            doubts + left_out(columns, (name, read)),
        )
    return None


def find_tags(columns: Columns) -> Proposal | None:
    """A list of words, and a list of the same length with one of few names for each."""
    words = word_columns(columns)
    names = [name for name in words if name.lower() not in WORD_NAMES]
    for name in sorted(names, key=lambda name: "pos" not in name.lower()):
        read = next((other for other in words if other != name and _same_lengths(words[other], columns[name])), None)
        found = {tag for tags in words[name] for tag in tags}
        count = sum(map(len, words[name]))
        if read is None or len(columns[name]) < 2 or not 2 <= len(found) <= min(MOST_LABELS, count // 3):
            continue
        inputs = f"{{words: {key(read)}, max_length: {longest(map(len, words[read]), pieces=2)}}}"
        labels = f"{{scheme: tags, column: {key(name)}, names: [{', '.join(map(key, sorted(found)))}]}}"
        return Proposal(
            "tags",
            f"column '{name}' holds one of {len(found)} names for each word of column '{read}'",
            {
                "input": (inputs, "max_length counts sub-words"),
                "labels": (labels, ""),
                "metrics": ("[token_accuracy, macro_f1]", "the first one chooses the best epoch"),
            },
            left_out(columns, (name, read)),
        )
    return None


def find_character_spans(columns: Columns) -> Proposal | None:
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
        inputs = f"{{text: {key(text)}, max_length: {longest(word_counts(texts[text]), pieces=2)}}}"
        keys, doubts = "", ()
        if any(map(_overlap, spans)):
            keys, doubts = ", overlapping: longest", ("some spans overlap: the longest of them is learned",)
        if not all(map(_of_whole_words, texts[text], spans)):
            keys += ", misaligned: widen"
            doubts += ("some spans begin or end within a word: they are widened to it",)
        labels = f"{{scheme: spans, column: {key(name)}, names: [{', '.join(map(key, types))}]{keys}}}"
        return Proposal(
            "spans",
            f"column '{name}' holds spans by characters of column '{text}'",
            {
                "input": (inputs, "a longer text is read in windows"),
                "labels": (labels, f"types of spans: {len(types)}"),
                "metrics": ("[span_f1]", ""),
            },
            doubts + left_out(columns, (name, text)),
        )
    return None


def _same_lengths(words: Sequence[Sequence[str]], values: Sequence[Any]) -> bool:
    """Whether each row has a text or a number for each of its words."""
    return all(
        isinstance(tags, list)
        and len(each) == len(cast(list[Any], tags))
        and all(isinstance(tag, str | int) for tag in cast(list[Any], tags))
        for each, tags in zip(words, values, strict=True)
    )


def _is_iob2(sentences: Sequence[Sequence[str]]) -> bool:
    """Whether every `I-` continues a span of its type."""
    for tags in sentences:
        before = ["O", *tags[:-1]]
        if any(tag[0] == "I" and previous[2:] != tag[2:] for tag, previous in zip(tags, before, strict=True)):
            return False
    return True


def _share_inside(texts: Sequence[str], spans: Sequence[Sequence[CharacterSpan]]) -> float:
    """The share of spans whose places are within their row's text."""
    inside = [
        0 <= span.start < span.end <= len(text) for text, of_row in zip(texts, spans, strict=True) for span in of_row
    ]
    return sum(inside) / max(1, len(inside))


def _of_whole_words(text: str, spans: Sequence[CharacterSpan]) -> bool:
    """Whether no span begins or ends within a word; blanks at its edges do not count."""
    places = fine_places(text)
    starts, ends = {start for start, _ in places}, {end for _, end in places}
    bare = [span.bare(text) for span in spans]
    return all(start < end and start in starts and end in ends for start, end in bare)


def _overlap(spans: Sequence[CharacterSpan]) -> bool:
    ordered = sorted(set(spans))
    return any(one.end > other.start for one, other in pairwise(ordered))
