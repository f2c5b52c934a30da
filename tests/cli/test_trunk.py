"""`train.cache_trunk` from the command line."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from ptv2kit.training.parts import TaskPart
from ptv2kit.training.trunk_cache import keep_trunk
from tests.cli.test_processes import STILL as PLAIN
from tests.cli.test_processes import TOLERANCE, losses, only_run, start
from tests.projects import Project, project, read_json

__all__ = ["project"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where outputs are kept during a test."""
    monkeypatch.setenv("PTV2KIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


STILL = ("prompt.layers=[2]", "prompt.dropout=0", "backbone.dropout=0", "backbone.attention_dropout=0")


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_a_run_says_what_it_keeps_and_reaches_the_same(project: Project, cache: Path, place: str) -> None:
    code, _, plain = project.run(*STILL, "train.cache_trunk=off")
    assert code == 0
    assert "outputs of layer 1" not in plain
    code, _, err = project.run(*STILL, f"train.cache_trunk={place}")
    assert code == 0
    where = "in memory" if place == "memory" else f"in a scratch file in {cache}"
    assert f"the outputs of layer 1 are kept {where}: 0.0 MiB" in err
    assert not list(cache.glob("*"))
    first, second = (read_json(run / "results.json") for run in project.runs)
    assert first["history"] == second["history"]


def test_the_time_of_what_is_kept_counts_as_training(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*args: Any, **options: Any) -> list[TaskPart]:
        ends = time.process_time() + 0.5
        while time.process_time() < ends:
            pass
        return keep_trunk(*args, **options)

    monkeypatch.setattr("ptv2kit.training.run.keep_trunk", slow)
    code, _, err = project.run(*STILL, "train.cache_trunk=memory")
    assert code == 0, err
    run = project.runs[0]
    assert read_json(run / "results.json")["seconds"] >= 0.5
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    first = next(row for row in rows if "training_cpu_seconds" in row)
    assert min(first["training_seconds"], first["training_cpu_seconds"]) >= 0.5


def test_dropout_is_said(project: Project) -> None:
    _, _, err = project.run("prompt.layers=[2]")
    assert "layer 1 is computed anew in each step, with the backbone's dropout" in err
    _, _, err = project.run("prompt.layers=[2]", "train.cache_trunk=memory")
    assert "computed without dropout" in err


def test_what_cannot_be_is_an_error_at_its_place(project: Project) -> None:
    project.change("recipe.yaml", "train: {epochs: 3,", "train: {cache_trunk: disk, epochs: 3,")
    code, _, err = project.run()
    assert code == 2
    assert "recipe.yaml:5:22: error: 'train.cache_trunk' is disk, but 'prompt.layers' is all" in err
    code, _, err = project.run("method=fine_tuning")
    assert (code, "'method' is fine_tuning" in err) == (2, True)
    assert not project.runs


def test_a_folder_that_cannot_be_written_is_named(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PTV2KIT_CACHE", str(tmp_path / "file"))
    code, _, err = project.run("prompt.layers=[2]", "train.cache_trunk=disk")
    assert code == 1
    assert f"{tmp_path / 'file'}: error: train.cache_trunk: the outputs of the lower layers" in err


@pytest.mark.night
@pytest.mark.parametrize(
    "words",
    [
        ["prompt.layers=[2]", "train.cache_trunk=memory"],
        ["train.batch_size=null", "train.batch_tokens=40", "train.micro_batch_size=1"],
    ],
    ids=["cache_trunk", "batch_tokens"],
)
def test_the_numbers_of_two_processes_are_those_of_one(project: Project, words: list[str]) -> None:
    """Each process keeps its own outputs; a batch of so many tokens is shared out as one of so many examples."""
    settings = [*PLAIN, "train.epochs=10", *words]
    code, _, err = project.run(*settings, "--runs-dir", "one")
    assert code == 0, err
    process = start(*settings, "distributed.gpus=2", "distributed.strategy=ddp", "--runs-dir", "two")
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    one, two = only_run(project.folder / "one"), only_run(project.folder / "two")
    assert len(losses(two)) >= 2
    assert losses(two) == pytest.approx(losses(one), abs=TOLERANCE)
    assert read_json(two / "results.json")["history"] == read_json(one / "results.json")["history"]
