"""The tiny task on the tiny backbone, prepared with settings of a test's choice, and what its training keeps."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import TypeAdapter

from ptv2kit.spec.recipe import Recipe
from ptv2kit.spec.task import Task
from ptv2kit.training.evaluate import Evaluation
from ptv2kit.training.parts import TaskPart
from ptv2kit.training.prepare import Prepared, prepare
from ptv2kit.training.state import TrainingState


class Kept:
    """Keeps in memory what a training keeps."""

    def __init__(self) -> None:
        self.bests: list[tuple[str, dict[str, torch.Tensor], float]] = []
        self.shared: list[tuple[dict[str, torch.Tensor], float]] = []
        self.evaluations: list[Evaluation | None] = []
        self.states: list[TrainingState] = []

    def keep(
        self, part: TaskPart, tensors: dict[str, torch.Tensor], epoch: float, evaluation: Evaluation | None
    ) -> None:
        self.bests.append((part.name, tensors, epoch))
        self.evaluations.append(evaluation)

    def keep_shared(self, tensors: dict[str, torch.Tensor], epoch: float, values: dict[str, float]) -> None:
        self.shared.append((tensors, epoch))

    def checkpoint(self, state: TrainingState) -> None:
        self.states.append(state)


def prepare_with(
    backbone: Path,
    task_file: Path,
    prompt: dict[str, object] | None = None,
    dtype: str = "fp32",
    method: str = "p_tuning_v2",
    dropout: float | None = None,
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
            "backbone": {"name": str(backbone), "dtype": dtype, "dropout": dropout, "attention_dropout": dropout},
            "method": method,
            "prompt": {"length": 4, **(prompt or {})},
            "train": {"epochs": 3, "batch_size": 4, "learning_rate": 0.05, **train},
        }
    )
    return prepare(recipe, task, task_file, None, lambda *_: None)
