"""Scheme `spans`: spans by the characters of a text, as annotation tools export them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

from ptv2kit.data.character_spans import CharacterSpan, read_span
from ptv2kit.data.encodings import Encoding
from ptv2kit.data.rows import Row
from ptv2kit.data.schemes.base import gather, input_error
from ptv2kit.data.schemes.tagging import OUTSIDE, SpanScheme
from ptv2kit.data.tokens import Subwords
from ptv2kit.data.words import fine_places
from ptv2kit.errors import DataError, did_you_mean
from ptv2kit.spec.task import SpansTask


@final
class Scheme(SpanScheme):
    """Finds the words of a text and gives each a tag; answers are spans by characters again.

    Args:
        train_rows: where `names: from_train` finds the span types.

    Raises:
        DataError: a training row is malformed, or no span occurs in the training split.
    """

    def __init__(self, task: SpansTask, subwords: Subwords, train_rows: Iterable[Row]) -> None:
        self._task = task
        super().__init__(subwords, self._find_types(train_rows), task.metrics, task.stride)

    def spelled(self, row: Row) -> tuple[list[str], list[tuple[int, int]], str]:
        """See `TaggingScheme.spelled`."""
        text = row.text(self._task.input.text)
        places = fine_places(text)
        if not places:
            raise DataError(f"column '{self._task.input.text}' holds no word", location=row.location)
        return [text[start:end] for start, end in places], places, text

    def encode_words(self, row: Row, words: list[str]) -> Encoding:
        """See `TaggingScheme.encode_words`."""
        try:
            return self._subwords.encode_words(words)
        except ValueError as error:
            raise input_error(row, error, "") from error

    def tagged(self, row: Row) -> tuple[list[str], list[str]]:
        """See `TaggingScheme.tagged`."""
        words, places, text = self.spelled(row)
        tags = [OUTSIDE] * len(words)
        for span in self._apart(row, self._spans_of(row, text), text):
            inside = [index for index, (start, end) in enumerate(places) if start < span.end and end > span.start]
            if not inside or (places[inside[0]][0], places[inside[-1]][1]) != span.bare(text):
                if self._task.labels.misaligned == "error":
                    whole = text[places[inside[0]][0] : places[inside[-1]][1]] if inside else ""
                    raise DataError(
                        f"span {span.start}-{span.end} '{text[span.start : span.end]}' is not made of whole words, "
                        f"which are '{whole}'",
                        location=row.location,
                        hint="set labels.misaligned to widen or drop, or data.on_fault: skip to leave such rows out",
                    )
                if self._task.labels.misaligned == "drop" or not inside:
                    continue
            for position, index in enumerate(inside):
                if tags[index] == OUTSIDE:  # of two that were widened to one word, the first has it
                    tags[index] = f"{'I' if position else 'B'}-{span.name}"
        for index in range(1, len(tags)):
            if tags[index].startswith("I-") and tags[index - 1][2:] != tags[index][2:]:
                tags[index] = f"B-{tags[index][2:]}"
        return words, tags

    def _apart(self, row: Row, spans: list[CharacterSpan], text: str) -> list[CharacterSpan]:
        """The spans in order; of those that overlap the longest, or an error."""
        kept: list[CharacterSpan] = []
        for span in sorted(set(spans), key=lambda span: (span.start - span.end, span.start)):
            other = next((each for each in kept if span.start < each.end and each.start < span.end), None)
            if other is None:
                kept.append(span)
            elif self._task.labels.overlapping == "error":
                raise DataError(
                    f"span {span.start}-{span.end} '{text[span.start : span.end]}' overlaps "
                    f"{other.start}-{other.end} '{text[other.start : other.end]}'",
                    location=row.location,
                    hint="set labels.overlapping: longest, or data.on_fault: skip to leave such rows out",
                )
        return sorted(kept)

    def _spans_of(self, row: Row, text: str) -> list[CharacterSpan]:
        column, names = self._task.labels.column, self._task.labels.names
        spans: list[CharacterSpan] = []
        for number, item in enumerate(row.items(column), start=1):
            span = read_span(item)
            where = f"span {number} in column '{column}'"
            if span is None:
                raise DataError(
                    f"{where} must be [start, end, label], or a mapping with start, end and label. Got {item!r}",
                    location=row.location,
                )
            if not 0 <= span.start < span.end <= len(text):
                message = f"{where}, {span.start}-{span.end}, is outside the text, which has {len(text)} characters"
                raise DataError(message, location=row.location, hint="characters count from 0; the end is outside")
            if not isinstance(names, str) and span.name not in names:
                message = f"span type '{span.name}' of {where} is not in 'labels.names'"
                raise DataError(message, location=row.location, hint=did_you_mean(span.name, list(names)))
            spans.append(span._replace(name=names[span.name]) if isinstance(names, dict) else span)
        return spans

    def _find_types(self, train_rows: Iterable[Row]) -> tuple[str, ...]:
        names = self._task.labels.names
        if isinstance(names, dict):
            return tuple(dict.fromkeys(names.values()))
        if isinstance(names, tuple):
            return names
        found, file = gather(
            train_rows,
            lambda row: [span.name for span in self._spans_of(row, row.text(self._task.input.text))],
        )
        if not found:
            message = f"column '{self._task.labels.column}' of the training split holds no span"
            raise DataError(message, location=file, hint="list the types in labels.names")
        return tuple(found)
