"""The cost of one training step on equal padded batches, and the memory that it takes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from peers.methods import MethodName, Precision, build
from peers.setting import Setting
from peers.timing import Spent, take_turns
from ptv2kit.data.schemes.records import Batch

_STEPS_IN_MEMORY = 3
_WARM_UP = 2


def padded_batch(batch_size: int, length: int, seed: int) -> Batch:
    """Random tokens; the rows are between half as long and as long as the batch, as in real batches of one length."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1000, 30000, (batch_size, length), generator=generator)
    lengths = torch.randint(length // 2, length + 1, (batch_size, 1), generator=generator)
    lengths[0] = length
    mask: Tensor = (torch.arange(length) < lengths).long()
    labels = torch.randint(2, (batch_size,), generator=generator)
    return Batch(ids * mask, mask, torch.zeros_like(ids), labels)


def step_times(
    setting: Setting, names: tuple[tuple[MethodName, Precision], ...], batch_size: int, length: int, *, dropout: bool
) -> dict[tuple[MethodName, Precision], list[Spent]]:
    """Seconds of each step of sequence classification, the methods in turn within this process."""
    setting.prepare_process()
    batch = padded_batch(batch_size, length, setting.seed)
    work = {}
    for name, precision in names:
        method = build(name, setting.folder, "sequence", 2, setting.prompt_length, precision=precision, dropout=dropout)
        work[name, precision] = partial(method.step, batch, method.optimizer(1e-3))
    return take_turns(work, setting.rounds, _WARM_UP)


def peak_memory(setting: Setting, name: MethodName, batch_size: int, length: int) -> float:
    """MiB that training steps need beyond the loaded model; to be called in a process of its own.

    Read from Linux' own high-water mark of resident memory, which is set back after loading: `getrusage` gives the same
    mark, but loading itself may have reached further than training.
    """
    setting.prepare_process()
    method = build(name, setting.folder, "sequence", 2, setting.prompt_length)
    optimizer = method.optimizer(1e-3)
    batch = padded_batch(batch_size, length, setting.seed)
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmHWM")
    for _ in range(_STEPS_IN_MEMORY):
        method.step(batch, optimizer)
    return (_resident("VmHWM") - before) / 1024


def _resident(name: str) -> float:
    """KiB of a line of this process's status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return float(line.split()[1])
    raise SystemExit(f"/proc/self/status has no {name}; memory can be measured on Linux only")
