"""The processes that train together: this one alone, or those of torch's default group."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, final

import torch
import torch.distributed as dist
from torch import Tensor

from ptv2kit.errors import ConfigError, TrainingError


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


@final
@dataclass(frozen=True)
class Workers:
    """The processes that an environment speaks of, as torchrun, DeepSpeed's launcher and `ptv2kit run` set it.

    Args:
        rank: of this process, from 0.
        local_rank: on its machine, which decides which GPU is its own.
        size: how many there are.
    """

    rank: int
    local_rank: int
    size: int


def workers(environment: Mapping[str, str] = os.environ) -> Workers | None:
    """The workers that this process is one of; None if nothing started it as one.

    Raises:
        ConfigError: the environment says only half of it.
    """
    if "WORLD_SIZE" not in environment:
        return None
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in environment]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE is set in the environment, but {' and '.join(missing)} not",
            hint="start it with torchrun or deepspeed, which set all of them, or unset WORLD_SIZE",
        )
    return Workers(int(environment["RANK"]), int(environment["LOCAL_RANK"]), int(environment["WORLD_SIZE"]))


@contextmanager
def process_group(found: Workers | None, device: torch.device) -> Generator[Processes]:
    """The processes that train together, for as long as the context lasts.

    Args:
        found: from `workers`.
        device: of this process, as `choose_device` gives it: a GPU has its number.

    Raises:
        TrainingError: another process was lost.
    """
    if found is None or found.size == 1:
        yield Alone()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)  # that of collectives, and of all that names no device
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(minutes=30))
    try:
        yield Group(device)
    except RuntimeError as error:
        if not isinstance(error, dist.DistBackendError) and "gloo" not in str(error):
            raise
        reason = str(error).strip().split("\n", 1)[0]
        raise TrainingError(
            f"process {found.rank} lost the others: {reason}", hint="--resume continues from the last checkpoint"
        ) from error
    finally:
        dist.destroy_process_group()
