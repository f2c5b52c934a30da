"""`train.packing`: whether a model gives the same when batches are without padding."""

from __future__ import annotations

import torch

from ptv2kit.errors import ConfigError
from ptv2kit.models.packing import Packing
from ptv2kit.training.parts import TaskPart

_TOLERANCE = {torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 1e-1}


def check_packing(part: TaskPart, device: torch.device) -> None:
    """Make sure with a few examples of different lengths that leaving padding out changes nothing.

    Args:
        part: a task whose model is on `device`, with its weights whole.
        device: where to compute.

    Raises:
        ConfigError: the model gives other hidden states, or other ones for a padded input.
    """
    model, split = part.model, part.train_split
    by_length = sorted(range(len(split.features)), key=lambda index: split.features[index].length)
    few = list(dict.fromkeys(by_length[at] for at in (0, len(by_length) // 2, -1)))
    batch = split.batch(part.scheme, few).to(device)
    real = batch.attention_mask.bool()
    if Packing.of(real, causal=False) is None:
        return
    inputs = {name: tensor for name, tensor in batch.inputs().items() if name not in ("answer_places", "answer_ids")}
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            found = model.encode(**inputs).hidden[real]
            model.packing = False
            expected = model.encode(**inputs).hidden[real]
    finally:
        model.packing = True
        model.train(training)
    off = float((found - expected).abs().max() / expected.abs().max())
    if not off <= _TOLERANCE[model.backbone.dtype]:
        kind = model.backbone.config.model_type
        raise ConfigError(
            f"train.packing: models of type '{kind}' give other hidden states without padding (off by {off:.1%})",
            hint="set train.packing to false",
        )
