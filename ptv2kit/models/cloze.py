"""Scores of the answers to a cloze question, from the logits of any model that fills in masks.

The loss of both kinds is the cross-entropy over an example's scores.

Source: THUDM/GLM, `model/downstream.py` (single-token and multi-token cloze).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def single_token_scores(logits: Tensor, positions: Tensor, verbalizer_ids: Tensor) -> Tensor:
    """Logits of answers that are one token each.

    Args:
        logits: `[batch, length, vocab]`.
        positions: `[batch]`, index whose logits predict the answer: that of `sop` in the original GLM.
        verbalizer_ids: `[classes]`, the token of each class, or `[batch, classes]` if rows have different ones.

    Returns:
        `[batch, classes]`, float32, not normalized.
    """
    rows = positions.view(-1, 1, 1).expand(-1, 1, logits.shape[-1])
    predicted = logits.gather(1, rows).squeeze(1)
    return predicted.gather(1, verbalizer_ids.expand(len(logits), -1)).float()


def multi_token_scores(logits: Tensor, target_ids: Tensor, scored_mask: Tensor, length_penalty: float = 0.0) -> Tensor:
    """Log-probabilities of answers of several tokens: the sum over their tokens.

    Only logits of scored tokens are normalized over the vocabulary, in float32.

    Args:
        logits: `[..., length, vocab]`, one row for each answer.
        target_ids: `[..., length]`, the token that each index should predict; anything where nothing is scored.
        scored_mask: `[..., length]`, not 0 where a token is scored.
        length_penalty: power of the number of scored tokens that the sum is divided by; 0: the plain sum, 1: the mean.

    Returns:
        `[...]`, float32; 0 for a row without a scored token.
    """
    scored = scored_mask.bool()
    sums = sums_of_scored(logits[scored].float(), target_ids[scored], scored)
    if length_penalty == 0:
        return sums
    return sums / scored.sum(dim=-1).clamp(min=1) ** length_penalty


def sums_of_scored(logits: Tensor, target_ids: Tensor, scored: Tensor) -> Tensor:
    """As `multi_token_scores` without a penalty, from the logits of scored tokens alone.

    Args:
        logits: `[tokens, vocab]`, float32.
        target_ids: `[tokens]`.
        scored: `[..., length]`, True as often as there are tokens.
    """
    losses = F.cross_entropy(logits, target_ids, reduction="none")
    return losses.new_zeros(scored.shape).masked_scatter(scored, -losses).sum(dim=-1)
