"""Scheme `tags`: a class for each word, as parts of speech."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import final

from ptv2kit.data.encodings import Encoding
from ptv2kit.data.rows import Row
from ptv2kit.data.schemes.base import gather, listed, name_index, type_scores
from ptv2kit.data.schemes.records import Label, Prediction, Scores
from ptv2kit.data.schemes.tagging import TaggingScheme, encode_some_words, spelled_words, words_and_tags
from ptv2kit.data.tokens import Subwords
from ptv2kit.errors import DataError, did_you_mean
from ptv2kit.spec.task import TagsTask

_MISSING = ""
"""Of a word that was cut off: no tag, which is scored as wrong."""


@final
class Scheme(TaggingScheme):
    """Reads a list of words and a tag for each, which says nothing of the words beside it.

    Args:
        train_rows: where `names: from_train` finds the tags.

    Raises:
        DataError: a training row is malformed, or all words of the training split have one tag.
    """

    def __init__(self, task: TagsTask, subwords: Subwords, train_rows: Iterable[Row]) -> None:
        self._task = task
        super().__init__(subwords, self._find_names(train_rows), _MISSING, task.input.stride)

    def spelled(self, row: Row) -> tuple[list[str], list[tuple[int, int]], str]:
        """See `TaggingScheme.spelled`."""
        return spelled_words(self._task.input, row)

    def encode_words(self, row: Row, words: list[str]) -> Encoding:
        """See `TaggingScheme.encode_words`."""
        return encode_some_words(self._task.input, self._subwords, row, words)

    def tagged(self, row: Row) -> tuple[list[str], list[str]]:
        """See `TaggingScheme.tagged`. A tag that `from_train` has not seen is kept: it can only be missed."""
        names = self._task.labels.names
        words, tags = words_and_tags(self._task.input, self._task.labels.column, row, self._tags_of)
        if isinstance(names, str):
            return words, tags
        mapped = [names.get(tag, tag) for tag in tags] if isinstance(names, dict) else tags
        for position, tag in enumerate(mapped):
            if tag not in self._index:
                message = f"tag {position + 1} of {len(tags)}, '{tag}', is not in 'labels.names'"
                raise DataError(message, location=row.location, hint=did_you_mean(tag, list(names)))
        return words, mapped

    def _tags_of(self, row: Row) -> list[str]:
        """The tags as the data writes them; numbers as the names at their places, else as digits."""
        column, names = self._task.labels.column, self._task.labels.names
        return [
            names[name_index(row, column, value, names)]
            if isinstance(value, int) and isinstance(names, tuple) and str(value) not in names
            else str(value)
            for value in row.items(column)
        ]

    def _find_names(self, train_rows: Iterable[Row]) -> tuple[str, ...]:
        listed = self._task.listed_names()
        if listed is not None:
            return listed
        found, file = gather(train_rows, self._tags_of)
        if len(found) < 2:
            message = f"column '{self._task.labels.column}' of the training split holds fewer than two tags"
            raise DataError(message, location=file, hint="list the tags in labels.names")
        return tuple(found)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The tags."""
        return self._names

    def counted(self, reference: Label) -> list[str]:
        """The tag of each word."""
        return list(listed(reference))

    def score(self, predictions: Sequence[Prediction]) -> Scores:
        """Share of words with the right tag, and F1 over tags and by tag (scikit-learn)."""
        found = [tag for prediction in predictions for tag in listed(prediction.label)]
        right = [tag for prediction in predictions for tag in listed(prediction.reference)]
        types = type_scores(self._names, right, found)
        seen = [row for row in types if row.support or row.name in found]
        values = {
            "token_accuracy": 100 * sum(map(str.__eq__, right, found)) / len(right),
            "macro_f1": sum(row.f1 for row in seen) / len(seen),
            "weighted_f1": sum(row.f1 * row.support for row in seen) / len(right),
        }
        counts = {"token_accuracy": f"{len(right)} words"}
        return Scores({metric: values[metric] for metric in self._task.metrics}, types, counts)
