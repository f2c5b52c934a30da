"""Splits of several files, several test splits, and limits, from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ptv2kit.cli.main import main

TASK = """task: many
data:
  source: conll
  columns: {words: 0, tags: 1}
  splits:
    train: train/**/*.txt
    validation: one.txt
    test: {near: one.txt, far: train/b.txt}
input: {words: words, max_length: 16}
labels: {scheme: iob2, column: tags, names: [LOC, PER]}
"""
RECIPE = """recipe: many
task: task.yaml
backbone: {name: %s}
prompt: {length: 2}
train: {epochs: 1, batch_size: 2, learning_rate: 1e-2}
expect: [{metric: span_f1, split: test_far, value: 0.0}]
"""


@pytest.fixture
def folder(tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train" / "deep").mkdir(parents=True)
    for name, who, count in (("one.txt", "ada", 1), ("train/b.txt", "alan", 3), ("train/deep/a.txt", "rome", 2)):
        tag = "B-LOC" if who == "rome" else "B-PER"
        (tmp_path / name).write_text(f"{who} {tag}\nmet O\n\n" * count)
    (tmp_path / "task.yaml").write_text(TASK)
    (tmp_path / "recipe.yaml").write_text(RECIPE % backbone)
    return tmp_path


def results(folder: Path) -> tuple[Path, dict[str, object]]:
    run = max(folder.glob("runs/many/*"))
    return run, json.loads((run / "results.json").read_text())


def test_each_test_split_is_scored(folder: Path) -> None:
    assert main(["run", "recipe.yaml", "--quiet"]) == 0
    run, found = results(folder)
    assert list(found["metrics"]) == ["validation", "test_near", "test_far"]  # type: ignore[arg-type]
    assert found["expect"][0]["found"] == found["metrics"]["test_far"]["span_f1"]  # type: ignore[index]
    assert sorted(path.name for path in (run / "predictions").iterdir()) == [
        "test_far.jsonl",
        "test_near.jsonl",
        "validation.jsonl",
    ]
    data = json.loads((run / "provenance.json").read_text())["data"]
    assert {name: split["rows"] for name, split in data.items()} == {
        "train": 5,
        "validation": 1,
        "test_near": 1,
        "test_far": 3,
    }
    first = json.loads((run / "predictions" / "test_far.jsonl").read_text().splitlines()[0])
    assert first["location"].endswith("train/b.txt:1")


def test_the_resolved_files_run_again_from_anywhere(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert main(["run", "recipe.yaml", "--quiet"]) == 0
    run, found = results(folder)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    assert main(["run", str(run / "recipe.resolved.yaml"), "--quiet", "--runs-dir", str(elsewhere)]) == 0
    [again] = elsewhere.glob("many/*/results.json")
    assert json.loads(again.read_text())["metrics"] == found["metrics"]
    assert again.parent.name.rpartition("-")[2] == run.name.rpartition("-")[2]


def test_a_changed_file_changes_the_key(folder: Path) -> None:
    for text in ("", "ada B-PER\n"):
        with (folder / "train" / "deep" / "a.txt").open("a") as file:
            file.write(text)
        assert main(["run", "recipe.yaml", "--quiet"]) == 0
    assert len({run.name.rpartition("-")[2] for run in folder.glob("runs/many/*")}) == 2


def test_limits_draw_the_same_rows_for_every_training_seed(folder: Path) -> None:
    drawn = []
    for seed, of_limit in ((1, 11), (2, 11), (1, 12), (1, 13), (1, 14)):
        seeds = [f"train.seed={seed}", f"limit.seed={of_limit}"]
        assert main(["run", "recipe.yaml", "--quiet", "limit.test=2", "limit.train=4", *seeds]) == 0
        run, _ = results(folder)
        rows = [json.loads(line) for line in (run / "predictions" / "test_far.jsonl").read_text().splitlines()]
        drawn.append(tuple(row["location"] for row in rows))
        assert json.loads((run / "provenance.json").read_text())["data"]["train"]["rows"] == 4
        for file in sorted(run.rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()
        run.rmdir()
    assert all(len(rows) == 2 for rows in drawn)
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1


def test_an_expectation_of_a_split_that_is_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(text.replace("test_far", "test_fra"))
    assert main(["run", "recipe.yaml"]) == 2
    err = capsys.readouterr().err
    assert "'expect[0].split' is 'test_fra', but task 'many' has no such split" in err
    assert "hint: did you mean 'test_far'?" in err
    assert not (folder / "runs").exists()


def test_a_pattern_without_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (folder / "task.yaml").read_text()
    (folder / "task.yaml").write_text(text.replace("train/**/*.txt", "train/*.conll"))
    assert main(["run", "recipe.yaml"]) == 3
    assert "file 'train/*.conll' of split 'train' was not found" in capsys.readouterr().err
