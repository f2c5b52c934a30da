"""The processes that train together: this one alone, or those of torch's default group."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, final

import torch
import torch.distributed as dist
from torch import Tensor


class Processes(ABC):
    """What all processes of a training do together."""

    @property
    @abstractmethod
    def rank(self) -> int:
        """Number of this process, from 0."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of processes."""

    @abstractmethod
    def total(self, value: float) -> float:
        """The sum over all processes."""

    @abstractmethod
    def add_up(self, tensor: Tensor) -> None:
        """Put the sum over all processes in the place of a tensor."""

    @abstractmethod
    def take_first(self, tensor: Tensor) -> None:
        """Put the tensor of process 0 in the place of a tensor."""

    @abstractmethod
    def gather(self, value: Any) -> list[Any]:
        """The value of each process, in all of them."""


@final
class Alone(Processes):
    """This process is the only one."""

    @property
    def rank(self) -> int:
        """Always 0."""
        return 0

    @property
    def size(self) -> int:
        """Always 1."""
        return 1

    def total(self, value: float) -> float:
        """The value."""
        return float(value)

    def add_up(self, tensor: Tensor) -> None:
        """Nothing to add."""

    def take_first(self, tensor: Tensor) -> None:
        """Nothing to take."""

    def gather(self, value: Any) -> list[Any]:
        """The value alone."""
        return [value]


@final
class Group(Processes):
    """torch's default process group.

    Args:
        device: of this process; what is summed goes there first.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    @property
    def rank(self) -> int:
        """Of the process group."""
        return dist.get_rank()

    @property
    def size(self) -> int:
        """Of the process group."""
        return dist.get_world_size()

    def total(self, value: float) -> float:
        """See `Processes.total`; in double precision."""
        summed = torch.tensor(value, dtype=torch.float64, device=self._device)
        dist.all_reduce(summed)
        return float(summed)

    def add_up(self, tensor: Tensor) -> None:
        """See `Processes.add_up`."""
        dist.all_reduce(tensor)

    def take_first(self, tensor: Tensor) -> None:
        """See `Processes.take_first`."""
        dist.broadcast(tensor, 0)

    def gather(self, value: Any) -> list[Any]:
        """See `Processes.gather`."""
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values
