"""A folder in which the documentation's commands work: tiny data for their tasks, and the runs that they name."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from tests.docs.commands import ROOT, blocks

NAMED_RUNS = {
    "runs/quickstart/20261123-130443-1f2e3d4c": "recipes/quickstart.yaml",
    "runs/mini-wikigold/20261123-130443-1f2e3d4c": "recipes/mini-wikigold.yaml",
    "runs/mini-wikigold/20261123-140501-9c0ffee1": "recipes/mini-wikigold.yaml",
    "runs/mini-wikigold/20261123-150210-5d41aa70": "recipes/mini-wikigold.yaml prompt.positions=shifted",
    "runs/mini-sst2/20261123-130443-1f2e3d4c": "recipes/mini-sst2.yaml",
    "runs/mini-sst2/20261123-140501-9c0ffee1": "recipes/mini-sst2.yaml",
    "runs/mini-rte/20261123-130443-1f2e3d4c": "recipes/mini-rte.yaml",
    "runs/two-name-tasks/…": "two-name-tasks.yaml",
}
"""Runs that pages speak of, and how each is made."""

_TAGS = {"wikigold": ("PER", "LOC"), "uner_ewt": ("PER", "LOC"), "wnut17": ("person", "location")}
_SENTENCE = ["Ada", "Lovelace", "met", "Alan", "in", "London", "."]


def make_world(folder: Path) -> None:
    """Write everything but the runs."""
    for name in ("recipes", "tasks", "benchmarks", "docs", "constraints.txt", "Justfile", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    for task, rows in _data().items():
        (folder / "DATA" / task).mkdir(parents=True)
        for split in ("train", "validation", "test"):
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / "DATA" / task / f"{split}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "data").symlink_to(folder / "DATA")
    [recipe] = [block for block in blocks("yaml", ROOT / "README.md") if block.startswith("recipe: my-rte")]
    assert "roberta-large" in recipe
    (folder / "my-rte.yaml").write_text(recipe.replace("roberta-large", "mini"))
    [several] = [block for block in blocks("yaml", ROOT / "docs/methods.md") if "recipe: two-name-tasks" in block]
    (folder / "two-name-tasks.yaml").write_text(several)
    (folder / "sentences.txt").write_text("Ada Lovelace met Charles Babbage in London.\n")
    table = "text,verdict\na joy,good\ndull,bad\nkind,good\nflat,bad\n"
    for name in ("my.csv", "dev.csv", "reviews.csv", "reviews-dev.csv"):
        (folder / name).write_text(table)


def _data() -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for task, (person, place) in _TAGS.items():
        tags = [f"B-{person}", f"I-{person}", "O", f"B-{person}", "O", f"B-{place}", "O"]
        found[task] = [{"tokens": _SENTENCE, "ner_tags": tags}] * 4
    role = {"tokens": _SENTENCE, "predicate_index": 2, "predicate_pos": "VBD"}
    found["srl_ewt"] = [role | {"tags": ["B-ARG0", "I-ARG0", "O", "B-ARG1", "O", "B-ARGM-LOC", "O"]}] * 4
    found["sst2"] = [{"sentence": "a joy", "label": 1}, {"sentence": "dull", "label": 0}] * 2
    pair = {"premise": "Ada met Alan.", "hypothesis": "Alan met Ada."}
    found["rte"] = [pair | {"label": label} for label in (0, 1, 0, 1)]
    found["cb"] = [pair | {"label": label} for label in (0, 1, 2, 0)]
    found["boolq"] = [{"question": "did ada", "passage": "Ada did.", "label": label} for label in (0, 1, 0, 1)]
    choices = {"premise": "Ada left.", "choice1": "It rained.", "choice2": "It was late."}
    found["copa"] = [choices | {"question": kind, "label": label} for kind in ("cause", "effect") for label in (0, 1)]
    asked = {"question": "Who met Alan?", "context": "Ada met Alan in London."}
    found["squad"] = [
        asked | {"id": str(number), "answers": {"text": ["Ada"], "answer_start": [0]}} for number in range(4)
    ]
    found["squad_v2"] = found["squad"]
    return found
