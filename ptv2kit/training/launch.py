"""`ptv2kit run` on several processes: which ones, how they share the work, and starting them on this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, final

from ptv2kit.errors import ConfigError, ProjectError, TrainingError
from ptv2kit.machine import allowed_cores, safe_environment
from ptv2kit.spec.recipe import Recipe
from ptv2kit.training.signals import HANDLED, forward_signal, signal_name

_GRACE = 60.0
"""Seconds that processes have to save after SIGTERM."""


def local_processes(recipe: Recipe) -> int:
    """How many processes `ptv2kit run` starts on this machine.

    Raises:
        ConfigError: there are fewer GPUs than the recipe asks for.
    """
    import torch

    wanted = recipe.distributed
    on_gpu = recipe.train.device in ("auto", "cuda") and torch.cuda.is_available()
    if wanted.strategy == "none":
        return 1
    gpus = torch.cuda.device_count() if on_gpu else 0
    processes = recipe.processes_on(gpus)
    if on_gpu and processes > gpus:
        raise ConfigError(
            f"distributed.gpus is {processes}, but this machine has {gpus}",
            hint="set it to auto, or train.device to cpu",
        )
    return processes


def cell_processes(recipe: Recipe) -> int:
    """How many processes train a cell of a suite: `distributed.gpus` if it is a number, else one."""
    wanted = recipe.distributed
    return 1 if wanted.strategy == "none" or wanted.gpus == "auto" else wanted.gpus


def launch_machines(hostfile: Path, words: Sequence[str]) -> int:
    """Start the same command on all machines of a hostfile with DeepSpeed's launcher, and wait for it.

    Args:
        hostfile: DeepSpeed's list of machines.
        words: of the command line, after `ptv2kit`.

    Returns:
        The launcher's exit code.

    Raises:
        ConfigError: the file or the launcher is not there.
    """
    if not hostfile.is_file():
        raise ConfigError(f"distributed.hostfile: '{hostfile}' does not exist")
    launcher = Path(sys.executable).with_name("deepspeed")
    if not launcher.is_file():
        raise ConfigError("distributed.hostfile needs deepspeed", hint="pip install 'ptv2kit[distributed]'")
    return subprocess.call(
        [str(launcher), "--hostfile", str(hostfile), "--no_local_rank", "--module", "ptv2kit", *words],
        env=safe_environment(),
    )


def launch(count: int, words: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Start `count` processes of the same command on this machine, and wait for all of them.

    If one dies, the others are asked to end. SIGINT and SIGTERM are passed on. If this process is killed, they end too.

    Args:
        count: at least two.
        words: of the command line, after `ptv2kit`.
        environment: variables that they get besides this process's.

    Returns:
        Exit code of the process that ended first with one that is not 0; else 0.

    Raises:
        TrainingError: a process was killed by a signal.
    """
    with tempfile.TemporaryDirectory(prefix="ptv2kit-") as folder:
        return _Processes(count, words, Path(folder), environment or {}).wait()


@final
class _Processes:
    """Processes of one training on this machine.

    Args:
        folder: for what all but the first one write to stderr; it is shown only if it matters.
    """

    def __init__(self, count: int, words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self._logs = [folder / f"rank-{rank}.txt" for rank in range(count)]
        self._received: signal.Signals | None = None
        common = {
            **safe_environment(),
            **environment,
            "WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(_free_port()),
        }
        common.setdefault("OMP_NUM_THREADS", str(max(1, allowed_cores() // count)))
        self._processes: list[subprocess.Popen[bytes]] = []
        for rank, log in enumerate(self._logs):
            environment = {**common, "RANK": str(rank), "LOCAL_RANK": str(rank), "PTV2KIT_PARENT": str(os.getpid())}
            stderr: IO[bytes] | None = log.open("wb") if rank else None
            self._processes.append(
                subprocess.Popen(
                    [sys.executable, "-P", "-m", "ptv2kit", *words],
                    env=environment,
                    stdout=None if rank == 0 else subprocess.DEVNULL,
                    stderr=stderr,
                    start_new_session=True,  # Ctrl-C reaches them through this process, once
                )
            )
            if stderr is not None:
                stderr.close()

    def wait(self) -> int:
        before = {number: signal.signal(number, self._pass_on) for number in HANDLED}
        try:
            failed = self._first_failure()
            if failed is not None:
                self._end_others()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            for process in self._processes:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        if failed is None:
            return 0
        if failed > 0:
            sys.stderr.write(self._logs[failed].read_text(encoding="utf-8", errors="replace"))
        code = self._processes[failed].returncode
        if code < 0:
            raise TrainingError(
                f"process {failed} of {len(self._processes)} was killed by {signal_name(-code)}",
                hint="--resume continues from the last checkpoint; SIGKILL may mean that the machine ran out of memory",
            )
        return code

    def _first_failure(self) -> int | None:
        """Wait until a process fails or all have ended."""
        while True:
            codes = [process.poll() for process in self._processes]
            bad = [rank for rank, code in enumerate(codes) if code not in (None, 0)]
            if bad:
                time.sleep(0.5)  # others fail at once because of it: the one that was killed is the cause
                killed = [rank for rank in bad if (self._processes[rank].poll() or 0) < 0]
                return (killed or bad)[0]
            if None not in codes:
                return None
            time.sleep(0.05)

    def _end_others(self) -> None:
        """Processes that ended by themselves fail within moments; those that wait for a dead one never would."""
        deadline = time.monotonic() + (_GRACE if self._received is not None else 2.0)
        while time.monotonic() < deadline and any(process.poll() is None for process in self._processes):
            time.sleep(0.05)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if signal_name(number) != "SIGUSR1":
            self._received = signal.Signals(number)
        forward_signal(number, self._processes)


def end_with_parent() -> None:
    """Let the system end this worker when the process that started it is killed. Linux only.

    Raises:
        ProjectError: it is gone already.
    """
    parent = os.environ.get("PTV2KIT_PARENT")
    if parent is None or sys.platform != "linux":
        return
    import ctypes

    death_signal = 1  # PR_SET_PDEATHSIG
    ctypes.CDLL(None).prctl(death_signal, signal.SIGTERM)
    if os.getppid() != int(parent):
        error: ProjectError = TrainingError("the process that started this one is gone")
        raise error


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
