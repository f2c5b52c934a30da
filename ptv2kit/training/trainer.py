"""The training loop: prompt and head are trained, the backbone is read."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, final

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from ptv2kit.config.recipe import Train
from ptv2kit.data.batching import grouped_batches
from ptv2kit.data.dataset import EncodedSplit
from ptv2kit.data.schemes.base import Feature, LabelScheme
from ptv2kit.errors import TrainingError
from ptv2kit.evaluation.evaluate import Evaluation, evaluate
from ptv2kit.models.model import PromptedModel
from ptv2kit.training.optimization import build_optimizer, build_scheduler


class TrainingEvents(Protocol):
    """Whoever wants to know how training goes on: a console, a file."""

    def on_step(self, step: int, total_steps: int, epoch: float, loss: float, learning_rate: float) -> None:
        """After each optimizer step; `epoch` counts passes over the data, `loss` is the batch's mean."""

    def on_evaluating(self, done: int, total: int) -> None:
        """While the validation split is predicted, in rows."""

    def on_evaluation(self, epoch: int, values: dict[str, float], best: bool, seconds: float) -> None:
        """After each epoch's evaluation; `best` if the first metric is higher than ever before."""


@final
@dataclass(frozen=True)
class TrainingResult:
    """How a training ended.

    Args:
        best_epoch: the epoch that was kept, counted from 1; 0 if none was evaluated.
        best: its evaluation on the validation split.
        history: the metrics of each epoch.
        epochs: epochs that were finished.
        seconds: wall time of training and evaluation.
        interrupted: whether the user stopped it.
    """

    best_epoch: int
    best: Evaluation | None
    history: tuple[dict[str, float], ...]
    epochs: int
    seconds: float
    interrupted: bool


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch on all devices."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@final
class Trainer:
    """Trains a model and keeps the tensors of its best epoch.

    Args:
        model: on `device`.
        scheme: of the task.
        train_split: what is trained on.
        validation_split: what chooses the best epoch.
        settings: the recipe's `train` section.
        device: where to compute.
        events: told how it goes on.
        keep: called with the trained tensors, the epoch and the metrics whenever an epoch is the best so far, and once
            before the first such epoch if training ends without one.
    """

    def __init__(
        self,
        model: PromptedModel,
        scheme: LabelScheme,
        train_split: EncodedSplit,
        validation_split: EncodedSplit,
        settings: Train,
        device: torch.device,
        events: TrainingEvents,
        keep: Callable[[dict[str, Tensor], int, dict[str, float]], None],
    ) -> None:
        self._model = model
        self._scheme = scheme
        self._train_split = train_split
        self._validation_split = validation_split
        self._settings = settings
        self._device = device
        self._events = events
        self._keep = keep
        self._steps_per_epoch = math.ceil(len(train_split.features) / settings.batch_size)
        self._optimizer = build_optimizer(model, settings)
        self._scheduler = build_scheduler(self._optimizer, settings, self._steps_per_epoch)
        self._step = 0
        self._best_epoch = 0
        self._best: Evaluation | None = None
        self._history: list[dict[str, float]] = []
        self._last_good = model.trained_state()

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self._settings.epochs * self._steps_per_epoch

    def train(self) -> TrainingResult:
        """Train to the last epoch, to the end of patience, or to Ctrl-C.

        Raises:
            TrainingError: loss or gradient is no longer a number; the best tensors so far are kept.
        """
        started = time.monotonic()
        interrupted = False
        try:
            for epoch in range(1, self._settings.epochs + 1):
                self._train_epoch(epoch)
                self._evaluate(epoch)
                if self._settings.patience and epoch - self._best_epoch >= self._settings.patience:
                    break
        except KeyboardInterrupt:
            interrupted = True
            self._keep_something()
        except TrainingError:
            self._model.load_trained_state(self._last_good)
            self._keep_something()
            raise
        return TrainingResult(
            best_epoch=self._best_epoch,
            best=self._best,
            history=tuple(self._history),
            epochs=len(self._history),
            seconds=time.monotonic() - started,
            interrupted=interrupted,
        )

    def _train_epoch(self, epoch: int) -> None:
        self._model.train()
        lengths = self._train_split.lengths
        seed = self._settings.seed * 1_000_003 + epoch
        for rows in grouped_batches(lengths, self._settings.batch_size, seed):
            loss = self._optimize([self._train_split.features[row] for row in rows])
            rate = float(self._scheduler.get_last_lr()[0])
            self._scheduler.step()
            self._step += 1
            self._events.on_step(self._step, self.total_steps, self._step / self._steps_per_epoch, loss, rate)

    def _optimize(self, features: list[Feature]) -> float:
        """One optimizer step; the loss is the mean over the whole batch, however it is cut into micro-batches."""
        size = len(features) if self._settings.micro_batch_size == "auto" else self._settings.micro_batch_size
        batches = [self._scheme.collate(features[at : at + size]) for at in range(0, len(features), size)]
        targets = max(1, sum(self._model.head.target_count(batch.labels) for batch in batches))
        total = 0.0
        for batch in batches:
            on_device = batch.to(self._device)
            logits = self._model(on_device.input_ids, on_device.attention_mask, on_device.token_type_ids)
            loss = self._model.head.loss_sum(logits, on_device.labels) / targets
            self._require_finite("loss", float(loss.detach()))
            loss.backward()
            total += float(loss.detach())
        trained = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        norm = clip_grad_norm_(trained, self._settings.max_gradient_norm or math.inf)
        self._require_finite("gradient norm", float(norm))
        self._last_good = self._model.trained_state()
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
        evaluation = evaluate(
            self._model,
            self._scheme,
            self._validation_split,
            self._settings.eval_batch_size,
            self._device,
            self._events.on_evaluating,
        )
        values = evaluation.scores.values
        metric = next(iter(values))
        best = self._best is None or values[metric] > self._best.scores.values[metric]
        if best:
            self._keep(self._model.inference_state(), epoch, values)
            self._best, self._best_epoch = evaluation, epoch
        self._history.append(values)
        self._events.on_evaluation(epoch, values, best, time.monotonic() - started)

    def _keep_something(self) -> None:
        """Without an evaluated epoch, the tensors as they are now are better than none."""
        if self._best is None:
            self._keep(self._model.inference_state(), 0, {})
