"""How long the command line takes to answer, each call a process of its own."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

from peers.timing import Spent

ROOT = Path(__file__).parents[2]
COMMANDS = {
    "--help": 0.3,
    "validate recipes/quickstart.yaml": 1.0,
    "plan recipes/glm-10b-boolq.yaml": 3.0,
}
"""Commands, and the seconds that they may take."""


def startup_times(command: str, rounds: int) -> list[Spent]:
    """Seconds of each call; the first, which may have to read files from the disk, is left out."""
    spent: list[Spent] = []
    for _ in range(rounds + 1):
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "ptv2kit", *command.split()],
            cwd=ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(Spent(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall))
    return spent[1:]
