"""Scheme `labels`: any number of labels for a text or a pair of texts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self, final

import torch
from torch import Tensor

from ptv2kit.data.rows import Row
from ptv2kit.data.schemes.base import (
    LabelScheme,
    Unit,
    encode_rows_ahead,
    encode_texts,
    gather,
    listed,
    name_index,
    named_weights,
    pad_inputs,
)
from ptv2kit.data.schemes.records import Batch, Feature, Label, Prediction, Scores, TypeScore, rounded
from ptv2kit.data.tokens import Subwords
from ptv2kit.errors import DataError, did_you_mean
from ptv2kit.spec.task import LabelsTask

_THRESHOLDS = tuple(step / 20 for step in range(1, 20))


@final
class Scheme(LabelScheme):
    """Gives each label a probability of its own; those above the threshold are the answer.

    Args:
        train_rows: where `names: from_train` finds the labels.

    Raises:
        DataError: a training row is malformed, or no label occurs in the training split.
    """

    def __init__(self, task: LabelsTask, subwords: Subwords, train_rows: Iterable[Row]) -> None:
        self._task = task
        self._subwords = subwords
        self._names = self._find_names(train_rows)

    @property
    def unit(self) -> Unit:
        """The input as a whole, each label by itself."""
        return "labels"

    @property
    def names(self) -> tuple[str, ...]:
        """The labels."""
        return self._names

    def loss_weights(self, features: Sequence[Feature]) -> tuple[float, ...]:
        """See `LabelScheme.loss_weights`; balanced ones are wrong rows for each right one."""
        weights = self._task.labels.weights
        if weights != "balanced":
            return () if weights is None else named_weights(weights, self._names)
        rows, right = len(features), torch.tensor([feature.labels for feature in features]).sum(0).tolist()
        # A label that no training row has, or that all of them have, stays as it is.
        return tuple((rows - count) / count if 0 < count < rows else 1.0 for count in right)

    @property
    def _threshold(self) -> float:
        """The probability from which a label is given; 0.5 until the best one is chosen."""
        return 0.5 if self._task.labels.threshold == "best" else self._task.labels.threshold

    def encode(self, row: Row, index: int, *, labelled: bool = True) -> list[Feature]:
        """The rendered texts as sub-words; see `LabelScheme.encode`."""
        given = self._labels_of(row) if labelled else ()
        encoding = encode_texts(self._task.input, self._subwords, row)
        marks = tuple(int(name in given) for name in self._names)
        return [Feature(index, (encoding,), marks, given, encoding.truncated)]

    def encode_ahead(self, rows: Sequence[Row]) -> None:
        """See `LabelScheme.encode_ahead`."""
        encode_rows_ahead(self._task.input, self._subwords, rows)

    def collate(self, features: Sequence[Feature]) -> Batch:
        """Labels float `[batch, labels]`."""
        labels = torch.tensor([feature.labels for feature in features], dtype=torch.float)
        return Batch(*pad_inputs(features, self._subwords.pad_id), labels)

    def decode(self, features: Sequence[Feature], logits: Tensor) -> list[Prediction]:
        """The labels whose probability reaches the threshold; logits `[batch, labels]`.

        The probability of the answer is that of its least certain label, or of there being none.
        """
        return [
            self._decided(Prediction(feature.row, (), None, feature.reference, probabilities=tuple(of_row)))
            for feature, of_row in zip(features, logits.sigmoid().tolist(), strict=True)
        ]

    def answer(self, row: Row, prediction: Prediction) -> dict[str, Any]:
        """The labels, and the probability of each that there is."""
        return {
            "label": list(listed(prediction.label)),
            "probability": rounded(prediction.probability),
            "probabilities": {
                name: round(probability, 6)
                for name, probability in zip(self._names, prediction.probabilities, strict=True)
            },
        }

    def with_scores(self, scores: Mapping[str, float]) -> Self:
        """See `LabelScheme.with_scores`: the threshold that was chosen."""
        chosen = type(self)(self._task.with_scores(scores).with_names(self._names), self._subwords, ())
        chosen.extra_metrics = self.extra_metrics
        return chosen

    def shown(self, reference: Label) -> str:
        """The labels in a line."""
        return ", ".join(listed(reference)) or "no label"

    @property
    def kinds(self) -> tuple[str, ...]:
        """The labels."""
        return self._names

    def counted(self, reference: Label) -> list[str]:
        """Each label."""
        return list(listed(reference))

    def score(self, predictions: Sequence[Prediction]) -> Scores:
        """F1 over labels, rows and pairs of both (scikit-learn); with `threshold: best` also the one that was chosen,
        as a percentage."""
        if self._task.labels.threshold != "best":
            return self._scores(predictions, self._threshold)
        tried = [(self._scores(predictions, threshold), threshold) for threshold in _THRESHOLDS]
        # Of equal ones the nearest to 0.5.
        best, threshold = max(tried, key=lambda pair: (next(iter(pair[0].values.values())), -abs(pair[1] - 0.5)))
        return Scores({**best.values, "threshold": 100 * threshold}, best.types, {"threshold": "percent"})

    def _scores(self, predictions: Sequence[Prediction], threshold: float) -> Scores:
        from sklearn.metrics import precision_recall_fscore_support  # a second to import, and only scores need it

        score: Any = precision_recall_fscore_support  # its stubs want zero_division to be text
        # A label that only occurs here is counted: it can only be missed.
        given = dict.fromkeys(name for each in predictions for name in self.counted(each.reference))
        names = list(dict.fromkeys([*self._names, *sorted(given)]))
        right = torch.tensor([[name in self.counted(each.reference) for name in names] for each in predictions]).numpy()
        unknown = [0.0] * (len(names) - len(self._names))
        found = torch.tensor([[*each.probabilities, *unknown] for each in predictions]).ge(threshold).numpy()
        sums = {kind: score(right, found, average=kind, zero_division=0)[:3] for kind in ("micro", "macro", "samples")}
        values = {
            "micro_f1": sums["micro"][2],
            "macro_f1": sums["macro"][2],
            "samples_f1": sums["samples"][2],
            "micro_precision": sums["micro"][0],
            "micro_recall": sums["micro"][1],
            "exact_match": (right == found).all(1).mean(),
        }
        columns = zip(names, *score(right, found, average=None, zero_division=0), strict=True)
        types = tuple(
            TypeScore(name, 100 * float(precision), 100 * float(recall), 100 * float(f1), int(support))
            for name, precision, recall, f1, support in columns
        )
        rows = f"{len(predictions)} rows"
        chosen = {metric: 100 * float(values[metric]) for metric in self._task.metrics}
        return Scores(chosen, types, dict.fromkeys(("samples_f1", "exact_match"), rows))

    def _decided(self, prediction: Prediction) -> Prediction:
        threshold = self._threshold
        given = [pair for pair in zip(self._names, prediction.probabilities, strict=True) if pair[1] >= threshold]
        certain = min(
            (probability for _, probability in given),
            default=1 - max(prediction.probabilities, default=math.nan),
        )
        return Prediction(
            prediction.row,
            tuple(name for name, _ in given),
            certain,
            prediction.reference,
            probabilities=prediction.probabilities,
        )

    def _find_names(self, train_rows: Iterable[Row]) -> tuple[str, ...]:
        listed = self._task.listed_names()
        if listed is not None:
            return listed
        found, file = gather(train_rows, lambda row: list(self._labels_of(row)))
        if not found:
            message = f"column '{self._task.labels.column}' of the training split holds no label"
            raise DataError(message, location=file, hint="list the labels in labels.names")
        return tuple(found)

    def _labels_of(self, row: Row) -> tuple[str, ...]:
        """The labels of a row, in the order of `names`."""
        labels = self._task.labels
        value, names = row.value(labels.column), labels.names
        if labels.separator is not None and (isinstance(value, str) or value is None):
            items: list[Any] = [part.strip() for part in (value or "").split(labels.separator) if part.strip()]
        elif isinstance(value, str) and labels.separator is None:
            raise DataError(
                f"column '{labels.column}' must hold a list of labels. Got the text '{value[:40]}'",
                location=row.location,
                hint='set labels.separator, such as ","',
            )
        else:
            items = row.items(labels.column)
        found = [self._name_of(row, item) for item in items]
        order = names if isinstance(names, tuple) else sorted(set(found))
        return tuple(name for name in order if name in found)

    def _name_of(self, row: Row, item: Any) -> str:
        column, names = self._task.labels.column, self._task.labels.names
        if not isinstance(item, str | int) or isinstance(item, bool):
            message = f"a label in column '{column}' must be text or an integer. Got {item!r}"
            raise DataError(message, location=row.location)
        text = str(item)
        if isinstance(names, str):
            return text
        if isinstance(names, dict) and text in names:
            return names[text]
        if isinstance(names, tuple) and text in names:
            return text
        if isinstance(names, tuple) and isinstance(item, int):
            return names[name_index(row, column, item, names)]
        message = f"label '{text}' in column '{column}' is not in 'labels.names'"
        raise DataError(message, location=row.location, hint=did_you_mean(text, list(names)))
