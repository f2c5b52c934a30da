"""A stream of random numbers for each of several trainings in one process."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor


@final
class RandomStream:
    """torch's random numbers of one training, as they would come if it were alone in its process.

    It begins with the generators as they are.

    Args:
        device: where the training computes; a GPU has a generator of its own.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._states = self._read()

    @contextmanager
    def active(self) -> Generator[None]:
        """Within the context torch draws from this stream; afterwards it goes on as before."""
        outside = self._read()
        self._write(self._states)
        try:
            yield
        finally:
            self._states = self._read()
            self._write(outside)

    def _read(self) -> list[Tensor]:
        on_gpu = [torch.cuda.get_rng_state(self._device)] if self._device.type == "cuda" else []
        return [torch.get_rng_state(), *on_gpu]

    def _write(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        for state in states[1:]:
            torch.cuda.set_rng_state(state, self._device)
