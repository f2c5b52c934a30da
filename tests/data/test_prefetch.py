"""What is made ahead is what would be made when it is asked for."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch

from ptv2kit.data.prefetch import OneAhead, ready_for
from ptv2kit.data.schemes.records import Batch


@pytest.mark.parametrize("ahead", [True, False])
def test_each_is_made_once_and_the_next_one_meanwhile(ahead: bool) -> None:
    made: list[int] = []
    threads: set[str] = set()
    done = threading.Event()

    def make(key: int) -> int:
        made.append(key)
        threads.add(threading.current_thread().name)
        if key == 2:
            done.set()
        return key * 10

    source = OneAhead(make, ahead=ahead)
    assert source.take(1, coming=2) == 10
    if ahead:
        assert done.wait(timeout=30)  # before anybody asks for it
    assert made == ([1, 2] if ahead else [1])
    assert [source.take(2, coming=3), source.take(3)] == [20, 30]
    assert made == [1, 2, 3]
    assert len(threads) == (2 if ahead else 1)


def test_another_than_was_announced_is_made() -> None:
    source = OneAhead[int, int](lambda key: key, ahead=True)
    assert [source.take(1, coming=2), source.take(5, coming=6), source.take(6)] == [1, 5, 6]


def test_what_goes_wrong_is_raised_where_it_is_asked_for() -> None:
    def make(key: int) -> int:
        if key == 2:
            raise OSError("the disk is gone")
        return key

    source = OneAhead(make, ahead=True)
    assert source.take(1, coming=2) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        source.take(2, coming=3)
    assert source.take(3) == 3


def test_a_batch_is_pinned_only_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU is asked: what would be page-locked is noted."""
    pinned: list[torch.Tensor] = []
    devices: list[torch.device] = []

    def entered(device: torch.device) -> AbstractContextManager[None]:
        devices.append(device)
        return nullcontext()

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor)
        return tensor.clone()

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.cuda, "device", entered)
    cloze = {"answer_ids": torch.ones(2, 1)}
    batch = Batch(torch.ones(2, 3), torch.ones(2, 3), None, torch.ones(2), cloze, torch.ones(2, 3, 4))
    assert ready_for(batch, torch.device("cpu")) is batch
    ready = ready_for(batch, torch.device("cuda", 3))
    assert len(pinned) == 5
    assert devices == [torch.device("cuda", 3)]
    assert ready.token_type_ids is None
    assert ready.inputs().keys() == batch.inputs().keys()
    assert all(torch.equal(tensor, batch.inputs()[name]) for name, tensor in ready.inputs().items())
