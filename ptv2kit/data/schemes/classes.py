"""Scheme `classes`: one of several classes for a text or a pair of texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from ptv2kit.data.cloze_inputs import ClozeInputs, cloze_tensors
from ptv2kit.data.encodings import Encoding
from ptv2kit.data.metrics.grouped import multirc_scores, record_scores
from ptv2kit.data.rows import Row
from ptv2kit.data.schemes.base import (
    LabelScheme,
    Unit,
    encode_rows_ahead,
    encode_texts,
    gather,
    input_error,
    label_and_probabilities,
    name_index,
    named_weights,
    pad_inputs,
    type_scores,
)
from ptv2kit.data.schemes.records import IGNORED, Batch, Feature, Label, Prediction, Scores
from ptv2kit.data.templates import render
from ptv2kit.data.tokens import Subwords, Words
from ptv2kit.data.verbalizer import find_words
from ptv2kit.errors import ConfigError, DataError, did_you_mean
from ptv2kit.spec.labels import Grouping
from ptv2kit.spec.task import ClassesTask
from ptv2kit.spec.template import parse_template


@final
@dataclass(frozen=True, slots=True)
class _Member:
    """A row's part in its group."""

    group: str
    candidate: str
    golds: tuple[str, ...]


@final
class Scheme(LabelScheme):
    """Encodes texts by template and scores classes.

    Args:
        train_rows: where `names: from_train` finds the classes.

    Raises:
        ConfigError: a class has no word in its verbalizer, or one that the vocabulary cannot tell.
        DataError: a training row has no label, or there are fewer than two classes.
    """

    def __init__(self, task: ClassesTask, subwords: Subwords, train_rows: Iterable[Row]) -> None:
        self._task = task
        self._subwords = subwords
        self._names = self._find_names(train_rows)
        for key, named in (("positive", task.labels.positive), ("negative", task.labels.negative)):
            if named is not None and named not in self._names:
                hint = did_you_mean(named, list(self._names))
                raise ConfigError(f"'labels.{key}' is '{named}', which no training row has", hint=hint)
        self._index = {name: index for index, name in enumerate(self._names)}
        self._words: Words = ()
        self._answers: list[tuple[int, ...]] | None = None
        if task.head == "verbalizer":
            text = parse_template(task.input.text)
            pair = None if task.input.pair is None else parse_template(task.input.pair)
            self._cloze = ClozeInputs(subwords, text, pair, task.input.truncate)
            self._words = find_words(task, self._names, subwords)
            answers = [word for words in self._words for word in words]
            self._answers = answers if any(len(answer) > 1 for answer in answers) else None

    @property
    def unit(self) -> Unit:
        """The input as a whole; with a verbalizer its words, or answers if a word has several tokens."""
        if not self._words:
            return "sequence"
        return "words" if self._answers is None else "answers"

    @property
    def words(self) -> Words:
        """See `LabelScheme.words`."""
        return self._words

    @property
    def names(self) -> tuple[str, ...]:
        """The classes."""
        return self._names

    def loss_weights(self, features: Sequence[Feature]) -> tuple[float, ...]:
        """See `LabelScheme.loss_weights`; balanced ones as scikit-learn's `compute_class_weight`, whose mean over the
        training rows is 1."""
        weights = self._task.labels.weights
        if weights != "balanced":
            return () if weights is None else named_weights(weights, self._names)
        counts = Counter(feature.labels for feature in features)
        # A class without a training row has no loss, whatever it counts.
        return tuple(
            len(features) / (len(counts) * counts[index]) if index in counts else 1.0
            for index in range(len(self._names))
        )

    def encode(self, row: Row, index: int, *, labelled: bool = True) -> list[Feature]:
        """The rendered texts as sub-words; see `LabelScheme.encode`."""
        name = self._class_of(row) if labelled else ""
        group = self._task.labels.group if labelled else None
        inputs = self._inputs_of(row)
        return [
            Feature(
                row=index,
                inputs=inputs,
                labels=self._index.get(name, IGNORED),
                reference=name,
                truncated=any(encoding.truncated for encoding in inputs),
                notes=None if group is None else _member(group, row),
            )
        ]

    def encode_ahead(self, rows: Sequence[Row]) -> None:
        """See `LabelScheme.encode_ahead`; a text with a missing word is cut piece by piece."""
        if not self._words:
            encode_rows_ahead(self._task.input, self._subwords, rows)

    def collate(self, features: Sequence[Feature]) -> Batch:
        """Labels `[batch]`."""
        labels = torch.tensor([feature.labels for feature in features])
        encodings = [encoding for feature in features for encoding in feature.inputs]
        cloze = cloze_tensors(encodings) if self._words else {}
        return Batch(*pad_inputs(features, self._subwords.pad_id), labels, cloze)

    def decode(self, features: Sequence[Feature], logits: Tensor) -> list[Prediction]:
        """The most probable class of each row; logits `[batch, classes]`."""
        probabilities, last = logits.softmax(-1).tolist(), logits[:, -1].tolist()
        return [
            Prediction(
                feature.row,
                self._names[index],
                of_row[index],
                feature.reference,
                score,
                notes=feature.notes,
                probabilities=tuple(of_row),
            )
            for feature, index, of_row, score in zip(
                features, logits.argmax(-1).tolist(), probabilities, last, strict=True
            )
        ]

    def answer(self, row: Row, prediction: Prediction) -> dict[str, Any]:
        """The class, and the probability of each."""
        return label_and_probabilities(self._names, prediction)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The classes."""
        return self._names

    def counted(self, reference: Label) -> list[str]:
        """The class."""
        return [str(reference)]

    def score(self, predictions: Sequence[Prediction]) -> Scores:
        """Accuracy, macro F1 over the classes that occur, and both sides of F1 by class (scikit-learn); for grouped
        rows the metrics of MultiRC and ReCoRD."""
        from sklearn import metrics  # a second to import, and only scores need it

        found = [str(prediction.label) for prediction in predictions]
        right = [str(prediction.reference) for prediction in predictions]
        over = [name for name in dict.fromkeys([*right, *found]) if name != self._task.labels.negative]
        f1: Any = metrics.f1_score  # scikit-learn's stubs want zero_division to be text
        values = {
            "accuracy": metrics.accuracy_score(right, found),
            "matthews": metrics.matthews_corrcoef(right, found) if len({*right, *found}) > 1 else 0.0,
            **{
                f"{kind}_f1": f1(right, found, labels=over, average=kind, zero_division=0) if over else 0.0
                for kind in ("macro", "micro", "weighted")
            },
        }
        values = {name: 100 * float(value) for name, value in values.items()}
        if self._task.labels.group is not None:
            values |= self._grouped(predictions, right, found)
        types = type_scores(self._names, right, found)
        for row in types:
            if row.name == self._task.labels.positive:
                values |= {"precision": row.precision, "recall": row.recall, "f1": row.f1}
        groups = len(
            {member.group for member in (prediction.notes for prediction in predictions) if member is not None}
        )
        grouped = [metric for metric in self._task.metrics if metric.startswith(("multirc_", "record_"))]
        counts = dict.fromkeys(grouped, f"{groups} groups")
        return Scores({metric: values[metric] for metric in self._task.metrics}, types, counts)

    def _grouped(
        self, predictions: Sequence[Prediction], right: Sequence[str], found: Sequence[str]
    ) -> dict[str, float]:
        members: list[_Member] = [prediction.notes for prediction in predictions]
        groups, last = [member.group for member in members], self._names[-1]
        values = multirc_scores(groups, [name == last for name in right], [name == last for name in found])
        if any(metric.startswith("record_") for metric in self._task.metrics):
            scores = [prediction.score for prediction in predictions]
            candidates, golds = [member.candidate for member in members], [member.golds for member in members]
            values |= record_scores(groups, candidates, scores, golds)
        return values

    def _inputs_of(self, row: Row) -> tuple[Encoding, ...]:
        if not self._words:
            return (encode_texts(self._task.input, self._subwords, row),)
        try:
            return self._cloze.encode(row, self._answers)
        except ValueError as error:
            hint = "set input.truncate to longest, or raise max_length"
            raise input_error(row, error, hint) from error

    def _find_names(self, train_rows: Iterable[Row]) -> tuple[str, ...]:
        listed = self._task.listed_names()
        if listed is not None:
            return listed
        column = self._task.labels.column
        found, file = gather(train_rows, lambda row: [_plain(row, row.value(column))])
        if len(found) < 2:
            raise DataError(
                f"column '{self._task.labels.column}' of the training split holds only one class, '{found[0]}'",
                location=file,
                hint="list the classes in labels.names",
            )
        return tuple(found)

    def _class_of(self, row: Row) -> str:
        """The row's class. One that `from_train` has not seen is kept: it is scored, and can only be missed."""
        column = self._task.labels.column
        value = row.value(column)
        names = self._task.labels.names
        if isinstance(names, dict):
            key = _plain(row, value)
            if key not in names:
                hint = did_you_mean(key, list(names)) or "add it to the mapping, or leave such rows out with 'where'"
                raise self._unknown(row, key, hint)
            return names[key]
        if isinstance(names, str):
            return _plain(row, value)
        if isinstance(value, int) and _plain(row, value) not in names:
            return names[name_index(row, column, value, names)]
        if isinstance(value, int):
            return _plain(row, value)
        if value not in names:
            found = _plain(row, value)
            numbered = ", ".join(f'"{index}": {name}' for index, name in enumerate(names))
            hint = f"map the values of the data to names: {{{numbered}}}"
            raise self._unknown(row, found, hint if found.isdigit() else did_you_mean(found, list(names)))
        return str(value)

    def _unknown(self, row: Row, found: str, hint: str) -> DataError:
        message = f"label '{found}' in column '{self._task.labels.column}' is not in 'labels.names'"
        return DataError(message, location=row.location, hint=hint)


def _member(group: Grouping, row: Row) -> _Member:
    return _Member(
        group=render(parse_template(group.by), row),
        candidate="" if group.candidate is None else render(parse_template(group.candidate), row),
        golds=() if group.golds is None else tuple(row.texts(group.golds)),
    )


def _plain(row: Row, value: object) -> str:
    """A label's text: booleans as `true` and `false`, integers as digits."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value)
    raise DataError(f"a label must be text, an integer or a boolean. Got {value!r}", location=row.location)
