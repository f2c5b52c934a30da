"""Trains cells in processes of this machine, each on a GPU of its own as far as there are enough."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from ptv2kit.cli.cell_job import LOG, CellJob
from ptv2kit.cli.launch import safe_environment
from ptv2kit.cli.spread import Ended
from ptv2kit.files import allowed_cores

if TYPE_CHECKING:
    from pathlib import Path

CHILD = "from ptv2kit.cli.cell_job import main; raise SystemExit(main())"


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` has them; empty without any."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(index) for index in range(count)]
    return [name.strip() for name in named.split(",")][:count]


def threads_each(processes: int) -> int:
    """Processors for each of so many processes, at least one."""
    return max(1, allowed_cores() // processes)


@final
class LocalEngine:
    """Processes of this machine.

    Args:
        slots: how many at one time.
        gpus: from `visible_gpus`; more jobs than GPUs share them.
    """

    inside = False

    def __init__(self, slots: int, gpus: Sequence[str]) -> None:
        self.slots = slots
        self._gpus = gpus
        self._jobs: dict[int, _Child] = {}

    def start(self, job: CellJob) -> str:
        """Start a job in the first free slot."""
        slot = next(slot for slot in range(self.slots) if slot not in self._jobs)
        gpu = self._gpus[slot % len(self._gpus)] if self._gpus else None
        added = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
        if "OMP_NUM_THREADS" not in os.environ:
            added["OMP_NUM_THREADS"] = str(threads_each(self.slots))
        self._jobs[slot] = _Child(job.cell.name, start_child(job, added))
        return f"process {self._jobs[slot].process.pid}" + ("" if gpu is None else f", GPU {gpu}")

    def ended(self) -> list[Ended]:
        """The jobs that have ended since the last call."""
        gone = {slot: child for slot, child in self._jobs.items() if child.process.poll() is not None}
        for slot in gone:
            del self._jobs[slot]
        return [how_it_ended(child.name, child.process.returncode) for child in gone.values()]

    def stop(self, number: signal.Signals) -> None:
        """Ask all jobs to save and end."""
        for child in self._jobs.values():
            if child.process.poll() is None:
                child.process.send_signal(number)

    def close(self) -> None:
        """Kill what still runs; its last checkpoint is kept."""
        for child in self._jobs.values():
            if child.process.poll() is None:
                child.process.kill()
                child.process.wait()


@final
@dataclass(frozen=True)
class _Child:
    name: str
    process: subprocess.Popen[bytes]


def start_child(job: CellJob, environment: Mapping[str, str], folder: Path | None = None) -> subprocess.Popen[bytes]:
    """Start the process of a job; what it prints goes to the log in the cell's folder.

    Args:
        job: what it trains.
        environment: what is added to this process's.
        folder: to work in; None: this process's.
    """
    path = job.folder / "cells" / job.cell.name / LOG
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", CHILD],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=folder,
            env={**safe_environment(), **environment, "PTV2KIT_PARENT": str(os.getpid())},
            start_new_session=True,  # Ctrl-C reaches it through this process, once
        )
    assert process.stdin is not None
    try:
        with process.stdin as pipe:
            pickle.dump(job, pipe)
    except BrokenPipeError:
        pass  # it died at once: its exit code says why
    return process


def how_it_ended(name: str, code: int) -> Ended:
    """What the exit code of a job's process says.

    Args:
        name: of the cell.
        code: 0 if it left a record, negative if a signal ended it.
    """
    if code in (128 + signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGHUP):
        return Ended(name, stopped=signal.Signals(code - 128))
    if code == -signal.SIGKILL:
        return Ended(name, "its process was killed by SIGKILL; the machine may have run out of memory")
    if code < 0:
        return Ended(name, f"its process was ended by {signal.Signals(-code).name}; see its {LOG}")
    return Ended(name, "" if code == 0 else f"its process ended with {code}; see its {LOG}")
