"""Scheme `choices`: the right one of several continuations of a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor

from ptv2kit.data.cloze_inputs import ClozeInputs, cloze_tensors
from ptv2kit.data.encodings import Encoding
from ptv2kit.data.rows import Row
from ptv2kit.data.schemes.base import (
    LabelScheme,
    Unit,
    input_error,
    label_and_probabilities,
    name_index,
    pad_inputs,
    without_faults,
)
from ptv2kit.data.schemes.records import IGNORED, Batch, Feature, Label, Prediction, Scores
from ptv2kit.data.templates import render
from ptv2kit.data.tokens import Subwords
from ptv2kit.data.verbalizer import check_text, word_ids
from ptv2kit.errors import DataError, did_you_mean
from ptv2kit.spec.task import ChoicesTask
from ptv2kit.spec.template import OPTION, parse_template


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
        self._choices = [parse_template(choice) for choice in task.input.choices or ()]
        self._option = parse_template(task.input.option)
        self._names = task.labels.names or tuple(str(index) for index in range(len(self._choices))) or (OPTION,)
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
        """The choices: their names in the data, or their indices; one name for all where rows have lists of options."""
        return self._names

    def encode(self, row: Row, index: int, *, labelled: bool = True) -> list[Feature]:
        """The text with each choice; see `LabelScheme.encode`."""
        names = self._names_of(row, labelled)
        label = self._label_of(row, names) if labelled else IGNORED
        try:
            encodings = self._inputs_of(row)
        except ValueError as error:
            hint = "set input.truncate to longest, or raise max_length"
            raise input_error(row, error, hint) from error
        truncated = any(encoding.truncated for encoding in encodings)
        return [Feature(index, encodings, label, names[label] if labelled else "", truncated, names)]

    def encode_ahead(self, rows: Sequence[Row]) -> None:
        """See `LabelScheme.encode_ahead`; a text with a missing word is cut piece by piece."""
        if self._cloze is None:
            pairs = without_faults(rows, self._pairs)
            self._subwords.encode_texts_ahead([pair for of_row in pairs for pair in of_row], self._task.input.truncate)

    def collate(self, features: Sequence[Feature]) -> Batch:
        """Inputs `[batch · choices, length]`, labels `[batch]`."""
        labels = torch.tensor([feature.labels for feature in features])
        encodings = [encoding for feature in features for encoding in feature.inputs]
        cloze = {} if self._cloze is None else cloze_tensors(encodings)
        if self._task.input.options is not None:
            cloze = {"choice_rows": _choice_rows([len(feature.inputs) for feature in features])}
        return Batch(*pad_inputs(features, self._subwords.pad_id), labels, cloze)

    def decode(self, features: Sequence[Feature], logits: Tensor) -> list[Prediction]:
        """The most probable choice of each row; logits `[batch, choices]`."""
        probabilities = logits.softmax(-1).tolist()
        return [
            Prediction(
                feature.row,
                feature.notes[index],
                of_row[index],
                feature.reference,
                notes=feature.notes,
                probabilities=tuple(of_row[: len(feature.inputs)] if self._cloze is None else of_row),
            )
            for feature, index, of_row in zip(features, logits.argmax(-1).tolist(), probabilities, strict=True)
        ]

    def answer(self, row: Row, prediction: Prediction) -> dict[str, Any]:
        """The choice, as it is called in the data and as it reads, and the probability of each."""
        names: tuple[str, ...] = prediction.notes
        text = self._texts(row)[names.index(str(prediction.label))]
        return {**label_and_probabilities(names, prediction), "text": text}

    def counted(self, reference: Label) -> list[str]:
        """The right choice."""
        return [str(reference)]

    def score(self, predictions: Sequence[Prediction]) -> Scores:
        """Accuracy."""
        right = sum(prediction.label == prediction.reference for prediction in predictions)
        return Scores({"accuracy": 100 * right / len(predictions)})

    def _inputs_of(self, row: Row) -> tuple[Encoding, ...]:
        if self._cloze is None:
            shorten = self._task.input.truncate
            return tuple(self._subwords.encode_texts(text, choice, shorten) for text, choice in self._pairs(row))
        choices = self._texts(row)
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

    def _pairs(self, row: Row) -> list[tuple[str, str]]:
        """The text with each choice; errors as of `_texts`."""
        text = render(self._text, row)
        return [(text, choice) for choice in self._texts(row)]

    def _texts(self, row: Row) -> list[str]:
        """The choices of a row as they read.

        Raises:
            DataError: a column is missing or holds no text, there are fewer than two options, or the data has more of
                them than `choices` names.
        """
        column = self._task.input.options
        if column is None:
            self._require_all(row)
            return [render(choice, row) for choice in self._choices]
        options = row.texts(column)
        if len(options) < 2:
            raise DataError(
                f"column '{column}' holds {len(options)} options, expected two or more", location=row.location
            )
        return [render(self._option, Row({**row.values, OPTION: option}, row.location)) for option in options]

    def _require_all(self, row: Row) -> None:
        """Make sure that templates such as `{options.3}` leave no item of their list out."""
        numbered = [
            column.rpartition(".")
            for choice in self._choices
            for column in choice.columns
            if column.rpartition(".")[2].isdecimal()
        ]
        for column in dict.fromkeys(name for name, _, _ in numbered):
            named = 1 + max(int(number) for name, _, number in numbered if name == column)
            value = row.value(column)
            if isinstance(value, list) and len(row.items(column)) > named:
                raise DataError(
                    f"column '{column}' holds {len(row.items(column))} items, but 'input.choices' names {named}",
                    location=row.location,
                    hint=f"set input.options: {column} in place of input.choices",
                )

    def _names_of(self, row: Row, labelled: bool) -> tuple[str, ...]:
        """What the row's choices are called; a row to predict need not say it."""
        column, among = self._task.input.options, self._task.labels.among
        if column is None:
            return self._names
        count = len(row.items(column))
        names = self._task.labels.names
        if among is not None:
            try:
                names = tuple(row.texts(among))
            except DataError:
                if labelled:
                    raise
                among = None
        if names is None:
            return tuple(str(index) for index in range(count))
        if len(names) < count or (among is not None and len(names) != count):
            what = f"column '{among}'" if among is not None else "'labels.names'"
            raise DataError(f"{count} options in '{column}' but {len(names)} names in {what}", location=row.location)
        return names[:count]

    def _label_of(self, row: Row, names: tuple[str, ...]) -> int:
        """The place of the right choice: its name first, then an index."""
        column = self._task.labels.column
        value = row.value(column)
        named = self._task.labels.names is not None or self._task.labels.among is not None
        if named and str(value) in names:
            return names.index(str(value))
        if named and isinstance(value, str):
            where = "labels.names" if self._task.labels.among is None else self._task.labels.among
            message = f"label '{value}' in column '{column}' is not in '{where}'"
            raise DataError(message, location=row.location, hint=did_you_mean(value, list(names)))
        index = row.integer(column)
        if self._task.labels.names is not None:
            return name_index(row, column, index, names)
        if index >= len(names):
            raise DataError(
                f"column '{column}' holds {index}, but the choices are 0 to {len(names) - 1}",
                location=row.location,
                hint="labels count from 0",
            )
        return index


def _choice_rows(counts: Sequence[int]) -> Tensor:
    """Which inputs of a batch are the options of each example, `[batch, most]`; -1 where it has fewer."""
    rows = torch.full((len(counts), max(counts)), -1)
    first = 0
    for index, count in enumerate(counts):
        rows[index, :count] = torch.arange(first, first + count)
        first += count
    return rows
