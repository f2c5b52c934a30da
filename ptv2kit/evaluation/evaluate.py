"""Scores and predictions of a model over a whole split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch

from ptv2kit.data.batching import sorted_batches
from ptv2kit.data.dataset import EncodedSplit
from ptv2kit.data.schemes.base import LabelScheme, Prediction, Scores
from ptv2kit.errors import TrainingError
from ptv2kit.models.model import PromptedModel


@final
@dataclass(frozen=True)
class Evaluation:
    """Result over a split.

    Args:
        scores: the task's metrics.
        predictions: one for each row, in the order of the rows.
    """

    scores: Scores
    predictions: tuple[Prediction, ...]


def evaluate(
    model: PromptedModel,
    scheme: LabelScheme,
    split: EncodedSplit,
    batch_size: int,
    device: torch.device,
    progress: Callable[[int, int], None],
) -> Evaluation:
    """Predict every row without dropout and score the predictions.

    Args:
        model: is put into evaluation mode, and back into training mode if it was in it.
        scheme: of the task.
        split: what is predicted.
        batch_size: rows per forward pass.
        device: where the model is.
        progress: told how many rows are done, and how many there are.

    Raises:
        TrainingError: a logit is no number.
    """
    training = model.training
    model.eval()
    predictions: list[Prediction] = []
    with torch.inference_mode():
        for rows in sorted_batches(split.lengths, batch_size):
            features = [split.features[row] for row in rows]
            batch = scheme.collate(features).to(device)
            logits = model(**batch.inputs())
            if not bool(logits.isfinite().all()):
                model.train(training)
                raise TrainingError(
                    f"the logits became {float(logits.sum())} while the {split.data.name} split was predicted",
                    hint="lower train.learning_rate, or raise train.warmup_ratio",
                )
            predictions += scheme.decode(features, logits.float().cpu())
            progress(len(predictions), len(split.features))
    model.train(training)
    joined = scheme.join(predictions)
    return Evaluation(scheme.score(joined), tuple(joined))
