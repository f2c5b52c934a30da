"""Optimizer and learning rate."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from ptv2kit.spec.recipe import Train
from ptv2kit.training.parts import BACKBONE, HEADS


def build_optimizer(trained: Mapping[str, nn.Parameter], settings: Train) -> AdamW:
    """AdamW over prompt or backbone, LayerNorms that are trained beside a prompt, and heads, each with its own rate.

    Epsilon 1e-8, as in the official scripts. One kernel updates a whole parameter, on CPU and GPU;
    it rounds otherwise than torch's plain loop in the last digit.

    Args:
        trained: from `trained_parameters`.
        settings: rates and decay.
    """
    norms = settings.layer_norm_learning_rate

    def rate(name: str) -> float:
        if name.startswith(HEADS):
            return settings.head_learning_rate or settings.learning_rate
        return norms if norms is not None and name.startswith(BACKBONE) else settings.learning_rate

    # Heads are a group of their own, also where their rate is that of the prompt: checkpoints keep the order of groups.
    kinds: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in trained.items():
        kinds.setdefault((name.startswith(HEADS), rate(name)), []).append(parameter)
    return AdamW(
        [{"params": parameters, "lr": rate} for (_, rate), parameters in kinds.items()],
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        fused=True,
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


def build_scheduler(optimizer: AdamW, settings: Train, steps_per_epoch: int, done: int = 0) -> LambdaLR:
    """The schedule of `rate_factor`; it is stepped after each optimizer step, of which `done` are behind."""
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return LambdaLR(optimizer, lambda step: rate_factor(settings, step, steps_per_epoch), last_epoch=done - 1)
