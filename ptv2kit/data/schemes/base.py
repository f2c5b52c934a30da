"""What every label scheme does: encode rows, collate them into batches, decode logits, score."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from ptv2kit.data.encodings import Encoding
from ptv2kit.data.rows import Row
from ptv2kit.data.schemes.records import Batch, Feature, Label, Prediction, Scores, TypeScore, rounded
from ptv2kit.data.templates import render
from ptv2kit.data.tokens import Subwords, UnusableTokenError, Words
from ptv2kit.errors import ConfigError, DataError
from ptv2kit.spec.inputs import TextInput
from ptv2kit.spec.labels import weight_faults
from ptv2kit.spec.task_base import Unit
from ptv2kit.spec.template import parse_template

_Read = TypeVar("_Read")


class LabelScheme(ABC):
    """A family of tasks. The trainer and the evaluation know no more of a task than this.

    Each module of this folder has one as `Scheme(task, subwords, train_rows)`.
    """

    @property
    @abstractmethod
    def unit(self) -> Unit:
        """What has logits; it decides the head."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """What each logit stands for, in order."""

    @property
    def words(self) -> Words:
        """The words of each class that a language-model head compares; empty without a verbalizer, and where answers
        differ from row to row."""
        return ()

    def loss_weights(self, features: Sequence[Feature]) -> tuple[float, ...]:
        """What each class counts in the loss; empty: all count the same.

        Args:
            features: of the training split.

        Raises:
            ConfigError: `labels.weights` names a class that there is not.
        """
        return ()

    @abstractmethod
    def encode(self, row: Row, index: int, *, labelled: bool = True) -> list[Feature]:
        """One row as the model's input; several features if it is read in windows.

        Args:
            row: of a split, or one to predict.
            labelled: whether the columns of the label are there; without them nothing of it can be scored.

        Raises:
            DataError: a column is missing or of the wrong kind, or the label is unknown or malformed.
        """

    @abstractmethod
    def encode_ahead(self, rows: Sequence[Row]) -> None:
        """Cut the texts of rows that `encode` gets next into sub-words together, which is faster than one by one.

        Nothing depends on it: a row that was not read ahead, or is at fault, is read by `encode` alone.
        """

    @abstractmethod
    def collate(self, features: Sequence[Feature]) -> Batch:
        """Features padded to the longest of them."""

    @abstractmethod
    def decode(self, features: Sequence[Feature], logits: Tensor) -> list[Prediction]:
        """Predictions from the logits of one batch, in the order of `features`."""

    @abstractmethod
    def answer(self, row: Row, prediction: Prediction) -> dict[str, Any]:
        """What was predicted for a row, as plain values for who asked: always with `label` and `probability`."""

    def with_scores(self, scores: Mapping[str, float]) -> Self:
        """The scheme with what was chosen on the validation split, from the scores of the best epoch."""
        return self

    def join(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        """One prediction for each row, in the order of the rows, from those of all features of a split."""
        return sorted(predictions, key=lambda prediction: prediction.row)

    def marks(self, feature: Feature) -> tuple[str | None, ...]:
        """What each id of the feature's first input is to be labelled, None where nothing is scored.

        Empty for schemes that do not label tokens.
        """
        return ()

    def unreachable(self, reference: Label, whole: Feature) -> int:
        """How many gold spans no model can find, because one of their words has no sub-word in the whole input."""
        return 0

    def shown(self, reference: Label) -> str:
        """A row's reference in a line; empty where `marks` shows it."""
        return str(reference)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What `counted` should give at least once in the training rows; empty where the task does not say."""
        return ()

    @abstractmethod
    def counted(self, reference: Label) -> list[str]:
        """What a histogram of labels counts in a row's reference: its class, the types of its spans, …"""

    input_columns: tuple[str, ...] = ()
    """The columns of a row that the model reads."""

    def said(self, row: Row) -> dict[str, Any]:
        """What the model reads of a row, by column."""
        return {column: row.value(column) for column in self.input_columns}

    extra_metrics: Mapping[str, Callable[..., Any]] = {}
    """Metrics of other packages, by name."""

    def scores(self, predictions: Sequence[Prediction]) -> Scores:
        """All metrics of the task over a whole split, and those of other packages.

        Raises:
            ConfigError: one of another package's does not return a number.
        """
        own = self.score(predictions)
        found = [prediction.label for prediction in predictions]
        right = [prediction.reference for prediction in predictions]
        others: dict[str, float] = {}
        for name, metric in self.extra_metrics.items():
            value = metric(found, right)
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise ConfigError(f"the metric '{name}' returned {value!r}. Expected a finite number")
            others[name] = float(value)
        return Scores({**own.values, **others}, own.types, own.counts)

    @abstractmethod
    def score(self, predictions: Sequence[Prediction]) -> Scores:
        """All metrics of the task over a whole split."""


def listed(label: Label) -> tuple[str, ...]:
    """A label of a scheme whose labels are lists."""
    assert isinstance(label, tuple)
    return label


def input_error(row: Row, error: ValueError, hint: str) -> DataError:
    """The error of a row that cannot become an input; `hint` says what to do if it is too long."""
    if isinstance(error, UnusableTokenError):
        hint = "take this text out of the row, or use a backbone whose tokenizer fits it"
    return DataError(str(error), location=row.location, hint=hint)


def texts_of(settings: TextInput, row: Row) -> tuple[str, str | None]:
    """A row's text and, if the task has one, the second text of the pair.

    Raises:
        DataError: a column is missing or holds no text.
    """
    text = render(parse_template(settings.text), row)
    return text, None if settings.pair is None else render(parse_template(settings.pair), row)


def without_faults(rows: Iterable[Row], read: Callable[[Row], _Read]) -> list[_Read]:
    """What `read` finds in the rows that are not malformed."""
    found: list[_Read] = []
    for row in rows:
        with suppress(DataError):
            found.append(read(row))
    return found


def encode_rows_ahead(settings: TextInput, subwords: Subwords, rows: Sequence[Row]) -> None:
    """Cut the texts of rows into sub-words together; see `LabelScheme.encode_ahead`."""
    texts = without_faults(rows, lambda row: texts_of(settings, row))
    subwords.encode_texts_ahead(texts, settings.truncate)


def encode_texts(settings: TextInput, subwords: Subwords, row: Row) -> Encoding:
    """A row's text, or pair of texts, as sub-words.

    Raises:
        DataError: a column is missing or holds no text, or the text that is not shortened is too long.
    """
    text, pair = texts_of(settings, row)
    try:
        return subwords.encode_texts(text, pair, settings.truncate)
    except ValueError as error:
        hint = "set input.truncate to longest, or raise max_length"
        raise input_error(row, error, hint) from error


def name_index(row: Row, column: str, value: int, names: Sequence[str]) -> int:
    """The place in `names` that an integer label means. A number that is itself a name is not a place: read that first.

    Raises:
        DataError: there is no such place, or some of the names are numbers, so that a place could be meant for a name.
    """
    are_numbers = any(name.strip().lstrip("-").isdecimal() for name in names)
    if 0 <= value < len(names) and not are_numbers:
        return int(value)
    hint = "map the values of the data to names: {" + ", ".join(f'"{i}": {name}' for i, name in enumerate(names)) + "}"
    if are_numbers:
        raise DataError(
            f"column '{column}' holds {int(value)}, which is not in 'labels.names', whose names are numbers",
            location=row.location,
            hint=hint,
        )
    raise DataError(
        f"column '{column}' holds {int(value)}, but 'labels.names' has classes 0 to {len(names) - 1}",
        location=row.location,
        hint=f"integers count from 0; {hint if value != len(names) else _counted_from_one(names)}",
    )


def _counted_from_one(names: Sequence[str]) -> str:
    numbered = ", ".join(f'"{i}": {name}' for i, name in enumerate(names, start=1))
    return f"if the data counts from 1, map its values to names: {{{numbered}}}"


def named_weights(weights: Mapping[str, float], names: Sequence[str]) -> tuple[float, ...]:
    """The weight of each class, 1 where none is given.

    Raises:
        ConfigError: there is one for a class that is not among `names`.
    """
    for fault in weight_faults(dict(weights), names):
        raise ConfigError(fault.message, hint=fault.hint)
    return tuple(weights.get(name, 1.0) for name in names)


def label_and_probabilities(names: Sequence[str], prediction: Prediction) -> dict[str, Any]:
    """The answer of a scheme whose label is one of `names`."""
    return {
        "label": prediction.label,
        "probability": rounded(prediction.probability),
        "probabilities": {
            name: round(probability, 6) for name, probability in zip(names, prediction.probabilities, strict=True)
        },
    }


def type_scores(names: Sequence[str], right: Sequence[str], found: Sequence[str]) -> tuple[TypeScore, ...]:
    """Precision, recall and F1 of each class from 0 to 100 (scikit-learn): of `names`, and of others that occur.

    Args:
        right: the class of each item; at least one.
        found: what was predicted for it.
    """
    from sklearn import metrics  # a second to import, and only scores need it

    of_each: Any = metrics.precision_recall_fscore_support  # its stubs want zero_division to be text
    classes = list(dict.fromkeys([*names, *sorted(set(right))]))
    columns = of_each(right, found, labels=classes, zero_division=0)
    return tuple(
        TypeScore(name, 100 * float(precision), 100 * float(recall), 100 * float(f1), int(support))
        for name, precision, recall, f1, support in zip(classes, *columns, strict=True)
    )


def gather(rows: Iterable[Row], read: Callable[[Row], list[str]]) -> tuple[list[str], str]:
    """Collect what `read` finds in the rows that are not malformed; the others are reported when they are encoded.

    Returns:
        The different texts, sorted, and the file of the first row.

    Raises:
        DataError: every row is malformed; this is what the first one says.
    """
    found: set[str] = set()
    first_fault: DataError | None = None
    whole, file = 0, ""
    for row in rows:
        file = file or row.location.rpartition(":")[0]
        try:
            found.update(read(row))
            whole += 1
        except DataError as error:
            first_fault = first_fault or error
    if first_fault is not None and not whole:
        raise first_fault
    return sorted(found), file


def pad_inputs(features: Sequence[Feature], pad_token_id: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Input ids, attention mask and segments of a batch, padded on the right, each `[inputs, length]`."""
    encodings = [encoding for feature in features for encoding in feature.inputs]
    length = max(feature.length for feature in features)

    def padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
        return torch.tensor([[*row, *[value] * (length - len(row))] for row in rows])

    segments = [encoding.segments for encoding in encodings if encoding.segments is not None]
    return (
        padded([encoding.ids for encoding in encodings], pad_token_id),
        padded([[1] * len(encoding.ids) for encoding in encodings], 0),
        padded(segments, 0) if segments else None,
    )
