"""`ptv2kit run` with several tasks in one recipe, and what starts from it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ptv2kit.cli.main import main
from tests.projects import read_json

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
class Project:
    """A folder with tasks, recipes and data, and the command run in it."""

    folder: Path
    backbone: Path
    capsys: pytest.CaptureFixture[str]

    def recipe(self, name: str, tasks: str, *lines: str) -> None:
        text = (
            f"recipe: {name}\ntask: {tasks}\nbackbone: {{name: {self.backbone}}}\nprompt: {{length: 4}}\n"
            "train: {epochs: 3, batch_size: 4, learning_rate: 0.05, mixing: uniform}\n"
        )
        (self.folder / f"{name}.yaml").write_text(text + "".join(f"{line}\n" for line in lines))

    def run(self, name: str, *words: str) -> tuple[int, str, str]:
        code = main(["run", f"{name}.yaml", *words])
        captured = self.capsys.readouterr()
        return code, captured.out, captured.err

    def folder_of(self, name: str) -> Path:
        return sorted((self.folder / "runs" / name).iterdir())[-1]


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
    rows = [json.loads(line) for line in (task_file.parent / "rows.jsonl").read_text().splitlines()]
    places = [
        {"words": row["words"], "tags": [tag if "LOC" in tag else "O" for tag in row["tags"]]} for row in rows[:6]
    ]
    who = [{"text": " ".join(row["words"]), "label": row["words"][0]} for row in rows]
    for name, lines in (("rows", rows), ("places", places), ("who", who)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, text in (("names", NAMES), ("places", PLACES), ("who", WHO)):
        (tmp_path / f"{name}.yaml").write_text(text)
    project = Project(tmp_path, backbone, capsys)
    project.recipe("shared", "[names.yaml, places.yaml]")
    return project


def tensors_in(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "prompt.safetensors")


def test_tasks_share_the_prompt_and_have_heads_of_their_own(project: Project) -> None:
    code, out, err = project.run("shared")
    assert code == 0, err
    run = project.folder_of("shared")
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
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.run("shared")
    first = project.folder_of("shared")
    monkeypatch.chdir(first)
    assert main(["run", "recipe.resolved.yaml", "--runs-dir", str(project.folder / "again")]) == 0
    [second] = (project.folder / "again" / "shared").iterdir()
    assert read_json(second / "results.json")["history"] == read_json(first / "results.json")["history"]
    assert read_json(second / "provenance.json")["key"] == read_json(first / "provenance.json")["key"]


def test_a_list_of_one_task_trains_as_the_task_itself(project: Project) -> None:
    project.recipe("one", "names.yaml")
    project.recipe("listed", "[names.yaml]")
    histories = []
    for name in ("one", "listed"):
        assert project.run(name)[0] == 0
        histories.append(read_json(project.folder_of(name) / "results.json")["history"])
    assert histories[0] == histories[1]


def test_families_may_be_mixed(project: Project) -> None:
    project.recipe(
        "mixed", "[names.yaml, who.yaml]", "expect:", "  - {metric: accuracy, task: who, value: 100, tolerance: 60}"
    )
    code, _, err = project.run("mixed", "train.epochs=4")
    assert code == 0, err
    results = read_json(project.folder_of("mixed") / "results.json")
    assert results["metrics"]["who/validation"]["accuracy"] >= 50
    assert results["metrics"]["names/validation"].keys() == {"span_f1", "token_accuracy"}


def test_one_task_goes_on_from_the_shared_prompt(project: Project) -> None:
    project.run("shared")
    shared = project.folder_of("shared")
    project.recipe("further", "names.yaml", f"init_from: {shared}")
    code, _, err = project.run("further", "train.learning_rate=1e-12", "train.epochs=1")
    assert code == 0, err
    assert "starts from the prompt" in err
    assert "the head of names" in err
    start, end = tensors_in(shared / "prompt"), tensors_in(project.folder_of("further") / "prompt")
    assert torch.allclose(start["prompt.layers.1"], end["prompt.layers.1"], atol=1e-6)
    assert torch.allclose(start["heads.names.linear.weight"], end["head.linear.weight"], atol=1e-6)


def test_a_new_task_goes_on_from_the_shared_prompt_with_a_fresh_head(project: Project) -> None:
    project.run("shared")
    project.recipe("fresh", "who.yaml", f"init_from: {project.folder_of('shared')}")
    code, _, err = project.run("fresh", "train.epochs=1")
    assert code == 0, err
    assert "heads are fresh" in err
    project.run("fresh", "train.epochs=1", "init_from=null")
    keys = {read_json(run / "provenance.json")["key"] for run in (project.folder / "runs" / "fresh").iterdir()}
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
def test_a_start_that_does_not_fit_is_refused(project: Project, words: list[str], message: str) -> None:
    project.run("shared", "train.epochs=1")
    project.recipe("further", "names.yaml", f"init_from: {project.folder_of('shared')}")
    for extra in ([], ["--dry-run"]):
        code, _, err = project.run("further", *words, *extra)
        assert code in (2, 3)
        assert message in err
    assert not (project.folder / "runs" / "further").exists()


def test_expectations_name_the_task(project: Project) -> None:
    project.recipe("unsaid", "[names.yaml, places.yaml]", "expect: [{metric: span_f1, value: 50, tolerance: 1}]")
    code, _, err = project.run("unsaid")
    assert code == 2
    assert "'expect[0]' must say which 'task'" in err
    assert "names, places" in err
    project.recipe(
        "missed", "[names.yaml, places.yaml]", "expect: [{metric: span_f1, task: places, value: 200, tolerance: 1}]"
    )
    code, _, err = project.run("missed", "train.epochs=1")
    assert code == 5
    assert "places" in err


def test_problems_of_all_tasks_are_told_at_once(project: Project) -> None:
    (project.folder / "places.jsonl").write_text('{"words": ["in", "rome"], "tags": ["O"]}\n')
    (project.folder / "rows.jsonl").write_text('{"words": ["ada"], "tags": ["B-ORG"]}\n')
    code, _, err = project.run("shared")
    assert code == 3
    assert "places.jsonl:1" in err
    assert "rows.jsonl:1" in err


def test_the_dry_run_names_the_files_of_all_tasks(project: Project) -> None:
    code, out, err = project.run("shared", "--dry-run")
    assert code == 0
    assert "places train:" in err
    assert out.count("---\n") == 2
    assert not (project.folder / "runs").exists()


def test_validate_and_preview_show_every_task(project: Project) -> None:
    assert main(["validate", "shared.yaml", "--data"]) == 0
    out = project.capsys.readouterr().out
    assert out.index("names:") < out.index("PER") < out.index("places:")
    assert main(["validate", "shared.yaml", "--data", "--json"]) == 0
    [report] = json.loads(project.capsys.readouterr().out)["files"]
    assert [(task["task"], task["splits"][0]["rows"]) for task in report["tasks"]] == [("names", 12), ("places", 6)]
    assert main(["preview", "shared.yaml"]) == 0
    out = project.capsys.readouterr().out
    assert out.index("names:") < out.index("ada/B-PER") < out.index("places:") < out.rindex("paris/B-LOC")
    assert main(["preview", "shared.yaml", "--task", "places", "--json"]) == 0
    assert json.loads(project.capsys.readouterr().out)["task"] == "places"
    assert main(["preview", "shared.yaml", "--task", "plaices"]) == 2
    assert "it has names, places" in project.capsys.readouterr().err
