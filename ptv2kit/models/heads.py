"""Heads: from hidden states to logits and a loss. One for each kind of unit that a label scheme scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ABSENT = -1.0e4
"""Logit of an option that is not there: its probability is 0, and the logit is still a number."""
IGNORED = -100
"""Label of a position that is not scored."""


@final
@dataclass(frozen=True)
class BackboneOutput:
    """What a head may read.

    Args:
        hidden: last hidden state, float32 `[batch, length, hidden]`.
        pooled: output of the backbone's own pooler `[batch, hidden]`, if it has one.
        attention_mask: `[batch, length]`, 1 at real tokens.
        answer_places: `[answers, tokens]`, which of the `batch · length` hidden states predict the tokens of a
            verbalizer's answers; None without a verbalizer.
        answer_ids: `[answers, tokens]`, these tokens, -100 where an answer has none; None where only one place is
            asked for, whatever the word.
        choice_rows: `[batch, most]`, which inputs are the options of each example, -1 where it has fewer than others;
            None where all have as many.
    """

    hidden: Tensor
    pooled: Tensor | None
    attention_mask: Tensor
    answer_places: Tensor | None = None
    answer_ids: Tensor | None = None
    choice_rows: Tensor | None = None


class Head(nn.Module, ABC):
    """Turns hidden states into logits, and logits into a loss."""

    def __init__(self) -> None:
        super().__init__()
        self._weights: Tensor | None = None

    def weigh(self, weights: Sequence[float]) -> None:
        """Let each class, or of several labels each that is right, count so much in the loss; empty: all count 1."""
        self._weights = torch.tensor(weights) if weights else None

    @property
    def reads_padding(self) -> bool:
        """Whether the hidden states of padding change the loss."""
        return False

    @abstractmethod
    def forward(self, output: BackboneOutput) -> Tensor:
        """Logits; their shape is the head's own."""

    def loss_sum(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy summed over the scored positions, each by the weight of its class, a scalar.

        Args:
            logits: `[..., classes]`.
            labels: `[...]`, `IGNORED` where a position is not scored.
        """
        weights = None if self._weights is None else self._weights.to(logits)
        return F.cross_entropy(
            logits.flatten(0, -2), labels.flatten(), weight=weights, ignore_index=IGNORED, reduction="sum"
        )

    def target_count(self, labels: Tensor) -> float:
        """How many positions `loss_sum` adds up, each by the weight of its class."""
        scored = labels != IGNORED
        if self._weights is None:
            return int(scored.sum())
        return float(self._weights.to(labels.device)[labels[scored]].sum())


@final
@dataclass(frozen=True)
class Pooling:
    """What stands for a whole input.

    Args:
        source: the backbone's own pooler, the first or the last real token, or the mean over real tokens.
        dense: activation of a layer over it that is trained with the head; None: no such layer.
    """

    source: Literal["pooler", "first", "last", "mean"]
    dense: Literal["gelu", "tanh"] | None = None


class SequenceHead(Head):
    """Pool → dense layer, if any → dropout → linear.

    With the frozen pooler as the official BERT and RoBERTa classes; with a trained dense layer over the first token as
    the official DeBERTa (gelu) and GLM (tanh) classes.

    Args:
        hidden_size: width of the backbone.
        classes: number of logits.
        dropout: before the linear layer.
    """

    def __init__(self, hidden_size: int, classes: int, dropout: float, pooling: Pooling) -> None:
        super().__init__()
        self.pooling = pooling
        self.dense = None if pooling.dense is None else _linear(hidden_size, hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.linear = _linear(hidden_size, classes)

    def forward(self, output: BackboneOutput) -> Tensor:
        """Logits `[batch, classes]`."""
        pooled = self._pool(output)
        if self.dense is not None:
            activation = F.gelu if self.pooling.dense == "gelu" else torch.tanh
            pooled = activation(self.dense(pooled))
        return self.linear(self.dropout(pooled))

    def _pool(self, output: BackboneOutput) -> Tensor:
        match self.pooling.source:
            case "pooler":
                assert output.pooled is not None
                return output.pooled
            case "first":
                return output.hidden[:, 0]
            case "last":
                last = output.attention_mask.sum(1) - 1  # batches are padded on the right
                return output.hidden[torch.arange(len(last), device=last.device), last]
            case "mean":
                mask = output.attention_mask.unsqueeze(-1).to(output.hidden.dtype)
                return (output.hidden * mask).sum(1) / mask.sum(1)


@final
class LabelsHead(SequenceHead):
    """A sequence head with a logit for each label, each of which is right or wrong by itself."""

    def loss_sum(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Binary cross-entropy, right labels by their weight, the mean over an input's labels, summed over the inputs.

        Args:
            logits: `[batch, labels]`.
            labels: float `[batch, labels]`, 1 where a label is right; NaN where an input is not scored.
        """
        # NaN has to go before the loss: NaN times the zero of a mask is NaN again.
        marks, weights = labels.nan_to_num().to(logits), None if self._weights is None else self._weights.to(logits)
        losses = F.binary_cross_entropy_with_logits(logits, marks, reduction="none", pos_weight=weights)
        return losses.mean(-1).masked_fill(labels[:, 0].isnan(), 0.0).sum()

    def target_count(self, labels: Tensor) -> int:
        """How many inputs are scored."""
        return int((~labels[:, 0].isnan()).sum())


@final
class NumberHead(SequenceHead):
    """A sequence head whose only logit is the number, as the official classes with one label."""

    def loss_sum(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Squared error summed over the inputs.

        Args:
            logits: `[batch, 1]`.
            labels: float `[batch]`, NaN where an input is not scored.
        """
        errors = F.mse_loss(logits.squeeze(-1), labels.nan_to_num().to(logits.dtype), reduction="none")
        return errors.masked_fill(labels.isnan(), 0.0).sum()

    def target_count(self, labels: Tensor) -> int:
        """How many inputs are scored."""
        return int((~labels.isnan()).sum())


@final
class TokenHead(Head):
    """Dropout → linear on every token.

    Args:
        hidden_size: width of the backbone.
        classes: number of logits.
        dropout: before the linear layer.
    """

    def __init__(self, hidden_size: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = _linear(hidden_size, classes)

    def forward(self, output: BackboneOutput) -> Tensor:
        """Logits `[batch, length, classes]`."""
        return self.linear(self.dropout(output.hidden))


@final
class ChoicesHead(Head):
    """One logit for each choice, from a sequence head that scores each input alone.

    Args:
        hidden_size: width of the backbone.
        choices: inputs per example, which stand one after the other in a batch.
        dropout: before the linear layer.
        pooling: as of `SequenceHead`.
    """

    def __init__(self, hidden_size: int, choices: int, dropout: float, pooling: Pooling) -> None:
        super().__init__()
        self.choices = choices
        self.sequence = SequenceHead(hidden_size, 1, dropout, pooling)

    def forward(self, output: BackboneOutput) -> Tensor:
        """Logits `[batch, choices]`; of an option that an example does not have, one whose probability is 0."""
        scores = self.sequence(output).squeeze(-1)
        if output.choice_rows is None:
            return scores.view(-1, self.choices)
        # choice_rows [batch, most options]: the row of each option's score, -1 where an example has fewer
        return scores[output.choice_rows.clamp(min=0)].masked_fill(output.choice_rows < 0, _ABSENT)


@final
class StartEndHead(Head):
    """Linear on every token, without dropout: a logit as start and one as end of the answer.

    As in the official code, padding takes part in the softmax.

    Args:
        hidden_size: width of the backbone.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.linear = _linear(hidden_size, 2)

    @property
    def reads_padding(self) -> bool:
        """See `Head.reads_padding`."""
        return True

    def forward(self, output: BackboneOutput) -> Tensor:
        """Logits `[batch, length, 2]`."""
        return self.linear(output.hidden)

    def loss_sum(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean of the cross-entropies of start and end over the positions, summed over the batch.

        Args:
            logits: `[batch, length, 2]`.
            labels: positions of start and end `[batch, 2]`, both `IGNORED` where an example is not scored.
        """
        return F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum") / 2

    def target_count(self, labels: Tensor) -> int:
        """How many examples are scored."""
        return int((labels[:, 0] != IGNORED).sum())


def _linear(hidden_size: int, classes: int) -> nn.Linear:
    """A linear layer with the official initial values: N(0, 0.02), bias 0."""
    linear = nn.Linear(hidden_size, classes)
    nn.init.normal_(linear.weight, std=0.02)
    nn.init.zeros_(linear.bias)
    return linear
