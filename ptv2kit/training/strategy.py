"""How gradients become a step: in one process, or in several that hold parts of each batch."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from ptv2kit.data.schemes.records import Batch
from ptv2kit.training.parts import HEADS, TaskPart
from ptv2kit.training.processes import Processes


class Strategy(ABC):
    """Forward, backward and step.

    Args:
        trained: what is trained, by name.
        optimizer: over all of `trained`.
        processes: that train together.
    """

    def __init__(
        self, parts: Sequence[TaskPart], trained: Mapping[str, nn.Parameter], optimizer: AdamW, processes: Processes
    ) -> None:
        self.parts = tuple(parts)
        self.trained = dict(trained)
        self.optimizer = optimizer
        self.processes = processes

    def forward(self, task: int, batch: Batch, *, last: bool) -> Tensor:
        """Logits of a micro-batch of one task; `last`: before the step."""
        return self.parts[task].model(**batch.inputs())

    def backward(self, loss: Tensor) -> None:
        """Add a micro-batch's gradient.

        Args:
            loss: this process's share of the mean over the whole batch, a scalar.
        """
        loss.backward()

    @abstractmethod
    def step(self, task: int, max_norm: float) -> float:
        """Let the optimizer step with the gradient of the whole batch, unless its norm is not a finite number.

        Args:
            task: whose batch it was; the heads of the others stay as they are.
            max_norm: gradients are scaled down to it; infinity: never.

        Returns:
            The norm of the gradient before that.
        """

    @abstractmethod
    def optimizer_state(self) -> dict[str, Tensor]:
        """The optimizer's state by `<parameter>/<name>`; empty before the first step. All processes must call it."""

    @abstractmethod
    def load_optimizer_state(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `optimizer_state`. All processes must call it."""


@final
class Replicated(Strategy):
    """What is trained is whole in each process; its gradient, a few megabytes, is summed in one message."""

    def __init__(
        self, parts: Sequence[TaskPart], trained: Mapping[str, nn.Parameter], optimizer: AdamW, processes: Processes
    ) -> None:
        super().__init__(parts, trained, optimizer, processes)
        with torch.no_grad():
            for parameter in self.trained.values():
                processes.take_first(parameter)

    def step(self, task: int, max_norm: float) -> float:
        """See `Strategy.step`."""
        own = f"{HEADS}{self.parts[task].name}."
        parameters = [
            value for name, value in self.trained.items() if not name.startswith(HEADS) or name.startswith(own)
        ]
        if self.processes.size > 1:
            self._add_up(parameters)
        norm = float(clip_grad_norm_(parameters, max_norm))
        if math.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad()
        return norm

    def _add_up(self, parameters: Sequence[nn.Parameter]) -> None:
        gradients: list[Tensor] = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        self.processes.add_up(flat)
        pieces = flat.split([gradient.numel() for gradient in gradients])
        for gradient, piece in zip(gradients, pieces, strict=True):
            gradient.copy_(piece.view_as(gradient))

    def optimizer_state(self) -> dict[str, Tensor]:
        """See `Strategy.optimizer_state`."""
        return {
            f"{name}/{key}": value.detach().cpu().clone()
            for name, parameter in self.trained.items()
            for key, value in self.optimizer.state[parameter].items()
        }

    def load_optimizer_state(self, state: Mapping[str, Tensor]) -> None:
        """See `Strategy.load_optimizer_state`."""
        for name, parameter in self.trained.items():
            own = {key.rpartition("/")[2]: value for key, value in state.items() if key.rpartition("/")[0] == name}
            if own:
                self.optimizer.state[parameter] = {
                    key: value.clone().to(parameter.device) for key, value in own.items()
                }
