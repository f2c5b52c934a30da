"""A search whose trials are trained side by side: `train.parallel_trials`."""

from __future__ import annotations

import csv
import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from ptv2kit.cli.main import main
from ptv2kit.reporting.run_folder import RunRecorder
from ptv2kit.training.checkpoints import load_prompt

TASK = """task: tiny
data: {source: jsonl, splits: {train: rows.jsonl, validation: rows.jsonl, test: rows.jsonl}}
input: {words: words, max_length: 16}
labels: {scheme: iob2, column: tags, names: [LOC, PER]}
"""
RECIPE = """recipe: tiny
task: tiny.yaml
backbone: {name: BACKBONE, dropout: 0, attention_dropout: 0}
prompt: {length: 4, layers: [2]}
train: {epochs: 2, batch_size: 4, learning_rate: 0.05}
"""
SEARCH = """suite: look
recipe: recipe.yaml
set: {train.parallel_trials: 4}
search:
  trials: 4
  space:
    train.learning_rate: {low: 1e-3, high: 1e-1, log: true}
    prompt.dropout: {values: [0.0, 0.2]}
    train.seed: {values: [1, 2]}
"""


@dataclass
class Project:
    """A folder with suite, recipe, task and data, and the command run in it."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    def run(self, text: str, *words: str, verb: str = "run") -> tuple[int, str, str]:
        (self.folder / "suite.yaml").write_text(text)
        code = main([verb, "suite.yaml", *words])
        captured = self.capsys.readouterr()
        return code, captured.out, captured.err

    def table(self, suite: str = "look") -> list[dict[str, str]]:
        return list(csv.DictReader((self.folder / "runs" / suite / "table.csv").read_text().splitlines()))

    def run_folder(self, row: Mapping[str, str], suite: str = "look") -> Path:
        return self.folder / "runs" / suite / row["run"]


@pytest.fixture
def project(
    tmp_path: Path,
    backbone: Path,
    task_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Project:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PTV2KIT_DATA", raising=False)
    (tmp_path / "rows.jsonl").write_text((task_file.parent / "rows.jsonl").read_text())
    (tmp_path / "tiny.yaml").write_text(TASK)
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("BACKBONE", str(backbone)))
    return Project(tmp_path, capsys)


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def test_trials_side_by_side_are_the_trials_one_by_one(project: Project) -> None:
    code, _, err = project.run(SEARCH)
    assert code == 0, err
    assert err.count("the outputs of layer 1 are kept in memory") == 1, "computed once for all"
    assert err.count("train: 12 rows") == 1, "read once for all"
    beside = project.table()
    alone = SEARCH.replace("suite: look", "suite: alone")
    code, _, err = project.run(alone, "train.parallel_trials=1", "search.trials=1")
    assert code == 0, err
    assert "epoch   1/2" in err
    assert "trial-001  epoch" not in err
    [first] = project.table("alone")
    assert {key: first[key] for key in ("learning_rate", "seed")} == {
        key: beside[0][key] for key in ("learning_rate", "seed")
    }
    for row in beside:
        folder = project.run_folder(row)
        values = [f"train.{key}={row[key]}" for key in ("learning_rate", "seed")]
        assert main(["run", "recipe.yaml", *values, f"prompt.dropout={row['dropout']}", "--quiet", "--json"]) == 0
        lone = json.loads(project.capsys.readouterr().out)
        [again] = (project.folder / "runs/tiny").glob(f"*-{folder.name.rpartition('-')[2]}")
        assert {path.name for path in folder.iterdir()} == {path.name for path in again.iterdir()}
        found, expected = load_prompt(folder / "prompt")[0], load_prompt(again / "prompt")[0]
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4)
        assert results(folder)["score"] == pytest.approx(lone["score"], abs=0.01)
        assert (folder / "predictions/test.jsonl").read_text().count("\n") == 12
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [line["kind"] for line in lines] == ["validation", "train", "validation"]


def test_a_search_goes_on_with_another_number_side_by_side(project: Project) -> None:
    assert project.run(SEARCH, "search.trials=3", "train.parallel_trials=2")[0] == 0
    before = [row["run"] for row in project.table()]
    code, _, err = project.run(SEARCH, "search.trials=5")
    assert code == 0, err
    rows = project.table()
    assert [row["run"] for row in rows[:3]] == before
    assert [row["status"] for row in rows] == ["finished"] * 5


def test_run_folders_are_those_of_any_run(project: Project) -> None:
    """The best recipe, evaluation, answers and a report read them."""
    code, out, err = project.run(SEARCH + "  final: {train.epochs: 3}\n")
    assert code == 0, err
    assert "best: final with " in out
    assert main(["run", "runs/look/best.yaml", "--quiet"]) == 0
    folder = project.run_folder(project.table()[1])
    (project.folder / "new.txt").write_text("ada left rome\n")
    project.capsys.readouterr()
    assert main(["evaluate", str(folder), "--json"]) == 0
    evaluated = json.loads(project.capsys.readouterr().out)
    assert evaluated["metrics"]["span_f1"] == pytest.approx(results(folder)["score"], abs=0.01)
    assert main(["predict", str(folder), "new.txt"]) == 0
    assert main(["report", "runs/look"]) == 0


def test_trials_of_another_form_are_trained_apart(project: Project) -> None:
    """One of prompt.length and batch size cannot share a pass with another; those that are alike still do."""
    text = SEARCH.replace("train.seed: {values: [1, 2]}", "prompt.length: {values: [2, 4]}")
    code, _, err = project.run(
        text.replace("search:", "search:\n  sampler: grid\n  pruner: none")
        .replace("  trials: 4\n", "")
        .replace("{low: 1e-3, high: 1e-1, log: true}", "{values: [0.01, 0.05]}")
    )
    assert code == 0, err
    rows = project.table()
    assert len(rows) == 8
    assert {row["status"] for row in rows} == {"finished"}
    for row in rows:
        length = json.loads((project.run_folder(row) / "prompt/prompt.json").read_text())["prompt_length"]
        assert str(length) == row["length"]
    assert err.count("train: 12 rows") == 4, "of four trials at a time two are alike"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_search_tries_the_trials_that_ran_again(
    project: Project, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    original = RunRecorder.on_step
    steps: list[int] = []

    def interrupting(self: RunRecorder, step: int, *rest: Any) -> None:
        steps.append(step)
        if len(steps) == 10:
            signal.raise_signal(number)
        original(self, step, *rest)

    monkeypatch.setattr(RunRecorder, "on_step", interrupting)
    code, _, err = project.run(SEARCH)
    assert code == 128 + number
    assert "interrupted after 0 of 4 cells" in err
    before = project.table()
    assert [row["status"] for row in before] == ["waiting"] * 4
    folders = sorted((project.folder / "runs/look/cells").glob("*/*"))
    status = "terminated" if number == signal.SIGTERM else "interrupted"
    assert [results(folder)["status"] for folder in folders] == [status] * 4
    monkeypatch.setattr(RunRecorder, "on_step", original)
    assert main(["run", str(folders[0]), "--resume", "--quiet"]) == 0, "it is a run like any other"
    code, _, err = project.run(SEARCH)
    assert code == 0, err
    after = project.table()
    assert [row["status"] for row in after] == ["finished"] * 4
    for key in ("learning_rate", "seed"):
        assert [row[key] for row in after] == [row[key] for row in before], "with the same values"


def test_the_pruner_stops_a_trial_and_the_others_go_on(project: Project) -> None:
    code, _, err = project.run(
        """suite: look
recipe: recipe.yaml
set: {train.parallel_trials: 5, train.epochs: 4}
search:
  sampler: grid
  space:
    train.learning_rate: {values: [0.05, 0.051, 0.052, 0.053, 0.054, 1e-7, 0.1]}
  warmup_epochs: 2
"""
    )
    assert code == 0, err
    rows = project.table()
    assert [row["status"] for row in rows] == [*["finished"] * 5, "stopped", "finished"]
    assert [int(row["epochs"]) for row in rows] == [4, 4, 4, 4, 4, 2, 4]
    assert results(project.run_folder(rows[5]))["status"] == "stopped"


def test_a_trial_that_diverges_fails_alone(project: Project) -> None:
    text = SEARCH.replace("{low: 1e-3, high: 1e-1, log: true}", "{values: [0.01, 1e30]}").replace(
        "search:", "search:\n  sampler: grid"
    )
    text = text.replace("  trials: 4\n", "").replace("    prompt.dropout: {values: [0.0, 0.2]}\n", "")
    code, _, err = project.run(text, "train.max_gradient_norm=0")
    assert code == 0, err
    rows = project.table()
    assert [row["status"] for row in rows] == ["finished", "finished", "failed", "failed"]
    assert "became" in rows[2]["error"]
    assert "what was kept lies in" in err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("method: fine_tuning", "but 'method' fine_tuning trains the backbone, which trials cannot share"),
        ("task: [tiny.yaml, other.yaml]", "but the recipe has several tasks, and trials side by side have one"),
        (
            "distributed.strategy: zero2",
            "but 'distributed.strategy' is zero2, and trials side by side have one process",
        ),
        ("distributed.gpus: 2", "but 'distributed.gpus' is 2, and trials side by side have one process"),
        ("trackers: [wandb]", "but the tracker 'wandb' knows one run at a time"),
        ("train.parallel_trials: 0", "'train.parallel_trials' must be at least 1, found 0"),
    ],
)
def test_what_cannot_be_side_by_side_is_refused(project: Project, changes: str, message: str) -> None:
    (project.folder / "other.yaml").write_text(TASK.replace("task: tiny", "task: other"))
    key = changes.partition(":")[0]
    kept = "" if key == "train.parallel_trials" else "train.parallel_trials: 4, "
    text = SEARCH.replace("set: {train.parallel_trials: 4}", f"set: {{{kept}prompt.layers: all, {changes}}}")
    code, _, err = project.run(text.replace("    prompt.dropout: {values: [0.0, 0.2]}\n", ""))
    assert code == 2
    assert message in err
    assert not (project.folder / "runs").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            SEARCH[: SEARCH.index("search:")] + "grid: {train.seed: [1, 2]}\n",
            "suite.yaml:3:7: error: 'train.parallel_trials' is for the trials of a search, and this suite has none",
        ),
        (
            SEARCH.replace("set: {train.parallel_trials: 4}\n", "") + "    train.parallel_trials: {values: [1, 2]}\n",
            "error: 'train.parallel_trials' is the same for all trials of a search",
        ),
    ],
)
def test_it_is_said_once_for_a_search(project: Project, text: str, message: str) -> None:
    code, _, err = project.run(text)
    assert code == 2
    assert message in err
