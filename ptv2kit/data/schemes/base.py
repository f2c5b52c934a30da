"""What every label scheme does: encode rows, collate them into batches, decode logits, score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from ptv2kit.data.rows import Row

IGNORED = -100
"""Label of a position that is not scored; cross-entropy leaves it out."""

Label = str | tuple[str, ...]
"""A class, or a tag for each word."""


@final
@dataclass(frozen=True, slots=True)
class Feature:
    """One input of the model.

    Args:
        row: index of its row within the split.
        input_ids: sub-word ids with special tokens, not padded.
        token_type_ids: segment of each id, or None where the backbone has none.
        labels: target as the head's loss takes it: a class, or one label per id.
        reference: target as it is scored.
        anchors: for each word the position of its first sub-word, -1 where it was cut off or has none.
        truncated: whether the input was longer than `max_length`.
    """

    row: int
    input_ids: tuple[int, ...]
    token_type_ids: tuple[int, ...] | None
    labels: int | tuple[int, ...]
    reference: Label
    anchors: tuple[int, ...] = ()
    truncated: bool = False


@final
@dataclass(frozen=True)
class Batch:
    """Padded inputs.

    Args:
        input_ids: `[batch, length]`.
        attention_mask: `[batch, length]`, 1 at real tokens.
        token_type_ids: `[batch, length]` or None.
        labels: `[batch]` or `[batch, length]`.
    """

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor | None
    labels: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`."""
        segments = None if self.token_type_ids is None else self.token_type_ids.to(device)
        return Batch(self.input_ids.to(device), self.attention_mask.to(device), segments, self.labels.to(device))


@final
@dataclass(frozen=True)
class Prediction:
    """What was decoded for one row.

    Args:
        row: index within the split.
        label: class or tags.
        probability: of the class; for tags the mean over words.
        reference: what is right.
    """

    row: int
    label: Label
    probability: float
    reference: Label


@final
@dataclass(frozen=True)
class TypeScore:
    """Precision, recall and F1 (0 to 100) of one class or span type, and how often it is in the reference."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@final
@dataclass(frozen=True)
class Scores:
    """Result of an evaluation.

    Args:
        values: each metric on a scale of 0 to 100.
        types: the same by class or span type.
    """

    values: dict[str, float]
    types: tuple[TypeScore, ...] = field(default=())


class LabelScheme(ABC):
    """A family of tasks. The trainer and the evaluation know no more of a task than this."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """What each logit stands for, in order."""

    @abstractmethod
    def encode(self, row: Row, index: int) -> Feature:
        """One row as the model's input.

        Raises:
            DataError: a column is missing or of the wrong kind, or the label is unknown or malformed.
        """

    @abstractmethod
    def collate(self, features: Sequence[Feature]) -> Batch:
        """Features padded to the longest of them."""

    @abstractmethod
    def decode(self, features: Sequence[Feature], logits: Tensor) -> list[Prediction]:
        """Predictions from the logits of one batch, in the order of `features`."""

    @abstractmethod
    def score(self, predictions: Sequence[Prediction]) -> Scores:
        """All metrics of the task over a whole split."""


def pad_inputs(features: Sequence[Feature], pad_token_id: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Input ids, attention mask and segments of a batch, padded on the right, each `[batch, length]`."""
    length = max(len(feature.input_ids) for feature in features)

    def padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
        return torch.tensor([[*row, *[value] * (length - len(row))] for row in rows])

    segments = [feature.token_type_ids for feature in features if feature.token_type_ids is not None]
    return (
        padded([feature.input_ids for feature in features], pad_token_id),
        padded([[1] * len(feature.input_ids) for feature in features], 0),
        padded(segments, 0) if segments else None,
    )
