"""Times the encoding of training splits beside reading them back from the disk (`train.cache_tokens`).

    OMP_NUM_THREADS=1 python benchmarks/encoding.py --data-root DATA tasks/squad.yaml tasks/srl_ewt.yaml

The tokenizer is that of `--backbone`. Each way is taken `--repeats` times in turn, and the median counts. Seconds are
those of the CPU, not of the clock, so that other work on the machine counts for little; reading includes finding the
name of the file, for which all rows are hashed. The cache is a folder of its own, deleted at the end. Small splits are
kept too, which a run would not do. Prints one line of JSON for each task.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from ptv2kit.config.load import load_task
from ptv2kit.config.recipe import Backbone
from ptv2kit.config.task import Iob2Task
from ptv2kit.data import token_cache
from ptv2kit.data.dataset import encode_split
from ptv2kit.data.schemes import build_scheme
from ptv2kit.data.schemes.base import Feature
from ptv2kit.data.sources import read_split
from ptv2kit.data.tokens import Subwords
from ptv2kit.models.backbones import find_backbone, load_tokenizer


def measure(path: Path, backbone: str, data_root: Path | None, repeats: int) -> dict[str, Any]:
    task = load_task(path).task
    spec = find_backbone(Backbone(name=backbone))
    data = read_split(task, "train", task_path=path, data_root=data_root)

    def timed(*, kept: bool) -> tuple[tuple[Feature, ...], float]:
        """The features and the seconds; as a run begins, nothing is known of the tokenizer yet."""
        tokenizer = load_tokenizer(spec, words=isinstance(task, Iob2Task))
        subwords = Subwords(tokenizer, task.input.max_length, spec.filling)
        scheme = build_scheme(task, subwords, data.rows)
        gc.collect()  # what others left behind is not this way's to sweep
        started = time.process_time()
        if kept:
            split = token_cache.encoded_split(scheme, task, subwords, data, silent, keep=True)
        else:
            split = encode_split(scheme, data, silent)
        return split.features, time.process_time() - started

    seconds: dict[str, list[float]] = {"encoded": [], "encoded and kept": [], "read": []}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PTV2KIT_CACHE"] = folder
        for _ in range(repeats):
            for file in Path(folder).rglob("*.gz"):
                file.unlink()
            expected: tuple[Feature, ...] = ()
            for name, times in seconds.items():
                features, taken = timed(kept=name != "encoded")
                expected = expected or features
                assert features == expected
                times.append(taken)
        size = sum(file.stat().st_size for file in Path(folder).rglob("*.gz"))
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "task": task.task,
        "backbone": backbone,
        "rows": len(data.rows),
        "row_bytes": sum(len(json.dumps(row.values)) + 1 for row in data.rows),
        "rows_per_second": round(len(data.rows) / medians["encoded"]),
        "seconds": {name: round(value, 3) for name, value in medians.items()},
        "ratio": round(medians["encoded"] / medians["read"], 1),
        "file_mb": round(size / 1e6, 2),
    }


def silent(*_: object) -> None: ...


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", type=Path, nargs="+", help="task files")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--backbone", default="mini")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    token_cache.LEAST_BYTES = 0
    for path in arguments.tasks:
        print(json.dumps(measure(path, arguments.backbone, arguments.data_root, arguments.repeats)), flush=True)


if __name__ == "__main__":
    main()
