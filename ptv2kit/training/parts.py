"""What is trained: the tasks of a training, and the parameters that belong to all of them or to one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from torch import nn

from ptv2kit.data.dataset import EncodedSplit
from ptv2kit.data.schemes.base import LabelScheme
from ptv2kit.models.model import PromptedModel

HEADS = "heads."
"""How the names of a task's own parameters begin: `heads.<task>.`; all others belong to every task."""
BACKBONE = "backbone."
"""How the names of parameters of the backbone begin."""


@final
@dataclass(frozen=True)
class TaskPart:
    """What one task adds to a training.

    Args:
        model: with the task's head; several tasks' models share backbone and prompt.
        validation_split: what chooses the best epoch.
    """

    name: str
    model: PromptedModel
    scheme: LabelScheme
    train_split: EncodedSplit
    validation_split: EncodedSplit


def trained_parameters(parts: Sequence[TaskPart]) -> dict[str, nn.Parameter]:
    """Every parameter that is trained, the shared ones first, by the name that checkpoints have for it."""
    shared = {
        name: parameter
        for name, parameter in parts[0].model.named_parameters()
        if parameter.requires_grad and not name.startswith("head.")
    }
    heads = {
        f"{HEADS}{part.name}.{name}": parameter
        for part in parts
        for name, parameter in part.model.head.named_parameters()
        if parameter.requires_grad
    }
    return shared | heads
