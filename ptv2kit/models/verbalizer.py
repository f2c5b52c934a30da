"""Heads that score classes by words: the logits of a frozen language-model head at a mask; nothing in them is trained.

Source: Schick and Schütze, "Exploiting Cloze Questions for Few Shot Text Classification and Natural Language
Inference", arXiv:2001.07676; of several tokens THUDM/GLM, `model/downstream.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from ptv2kit.models.heads import BackboneOutput, Head
from ptv2kit.models.language_head import LanguageHead


@final
class WordsHead(Head):
    """The logits of a verbalizer's words at the mask; words of one class add up as probabilities.

    Args:
        language: over the words of all classes, in order.
        sizes: how many words each class has.
    """

    def __init__(self, language: LanguageHead, sizes: Sequence[int]) -> None:
        super().__init__()
        self.language = language
        self.sizes = list(sizes)

    def forward(self, output: BackboneOutput) -> Tensor:
        """Logits `[batch, classes]`."""
        assert output.answer_places is not None, "a verbalizer must be told where the mask is"
        hidden = output.hidden.flatten(0, 1)[output.answer_places[:, 0]]
        return _by_class(self.language(hidden), self.sizes)


@final
class AnswersHead(Head):
    """For each answer the sum of its tokens' log-probabilities over the whole vocabulary.

    Args:
        language: over the vocabulary.
        sizes: how many answers each class has; of choices one each.
    """

    def __init__(self, language: LanguageHead, sizes: Sequence[int]) -> None:
        super().__init__()
        self.language = language
        self.sizes = list(sizes)

    def forward(self, output: BackboneOutput) -> Tensor:
        """Log-probabilities as logits `[batch, classes]`."""
        assert output.answer_places is not None, "a verbalizer must be told where the mask is"
        assert output.answer_ids is not None, "answers must be told their tokens"
        scored = output.answer_ids >= 0
        # Only the scored places are turned into logits over the vocabulary.
        logits = self.language(output.hidden.flatten(0, 1)[output.answer_places[scored]])
        scores = sums_of_scored(logits, output.answer_ids[scored], scored)
        return _by_class(scores.view(-1, sum(self.sizes)), self.sizes)


def _by_class(scores: Tensor, sizes: Sequence[int]) -> Tensor:
    """Logits or log-probabilities `[batch, words]` as those of classes: log-sum-exp over the words of each."""
    if set(sizes) == {1}:
        return scores
    return torch.stack([own.logsumexp(-1) for own in scores.split(list(sizes), -1)], -1)


def sums_of_scored(logits: Tensor, target_ids: Tensor, scored: Tensor) -> Tensor:
    """Sum the log-probabilities of the scored tokens of each answer; 0 for one without any.

    Source: THUDM/GLM, `model/downstream.py` (multi-token cloze).

    Args:
        logits: `[tokens, vocab]`, float32.
        target_ids: `[tokens]`.
        scored: `[..., length]`, True as often as there are tokens.
    """
    losses = F.cross_entropy(logits, target_ids, reduction="none")
    return losses.new_zeros(scored.shape).masked_scatter(scored, -losses).sum(dim=-1)
