"""Answers to rows without labels, as many as there are, a few batches at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch

from ptv2kit.data.batching import sorted_batches
from ptv2kit.data.rows import Row
from ptv2kit.data.schemes.base import LabelScheme
from ptv2kit.data.schemes.records import Feature, Prediction
from ptv2kit.data.templates import Before
from ptv2kit.data.unlabelled import unlabelled_rows
from ptv2kit.errors import DataError, TrainingError
from ptv2kit.models.model import PromptedModel
from ptv2kit.spec.task import AnyTask


@final
@dataclass(frozen=True)
class Answer:
    """What came out of a row.

    Args:
        location: of the row; if `expand` makes several of it, with the item.
        values: label, probability and what else the scheme tells; None if it failed.
        error: why.
        truncated: whether something that could matter was cut off at `max_length`.
        columns: of the row as it was given, and what `expand` has added; empty of rows that are served.
    """

    location: str
    values: dict[str, Any] | None
    error: DataError | None = None
    truncated: bool = False
    columns: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def to_json(self) -> dict[str, Any]:
        """A line of output."""
        if self.error is not None:
            return {"location": self.location, "error": "; ".join(problem.message for problem in self.error.problems)}
        assert self.values is not None
        return {"location": self.location, **self.values, **({"truncated": True} if self.truncated else {})}


@final
class Predictor:
    """A model that answers rows.

    Args:
        task: says what is read of a row.
        model: in evaluation mode.
        device: where the model is.
        batch_size: inputs per forward pass.
    """

    def __init__(
        self, task: AnyTask, scheme: LabelScheme, model: PromptedModel, device: torch.device, batch_size: int
    ) -> None:
        self._task = task
        self._scheme = scheme
        self._model = model
        self._device = device
        self._batch_size = batch_size

    def answers(
        self, rows: Iterable[Row], progress: Callable[[int], None] | None = None, ahead: int = 8
    ) -> Iterator[Answer]:
        """An answer to each row, in their order; the rows are read a few batches ahead.

        Args:
            rows: without labels; columns that the input does not need are left alone.
            ahead: batches whose rows are read and sorted by length together.

        Raises:
            TrainingError: a logit is not a number.
        """
        done = 0
        before: Before = {}
        for pool in _pools(rows, ahead * self._batch_size):
            yield from self._pool(pool, before)
            done += len(pool)
            if progress is not None:
                progress(done)

    def _pool(self, rows: Sequence[Row], before: Before) -> list[Answer]:
        """The answers of rows that are sorted by length together."""
        read: list[Row] = []
        features: list[Feature] = []
        given: list[Mapping[str, Any]] = []
        found: list[int | Answer] = []
        expanded = [(plain, *_until_fault(unlabelled_rows(self._task, plain, before))) for plain in rows]
        self._scheme.encode_ahead([row for _, made, _ in expanded for row in made])
        for plain, made, fault in expanded:
            try:
                for row in made:
                    of_row = self._scheme.encode(row, len(read), labelled=False)
                    found.append(len(read))
                    read.append(row)
                    derived = self._task.derive.keys() - plain.values.keys()
                    given.append({name: value for name, value in row.values.items() if name not in derived})
                    features += of_row
                if fault is not None:
                    raise fault
            except DataError as error:
                found.append(Answer(plain.location, None, error, columns=plain.values))
        truncated = {feature.row for feature in features if feature.truncated}
        predictions = {prediction.row: prediction for prediction in self._predict(features)}
        return [
            item
            if isinstance(item, Answer)
            else Answer(
                read[item].location,
                self._scheme.answer(read[item], predictions[item]),
                truncated=item in truncated,
                columns=given[item],
            )
            for item in found
        ]

    def _predict(self, features: Sequence[Feature]) -> list[Prediction]:
        """One prediction for each row."""
        predictions: list[Prediction] = []
        with torch.inference_mode(), self._model.prompt_made_once():
            for batch in sorted_batches([feature.length for feature in features], self._batch_size):
                chosen = [features[index] for index in batch]
                logits = self._model(**self._scheme.collate(chosen).to(self._device).inputs())
                if not bool(logits.isfinite().all()):
                    raise TrainingError(f"the logits became {float(logits.sum())} while rows were predicted")
                predictions += self._scheme.decode(chosen, logits.float().cpu())
        return self._scheme.join(predictions)


def _until_fault(rows: Iterator[Row]) -> tuple[list[Row], DataError | None]:
    """The rows before the first that is at fault, and its fault."""
    made: list[Row] = []
    try:
        for row in rows:
            made.append(row)
    except DataError as error:
        return made, error
    return made, None


def _pools(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    iterator = iter(rows)
    while pool := list(itertools.islice(iterator, size)):
        yield pool
