"""Which GPU a process computes on; the GPUs here are told of, not there."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from io import StringIO
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.distributed as dist
from rich.console import Console

from ptv2kit.errors import ConfigError
from ptv2kit.plan.plan import count_processes
from ptv2kit.spec.load import load_recipe
from ptv2kit.training import placement
from ptv2kit.training.distributed import start_deepspeed
from ptv2kit.training.launch import local_processes
from ptv2kit.training.placement import Placement, place
from ptv2kit.training.prepare import choose_device, prepare_tasks
from ptv2kit.training.processes import Group, process_group, workers
from ptv2kit.training.state import Generators
from tests.projects import Project, project

__all__ = ["project"]


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)


def start(monkeypatch: pytest.MonkeyPatch, *, rank: int, local_rank: int) -> None:
    """The environment of one of eight processes on two machines, as torchrun makes it."""
    values = {"RANK": rank, "LOCAL_RANK": local_rank, "WORLD_SIZE": 8, "MASTER_ADDR": "first", "MASTER_PORT": 29500}
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.usefixtures("four_gpus")
def test_each_process_of_a_machine_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("auto") == torch.device("cuda")
    for rank in range(8):
        start(monkeypatch, rank=rank, local_rank=rank % 4)
        assert choose_device("auto") == choose_device("cuda") == torch.device("cuda", rank % 4)
        assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.usefixtures("four_gpus")
def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    start(monkeypatch, rank=6, local_rank=4)
    with pytest.raises(ConfigError, match="process 6 is number 5 on its machine, where torch finds 4 GPUs"):
        choose_device("auto")


def test_a_process_that_is_shown_one_gpu_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    start(monkeypatch, rank=3, local_rank=3)
    assert choose_device("auto") == torch.device("cuda", 0)


def test_the_gpu_of_apple_is_taken_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"train\.device is mps, but torch finds no GPU of Apple"):
        choose_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("mps") == torch.device("mps")
    assert choose_device("auto") == torch.device("cpu"), "nothing was tried there"
    start(monkeypatch, rank=1, local_rank=1)
    with pytest.raises(ConfigError, match="which several processes cannot share"):
        choose_device("mps")


def test_its_random_numbers_are_kept_too(monkeypatch: pytest.MonkeyPatch) -> None:
    state = torch.arange(4, dtype=torch.uint8)
    put_back: list[torch.Tensor] = []
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: state)
    monkeypatch.setattr(torch.mps, "set_rng_state", put_back.append)
    found = Generators.read()
    found.restore()
    assert [each.tolist() for each in put_back] == [[0, 1, 2, 3]]


@pytest.mark.usefixtures("four_gpus")
def test_collectives_run_on_the_gpu_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: calls.append(device))
    monkeypatch.setattr(dist, "init_process_group", lambda backend, timeout: calls.append(backend))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: calls.append("end"))
    start(monkeypatch, rank=5, local_rank=1)
    with process_group(workers(), choose_device("auto")):
        pass
    assert calls == [torch.device("cuda", 1), "nccl", "end"]


def test_deepspeed_takes_the_same_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes by the environment, which says 3 where the process is shown one GPU alone."""
    told: list[str] = []
    library, utils = ModuleType("deepspeed"), ModuleType("deepspeed.utils")
    library.__dict__["init_distributed"] = lambda backend, verbose: told.append(os.environ["LOCAL_RANK"])
    utils.__dict__["logger"] = logging.getLogger("told")
    monkeypatch.setitem(sys.modules, "deepspeed", library)
    monkeypatch.setitem(sys.modules, "deepspeed.utils", utils)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    start(monkeypatch, rank=3, local_rank=3)
    start_deepspeed(torch.device("cuda", 0), 8)
    assert told == ["0"]


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train.batch_size=32"], 4),
        (["train.batch_size=3"], 3),
        (["train.batch_size=3", "distributed.strategy=zero3"], 4),
        (["train.batch_size=null", "train.batch_tokens=64"], 4),
        (["train.batch_size=3", "distributed.gpus=4"], 4),
        (["train.batch_size=32", "distributed.strategy=none"], 1),
        (["train.batch_size=32", "train.device=cpu"], 1),
        (["train.batch_size=32", "train.device=mps"], 1),
    ],
)
def test_no_process_is_started_that_would_only_wait(project: Project, words: list[str], expected: int) -> None:
    recipe = load_recipe(project.folder / "recipe.yaml", words).recipe
    assert local_processes(recipe) == expected
    if recipe.train.device == "auto":
        assert expected in (1, count_processes(recipe, project.folder / "recipe.yaml", None, 4))


class TestPlacement:
    """How much of a batch fits GPUs, whose memory is told of."""

    def place(
        self, monkeypatch: pytest.MonkeyPatch, project: Project, memories: Sequence[float | None]
    ) -> tuple[Placement, str]:
        """What the last of as many processes as there are memories decides, and says."""
        strategy = "none" if len(memories) == 1 else "ddp"
        words = ["train.batch_size=4096", "train.device=cpu", f"distributed.strategy={strategy}"]
        resolved = load_recipe(project.folder / "recipe.yaml", words)
        tasks = [(task.task, task.path) for task in resolved.tasks]
        prepared = prepare_tasks(resolved.recipe, tasks, None, lambda what, done, rows: None)
        monkeypatch.setattr(placement, "gpu_memory", lambda device: memories[-1])
        monkeypatch.setattr(Group, "size", property(lambda group: len(memories)))
        monkeypatch.setattr(Group, "gather", lambda group, own: [*memories[:-1], own])
        messages = Console(file=StringIO(), width=200)
        placed = place(prepared, Group(torch.device("cpu")), messages)
        assert isinstance(messages.file, StringIO)
        return placed, messages.file.getvalue()

    def test_a_batch_that_does_not_fit_is_cut(self, monkeypatch: pytest.MonkeyPatch, project: Project) -> None:
        placed, said = self.place(monkeypatch, project, [1.55 * 2**30])
        assert placed.micro_batch is not None
        assert 1 < placed.micro_batch < 4096
        assert f"micro-batches of {placed.micro_batch}: more do not fit the GPU" in said
        assert self.place(monkeypatch, project, [80.0 * 2**30]) == (Placement("none", None), "")
        assert self.place(monkeypatch, project, [None]) == (Placement("none", None), "")

    def test_all_processes_decide_by_the_smallest_gpu(self, monkeypatch: pytest.MonkeyPatch, project: Project) -> None:
        small, large = 1.55 * 2**30, 80.0 * 2**30
        decided = self.place(monkeypatch, project, [small, large])
        assert decided == self.place(monkeypatch, project, [large, small])
        assert decided[0].micro_batch is not None
        assert self.place(monkeypatch, project, [large, large])[0].micro_batch is None
