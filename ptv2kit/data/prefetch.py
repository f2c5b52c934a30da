"""Batches made one ahead, while a GPU computes the one before."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar, final

import torch

from ptv2kit.data.schemes.records import Batch

Key = TypeVar("Key")
Made = TypeVar("Made")


@final
class OneAhead(Generic[Key, Made]):
    """Makes what is asked for, and what will be asked for next in a thread.

    Args:
        make: gives the same for the same key whenever it is called, and draws no random numbers.
        ahead: whether to make anything ahead; else everything is made when it is asked for.
    """

    def __init__(self, make: Callable[[Key], Made], *, ahead: bool) -> None:
        self._make = make
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches") if ahead else None
        self._coming: tuple[Key, Future[Made]] | None = None

    def take(self, key: Key, coming: Key | None = None) -> Made:
        """What `make` gives for `key`, or raises for it.

        Args:
            coming: what will be asked for next; None: it is not known.
        """
        waiting, self._coming = self._coming, None
        found = waiting[1].result() if waiting is not None and waiting[0] == key else self._make(key)
        if self._thread is not None and coming is not None:
            self._coming = coming, self._thread.submit(self._make, coming)
        return found


def ready_for(batch: Batch, device: torch.device) -> Batch:
    """A batch that `to` can bring to `device` while that computes: for a GPU in page-locked memory."""
    if device.type != "cuda":
        return batch
    with torch.cuda.device(device):  # a fresh thread would take memory of the first GPU, whichever the process has
        return batch.pinned()
