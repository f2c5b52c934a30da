"""Scores of several models on one backbone over the same split, predicted together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ptv2kit.data.batching import sorted_batches
from ptv2kit.data.dataset import EncodedSplit
from ptv2kit.data.schemes.base import LabelScheme, Prediction
from ptv2kit.errors import TrainingError
from ptv2kit.evaluation.evaluate import Evaluation, no_number
from ptv2kit.models.model import PromptedModel
from ptv2kit.models.stacked import encode_stacked


def evaluate_together(
    models: Sequence[PromptedModel],
    scheme: LabelScheme,
    split: EncodedSplit,
    batch_size: int,
    device: torch.device,
    progress: Callable[[int, int], None],
) -> list[Evaluation | TrainingError]:
    """What `evaluate` gives for each model; each batch is read once, and goes through the backbone once for all.

    Args:
        models: on one backbone, with prompts of the same length and layers; put into evaluation mode, and back.
        scheme: of the task.
        split: what is predicted.
        batch_size: rows per forward pass, of each model.
        device: where the models are.
        progress: told how many rows are done, and how many there are.

    Returns:
        The evaluation of each model, or the error if a logit is no number.
    """
    predictions: list[list[Prediction]] = [[] for _ in models]
    faults: dict[int, TrainingError] = {}
    training = [model.training for model in models]
    for model in models:
        model.eval()
    done = 0
    with torch.inference_mode():
        made = [model.made_prompt(1) for model in models]
        for rows in sorted_batches(split.lengths, batch_size):
            features = [split.features[row] for row in rows]
            inputs = split.batch(scheme, rows).to(device).inputs()
            # Vectors in the input are not shared by rows, as keys and values are.
            own = [
                each.expand(len(inputs["input_ids"]), -1, -1) if isinstance(each, torch.Tensor) else each
                for each in made
            ]
            for index, output in enumerate(encode_stacked(models, [inputs] * len(models), own)):
                logits = models[index].head(output)
                if bool(logits.isfinite().all()):
                    predictions[index] += scheme.decode(features, logits.float().cpu())
                else:
                    faults.setdefault(index, no_number(split, float(logits.sum())))
            done += len(rows)
            progress(done, len(split.features))
    for model, mode in zip(models, training, strict=True):
        model.train(mode)
    results: list[Evaluation | TrainingError] = []
    for index, found in enumerate(predictions):
        if index in faults:
            results.append(faults[index])
            continue
        joined = scheme.join(found)
        results.append(Evaluation(scheme.score(joined), tuple(joined)))
    return results
