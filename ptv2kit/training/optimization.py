"""Optimizer and learning rate."""

from __future__ import annotations

from collections.abc import Sequence

from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from ptv2kit.config.recipe import Train
from ptv2kit.models.model import PromptedModel


def build_optimizer(models: Sequence[PromptedModel], settings: Train) -> AdamW:
    """AdamW over what is trained of the prompt or the backbone, and over the heads, each with its own learning rate.

    Betas 0.9 and 0.999, epsilon 1e-8, as in the official scripts.

    Args:
        models: of each task; they share all but the head.
        settings: rates and decay.
    """
    trained = {name: parameter for name, parameter in models[0].named_parameters() if parameter.requires_grad}
    heads = [parameter for model in models for parameter in model.head.parameters() if parameter.requires_grad]
    groups = [
        ([parameter for name, parameter in trained.items() if not name.startswith("head.")], settings.learning_rate),
        (heads, settings.head_learning_rate or settings.learning_rate),
    ]
    return AdamW(
        [{"params": parameters, "lr": rate} for parameters, rate in groups if parameters],
        weight_decay=settings.weight_decay,
    )


def rate_factor(settings: Train, step: int, steps_per_epoch: int) -> float:
    """What the learning rate is multiplied by in optimizer step `step`, counted from 0."""
    total = settings.epochs * steps_per_epoch
    warmup = round(settings.warmup_ratio * total)
    if step < warmup:
        return (step + 1) / warmup
    match settings.schedule:
        case "linear":
            return max(0.0, (total - step) / max(1, total - warmup))
        case "exponential":
            return settings.decay ** (step // steps_per_epoch)
        case "constant":
            return 1.0


def build_scheduler(optimizer: AdamW, settings: Train, steps_per_epoch: int) -> LambdaLR:
    """The schedule of `rate_factor`; it is stepped after each optimizer step."""
    return LambdaLR(optimizer, lambda step: rate_factor(settings, step, steps_per_epoch))
