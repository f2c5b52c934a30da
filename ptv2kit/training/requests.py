"""What a training asks of whoever drives it.

A training decides which batches come, when it steps, what it keeps and when it ends. It does not compute gradients or
predictions itself but asks for them: a trainer that is alone answers itself, and of trainings side by side one forward
pass answers all.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal, final

from ptv2kit.evaluation.evaluate import Evaluation
from ptv2kit.training.state import Best


@final
@dataclass(frozen=True)
class GradientRequest:
    """Add the gradient of a batch's mean loss to the trained parameters; the answer is that loss.

    Args:
        task: index of the task whose batch it is.
        features: of its training split, by index.
        coming: task and features of the request after this one; None: it is not known yet.
    """

    task: int
    features: tuple[int, ...]
    coming: tuple[int, tuple[int, ...]] | None = None


@final
@dataclass(frozen=True)
class EvaluationRequest:
    """Predict the validation split without dropout; the answer is the `Evaluation`.

    Args:
        task: index of the task.
    """

    task: int


@final
@dataclass(frozen=True)
class TrainingResult:
    """How a training ended.

    Args:
        tasks: the best epoch of each task by its own first metric.
        best_epoch: the best epoch; of several tasks by the mean of their first metrics.
        history: the metrics of each epoch.
        epochs: epochs that were finished.
        seconds: wall time of training and evaluation, since the start or the last checkpoint that it went on from.
        ending: whether it ran to its end, the user interrupted it, or whoever watches stopped it.
    """

    tasks: tuple[Best, ...]
    best_epoch: int
    history: tuple[dict[str, float], ...]
    epochs: int
    seconds: float
    ending: Literal["finished", "interrupted", "stopped"]


Request = GradientRequest | EvaluationRequest
Answer = float | Evaluation
Steps = Generator[Request, Answer, TrainingResult]
"""A training that is driven from outside: it yields requests, is sent answers, and returns how it ended."""
