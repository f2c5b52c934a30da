"""Scheme `choices`: the right one of several continuations of a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor

from ptv2kit.data.cloze_inputs import ClozeInputs, cloze_tensors
from ptv2kit.data.rows import Row
from ptv2kit.data.schemes.base import (
    IGNORED,
    Batch,
    Feature,
    Label,
    LabelScheme,
    Prediction,
    Scores,
    Unit,
    input_error,
    label_and_probabilities,
    name_index,
    pad_inputs,
)
from ptv2kit.data.templates import render
from ptv2kit.data.tokens import Encoding, Subwords
from ptv2kit.data.verbalizer import check_text, word_ids
from ptv2kit.errors import DataError, did_you_mean
from ptv2kit.spec.task import ChoicesTask
from ptv2kit.spec.template import parse_template


@final
class Scheme(LabelScheme):
    """Encodes the text with each choice as a pair; the model scores them one by one, as the official code does.

    With a verbalizer each choice is an answer to the text with a mask.

    Raises:
        ConfigError: the backbone cannot fill the text's mask.
    """

    def __init__(self, task: ChoicesTask, subwords: Subwords, _: object = ()) -> None:
        self._task = task
        self._subwords = subwords
        self._text = parse_template(task.input.text)
        self._choices = [parse_template(choice) for choice in task.input.choices]
        self._names = task.labels.names or tuple(str(index) for index in range(len(self._choices)))
        self._cloze: ClozeInputs | None = None
        if task.head == "verbalizer":
            check_text(task, subwords)
            self._cloze = ClozeInputs(subwords, self._text, None, "longest")

    @property
    def unit(self) -> Unit:
        """Each choice, as a pair with the text or as an answer to it."""
        return "choices" if self._cloze is None else "answers"

    @property
    def names(self) -> tuple[str, ...]:
        """The choices: their names in the data, or their indices."""
        return self._names

    def encode(self, row: Row, index: int, *, labelled: bool = True) -> list[Feature]:
        """The text with each choice; see `LabelScheme.encode`."""
        label = self._label_of(row) if labelled else IGNORED
        try:
            encodings = self._inputs_of(row)
        except ValueError as error:
            hint = "set input.truncate to longest, or raise max_length"
            raise input_error(row, error, hint) from error
        truncated = any(encoding.truncated for encoding in encodings)
        return [Feature(index, encodings, label, self._names[label] if labelled else "", truncated)]

    def collate(self, features: Sequence[Feature]) -> Batch:
        """Inputs `[batch · choices, length]`, labels `[batch]`."""
        labels = torch.tensor([feature.labels for feature in features])
        encodings = [encoding for feature in features for encoding in feature.inputs]
        cloze = {} if self._cloze is None else cloze_tensors(encodings)
        return Batch(*pad_inputs(features, self._subwords.pad_id), labels, cloze)

    def decode(self, features: Sequence[Feature], logits: Tensor) -> list[Prediction]:
        """The most probable choice of each row; logits `[batch, choices]`."""
        probabilities = logits.softmax(-1).tolist()
        return [
            Prediction(feature.row, self._names[index], of_row[index], feature.reference, probabilities=tuple(of_row))
            for feature, index, of_row in zip(features, logits.argmax(-1).tolist(), probabilities, strict=True)
        ]

    def answer(self, row: Row, prediction: Prediction) -> dict[str, Any]:
        """The choice, as it is called in the data and as it reads, and the probability of each."""
        text = render(self._choices[self._names.index(str(prediction.label))], row)
        return {**label_and_probabilities(self._names, prediction), "text": text}

    def counted(self, reference: Label) -> list[str]:
        """The right choice."""
        return [str(reference)]

    def score(self, predictions: Sequence[Prediction]) -> Scores:
        """Accuracy."""
        right = sum(prediction.label == prediction.reference for prediction in predictions)
        return Scores({"accuracy": 100 * right / len(predictions)})

    def _inputs_of(self, row: Row) -> tuple[Encoding, ...]:
        choices = [render(choice, row) for choice in self._choices]
        if self._cloze is None:
            text = render(self._text, row)
            return tuple(self._subwords.encode_texts(text, choice, self._task.input.truncate) for choice in choices)
        answers = [word_ids(choice, self._subwords) for choice in choices]
        for choice, answer in zip(choices, answers, strict=True):
            if len(answer) > 1 and self._task.words_are_one_token:
                tokens = ", ".join(map(repr, self._subwords.tokens(answer)))
                raise DataError(
                    f"the choice {choice!r} is {len(answer)} tokens in this vocabulary: {tokens}",
                    location=row.location,
                    hint="set verbalizer_tokens: any",
                )
        return self._cloze.encode(row, answers)

    def _label_of(self, row: Row) -> int:
        column, named = self._task.labels.column, self._task.labels.names
        if named is not None and isinstance(row.value(column), str):
            name = row.text(column)
            if name not in named:
                raise DataError(
                    f"label '{name}' in column '{column}' is not in 'labels.names'",
                    location=row.location,
                    hint=did_you_mean(name, list(named)),
                )
            return named.index(name)
        if named is not None and str(row.value(column)) in named:
            return named.index(str(row.value(column)))
        index = row.integer(column)
        if named is not None:
            return name_index(row, column, index, named)
        if index >= len(self._choices):
            raise DataError(
                f"column '{column}' holds {index}, but the choices are 0 to {len(self._choices) - 1}",
                location=row.location,
                hint="labels count from 0",
            )
        return index
