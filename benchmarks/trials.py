"""CPU time of trials of a search side by side (`train.parallel_trials`) and of the same trials one after the other.

    OMP_NUM_THREADS=1 python benchmarks/trials.py

The backbone is the embedded MiniLM (extra `mini`) with a prompt on its upper layers and `train.cache_trunk`; the data,
short opinions as in SST-2, is made by this script. Both ways train the same trials, which differ in their learning
rate, from reading the data to the written run folder, in turn within one process. `cpu_seconds` are those of this
process (`time.process_time`), so that other work on the machine counts for little. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from ptv2kit.cli.cell_job import Trained, train_cell
from ptv2kit.cli.subject import silence_libraries
from ptv2kit.cli.trials import TrialJob, train_trials
from ptv2kit.config.cells import Cell, load_suite

GOOD = ["moving", "funny", "warm", "clever", "bright", "honest", "charming", "fresh", "tender", "witty"]
BAD = ["dull", "clumsy", "cold", "silly", "bleak", "hollow", "tired", "stale", "bitter", "lifeless"]
PLAIN = [
    *("the", "a", "of", "and", "film", "story", "its", "with", "cast", "in", "is", "that", "this", "scene", "for"),
    *("ending", "by", "director", "but", "music", "an"),
]
TASK = """task: opinions
data: {source: jsonl, splits: {train: train.jsonl, validation: validation.jsonl}}
input: {text: "{text}", max_length: 64}
labels: {scheme: classes, column: label, names: [bad, good]}
metrics: [accuracy]
"""


class Silent:
    """Watches and says nothing."""

    def on_step(self, step: int, total_steps: int, epoch: float, loss: float, learning_rate: float) -> None:
        """Nothing."""

    def on_evaluating(self, done: int, total: int) -> None:
        """Nothing."""

    def on_evaluation(self, epoch: int, values: dict[str, float], best: bool, seconds: float) -> None:
        """Nothing."""


def write_rows(path: Path, count: int, seed: int) -> None:
    """Opinions of 5 to 30 words, as long as those of SST-2, of which three or fewer say whether it is good."""
    generator = random.Random(seed)
    lines: list[str] = []
    for number in range(count):
        words = generator.choices(PLAIN, k=min(30, max(5, round(generator.gauss(17, 8)))))
        for place in generator.sample(range(len(words)), 3):
            words[place] = generator.choice(GOOD if number % 2 else BAD)
        lines.append(json.dumps({"text": " ".join(words), "label": "good" if number % 2 else "bad"}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_suite(folder: Path, arguments: argparse.Namespace) -> Path:
    """Task, recipe, data and suite."""
    write_rows(folder / "train.jsonl", arguments.rows, 1)
    write_rows(folder / "validation.jsonl", arguments.rows // 5, 2)
    (folder / "task.yaml").write_text(TASK, encoding="utf-8")
    recipe = {
        "recipe": "opinions",
        "task": "task.yaml",
        "backbone": {"name": "mini", "dropout": arguments.dropout, "attention_dropout": 0.0},
        "prompt": {"length": arguments.prompt_length, "layers": arguments.layers, "dropout": 0.0},
        "train": {
            "epochs": arguments.epochs,
            "batch_size": arguments.batch_size,
            "learning_rate": 5e-3,
            "cache_trunk": "off" if arguments.layers == "all" else "memory",
            "parallel_trials": arguments.trials,
            "device": arguments.device,
        },
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    space = {"train.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}}
    suite = {"suite": "search", "recipe": "recipe.yaml", "search": {"trials": arguments.trials, "space": space}}
    (folder / "suite.yaml").write_text(json.dumps(suite), encoding="utf-8")
    return folder / "suite.yaml"


def one_by_one(cells: list[Cell], folder: Path, messages: Console) -> list[Trained]:
    return [train_cell(cell, folder=folder, data_root=None, messages=messages) for cell in cells]


def side_by_side(cells: list[Cell], folder: Path, messages: Console) -> list[Trained]:
    found: list[Trained] = []
    jobs = [TrialJob(cell, Silent(), found.append) for cell in cells]
    train_trials(jobs, folder=folder, data_root=None, messages=messages)
    return sorted(found, key=lambda trained: trained.record.name)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    messages = Console(quiet=True)
    ways = {"one by one": one_by_one, "side by side": side_by_side}
    cpu: dict[str, list[float]] = {way: [] for way in ways}
    wall: dict[str, list[float]] = {way: [] for way in ways}
    scores: dict[str, list[float | None]] = {}
    with tempfile.TemporaryDirectory() as name:
        study = load_suite(write_suite(Path(name), arguments)).studies[0]
        cells = [
            study.cell(f"trial-{index + 1:03}", {"train.learning_rate": 1e-4 * 1000 ** (index / arguments.trials)})
            for index in range(arguments.trials)
        ]
        one_by_one(cells[:1], Path(name), messages)  # reads the weights from the disk, imports what is imported late
        for _ in range(arguments.repeats):
            for way, train in ways.items():
                began, started = time.monotonic(), time.process_time()
                trained = train(cells, Path(name), messages)
                cpu[way].append(time.process_time() - started)
                wall[way].append(time.monotonic() - began)
                assert all(each.record.status == "finished" for each in trained), trained
                scores[way] = [each.record.score for each in trained]
    ratios = [beside / alone for alone, beside in zip(cpu["one by one"], cpu["side by side"], strict=True)]
    differences = [abs((a or 0) - (b or 0)) for a, b in zip(*scores.values(), strict=True)]
    return {
        **{key: getattr(arguments, key) for key in ("trials", "layers", "epochs", "rows", "batch_size", "dropout")},
        "cpu_seconds": {way: round(statistics.median(values), 2) for way, values in cpu.items()},
        "wall_seconds": {way: round(statistics.median(values), 2) for way, values in wall.items()},
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "largest_difference_of_scores": round(max(differences), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--layers", default="5-6", help="that are prompted; 'all' leaves nothing to keep")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rows", type=int, default=600, help="to train on; a fifth as many to validate")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--prompt-length", type=int, default=16)
    parser.add_argument("--dropout", type=float, default=0.0, help="of the backbone's hidden states")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    silence_libraries()
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
