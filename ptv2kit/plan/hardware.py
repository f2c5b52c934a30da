"""GPUs: their memory and their peak rates, from the makers' data sheets."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import final

import torch

from ptv2kit.errors import ConfigError, did_you_mean
from ptv2kit.models.checkpoints import faster_in_bf16

GIB = 2**30
UTILISATION = 0.4
"""Share of the peak rate that a run is assumed to reach."""
LEAST = 1e-3
"""Seconds that a layer is assumed to take at least, forward and backward, however little there is to compute: torch
starts some sixty operations one after the other."""


@final
@dataclass(frozen=True)
class Gpu:
    """A kind of GPU.

    Args:
        name: as the user gives it.
        memory: bytes that a process can have.
        bf16: peak rate of dense matrix products in bf16 with sums in fp32, in operations per second; None: unknown.
        fp32: the same in fp32, which torch computes without TF32 unless told otherwise.
    """

    name: str
    memory: int
    bf16: float | None
    fp32: float | None

    def peak(self, dtype: str) -> float | None:
        """Peak rate with weights of a type, `fp32` or `bf16`."""
        return self.fp32 if dtype == "fp32" else self.bf16

    def seconds(self, dtype: str, operations: float, layers: float) -> float | None:
        """Wall time of training; None if the rate is unknown.

        Args:
            dtype: of the weights, `fp32` or `bf16`.
            operations: floating-point operations of all passes.
            layers: how often a layer is computed, forward and backward counted as once.
        """
        peak = self.peak(dtype)
        return None if peak is None else max(operations / (peak * UTILISATION), layers * LEAST)


def _gpu(name: str, gib: float, bf16: float | None, fp32: float) -> Gpu:
    return Gpu(name, int(gib * GIB), None if bf16 is None else bf16 * 1e12, fp32 * 1e12)


GPUS = {
    gpu.name: gpu
    for gpu in (
        _gpu("b200", 178, 2250, 75),
        _gpu("mi300x", 191, 1307, 163.4),
        _gpu("h200", 139, 989, 67),
        _gpu("h100", 79, 989, 67),
        _gpu("h100-pcie", 79, 756, 51),
        _gpu("a100-80", 79, 312, 19.5),
        _gpu("a100-40", 39, 312, 19.5),
        _gpu("l40s", 44, 362, 91.6),
        _gpu("a6000", 47, 155, 38.7),
        _gpu("v100-32", 31, None, 15.7),
        _gpu("v100-16", 15.5, None, 15.7),
        _gpu("a10", 22, 125, 31.2),
        _gpu("l4", 22, 121, 30.3),
        _gpu("t4", 14.6, None, 8.1),
        _gpu("rtx5090", 31, 209, 104.8),
        _gpu("rtx4090", 23.5, 165, 82.6),
        _gpu("rtx3090", 23.5, 71, 35.6),
    )
}
"""By name; memory is a little less than what the data sheet says, as drivers report it. V100 and T4 have no bf16."""

_OTHER_NAMES = {
    "h100-80": "h100",
    "h100-sxm": "h100",
    "a100": "a100-80",
    "v100": "v100-16",
    "rtxa6000": "a6000",
    "5090": "rtx5090",
    "4090": "rtx4090",
    "3090": "rtx3090",
}

DEFAULT = "h100"
"""The GPU of a plan that names none, on a machine that has none."""


def time_processor() -> Gpu:
    """This machine's processor as if it were a GPU, with the rate of a timed product of matrices in fp32.

    In bf16 a whole step is faster by less than its products are; docs/benchmarks.md has the measured shares.
    """
    size = 768
    one = torch.ones(size, size)
    times: list[float] = []
    for _ in range(5):
        started = time.perf_counter()
        torch.mm(one, one)
        times.append(time.perf_counter() - started)
    rate = 2.0 * size**3 / min(times)
    return Gpu("this processor", 0, rate * (2.0 if faster_in_bf16(gpu=False) else 0.8), rate)


def find_gpu(name: str | None, memory: float | None, tflops: float | None) -> Gpu:
    """A known GPU, or one that the user describes.

    Args:
        name: of the GPU; None: `DEFAULT`, unless its memory is given.
        memory: in GiB, instead of the known one.
        tflops: peak rate in 10^12 operations per second, instead of the known one.

    Raises:
        ConfigError: the name is unknown and no memory is given, or a number is not positive.
    """
    for option, value in (("--memory", memory), ("--peak-tflops", tflops)):
        if value is not None and not value > 0:
            raise ConfigError(f"{option} must be more than 0. Got {value:g}")
    wanted = (name or (DEFAULT if memory is None else "")).lower().replace(" ", "").replace("_", "-")
    known = GPUS.get(_OTHER_NAMES.get(wanted, wanted))
    if known is None and memory is None:
        raise ConfigError(
            f"--gpu {name}: its memory is not known here",
            hint=f"{did_you_mean(str(name).lower(), list(GPUS))}; or say --memory GIB, and --peak-tflops for the time",
        )
    peaks = (None, None) if known is None else (known.bf16, known.fp32)
    if tflops is not None:
        peaks = (tflops * 1e12, tflops * 1e12)
    size = int(memory * GIB) if memory is not None else known.memory if known is not None else 0
    return Gpu(name or (known.name if known else f"GPU with {memory:g} GiB"), size, *peaks)


def gpu_of_machine(name: str, memory: int) -> Gpu:
    """A GPU that is there.

    Args:
        name: as its driver reports it; peak rates are known if it contains the name of a known GPU.
        memory: bytes.
    """
    plain = name.lower().replace(" ", "")
    known = next((gpu for gpu in GPUS.values() if gpu.name.split("-")[0] in plain.replace("geforce", "")), None)
    return Gpu(name, memory, known.bf16 if known else None, known.fp32 if known else None)
