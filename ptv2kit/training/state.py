"""Where a training stands, so that it can be resumed as if it had never stopped; and what it says on its way."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from ptv2kit.data.schemes.records import Scores, TypeScore


@final
@dataclass(frozen=True)
class Step:
    """What the trainer says after each optimizer step.

    Args:
        epoch: passes over the data, with the part of the current one.
        loss: mean over the batch.
    """

    step: int
    total_steps: int
    epoch: float
    loss: float
    learning_rate: float


@final
@dataclass(frozen=True)
class Evaluated:
    """What the trainer says after each evaluation; `best` if the first metric is higher than ever before.

    Args:
        number: of the evaluation, from 1.
        epoch: passes over the data so far, a whole number unless it was evaluated within one.
        seconds: wall time of the evaluation.
        trained: seconds of training so far, without evaluations but with what was done once for it, and processor
            seconds of the same.
    """

    number: int
    epoch: float
    values: dict[str, float]
    best: bool
    seconds: float
    trained: tuple[float, float] = (0.0, 0.0)


LogEntry = Step | Evaluated
Log = Callable[[LogEntry], None]
OnProgress = Callable[[int, int], None]
"""Receives how many rows of how many an evaluation has predicted."""


@final
@dataclass(frozen=True)
class Best:
    """The best epoch of a task.

    Args:
        epoch: counted from 1; 0 if none was evaluated.
        scores: on the validation split.
    """

    epoch: float = 0
    scores: Scores | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"epoch": self.epoch, "scores": None if self.scores is None else asdict(self.scores)}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Best:
        """The inverse of `to_json`."""
        scores = content["scores"]
        if scores is None:
            return Best(content["epoch"])
        types = tuple(TypeScore(**item) for item in scores["types"])
        return Best(
            content["epoch"],
            Scores(scores["values"], types, {name: str(count) for name, count in scores.get("counts", {}).items()}),
        )


@final
@dataclass(frozen=True)
class Progress:
    """How far a training has come.

    Args:
        step: optimizer steps that are done.
        epoch: the epoch that it is in, counted from 1.
        turn: batches of that epoch that are done.
        taken: batches of each task that are done, over all epochs.
        best: of each task.
        best_epoch: of the mean of all tasks' first metrics; 0 before the first evaluation.
        best_mean: that mean; None before the first evaluation.
        history: the metrics of each evaluation.
        spent: seconds of training and processor seconds, as of `Evaluated.trained`; not in checkpoints of version 0.1.
    """

    step: int
    epoch: int
    turn: int
    taken: tuple[int, ...]
    best: tuple[Best, ...]
    best_epoch: float
    best_mean: float | None
    history: tuple[dict[str, float], ...]
    spent: tuple[float, float] = (0.0, 0.0)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "step": self.step,
            "epoch": self.epoch,
            "turn": self.turn,
            "taken": list(self.taken),
            "best": [best.to_json() for best in self.best],
            "best_epoch": self.best_epoch,
            "best_mean": self.best_mean,
            "history": list(self.history),
            "spent": list(self.spent),
        }

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Progress:
        """The inverse of `to_json`."""
        return Progress(
            step=content["step"],
            epoch=content["epoch"],
            turn=content["turn"],
            taken=tuple(content["taken"]),
            best=tuple(Best.from_json(item) for item in content["best"]),
            best_epoch=content["best_epoch"],
            best_mean=content["best_mean"],
            history=tuple(content["history"]),
            spent=tuple(content.get("spent", (0.0, 0.0))),
        )


@final
@dataclass(frozen=True)
class TrainingState:
    """What a checkpoint holds; never the frozen backbone.

    Args:
        progress: how far it has come.
        trained: parameters by name, as `trained_parameters` has them.
        optimizer: its state by `<parameter>/<name>`, such as `prompt.layers.0/exp_avg`.
        generators: the random generators of each process.
    """

    progress: Progress
    trained: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    generators: tuple[Generators, ...]


@final
@dataclass(frozen=True)
class Generators:
    """The state of all random generators of a process.

    Args:
        python: of `random`.
        torch: of the CPU, then of each GPU, of CUDA or Apple's.
    """

    python: Any
    numpy: Any
    torch: tuple[Tensor, ...]

    @staticmethod
    def read() -> Generators:
        """As they are now."""
        kind, keys, position, has_normal, normal = np.random.get_state(legacy=True)
        on_gpu = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        on_gpu += [torch.mps.get_rng_state()] if torch.backends.mps.is_available() else []
        return Generators(
            python=random.getstate(),
            numpy=[kind, np.asarray(keys).tolist(), position, has_normal, normal],
            torch=(torch.get_rng_state(), *on_gpu),
        )

    def restore(self) -> None:
        """Put them back."""
        version, words, normal = self.python
        random.setstate((version, tuple(words), normal))
        kind, keys, position, has_normal, cached = self.numpy
        np.random.set_state((kind, np.asarray(keys, dtype=np.uint32), position, has_normal, cached))
        torch.set_rng_state(self.torch[0])
        if len(self.torch) == 1 + torch.cuda.device_count():
            torch.cuda.set_rng_state_all(list(self.torch[1:]))
        elif torch.backends.mps.is_available() and len(self.torch) == 2:
            torch.mps.set_rng_state(self.torch[1])
