"""A search by several processes of this machine, which share its trials."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ptv2kit.cli.launch import safe_environment
from ptv2kit.cli.local_engine import threads_each, visible_gpus
from ptv2kit.cli.signals import StopSignals

if TYPE_CHECKING:
    from rich.console import Console


def search_together(count: int, words: Sequence[str], folder: Path, messages: Console) -> signal.Signals | None:
    """Start the same command so many times, and wait until all have ended. What they found lies in the study.

    Args:
        count: at least two.
        words: of the command line, after `ptv2kit`.
        folder: of the suite; gets a log for each process.
        messages: of stderr.

    Returns:
        The signal that ended them early, None if none did.
    """
    gpus = visible_gpus()
    processes: list[subprocess.Popen[bytes]] = []
    passed: signal.Signals | None = None

    def start(index: int) -> None:
        environment = {**safe_environment(), "PTV2KIT_PARENT": str(os.getpid())}
        environment.setdefault("OMP_NUM_THREADS", str(threads_each(count)))
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = gpus[index % len(gpus)]
        path = folder / f"search-{index + 1}.log"
        with path.open("ab") as log:
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-P", "-m", "ptv2kit", *words, "--jobs", "1"],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C reaches them through this process, once
                )
            )
        where = f", GPU {gpus[index % len(gpus)]}" if gpus else ""
        messages.print(f"process {processes[-1].pid} searches{where}; it prints to {path}", soft_wrap=True)

    try:
        with StopSignals() as stop:
            for index in range(count):
                start(index)
            while any(process.poll() is None for process in processes):
                if stop.received is not None and passed is None:
                    passed = stop.received
                    for process in processes:
                        if process.poll() is None:
                            process.send_signal(passed)
                time.sleep(0.1)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
    for process in processes:
        if process.returncode < 0 and passed is None:
            name = signal.Signals(-process.returncode).name
            messages.print(f"process {process.pid} was ended by {name}; its trial is tried again", soft_wrap=True)
    return passed
