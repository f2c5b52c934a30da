"""What passes between a scheme, the trainer and the reports: features, batches, predictions, scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor

from ptv2kit.data.encodings import Encoding

IGNORED = -100
"""Label of a position that is not scored; cross-entropy leaves it out."""


Label = str | float | tuple[str, ...]
"""A class, a number, several labels, a tag for each word, or an answer, whose reference is every right one."""


@final
@dataclass(frozen=True, slots=True)
class Feature:
    """What a row, or a window of it, gives to the model.

    Args:
        row: index of its row within the split.
        inputs: one, or one for each choice.
        labels: target as the head's loss takes it: a class or choice, a number, 0 or 1 for each label, one label per
            id, or start and end.
        reference: target as it is scored.
        truncated: whether something that could matter was cut off.
        notes: what the scheme needs to decode it; no other part of the code looks at it.
    """

    row: int
    inputs: tuple[Encoding, ...]
    labels: float | tuple[int, ...]
    reference: Label
    truncated: bool = False
    notes: Any = None

    @property
    def length(self) -> int:
        """Sub-words of the longest input."""
        return max(len(encoding.ids) for encoding in self.inputs)


@final
@dataclass(frozen=True)
class Batch:
    """Padded inputs; with choices, those of a feature stand one after the other.

    Args:
        input_ids: `[inputs, length]`.
        attention_mask: `[inputs, length]`, 1 at real tokens.
        token_type_ids: `[inputs, length]` or None.
        labels: `[batch]`, `[batch, length]`, or `[batch, 2]` for start and end.
        cloze: where words are missing, from `cloze_tensors`; empty if none are.
        trunk_states: hidden states `[inputs, length, hidden]` that stand in for the backbone's lower layers; None:
            they are computed.
    """

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor | None
    labels: Tensor
    cloze: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    trunk_states: Tensor | None = None

    def inputs(self) -> dict[str, Tensor]:
        """What the model's forward takes, by name."""
        given = {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "token_type_ids": self.token_type_ids,
            "trunk_states": self.trunk_states,
        }
        return {name: tensor for name, tensor in given.items() if tensor is not None} | dict(self.cloze)

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`; from page-locked memory it is brought there while other things are computed."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """The same batch in page-locked memory, which needs a GPU."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """A batch of changed tensors."""

        def changed(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else change(tensor)

        return Batch(
            change(self.input_ids),
            change(self.attention_mask),
            changed(self.token_type_ids),
            change(self.labels),
            {name: change(tensor) for name, tensor in self.cloze.items()},
            changed(self.trunk_states),
        )


@final
@dataclass(frozen=True)
class Candidate:
    """One of the best answers of a question.

    Args:
        text: as it stands in the passage; empty for no answer.
        score: sum of the logits of start and end.
        start: its first character in the passage.
    """

    text: str
    score: float
    start: int


@final
@dataclass(frozen=True)
class Prediction:
    """What was decoded for one row.

    Args:
        row: index within the split.
        label: class, tags or answer.
        probability: of the class or answer; for tags the mean over words; None of a number.
        score: what a metric ranks by: of a class the logit of the last one; of an answer how much the score of no
            answer exceeds it.
        candidates: the best answers, best first.
        notes: what the scheme needs to score it.
        probabilities: of each class or choice; for tags, of each word's.
    """

    row: int
    label: Label
    probability: float | None
    reference: Label
    score: float = 0.0
    candidates: tuple[Candidate, ...] = ()
    notes: Any = None
    probabilities: tuple[float, ...] = ()

    def to_json(self, location: str) -> dict[str, Any]:
        """A line of `predictions/<split>.jsonl`; answers have `n_best` and `null_margin` too."""
        answer = {
            "null_margin": round(self.score, 6),
            "n_best": [
                {"text": item.text, "score": round(item.score, 6), "start": item.start} for item in self.candidates
            ],
        }
        return {
            "row": self.row,
            "location": location,
            "label": self.label,
            "probability": rounded(self.probability),
            "reference": self.reference,
            **(answer if self.candidates else {}),
        }


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
        values: each metric on a scale of 0 to 100, but for errors of numbers and thresholds of logits.
        types: the same by class or span type.
        counts: what a metric is taken over, such as `3 groups`, where it is not the rows or spans of `types`.
    """

    values: dict[str, float]
    types: tuple[TypeScore, ...] = field(default=())
    counts: dict[str, str] = field(default_factory=dict[str, str])


def rounded(probability: float | None) -> float | None:
    """A probability as it is written."""
    return None if probability is None else round(probability, 6)
