"""The training loop: prompt and head are trained, the backbone is read."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, final

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from ptv2kit.config.recipe import MEAN, Train
from ptv2kit.data.dataset import EncodedSplit
from ptv2kit.data.schemes.base import Feature, LabelScheme
from ptv2kit.errors import TrainingError
from ptv2kit.evaluation.evaluate import Evaluation, evaluate
from ptv2kit.models.model import PromptedModel
from ptv2kit.training.mixing import batch_stream, batches_per_epoch, turns
from ptv2kit.training.optimization import build_optimizer, build_scheduler


class TrainingEvents(Protocol):
    """Whoever wants to know how training goes on: a console, a file."""

    def on_step(self, step: int, total_steps: int, epoch: float, loss: float, learning_rate: float) -> None:
        """After each optimizer step; `epoch` counts passes over the data, `loss` is the batch's mean."""

    def on_evaluating(self, done: int, total: int) -> None:
        """While the validation split is predicted, in rows."""

    def on_evaluation(self, epoch: int, values: dict[str, float], best: bool, seconds: float) -> None:
        """After each epoch's evaluation; `best` if the first metric is higher than ever before."""


class StopTraining(Exception):  # noqa: N818 - no error: whoever watches has seen enough
    """Raised by a receiver of `on_evaluation` to end the training after this epoch."""


@final
@dataclass(frozen=True)
class TaskPart:
    """What one task adds to a training.

    Args:
        name: of the task.
        model: with the task's head; several tasks' models share backbone and prompt.
        scheme: of the task.
        train_split: what is trained on.
        validation_split: what chooses the best epoch.
    """

    name: str
    model: PromptedModel
    scheme: LabelScheme
    train_split: EncodedSplit
    validation_split: EncodedSplit


@final
@dataclass(frozen=True)
class Best:
    """The best epoch of a task.

    Args:
        epoch: counted from 1; 0 if none was evaluated.
        evaluation: on the validation split.
    """

    epoch: int = 0
    evaluation: Evaluation | None = None


@final
@dataclass(frozen=True)
class TrainingResult:
    """How a training ended.

    Args:
        tasks: the best epoch of each task by its own first metric.
        best_epoch: the best epoch; of several tasks by the mean of their first metrics.
        history: the metrics of each epoch.
        epochs: epochs that were finished.
        seconds: wall time of training and evaluation.
        ending: whether it ran to its end, the user interrupted it, or whoever watches stopped it.
    """

    tasks: tuple[Best, ...]
    best_epoch: int
    history: tuple[dict[str, float], ...]
    epochs: int
    seconds: float
    ending: Literal["finished", "interrupted", "stopped"]


Keep = Callable[[TaskPart | None, dict[str, Tensor], int, dict[str, float]], None]
"""Called with a task, its tensors, the epoch and its metrics; None: the tensors of all tasks."""


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch on all devices."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@final
class Trainer:
    """Trains one task, or several that share backbone and prompt, and keeps the tensors of the best epochs.

    Args:
        parts: the tasks; their models are on `device`.
        settings: the recipe's `train` section.
        device: where to compute.
        events: told how it goes on.
        keep: called with a task and its tensors whenever an epoch is that task's best so far, and, of several tasks,
            with None and the tensors of all whenever the mean of their first metrics is. Once before that if training
            ends without an evaluated epoch.
    """

    def __init__(
        self,
        parts: Sequence[TaskPart],
        settings: Train,
        device: torch.device,
        events: TrainingEvents,
        keep: Keep,
    ) -> None:
        self._parts = tuple(parts)
        self._settings = settings
        self._device = device
        self._events = events
        self._keep = keep
        own = [math.ceil(len(part.train_split.features) / settings.batch_size) for part in parts]
        self._turns = batches_per_epoch(own, settings.mixing)
        self._streams = [batch_stream(part.train_split.lengths, settings.batch_size, settings.seed) for part in parts]
        self._steps_per_epoch = sum(self._turns)
        models = [part.model for part in parts]
        self._optimizer = build_optimizer(models, settings)
        self._scheduler = build_scheduler(self._optimizer, settings, self._steps_per_epoch)
        self._step = 0
        self._best = [Best() for _ in parts]
        self._best_mean = -math.inf
        self._best_epoch = 0
        self._history: list[dict[str, float]] = []
        self._last_good = [model.trained_state() for model in models]

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self._settings.epochs * self._steps_per_epoch

    def train(self) -> TrainingResult:
        """Train to the last epoch, to the end of patience, until a receiver stops it, or to Ctrl-C.

        Raises:
            TrainingError: loss or gradient is no longer a number; the best tensors so far are kept.
        """
        started = time.monotonic()
        ending: Literal["finished", "interrupted", "stopped"] = "finished"
        try:
            for epoch in range(1, self._settings.epochs + 1):
                self._train_epoch(epoch)
                self._evaluate(epoch)
                if self._settings.patience and epoch - self._best_epoch >= self._settings.patience:
                    break
        except StopTraining:
            ending = "stopped"
        except KeyboardInterrupt:
            ending = "interrupted"
            self._keep_something()
        except TrainingError:
            for part, tensors in zip(self._parts, self._last_good, strict=True):
                part.model.load_trained_state(tensors)
            self._keep_something()
            raise
        return TrainingResult(
            tasks=tuple(self._best),
            best_epoch=self._best_epoch,
            history=tuple(self._history),
            epochs=len(self._history),
            seconds=time.monotonic() - started,
            ending=ending,
        )

    def _train_epoch(self, epoch: int) -> None:
        for part in self._parts:
            part.model.train()
        for task in turns(self._turns, self._settings.seed * 1_000_003 + epoch):
            part = self._parts[task]
            features = part.train_split.features
            loss = self._optimize(part, [features[row] for row in next(self._streams[task])])
            rate = float(self._scheduler.get_last_lr()[0])
            self._scheduler.step()
            self._step += 1
            self._events.on_step(self._step, self.total_steps, self._step / self._steps_per_epoch, loss, rate)

    def _optimize(self, part: TaskPart, features: list[Feature]) -> float:
        """One optimizer step; the loss is the mean over the whole batch, however it is cut into micro-batches."""
        model = part.model
        size = len(features) if self._settings.micro_batch_size == "auto" else self._settings.micro_batch_size
        batches = [part.scheme.collate(features[at : at + size]) for at in range(0, len(features), size)]
        targets = max(1, sum(model.head.target_count(batch.labels) for batch in batches))
        total = 0.0
        for batch in batches:
            on_device = batch.to(self._device)
            logits = model(**on_device.inputs())
            loss = model.head.loss_sum(logits, on_device.labels) / targets
            self._require_finite("loss", float(loss.detach()))
            loss.backward()
            total += float(loss.detach())
        trained = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        norm = clip_grad_norm_(trained, self._settings.max_gradient_norm or math.inf)
        self._require_finite("gradient norm", float(norm))
        self._last_good = [part.model.trained_state() for part in self._parts]
        self._optimizer.step()
        self._optimizer.zero_grad()
        return total

    def _require_finite(self, what: str, value: float) -> None:
        if math.isfinite(value):
            return
        kept = f"the prompt of epoch {self._best_epoch}" if self._best_epoch else "the last prompt with a finite loss"
        raise TrainingError(
            f"the {what} became {value} in step {self._step + 1} of {self.total_steps}; {kept} was kept",
            hint=f"lower train.learning_rate (now {self._settings.learning_rate:g}), or raise train.warmup_ratio",
        )

    def _evaluate(self, epoch: int) -> None:
        started = time.monotonic()
        values: dict[str, float] = {}
        firsts: list[float] = []
        for index, part in enumerate(self._parts):
            evaluation = evaluate(
                part.model,
                part.scheme,
                part.validation_split,
                self._settings.eval_batch_size,
                self._device,
                self._events.on_evaluating,
            )
            own = evaluation.scores.values
            metric = next(iter(own))
            previous = self._best[index].evaluation
            if previous is None or own[metric] > previous.scores.values[metric]:
                self._keep(part, part.model.inference_state(), epoch, own)
                self._best[index] = Best(epoch, evaluation)
            values |= own if len(self._parts) == 1 else {f"{part.name}/{name}": value for name, value in own.items()}
            firsts.append(own[metric])
        mean = sum(firsts) / len(firsts)
        best = mean > self._best_mean
        if len(self._parts) > 1:
            values = {MEAN: mean, **values}
        if best:
            self._best_mean, self._best_epoch = mean, epoch
            if len(self._parts) > 1:
                self._keep(None, self._shared_state(), epoch, values)
        self._history.append(values)
        self._events.on_evaluation(epoch, values, best, time.monotonic() - started)

    def _keep_something(self) -> None:
        """Without an evaluated epoch, the tensors as they are now are better than none."""
        if self._best_epoch:
            return
        for part in self._parts:
            self._keep(part, part.model.inference_state(), 0, {})
        if len(self._parts) > 1:
            self._keep(None, self._shared_state(), 0, {})

    def _shared_state(self) -> dict[str, Tensor]:
        """What all tasks share, and each task's head as `heads.<task>.*`."""
        tensors: dict[str, Tensor] = {}
        for part in self._parts:
            for name, tensor in part.model.inference_state().items():
                tensors[f"heads.{part.name}.{name[5:]}" if name.startswith("head.") else name] = tensor
        return tensors
