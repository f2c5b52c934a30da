"""The training loop: prompt and head are trained, the backbone is read."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Literal, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from ptv2kit.data.prefetch import OneAhead, ready_for
from ptv2kit.data.schemes.records import Batch
from ptv2kit.errors import DataError, TrainingError
from ptv2kit.spec.recipe import MEAN, Train
from ptv2kit.training.evaluate import Evaluation, evaluate
from ptv2kit.training.mixing import batch_stream, batches_per_epoch, pass_seed, turns
from ptv2kit.training.optimization import build_optimizer, build_scheduler
from ptv2kit.training.parts import HEADS, TaskPart, trained_parameters
from ptv2kit.training.processes import Alone, Processes
from ptv2kit.training.state import Best, Evaluated, Generators, Log, OnProgress, Progress, Step, TrainingState
from ptv2kit.training.strategy import Replicated, Strategy
from ptv2kit.training.writer import RunWriter

_CHECKPOINT = 1 << 16
"""Weight of the wish for a checkpoint in a sum over processes; more than there are processes."""


class StopTraining(Exception):  # noqa: N818 - no error: the watcher has seen enough
    """Raised by a receiver of `Evaluated` to end the training after this epoch."""


@final
@dataclass(frozen=True)
class TrainingResult:
    """How a training ended.

    Args:
        tasks: the best epoch of each task by its own first metric.
        best_epoch: the best epoch; of several tasks by the mean of their first metrics.
        history: the metrics of each evaluation.
        evaluated: when they were made, in epochs.
        epochs: epochs that were finished.
        seconds: wall time of training and evaluation, since the start or since the checkpoint of a resumed run; also
            that in which the lower layers' outputs were computed, where they are kept.
        ending: whether it ran to its end, the user interrupted it, or a receiver of events stopped it.
    """

    tasks: tuple[Best, ...]
    best_epoch: float
    history: tuple[dict[str, float], ...]
    evaluated: tuple[float, ...]
    epochs: int
    seconds: float
    ending: Literal["finished", "interrupted", "stopped"]


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch on all devices."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@final
class _Clock:
    """Seconds on the wall and of the processor, without those in which it stands.

    Args:
        counted: before.
    """

    def __init__(self, counted: tuple[float, float]) -> None:
        self._counted = counted
        self._since: tuple[float, float] | None = None

    def go_on(self) -> None:
        """Count from now on."""
        self._since = (time.monotonic(), time.process_time())

    def read(self) -> tuple[float, float]:
        """What has been counted."""
        if self._since is None:
            return self._counted
        wall, processor = self._counted
        return wall + time.monotonic() - self._since[0], processor + time.process_time() - self._since[1]

    def stop(self) -> tuple[float, float]:
        """Stop counting; what has been counted."""
        self._counted, self._since = self.read(), None
        return self._counted


@final
class Trainer:
    """Trains one task, or several that share backbone and prompt, and keeps the tensors of the best epochs.

    Args:
        parts: the tasks; their models are on `device`.
        settings: the recipe's `train` section.
        device: where to compute.
        writer: keeps the tensors of each task's best epoch, of several tasks also those of the best mean, and
            checkpoints. Every process calls it; one of them writes.
        log: receives a row after each step and each evaluation.
        progress: receives how far an evaluation is.
        strategy: makes the steps.
        processes: that train together; None: this one alone.
        start: where to continue; None: at the beginning.
        spent: seconds on the wall and of the processor that count as training though they are past, such as those in
            which the outputs of the lower layers were computed.
        stop: asked between steps whether to end as on Ctrl-C; one process that says so ends all.
        wants_checkpoint: asked between steps whether to save a checkpoint at once, likewise.
    """

    def __init__(
        self,
        parts: Sequence[TaskPart],
        settings: Train,
        device: torch.device,
        writer: RunWriter,
        *,
        log: Log = lambda _: None,
        progress: OnProgress = lambda done, total: None,
        strategy: Callable[[Sequence[TaskPart], Mapping[str, nn.Parameter], AdamW, Processes], Strategy] = Replicated,
        processes: Processes | None = None,
        start: TrainingState | None = None,
        spent: tuple[float, float] = (0.0, 0.0),
        stop: Callable[[], bool] = lambda: False,
        wants_checkpoint: Callable[[], bool] = lambda: False,
    ) -> None:
        self._parts = tuple(parts)
        self._settings = settings
        self._device = device
        self._log = log
        self._progress = progress
        self._writer = writer
        self._stop = stop
        self._wants_checkpoint = wants_checkpoint
        passes = [partial(part.train_split.batches, settings.batch_size, settings.batch_tokens) for part in self._parts]
        # Later passes may have a few batches more or less of `batch_tokens`; an epoch has as many as the first one.
        own = [len(one_pass(pass_seed(settings.seed, 1))) for one_pass in passes]
        self._turns = batches_per_epoch(own, settings.mixing)
        self._steps_per_epoch = sum(self._turns)
        self._trained = trained_parameters(parts)
        optimizer = build_optimizer(self._trained, settings)
        self._step = 0 if start is None else start.progress.step
        self._scheduler = build_scheduler(optimizer, settings, self._steps_per_epoch, self._step)
        self._processes = processes or Alone()
        self._strategy = strategy(parts, self._trained, optimizer, self._processes)
        self._epoch = 1
        self._turn = 0
        self._taken = [0] * len(parts)
        self._best = [Best() for _ in parts]
        self._best_mean = -math.inf
        self._best_epoch: float = 0
        self._history: list[dict[str, float]] = []
        self._between_steps = True
        wall, processor = (0.0, 0.0) if start is None else start.progress.spent
        self._past = spent[0]
        self._clock = _Clock((wall + spent[0], processor + spent[1]))
        if start is not None:
            self._restore(start)
        self._streams = [
            islice(batch_stream(one_pass, settings.seed), taken, None)
            for one_pass, taken in zip(passes, self._taken, strict=True)
        ]
        # Not a method of this object: it would hold itself, and with it the model when the next run needs the memory.
        make = partial(_micro_batches, self._parts, settings.micro_batch_size, self._processes, device)
        self._batches = OneAhead(make, ahead=device.type == "cuda")

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self._settings.epochs * self._steps_per_epoch

    def train(self) -> TrainingResult:
        """Train to the last epoch, to the end of patience, until a receiver stops it, or to Ctrl-C.

        Raises:
            TrainingError: loss or gradient is no longer a number; the tensors of the best epoch so far are kept.
        """
        started = time.monotonic()
        self._clock.go_on()
        ending: Literal["finished", "interrupted", "stopped"] = "finished"
        try:
            while self._epoch <= self._settings.epochs and not self._out_of_patience():
                self._train_epoch()
        except StopTraining:
            ending = "stopped"
        except KeyboardInterrupt:
            ending = "interrupted"
            self._keep_something()
            if self._between_steps:
                self._writer.checkpoint(self._state())
        return TrainingResult(
            tasks=tuple(self._best),
            best_epoch=self._best_epoch,
            history=tuple(self._history),
            evaluated=self._evaluated(),
            epochs=self._step // self._steps_per_epoch,
            seconds=self._past + time.monotonic() - started,
            ending=ending,
        )

    def _out_of_patience(self) -> bool:
        patience = self._settings.patience
        # of evaluations, not epochs: `evaluate_every` may be a part of one
        after_best = sum(epoch > self._best_epoch for epoch in self._evaluated())
        return patience is not None and after_best >= patience

    def _evaluated(self) -> tuple[float, ...]:
        """When the evaluations so far were made, in epochs."""
        return tuple(self._epochs_at(number) for number in range(1, len(self._history) + 1))

    def _epochs_at(self, evaluation: int) -> float:
        """The epochs that are trained when an evaluation, counted from 1, is made; a whole number at an epoch's end."""
        epochs = min(self._evaluation_step(evaluation), self.total_steps) / self._steps_per_epoch
        every = self._settings.evaluate_every
        if not isinstance(every, str) and evaluation * every * self._steps_per_epoch >= evaluation:
            epochs = min(evaluation * every, float(self._settings.epochs))  # half an epoch, also of 125 steps
        epochs = round(epochs, 4)
        return int(epochs) if epochs.is_integer() else epochs

    def _evaluation_step(self, evaluation: int) -> int:
        return self._settings.evaluation_step(evaluation, self._steps_per_epoch)

    def _train_epoch(self) -> None:
        """Train on the batches of the current epoch that are not done yet, and evaluate where it is due.

        A checkpoint may have been made between a step and its evaluation.
        """
        for part in self._parts:
            part.model.train()
        self._evaluate_if_due()
        # Drawn from seed and epoch alone, so that a resumed run goes through the same order.
        order = turns(self._turns, self._settings.seed * 1_000_003 + self._epoch)
        left = [(task, tuple(next(self._streams[task]))) for task in order[self._turn :]]
        for place, (task, batch) in enumerate(left, 1):
            if self._out_of_patience():
                return
            self._between_steps = False
            loss = self._add_gradients(task, batch, left[place] if place < len(left) else None)
            self._optimize(task, loss)
            rate = float(self._scheduler.get_last_lr()[0])
            self._scheduler.step()
            self._step += 1
            self._turn += 1
            self._taken[task] += 1
            self._between_steps = True
            self._log(Step(self._step, self.total_steps, self._step / self._steps_per_epoch, loss, rate))
            # One sum for both questions: what a single process was asked, all of them do.
            asked = self._processes.total(self._stop() + _CHECKPOINT * self._wants_checkpoint())
            every = self._settings.checkpoint_steps
            if asked >= _CHECKPOINT or (every is not None and self._step % every == 0):
                self._writer.checkpoint(self._state())
            if asked % _CHECKPOINT:
                raise KeyboardInterrupt
            self._evaluate_if_due()
        self._epoch, self._turn = self._epoch + 1, 0
        if self._settings.checkpoint_steps is None:
            self._writer.checkpoint(self._state())

    def _evaluate_if_due(self) -> None:
        """Evaluate after every `evaluate_every`, and after the last step."""
        done = len(self._history)
        last = self._step == self.total_steps and (not done or self._evaluation_step(done) < self.total_steps)
        if last or self._step >= self._evaluation_step(done + 1):
            self._evaluate()

    def _optimize(self, task: int, loss: float) -> None:
        """One optimizer step with the gradient that was added."""
        self._require_finite("loss", loss)
        self._require_finite("gradient norm", self._strategy.step(task, self._settings.max_gradient_norm or math.inf))

    def _add_gradients(self, task: int, features: tuple[int, ...], coming: tuple[int, tuple[int, ...]] | None) -> float:
        """Add the gradient of a batch's mean loss to the trained parameters, micro-batch by micro-batch.

        Args:
            task: index of the task whose batch it is.
            features: of its training split, by index.
            coming: task and features of the batch after this one, which a thread prepares; None: there is none.

        Returns:
            The mean loss over the batch on all processes.
        """
        processes, part = self._processes, self._parts[task]
        made = self._batches.take((task, features), coming)
        batches, weights = [batch for batch, _ in made], [weight for _, weight in made]
        counts = [part.model.head.target_count(batch.labels) for batch in batches]
        # The sum over all targets is divided by their number on all processes: the gradient does not depend on how a
        # batch is cut into micro-batches or divided among processes.
        targets = sum(count for count, weight in zip(counts, weights, strict=True) if weight)
        all_targets = processes.total(targets) or 1.0  # 0 where no row of the batch is scored
        total = 0.0
        for number, (batch, weight) in enumerate(zip(batches, weights, strict=True), 1):
            on_device = batch.to(self._device)
            logits = self._strategy.forward(task, on_device, last=number == len(batches))
            loss = part.model.head.loss_sum(logits, on_device.labels) / all_targets
            loss = loss if weight else loss * 0.0  # an idle process still takes part in the exchange of gradients
            self._strategy.backward(loss)
            total += float(loss.detach())
        return processes.total(total)

    def _require_finite(self, what: str, value: float) -> None:
        if math.isfinite(value):
            return
        none = "no epoch had been evaluated, so that no prompt was kept"
        kept = f"the prompt of epoch {self._best_epoch:g} was kept" if self._best_epoch else none
        raise TrainingError(
            f"the {what} became {value} in step {self._step + 1} of {self.total_steps}; {kept}",
            hint=f"lower train.learning_rate (now {self._settings.learning_rate:g}), or raise train.warmup_ratio",
        )

    def _evaluate(self) -> None:
        """Score the validation split of each task and keep what is better than before."""
        started = time.monotonic()
        trained = self._clock.stop()
        number = len(self._history) + 1
        epoch = self._epochs_at(number)
        values: dict[str, float] = {}
        firsts: list[float] = []
        bests: list[tuple[TaskPart, Evaluation]] = []
        for index, part in enumerate(self._parts):
            evaluation = evaluate(
                part.model,
                part.scheme,
                part.validation_split,
                self._settings.eval_batch_size,
                self._device,
                self._on_evaluating,
                self._processes,
            )
            own = evaluation.scores.values
            metric = next(iter(own))
            previous = self._best[index].scores
            if previous is None or own[metric] > previous.values[metric]:
                bests.append((part, evaluation))
            values |= own if len(self._parts) == 1 else {f"{part.name}/{name}": value for name, value in own.items()}
            firsts.append(own[metric])
        mean = sum(firsts) / len(firsts)
        best = mean > self._best_mean
        if len(self._parts) > 1:
            values = {MEAN: mean, **values}
        self._keep_bests(epoch, bests, values if best and len(self._parts) > 1 else None)
        if best:
            self._best_mean, self._best_epoch = mean, epoch
        self._history.append(values)
        self._clock.go_on()
        self._log(Evaluated(number, epoch, values, best, time.monotonic() - started, trained))

    def _on_evaluating(self, done: int, total: int) -> None:
        """Tell how far an evaluation has come.

        Raises:
            KeyboardInterrupt: the user wants to end.
        """
        self._progress(done, total)
        if self._processes.size == 1 and self._stop():
            raise KeyboardInterrupt

    def _keep_bests(
        self, epoch: float, bests: list[tuple[TaskPart, Evaluation]], values: dict[str, float] | None
    ) -> None:
        for part, evaluation in bests:
            self._writer.keep(part, part.model.inference_state(), epoch, evaluation)
            self._best[self._parts.index(part)] = Best(epoch, evaluation.scores)
        if values is not None:
            self._writer.keep_shared(self._shared_state(), epoch, values)

    def _keep_something(self) -> None:
        """Without an evaluated epoch, the tensors as they are now are better than none."""
        if self._best_epoch:
            return
        for part in self._parts:
            self._writer.keep(part, part.model.inference_state(), 0, None)
        if len(self._parts) > 1:
            self._writer.keep_shared(self._shared_state(), 0, {})

    def _shared_state(self) -> dict[str, Tensor]:
        """What all tasks share, and each task's head as `heads.<task>.*`."""
        tensors: dict[str, Tensor] = {}
        for part in self._parts:
            for name, tensor in part.model.inference_state().items():
                tensors[f"{HEADS}{part.name}.{name[5:]}" if name.startswith("head.") else name] = tensor
        return tensors

    def _state(self) -> TrainingState:
        return TrainingState(
            progress=Progress(
                step=self._step,
                epoch=self._epoch,
                turn=self._turn,
                taken=tuple(self._taken),
                best=tuple(self._best),
                best_epoch=self._best_epoch,
                best_mean=self._best_mean if self._best_epoch else None,
                history=tuple(self._history),
                spent=self._clock.read(),
            ),
            trained={name: parameter.detach().to("cpu", copy=True) for name, parameter in self._trained.items()},
            optimizer=self._strategy.optimizer_state(),
            generators=tuple(self._processes.gather(Generators.read())),
        )

    def _restore(self, state: TrainingState) -> None:
        progress = state.progress
        self._epoch, self._turn = progress.epoch, progress.turn
        self._taken = list(progress.taken)
        self._best = list(progress.best)
        self._best_epoch = progress.best_epoch
        self._best_mean = -math.inf if progress.best_mean is None else progress.best_mean
        self._history = list(progress.history)
        try:
            with torch.no_grad():
                for name, tensor in state.trained.items():
                    if tensor.shape != self._trained[name].shape:
                        raise ValueError(f"'{name}' has shape {tuple(tensor.shape)}")
                    self._trained[name].copy_(tensor)
            self._strategy.load_optimizer_state(state.optimizer)
            if self._processes.rank < len(state.generators):
                state.generators[self._processes.rank].restore()
        except (LookupError, RuntimeError, TypeError, ValueError, OverflowError) as error:
            message = f"the checkpoint does not fit this run: {type(error).__name__}: {error}"
            raise DataError(message, hint="delete the newest file in the run's 'checkpoints', or start anew") from error


def _micro_batches(
    parts: Sequence[TaskPart],
    micro_batch_size: int | Literal["auto"],
    processes: Processes,
    device: torch.device,
    wanted: tuple[int, tuple[int, ...]],
) -> list[tuple[Batch, float]]:
    """This process's micro-batches of a task's features, and how much each counts.

    Args:
        wanted: index of the task, and features of its training split.
    """
    part, features = parts[wanted[0]], wanted[1]
    size = len(features) if micro_batch_size == "auto" else micro_batch_size
    own = features[processes.rank :: processes.size]
    longest = math.ceil(len(features) / processes.size)
    pieces = [own[at : at + size] for at in range(0, longest, size)]
    # All processes make equally many passes, for they may exchange weights in them; an idle one adds nothing.
    made = [part.train_split.batch(part.scheme, piece or features[:1]) for piece in pieces]
    return [(ready_for(batch, device), 1.0 if piece else 0.0) for batch, piece in zip(made, pieces, strict=True)]
