"""The tiny task on the tiny backbone, prepared with settings of a test's choice."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter

from ptv2kit.config.recipe import Recipe
from ptv2kit.config.task import Task
from ptv2kit.training.prepare import Prepared, prepare


def prepare_with(
    backbone: Path,
    task_file: Path,
    prompt: dict[str, object] | None = None,
    dtype: str = "fp32",
    method: str = "p_tuning_v2",
    **train: object,
) -> Prepared:
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
            "backbone": {"name": str(backbone), "dtype": dtype},
            "method": method,
            "prompt": {"length": 4, **(prompt or {})},
            "train": {"epochs": 3, "batch_size": 4, "learning_rate": 0.05, **train},
        }
    )
    return prepare(recipe, task, task_file, None, lambda *_: None)
