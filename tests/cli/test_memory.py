"""Memory that runs out, and what the plan makes of the memory that there is."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ptv2kit.models.backbones import find_backbone
from ptv2kit.plan.memory import Setup, footprint, measure
from ptv2kit.plan.plan import task_shape
from ptv2kit.spec.load import load_recipe
from ptv2kit.training.trainer import Trainer
from tests.projects import Project, project, read_json

__all__ = ["project"]


def test_memory_that_runs_out_ends_with_4(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate")

    monkeypatch.setattr("ptv2kit.training.trainer.Trainer.train", full)
    code, _, err = project.run()
    assert code == 4
    assert "error: out of memory on cpu\n  hint: set train.micro_batch_size below 4, or lower prompt.length" in err


def memory_for(project: Project, examples: int) -> float:
    """Bytes that the plan says so many examples need."""
    resolved = load_recipe(project.folder / "recipe.yaml")
    spec = find_backbone(resolved.recipe.backbone)
    costs = measure(resolved.recipe, spec, [task_shape(resolved.recipe, resolved.task.task)])
    return footprint(resolved.recipe, costs, Setup("none", "none", 1), examples, checkpointing=False).total


@pytest.mark.slow
def test_on_a_gpu_micro_batches_are_as_large_as_the_plan_says(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe says auto; the batch is of four examples."""
    project.run()
    monkeypatch.setattr("ptv2kit.training.placement.gpu_memory", lambda device: memory_for(project, 2) + 1)
    seen: list[Any] = []
    original = Trainer.__init__
    monkeypatch.setattr(Trainer, "__init__", lambda self, *w, **n: (seen.append(w[1]), original(self, *w, **n))[1])
    code, _, err = project.run()
    assert code == 0, err
    assert "micro-batches of 2: more do not fit the GPU" in err
    assert seen[0].micro_batch_size == 2
    keys = {read_json(run / "provenance.json")["key"] for run in project.runs}
    assert len(keys) == 1, "what fits is no part of what was asked"

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Trainer, "train", full)
    code, _, err = project.run()
    assert code == 4
    assert "set train.micro_batch_size to 1 (by the plan 2 fit), or lower prompt.length (now 4), or" in err
    assert "set train.gradient_checkpointing: true (by the plan" in err
