"""Scheme `number`: a number for a text or a pair of texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from ptv2kit.data.rows import Row
from ptv2kit.data.schemes.base import LabelScheme, Unit, encode_rows_ahead, encode_texts, pad_inputs
from ptv2kit.data.schemes.records import Batch, Feature, Label, Prediction, Scores
from ptv2kit.data.tokens import Subwords
from ptv2kit.errors import DataError
from ptv2kit.spec.task import NumberTask


@final
class Scheme(LabelScheme):
    """Predicts the number as the only logit, in the unit of the data, as the official code does for one label."""

    def __init__(self, task: NumberTask, subwords: Subwords, _: object = ()) -> None:
        self._task = task
        self._subwords = subwords

    @property
    def unit(self) -> Unit:
        """The input as a whole."""
        return "number"

    @property
    def names(self) -> tuple[str, ...]:
        """The column of the number."""
        return (self._task.labels.column,)

    def encode(self, row: Row, index: int, *, labelled: bool = True) -> list[Feature]:
        """The rendered texts as sub-words; see `LabelScheme.encode`."""
        number = self._number_of(row) if labelled else math.nan
        encoding = encode_texts(self._task.input, self._subwords, row)
        return [Feature(index, (encoding,), number, number, encoding.truncated)]

    def encode_ahead(self, rows: Sequence[Row]) -> None:
        """See `LabelScheme.encode_ahead`."""
        encode_rows_ahead(self._task.input, self._subwords, rows)

    def collate(self, features: Sequence[Feature]) -> Batch:
        """Labels float `[batch]`."""
        labels = torch.tensor([feature.labels for feature in features], dtype=torch.float)
        return Batch(*pad_inputs(features, self._subwords.pad_id), labels)

    def decode(self, features: Sequence[Feature], logits: Tensor) -> list[Prediction]:
        """The number of each row; logits `[batch, 1]`."""
        return [
            Prediction(feature.row, round(number, 6), None, feature.reference)
            for feature, number in zip(features, logits.squeeze(-1).tolist(), strict=True)
        ]

    def answer(self, row: Row, prediction: Prediction) -> dict[str, Any]:
        """The number; it has no probability."""
        return {"label": prediction.label, "probability": None}

    def counted(self, reference: Label) -> list[str]:
        """The whole number below."""
        assert isinstance(reference, float)
        return [f"{math.floor(reference)} to {math.floor(reference) + 1}"]

    def score(self, predictions: Sequence[Prediction]) -> Scores:
        """Correlations (Pearson's, Spearman's; 0 where one side is constant), and squared errors."""
        found = np.array([prediction.label for prediction in predictions], dtype=np.float64)
        right = np.array([prediction.reference for prediction in predictions], dtype=np.float64)
        pearson, spearman = _correlation(found, right), _correlation(_ranks(found), _ranks(right))
        error = float(np.mean((found - right) ** 2))
        values = {
            "pearson": 100 * pearson,
            "spearman": 100 * spearman,
            "pearson_spearman": 50 * (pearson + spearman),
            "mse": error,
            "rmse": math.sqrt(error),
        }
        return Scores({metric: values[metric] for metric in self._task.metrics})

    def _number_of(self, row: Row) -> float:
        column = self._task.labels.column
        value = row.value(column)
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise DataError(f"column '{column}' must hold a finite number. Got {value!r}", location=row.location)
        return number


def _correlation(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    if one.std() == 0 or other.std() == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def _ranks(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The rank of each value; equal values share the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[places]
