"""Rows a second of a loaded run and of `ptv2kit serve`, beside a pipeline of transformers on the same backbone.

    OMP_NUM_THREADS=1 python benchmarks/predicting.py --rounds 3

All answer the same sentences with tags of words, in turns, one thread each. The pipeline has the backbone with a linear
head of as many tags and no prompt; it is timed as its users call it, one sentence after the other, and with batches of
as many rows as ours and its sentences sorted by length, which it does not do itself. Times are wall seconds; the ratio
is that of the medians. What the pipeline's head would answer is of no meaning: only the work is compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import httpx
import torch
from serving import Server
from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline

import ptv2kit
from ptv2kit.models.checkpoints import find_checkpoint
from ptv2kit.spec.catalog import catalog_folder
from ptv2kit.spec.recipe import Backbone

BATCH = 64


def sentences(count: int) -> list[str]:
    """Of the quickstart's validation rows, as often as needed."""
    lines = (catalog_folder() / "tasks" / "quickstart" / "validation.jsonl").read_text().splitlines()
    texts = [" ".join(json.loads(line)["tokens"]) for line in lines]
    return [texts[index % len(texts)] for index in range(count)]


def peer(labels: int) -> Any:
    """A pipeline for tags on the same backbone."""
    folder = find_checkpoint(Backbone(name="mini")).source
    model = AutoModelForTokenClassification.from_pretrained(folder, num_labels=labels)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="simple")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    texts = sentences(arguments.rows)
    with tempfile.TemporaryDirectory() as folder:
        settings = {"train.epochs": 1, "limit.train": 64, "limit.validation": 32}
        trained = ptv2kit.train("quickstart", runs_dir=folder, **settings)
        run = trained.load()
        server = Server.start({"names": str(trained.folder)})
        client = httpx.Client(base_url=server.address, trust_env=False, timeout=120)
        other = peer(len(run.scheme.names))
        by_length = sorted(texts, key=len)

        def request(rows: list[str]) -> None:
            client.post("/predict", json={"rows": [{"row": row} for row in rows]}).raise_for_status()

        ways: dict[str, Callable[[], object]] = {
            "loaded run": lambda: run.predict(texts, BATCH),
            "loaded run, one row a call": lambda: [run.predict([text]) for text in texts],
            "serve, 64 rows a request": lambda: [request(texts[at : at + BATCH]) for at in range(0, len(texts), BATCH)],
            "serve, one row a request": lambda: [request([text]) for text in texts],
            "pipeline, one row a call": lambda: [other(text) for text in texts],
            "pipeline, batches": lambda: other(texts, batch_size=BATCH),
            "pipeline, batches, sorted": lambda: other(by_length, batch_size=BATCH),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(arguments.rounds + 1):
            for name, act in ways.items():
                began = time.perf_counter()
                act()
                if turn:  # the first turn warms up
                    seconds[name].append(time.perf_counter() - began)
        server.stop()
    ours = statistics.median(seconds["loaded run"])
    print(f"{arguments.rows} sentences, {sum(map(len, texts)) / len(texts):.0f} letters each in the mean")
    print("| way | rows/s | time / loaded run |\n|---|---|---|")
    for name, found in seconds.items():
        middle, rows = statistics.median(found), len(texts)
        spread = f"{rows / max(found):.0f}-{rows / min(found):.0f}"
        print(f"| {name} | {rows / middle:.0f} ({spread}) | {middle / ours:.2f} |")


if __name__ == "__main__":
    main()
