"""Several trainings side by side: one forward pass through the backbone they share answers all of them.

Each training is a `Trainer` of its own, with its own order of batches, optimizer, schedule, patience, checkpoints and
receivers. What it asks for, gradients and evaluations, is computed here for all that ask. Losses are added up for one
backward pass, and as no row sees another's prompt, each training gets the gradient that it would get alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ptv2kit.config.recipe import Train
from ptv2kit.errors import TrainingError
from ptv2kit.evaluation.together import evaluate_together
from ptv2kit.models.model import MadePrompt
from ptv2kit.models.stacked import encode_stacked
from ptv2kit.training.parts import TaskPart
from ptv2kit.training.requests import Answer, GradientRequest, Request, Steps, TrainingResult
from ptv2kit.training.streams import RandomStream
from ptv2kit.training.trainer import Trainer


@final
@dataclass(frozen=True)
class Trial:
    """One of the trainings.

    Args:
        part: its task; the models of all trials have one backbone, and their splits are the same.
        trainer: of this task alone.
        stream: the random numbers of its initial values and its dropout.
    """

    part: TaskPart
    trainer: Trainer
    stream: RandomStream


@final
@dataclass(frozen=True)
class Ended:
    """A trial that is over.

    Args:
        trial: its index.
        result: how it ended, or why it failed: also what a receiver or a disk raised.
    """

    trial: int
    result: TrainingResult | TrainingError | OSError


@final
class SideBySide:
    """Trains trials in step.

    All that want a gradient get it from one pass; evaluations wait until nobody does, so that they are made together.
    A trial whose patience is over, which the pruner stops or which fails leaves the batch.

    Args:
        trials: at least one.
        settings: `train` of one of their recipes; only sizes of batches are read, which all have in common.
        device: where to compute.
    """

    def __init__(self, trials: Sequence[Trial], settings: Train, device: torch.device) -> None:
        self._trials = tuple(trials)
        self._settings = settings
        self._device = device

    def train(self) -> Iterator[Ended]:
        """Train all; each is yielded as soon as it has ended, before the others go on."""
        running = [trial.trainer.steps() for trial in self._trials]
        waiting: dict[int, Request] = {}
        answers: dict[int, Answer | BaseException | None] = dict.fromkeys(range(len(self._trials)))
        while answers:
            for index, answer in answers.items():
                request = self._proceed(index, running[index], answer)
                if isinstance(request, Ended):
                    waiting.pop(index, None)
                    yield request
                else:
                    waiting[index] = request
            answers = dict(self._answer(waiting)) if waiting else {}

    def _proceed(self, index: int, steps: Steps, answer: Answer | BaseException | None) -> Request | Ended:
        """Let a trial go on until it asks for something or ends."""
        with self._trials[index].stream.active():
            try:
                if answer is None:
                    return next(steps)
                return steps.throw(answer) if isinstance(answer, BaseException) else steps.send(answer)
            except StopIteration as end:
                return Ended(index, end.value)
            except (TrainingError, OSError) as error:
                return Ended(index, error)

    def _answer(self, waiting: Mapping[int, Request]) -> Mapping[int, Answer | BaseException]:
        """Answer all that want gradients, or if none does, all that want an evaluation."""
        batches = {
            index: request.features for index, request in waiting.items() if isinstance(request, GradientRequest)
        }
        try:
            return self._gradients(batches) if batches else self._evaluations(list(waiting))
        except KeyboardInterrupt as interrupt:
            return dict.fromkeys(batches or waiting, interrupt)

    def _gradients(self, batches: Mapping[int, Sequence[int]]) -> dict[int, float]:
        """Add the gradient of each trial's mean loss over its whole batch to its parameters."""
        collated: dict[tuple[int, ...], _Piece] = {}
        pieces: dict[int, list[_Piece]] = {}
        for index, features in batches.items():
            size = len(features) if self._settings.micro_batch_size == "auto" else self._settings.micro_batch_size
            cuts = [tuple(features[at : at + size]) for at in range(0, len(features), size)]
            for cut in cuts:
                if cut not in collated:
                    collated[cut] = self._collate(self._trials[index].part, cut)
            pieces[index] = [collated[cut] for cut in cuts]
        targets = {index: max(1.0, sum(piece.targets for piece in own)) for index, own in pieces.items()}
        losses = dict.fromkeys(batches, 0.0)
        for number in range(max(map(len, pieces.values()))):
            chosen = {index: own[number] for index, own in pieces.items() if number < len(own)}
            for index, loss in self._add_gradients(chosen, targets).items():
                losses[index] += loss
        return losses

    def _collate(self, part: TaskPart, features: Sequence[int]) -> _Piece:
        batch = part.train_split.batch(part.scheme, features)
        targets = part.model.head.target_count(batch.labels)
        on_device = batch.to(self._device)
        return _Piece(on_device.inputs(), on_device.labels, targets)

    def _add_gradients(self, pieces: Mapping[int, _Piece], targets: Mapping[int, float]) -> Mapping[int, float]:
        """One pass for a piece of each trial's batch; `targets` are scored in the whole batch."""
        trials = {index: self._trials[index] for index in pieces}
        made: list[MadePrompt] = []
        for index, trial in trials.items():
            with trial.stream.active():
                made.append(trial.part.model.made_prompt(len(pieces[index].inputs["input_ids"])))
        models = [trial.part.model for trial in trials.values()]
        outputs = encode_stacked(models, [piece.inputs for piece in pieces.values()], made)
        losses: list[Tensor] = []
        for (index, trial), output in zip(trials.items(), outputs, strict=True):
            head = trial.part.model.head
            with trial.stream.active():
                losses.append(head.loss_sum(head(output), pieces[index].labels) / targets[index])
        together = torch.stack(losses)
        together.sum().backward()
        return dict(zip(pieces, together.detach().tolist(), strict=True))

    def _evaluations(self, asking: Sequence[int]) -> dict[int, Answer | BaseException]:
        trials = [self._trials[index] for index in asking]
        first = trials[0].part

        def progress(done: int, total: int) -> None:
            for trial in trials:
                trial.trainer.on_evaluating(done, total)

        found = evaluate_together(
            [trial.part.model for trial in trials],
            first.scheme,
            first.validation_split,
            self._settings.eval_batch_size,
            self._device,
            progress,
        )
        return dict(zip(asking, found, strict=True))


@final
@dataclass(frozen=True)
class _Piece:
    """A micro-batch; trials with the same rows have the same one.

    Args:
        inputs: what the model takes, by name.
        labels: as of `Batch`.
        targets: how many positions are scored.
    """

    inputs: Mapping[str, Tensor]
    labels: Tensor
    targets: int
