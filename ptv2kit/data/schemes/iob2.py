"""Scheme `iob2`: spans over words, as one IOB2 tag per word that the data gives."""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

from ptv2kit.data.encodings import Encoding
from ptv2kit.data.rows import Row
from ptv2kit.data.schemes.base import gather
from ptv2kit.data.schemes.tagging import OUTSIDE, SpanScheme, encode_some_words, spelled_words, words_and_tags
from ptv2kit.data.spans import SpanError, to_iob2, written_otherwise
from ptv2kit.data.tokens import Subwords
from ptv2kit.errors import DataError, did_you_mean
from ptv2kit.spec.task import Iob2Task


@final
class Scheme(SpanScheme):
    """Reads a list of words and a tag for each.

    Args:
        train_rows: where `names: from_train` finds the span types.

    Raises:
        DataError: a training row is malformed, or no span occurs in the training split.
    """

    def __init__(self, task: Iob2Task, subwords: Subwords, train_rows: Iterable[Row]) -> None:
        self._task = task
        super().__init__(subwords, self._find_types(train_rows), task.metrics, task.input.stride)

    def spelled(self, row: Row) -> tuple[list[str], list[tuple[int, int]], str]:
        """See `TaggingScheme.spelled`."""
        return spelled_words(self._task.input, row)

    def encode_words(self, row: Row, words: list[str]) -> Encoding:
        """See `TaggingScheme.encode_words`."""
        return encode_some_words(self._task.input, self._subwords, row, words)

    def _find_types(self, train_rows: Iterable[Row]) -> tuple[str, ...]:
        labels = self._task.labels
        names = labels.names
        if isinstance(names, dict) and labels.numbered:
            # Each tag alone: none of them follows another here.
            alone = "io" if labels.encoding == "io" else "iob2"
            tags = [to_iob2([tag], alone, labels.form)[0] for tag in names.values()]
            return tuple(dict.fromkeys(_type_of(tag) for tag in tags if tag != OUTSIDE))
        if isinstance(names, dict):
            return tuple(dict.fromkeys(names.values()))
        if isinstance(names, tuple):
            return names

        def types(row: Row) -> list[str]:
            tags = self._rewritten(row, self._written_tags(row))
            return [_type_of(tag) for tag in tags if tag[1:2] == "-" and tag[2:]]

        found, file = gather(train_rows, types)
        if not found:
            raise DataError(
                f"column '{labels.column}' of the training split holds no span",
                location=file,
                hint="expected tags such as B-PER and I-PER; or list the types in labels.names",
            )
        return tuple(found)

    def _written_tags(self, row: Row) -> list[str]:
        """The tags of a row as the data writes them, numbers by their names.

        Raises:
            DataError: the column is missing, empty or of the wrong kind, or a number has no name.
        """
        labels = self._task.labels
        values = row.items(labels.column)
        if not any(isinstance(value, int) for value in values) and not labels.numbered:
            return row.words(labels.column)
        names = labels.names if isinstance(labels.names, dict) and labels.numbered else {}
        hint = 'name the tag of each number in labels.names: {"0": O, "1": B-PER, "2": I-PER}'
        if values and all(value in names.values() for value in values):
            return [str(value) for value in values]  # the hub gives the names of its numbers
        for value in values:
            if str(value) not in names:
                message = f"column '{labels.column}' holds {value!r}, and 'labels.names' names no tag for it"
                raise DataError(message, location=row.location, hint=hint)
        return [names[str(value)] for value in values]

    def _rewritten(self, row: Row, tags: list[str]) -> list[str]:
        """The tags of a row as IOB2.

        Raises:
            DataError: they are not of the encoding or form that the task says.
        """
        labels = self._task.labels
        if labels.encoding == "iob2" and labels.form == "B-PER":
            return tags
        try:
            return to_iob2(tags, labels.encoding, labels.form)
        except SpanError as error:
            hint = _other_style(tags)
            raise DataError(f"the tags are not {labels.encoding}: {error}", location=row.location, hint=hint) from error

    def tagged(self, row: Row) -> tuple[list[str], list[str]]:
        """See `TaggingScheme.tagged`."""
        labels = self._task.labels
        words, written = words_and_tags(self._task.input, labels.column, row, self._written_tags)
        tags = self._rewritten(row, written)
        previous = OUTSIDE
        for position, tag in enumerate(tags):
            self._check_tag(row, tag, previous, f"tag {position + 1} of {len(tags)}", written)
            previous = tag
        names = labels.names
        if isinstance(names, dict) and not labels.numbered:
            tags = [tag if tag == OUTSIDE else f"{tag[:2]}{names[tag[2:]]}" for tag in tags]
        return words, tags

    def _check_tag(self, row: Row, tag: str, previous: str, where: str, written: list[str]) -> None:
        """Raise unless a tag is IOB2 after the previous one, and of a known type."""
        if tag == OUTSIDE:
            return
        prefix, name = tag[:2], tag[2:]
        if prefix not in ("B-", "I-") or not name:
            hint = _other_style(written) or "expected O, B-<type> or I-<type>"
            raise DataError(f"{where}, '{tag}', is not IOB2", location=row.location, hint=hint)
        if prefix == "I-" and previous[2:] != name:
            raise DataError(
                f"{where}, '{tag}', is not IOB2: it continues no {name} span, the tag before it is '{previous}'",
                location=row.location,
                hint=f"the first word of a span is tagged 'B-{name}'; if the data is IOB1, set labels.encoding: iob1",
            )
        names = self._task.labels.names
        if not isinstance(names, str) and not self._task.labels.numbered and name not in names:
            raise DataError(
                f"span type '{name}' of {where.split(' of ')[0]} is not in 'labels.names'",
                location=row.location,
                hint=did_you_mean(name, list(names)),
            )


def _type_of(tag: str) -> str:
    return tag[2:]


def _other_style(tags: list[str]) -> str:
    """A hint at the keys that fit how tags are written, with the tags that were seen."""
    keys = written_otherwise(tags)
    seen = ", ".join(list(dict.fromkeys(tag for tag in tags if tag != OUTSIDE))[:6])
    return f"the tags {seen} look like labels: {{{keys}}}" if keys else ""
