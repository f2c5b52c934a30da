"""A tiny task on a tiny random backbone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter
from transformers import BertConfig, BertModel, BertTokenizer

from ptv2kit.config.recipe import Recipe
from ptv2kit.config.task import Task
from ptv2kit.training.prepare import Prepared, prepare

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ada", "alan", "met", "paris", "rome", "in", "left", "for"]


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbone")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(VOCABULARY),
            hidden_size=32,
            intermediate_size=48,
            num_attention_heads=4,
            num_hidden_layers=2,
            max_position_embeddings=64,
        )
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def task_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Names of people and places; the data lies beside it."""
    folder = tmp_path_factory.mktemp("task")
    rows = [
        {"words": [person, verb, *rest, place], "tags": ["B-PER", "O", *["O"] * len(rest), "B-LOC"]}
        for person in ("ada", "alan")
        for place in ("paris", "rome")
        for verb, rest in (("met", ["ada", "in"]), ("left", ["for"]), ("left", []))
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "task.yaml"


@pytest.fixture
def prepared(backbone: Path, task_file: Path) -> Prepared:
    return prepare_with(backbone, task_file)


def prepare_with(backbone: Path, task_file: Path, prompt: dict[str, object] | None = None, **train: object) -> Prepared:
    """The tiny task with settings of the test's choice."""
    files = {"train": "rows.jsonl", "validation": "rows.jsonl"}
    task = TypeAdapter(Task).validate_python(
        {
            "task": "tiny",
            "data": {"source": "jsonl", "splits": files},
            "input": {"words": "words", "max_length": 16},
            "labels": {"scheme": "iob2", "column": "tags"},
        }
    )
    recipe = Recipe.model_validate(
        {
            "recipe": "tiny",
            "task": "tiny",
            "backbone": {"name": str(backbone)},
            "prompt": {"length": 4, **(prompt or {})},
            "train": {"epochs": 3, "batch_size": 4, "learning_rate": 0.05, **train},
        }
    )
    return prepare(recipe, task, task_file, None, lambda *_: None)
