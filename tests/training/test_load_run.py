"""Runs that are loaded from their folders, without their data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ptv2kit.cli.main import main
from ptv2kit.data.rows import Row
from ptv2kit.errors import ConfigError, DataError, ProjectError
from ptv2kit.training.load_run import load_run
from tests.projects import Project, project

__all__ = ["project"]
TOKENS = {"input_ids": torch.tensor([[2, 5, 7, 8, 3]]), "attention_mask": torch.ones(1, 5, dtype=torch.long)}


@pytest.mark.parametrize("words", [[], ["method=p_tuning"], ["method=prefix_tuning"], ["method=fine_tuning"]])
def test_a_run_predicts_as_it_did(project: Project, words: list[str]) -> None:
    """Labels that were found in the training rows come from the run; the rows are gone."""
    project.change("tiny.yaml", ", names: [LOC, PER]", "")
    assert project.run(*words, "train.epochs=1")[0] == 0
    [run] = project.runs
    predictions = [json.loads(line) for line in (run / "predictions" / "validation.jsonl").read_text().splitlines()]
    (project.folder / "rows.jsonl").rename("elsewhere.jsonl")
    loaded = load_run(run, device="cpu")
    assert loaded.scheme.names == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    assert not loaded.model.training
    row = json.loads(Path("elsewhere.jsonl").read_text().splitlines()[0])
    features = loaded.scheme.encode(Row(row, "elsewhere.jsonl:1"), 0)
    with torch.no_grad():
        logits = loaded.model(**loaded.scheme.collate(features).inputs())
    [prediction] = loaded.scheme.decode(features, logits)
    assert list(prediction.to_json("x")["label"]) == predictions[0]["label"]
    assert prediction.probability == pytest.approx(predictions[0]["probability"], abs=1e-5)


def test_each_task_of_several(project: Project) -> None:
    (project.folder / "other.yaml").write_text(
        (project.folder / "tiny.yaml").read_text().replace("task: tiny", "task: other")
    )
    project.change("recipe.yaml", "task: tiny.yaml", "task: [tiny.yaml, other.yaml]")
    assert project.run("train.epochs=1")[0] == 0
    [run] = project.runs
    with pytest.raises(ConfigError, match="has several tasks"):
        load_run(run)
    with pytest.raises(ConfigError, match="has no task 'others'"):
        load_run(run, "others")
    logits = []
    for task in ("tiny", "other"):
        with torch.no_grad():
            logits.append(load_run(run, task).model(**TOKENS))
    assert not torch.equal(*logits)
    assert main(["export", str(run), "--to", "adapter"]) == 2
    assert "name one of them: tiny, other" in project.capsys.readouterr().err
    assert main(["export", str(run), "--to", "adapter", "--task", "other"]) == 0


def test_damaged_folders_are_named(project: Project) -> None:
    assert project.run("train.epochs=1")[0] == 0
    [run] = project.runs
    prompt = run / "prompt" / "prompt.safetensors"
    whole = prompt.read_bytes()
    prompt.write_bytes(whole[:-5])
    with pytest.raises(DataError, match=r"prompt\.safetensors"):
        load_run(run)
    prompt.write_bytes(whole)
    recipe = run / "recipe.resolved.yaml"
    text = recipe.read_text()
    recipe.write_text(text.replace("length: 4", "length: 6"))
    with pytest.raises(DataError, match="does not fit the recipe"):
        load_run(run)
    recipe.unlink()
    with pytest.raises(ConfigError, match=r"which has 'recipe\.resolved\.yaml'"):
        load_run(run)
    recipe.write_text(text)
    (run / "task.resolved.yaml").unlink()
    with pytest.raises(ProjectError, match=r"task\.resolved\.yaml"):
        load_run(run)
