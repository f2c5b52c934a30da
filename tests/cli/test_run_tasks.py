"""`ptv2kit run` with several tasks in one recipe, and what starts from it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ptv2kit.cli.main import main
from tests.projects import Project, project, read_json

__all__ = ["project"]

NAMES = """task: names
data: {source: jsonl, splits: {train: rows.jsonl, validation: rows.jsonl, test: rows.jsonl}}
input: {words: words, max_length: 16}
labels: {scheme: iob2, column: tags, names: [LOC, PER]}
metrics: [span_f1, token_accuracy]
"""
PLACES = """task: places
data: {source: jsonl, splits: {train: places.jsonl, validation: places.jsonl}}
input: {words: words, max_length: 16}
labels: {scheme: iob2, column: tags, names: [LOC]}
"""
WHO = """task: who
data: {source: jsonl, splits: {train: who.jsonl, validation: who.jsonl}}
input: {text: "{text}", max_length: 16}
labels: {scheme: classes, column: label, names: [ada, alan]}
"""


@dataclass
class TasksProject(Project):
    """A folder with tasks, recipes and data, and the command run in it."""

    backbone: Path

    def recipe(self, name: str, tasks: str, *lines: str) -> None:
        text = (
            f"recipe: {name}\ntask: {tasks}\nbackbone: {{name: {self.backbone}}}\nprompt: {{length: 4}}\n"
            "train: {epochs: 3, batch_size: 4, learning_rate: 0.05, mixing: uniform}\n"
        )
        (self.folder / f"{name}.yaml").write_text(text + "".join(f"{line}\n" for line in lines))

    def run(self, name: str, *words: str) -> tuple[int, str, str]:
        return self.command("run", f"{name}.yaml", *words)

    def folder_of(self, name: str) -> Path:
        return sorted((self.folder / "runs" / name).iterdir())[-1]


@pytest.fixture
def tasks(project: Project, backbone: Path) -> TasksProject:
    rows = [json.loads(line) for line in (project.folder / "rows.jsonl").read_text().splitlines()]
    places = [
        {"words": row["words"], "tags": [tag if "LOC" in tag else "O" for tag in row["tags"]]} for row in rows[:6]
    ]
    who = [{"text": " ".join(row["words"]), "label": row["words"][0]} for row in rows]
    for name, lines in (("rows", rows), ("places", places), ("who", who)):
        (project.folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, text in (("names", NAMES), ("places", PLACES), ("who", WHO)):
        (project.folder / f"{name}.yaml").write_text(text)
    tasks = TasksProject(project.folder, project.capsys, backbone)
    tasks.recipe("shared", "[names.yaml, places.yaml]")
    return tasks


def tensors_in(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "prompt.safetensors")


def test_tasks_share_the_prompt_and_have_heads_of_their_own(tasks: TasksProject) -> None:
    code, out, err = tasks.run("shared")
    assert code == 0, err
    run = tasks.folder_of("shared")
    assert "names: validation, epoch" in out
    assert "places: validation, epoch" in out
    assert "names: test, epoch" in out
    shared = tensors_in(run / "prompt")
    assert {name: tuple(value.shape) for name, value in shared.items() if "head" in name} == {
        "heads.names.linear.weight": (5, 32),
        "heads.names.linear.bias": (5,),
        "heads.places.linear.weight": (3, 32),
        "heads.places.linear.bias": (3,),
    }
    results = read_json(run / "results.json")
    assert results["status"] == "finished"
    assert results["parameters"]["head"] == 8 * 33
    assert results["parameters"]["prompt"] == 2 * 2 * 4 * 32
    means = [epoch["mean"] for epoch in results["history"]]
    for epoch in results["history"]:
        assert epoch.keys() == {"mean", "names/span_f1", "names/token_accuracy", "places/span_f1"}
        assert epoch["mean"] == pytest.approx((epoch["names/span_f1"] + epoch["places/span_f1"]) / 2)
    assert results["best_epoch"] == 1 + means.index(max(means))
    for task in ("names", "places"):
        own = [epoch[f"{task}/span_f1"] for epoch in results["history"]]
        best = results["best_epochs"][task]
        assert best == 1 + own.index(max(own))
        facts = read_json(run / "prompt" / task / "prompt.json")
        assert (facts["task"], facts["epoch"]) == (task, best)
        assert facts["validation"]["span_f1"] == pytest.approx(max(own))
        tensors = tensors_in(run / "prompt" / task)
        assert {"head.linear.weight", "prompt.layers.0", "prompt.layers.1"} <= tensors.keys()
        assert (run / "predictions" / task / "validation.jsonl").is_file()
        if best == results["best_epoch"]:
            assert torch.equal(tensors["prompt.layers.0"], shared["prompt.layers.0"])
    assert (run / "predictions" / "names" / "test.jsonl").is_file()


def test_the_resolved_recipe_of_several_tasks_runs_again_with_the_same_result_and_key(
    tasks: TasksProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks.run("shared")
    first = tasks.folder_of("shared")
    monkeypatch.chdir(first)
    assert main(["run", "recipe.resolved.yaml", "--runs-dir", str(tasks.folder / "again")]) == 0
    [second] = (tasks.folder / "again" / "shared").iterdir()
    assert read_json(second / "results.json")["history"] == read_json(first / "results.json")["history"]
    assert read_json(second / "provenance.json")["key"] == read_json(first / "provenance.json")["key"]


def test_a_list_of_one_task_trains_as_the_task_itself(tasks: TasksProject) -> None:
    tasks.recipe("one", "names.yaml")
    tasks.recipe("listed", "[names.yaml]")
    histories = []
    for name in ("one", "listed"):
        assert tasks.run(name)[0] == 0
        histories.append(read_json(tasks.folder_of(name) / "results.json")["history"])
    assert histories[0] == histories[1]


def test_families_may_be_mixed(tasks: TasksProject) -> None:
    tasks.recipe(
        "mixed", "[names.yaml, who.yaml]", "expect:", "  - {metric: accuracy, task: who, value: 100, tolerance: 60}"
    )
    code, _, err = tasks.run("mixed", "train.epochs=4")
    assert code == 0, err
    results = read_json(tasks.folder_of("mixed") / "results.json")
    assert results["metrics"]["who/validation"]["accuracy"] >= 50
    assert results["metrics"]["names/validation"].keys() == {"span_f1", "token_accuracy"}


def test_one_task_goes_on_from_the_shared_prompt(tasks: TasksProject) -> None:
    tasks.run("shared")
    shared = tasks.folder_of("shared")
    tasks.recipe("further", "names.yaml", f"init_from: {shared}")
    code, _, err = tasks.run("further", "train.learning_rate=1e-12", "train.epochs=1")
    assert code == 0, err
    assert "starts from the prompt" in err
    assert "the head of names" in err
    start, end = tensors_in(shared / "prompt"), tensors_in(tasks.folder_of("further") / "prompt")
    assert torch.allclose(start["prompt.layers.1"], end["prompt.layers.1"], atol=1e-6)
    assert torch.allclose(start["heads.names.linear.weight"], end["head.linear.weight"], atol=1e-6)


def test_a_new_task_goes_on_from_the_shared_prompt_with_a_fresh_head(tasks: TasksProject) -> None:
    tasks.run("shared")
    tasks.recipe("fresh", "who.yaml", f"init_from: {tasks.folder_of('shared')}")
    code, _, err = tasks.run("fresh", "train.epochs=1")
    assert code == 0, err
    assert "heads are fresh" in err
    tasks.run("fresh", "train.epochs=1", "init_from=null")
    keys = {read_json(run / "provenance.json")["key"] for run in (tasks.folder / "runs" / "fresh").iterdir()}
    assert len(keys) == 2, "what a run starts from is part of its key"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["init_from=nowhere"], "'nowhere' is not the folder of a run"),
        (["prompt.length=5"], "has length 4, but prompt.length is 5"),
        (["prompt.layers=[1]"], "'prompt.layers.1' has shape (2, 4, 4, 8). Expected nothing"),
        (["method=prompt_tuning"], "is one of p_tuning_v2, but method is prompt_tuning"),
        (["backbone.name=mini"], "was trained on the backbone"),
        (["prompt.reparameterization=mlp"], "brings a plain prompt"),
        (["method=fine_tuning"], "fine_tuning has none"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(tasks: TasksProject, words: list[str], message: str) -> None:
    tasks.run("shared", "train.epochs=1")
    tasks.recipe("further", "names.yaml", f"init_from: {tasks.folder_of('shared')}")
    for extra in ([], ["--dry-run"]):
        code, _, err = tasks.run("further", *words, *extra)
        assert code in (2, 3)
        assert message in err
    assert not (tasks.folder / "runs" / "further").exists()


def test_expectations_name_the_task(tasks: TasksProject) -> None:
    tasks.recipe("unsaid", "[names.yaml, places.yaml]", "expect: [{metric: span_f1, value: 50, tolerance: 1}]")
    code, _, err = tasks.run("unsaid")
    assert code == 2
    assert "'expect[0]' must say which 'task'" in err
    assert "names, places" in err
    tasks.recipe(
        "missed", "[names.yaml, places.yaml]", "expect: [{metric: span_f1, task: places, value: 200, tolerance: 1}]"
    )
    code, _, err = tasks.run("missed", "train.epochs=1")
    assert code == 5
    assert "places" in err


def test_problems_of_all_tasks_are_told_at_once(tasks: TasksProject) -> None:
    (tasks.folder / "places.jsonl").write_text('{"words": ["in", "rome"], "tags": ["O"]}\n')
    (tasks.folder / "rows.jsonl").write_text('{"words": ["ada"], "tags": ["B-ORG"]}\n')
    code, _, err = tasks.run("shared")
    assert code == 3
    assert "places.jsonl:1" in err
    assert "rows.jsonl:1" in err


def test_the_dry_run_names_the_files_of_all_tasks(tasks: TasksProject) -> None:
    code, out, err = tasks.run("shared", "--dry-run")
    assert code == 0
    assert "places train:" in err
    assert out.count("---\n") == 2
    assert not (tasks.folder / "runs").exists()


def test_validate_and_preview_show_every_task(tasks: TasksProject) -> None:
    assert main(["validate", "shared.yaml", "--data"]) == 0
    out = tasks.capsys.readouterr().out
    assert out.index("names:") < out.index("PER") < out.index("places:")
    assert main(["validate", "shared.yaml", "--data", "--json"]) == 0
    [report] = json.loads(tasks.capsys.readouterr().out)["files"]
    assert [(task["task"], task["splits"][0]["rows"]) for task in report["tasks"]] == [("names", 12), ("places", 6)]
    assert main(["preview", "shared.yaml"]) == 0
    out = tasks.capsys.readouterr().out
    assert out.index("names:") < out.index("ada/B-PER") < out.index("places:") < out.rindex("paris/B-LOC")
    assert main(["preview", "shared.yaml", "--task", "places", "--json"]) == 0
    assert json.loads(tasks.capsys.readouterr().out)["task"] == "places"
    assert main(["preview", "shared.yaml", "--task", "plaices"]) == 2
    assert "it has names, places" in tasks.capsys.readouterr().err
