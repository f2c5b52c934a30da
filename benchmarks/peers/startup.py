"""How long the command line takes to answer, each call a process of its own."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

from peers.timing import Spent

ROOT = Path(__file__).parents[2]
_PTV2KIT = [sys.executable, "-m", "ptv2kit"]
COMMANDS = {
    "--help": 0.3,
    "validate recipes/quickstart.yaml": 1.0,
    "preview recipes/quickstart.yaml": 2.5,
    "plan recipes/glm-10b-boolq.yaml": 3.0,
    "run recipes/quickstart.yaml --dry-run": 3.0,
    "predict RUN ROW": 3.0,
}
"""Commands, and the CPU seconds that they may take."""
IMPORTS = {
    "import torch, transformers": "import torch, transformers",
    "the same, and the code of a model": "import torch; from transformers import AutoTokenizer, BertModel",
}
"""What the commands are compared with: nothing that needs a tokenizer or a model can be faster."""
_ROW = '{"tokens": ["Could", "Farid", "row", "to", "the", "Tidley", "?"]}'


def train_a_run(folder: Path) -> tuple[str, str]:
    """A run of the quickstart, a single epoch of few rows, and a file with one row for it."""
    few = ["train.epochs=1", "limit.train=64", "limit.validation=32"]
    _run([*_PTV2KIT, "run", "recipes/quickstart.yaml", *few, "--runs-dir", str(folder)])
    row = folder / "row.jsonl"
    row.write_text(_ROW + "\n", encoding="utf-8")
    [run] = (folder / "quickstart").iterdir()
    return str(run), str(row)


def startup_times(words: dict[str, list[str]], rounds: int) -> dict[str, list[Spent]]:
    """Seconds of each call, in turns; the first turn, which may have to read files from the disk, is left out."""
    spent: dict[str, list[Spent]] = {name: [] for name in words}
    for _ in range(rounds + 1):
        for name, command in words.items():
            spent[name].append(_run(command))
    return {name: turns[1:] for name, turns in spent.items()}


def startup_commands(folder: Path) -> dict[str, list[str]]:
    """Everything that is called, by what it is called in the table."""
    run, row = train_a_run(folder)
    filled = {name: name.replace("RUN", run).replace("ROW", row).split() for name in COMMANDS}
    imports = {name: [sys.executable, "-c", code] for name, code in IMPORTS.items()}
    return imports | {name: [*_PTV2KIT, *words] for name, words in filled.items()}


def _run(command: list[str]) -> Spent:
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Spent(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall)
