"""Answers to rows of several tasks that share a backbone, in the same forward passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import torch

from ptv2kit.data.batching import sorted_token_batches
from ptv2kit.data.rows import Row
from ptv2kit.data.schemes.base import LabelScheme
from ptv2kit.data.schemes.records import Feature, Prediction
from ptv2kit.data.unlabelled import unlabelled_rows
from ptv2kit.errors import DataError
from ptv2kit.models.mixed import MixedModel, MixedPart
from ptv2kit.models.model import PromptedModel
from ptv2kit.spec.task import AnyTask
from ptv2kit.training.predict import Answer

# A pass costs what launching its kernels costs: on a CPU as much as a few tokens, on a GPU as much as many.
_SPARE_ON_CPU, _SPARE_ON_GPU = 16, 1024


@final
@dataclass(frozen=True, eq=False)
class Prompted:
    """A task with its prompt and head; no other one is equal to it.

    Args:
        name: that it is asked for by.
        task: says what is read of a row.
        model: on the shared backbone, in evaluation mode.
    """

    name: str
    task: AnyTask
    scheme: LabelScheme
    model: PromptedModel


@final
@dataclass(frozen=True)
class Question:
    """A row that is ready for the model.

    Args:
        row: as it is read.
        features: that the task's scheme made of it, at least one.
    """

    prompted: Prompted
    row: Row
    features: tuple[Feature, ...]

    @property
    def inputs(self) -> int:
        """Inputs of the model."""
        return sum(len(feature.inputs) for feature in self.features)


def encode(prompted: Prompted, row: Row) -> list[Question]:
    """What a row asks: one question, or as many as `expand` makes of it.

    Raises:
        DataError: a column is missing or of the wrong kind.
    """
    return [
        Question(prompted, each, tuple(prompted.scheme.encode(each, 0, labelled=False)))
        for each in unlabelled_rows(prompted.task, row, {})
    ]


@final
class MixedPredictor:
    """A backbone that answers questions of several tasks.

    Args:
        device: where it is.
        batch_tokens: tokens per forward pass, padding included; one input alone may have more.
        spare_tokens: padding that costs less than one more pass; None: what fits a small model on a CPU, or a GPU.
    """

    def __init__(
        self, model: MixedModel, device: torch.device, batch_tokens: int, spare_tokens: int | None = None
    ) -> None:
        self._model = model
        self._device = device
        self._batch_tokens = batch_tokens
        usual = _SPARE_ON_CPU if device.type == "cpu" else _SPARE_ON_GPU
        self._spare_tokens = usual if spare_tokens is None else spare_tokens

    def answers(self, questions: Sequence[Question]) -> list[Answer]:
        """An answer to each question, in their order; one for which the model gives no number says so.

        Inputs of about the same length share a pass, whatever their task.
        """
        asked = [
            (question, replace(feature, row=index))
            for index, question in enumerate(questions)
            for feature in question.features
        ]
        lengths = [feature.length for _, feature in asked]
        inputs = [len(feature.inputs) for _, feature in asked]
        predictions: dict[Prompted, list[Prediction]] = {}
        broken: set[int] = set()
        for batch in sorted_token_batches(range(len(asked)), lengths, inputs, self._batch_tokens, self._spare_tokens):
            self._predict([asked[index] for index in batch], predictions, broken)
        found: dict[int, Prediction] = {}
        for prompted, own in predictions.items():
            whole = [prediction for prediction in own if prediction.row not in broken]
            found |= {prediction.row: prediction for prediction in prompted.scheme.join(whole)}
        return [
            _no_number(question) if index in broken else _answer(question, found[index])
            for index, question in enumerate(questions)
        ]

    def _predict(
        self, batch: Sequence[tuple[Question, Feature]], predictions: dict[Prompted, list[Prediction]], broken: set[int]
    ) -> None:
        """One forward pass; adds to the predictions of each task, and to the rows whose logits are no numbers."""
        tasks: dict[Prompted, list[Feature]] = {}
        for question, feature in batch:
            tasks.setdefault(question.prompted, []).append(feature)
        parts = [
            MixedPart(prompted.model, prompted.scheme.collate(features).to(self._device).inputs())
            for prompted, features in tasks.items()
        ]
        for (prompted, features), logits in zip(tasks.items(), self._model(parts), strict=True):
            logits = logits.float().cpu()
            finite = logits.isfinite().flatten(1).all(dim=1)
            broken.update(feature.row for feature, is_number in zip(features, finite, strict=True) if not is_number)
            numbers = [feature for feature, is_number in zip(features, finite, strict=True) if is_number]
            predictions.setdefault(prompted, []).extend(prompted.scheme.decode(numbers, logits[finite]))


def _answer(question: Question, prediction: Prediction) -> Answer:
    truncated = any(feature.truncated for feature in question.features)
    return Answer(question.row.location, question.prompted.scheme.answer(question.row, prediction), truncated=truncated)


def _no_number(question: Question) -> Answer:
    error = DataError(f"the prompt '{question.prompted.name}' gives no number for this row")
    return Answer(question.row.location, None, error)
