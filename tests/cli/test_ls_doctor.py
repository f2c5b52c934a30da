"""`ptv2kit ls` and `ptv2kit doctor`."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from ptv2kit.cli.main import main
from tests.projects import Project, project, read_json

__all__ = ["project"]
ROOT = Path(__file__).parents[2]


def listed(project: Project, *words: str) -> list[dict[str, Any]]:
    project.capsys.readouterr()
    assert main(["ls", *words, "--json"]) == 0
    return json.loads(project.capsys.readouterr().out)


def test_every_file_that_is_shipped_is_listed(project: Project) -> None:
    tasks = listed(project, "tasks", str(ROOT / "tasks"))
    assert len(tasks) == len(list((ROOT / "tasks").glob("*.yaml")))
    assert not [each for each in tasks if "error" in each]
    recipes = listed(project, "recipes", str(ROOT / "recipes"))
    assert {Path(each["file"]).name for each in recipes} >= {path.name for path in (ROOT / "recipes").glob("*.yaml")}
    assert not [each for each in recipes if "error" in each]


def test_runs_with_their_scores_and_what_is_not_whole(project: Project) -> None:
    assert project.run()[0] == 0
    assert project.run("train.seed=12")[0] == 0
    first, second = project.runs
    (second / "results.json").unlink()
    found = listed(project, "runs")
    assert [each["run"] for each in found] == [str(path.relative_to(project.folder)) for path in (first, second)]
    results = read_json(first / "results.json")
    assert found[0]["status"] == "finished"
    assert found[0]["score"] == results["score"]
    assert found[0]["metric"] == "span_f1"
    assert found[1]["status"] == "unfinished"
    (first / "results.json").write_text("{")
    assert "cannot be read" in listed(project, "runs")[0]["status"]
    assert main(["ls", "runs"]) == 0
    assert "unfinished" in project.capsys.readouterr().out


def test_suites_with_the_number_of_their_runs_and_files_with_faults(project: Project) -> None:
    (project.folder / "suites").mkdir()
    (project.folder / "suites" / "a.yaml").write_text(
        "suite: a\nrecipe: ../recipe.yaml\ngrid: {prompt.length: [2, 4], train.seed: [1, 2, 3]}\n"
    )
    (project.folder / "suites" / "b.yaml").write_text("suite: b\nrecipes: ../recipe.yaml\n")
    (project.folder / "suites" / "c.yaml").write_text("something: else\n")
    found = listed(project, "suites", "suites")
    assert [each.get("runs") for each in found] == [6, None]
    assert "unknown key 'recipes'" in found[1]["error"]
    assert main(["ls", "suites", "suites"]) == 0
    assert "unknown key 'recipes'" in project.capsys.readouterr().out.replace("\n", " ")


def test_backbones_and_folders_that_are_not_there(project: Project) -> None:
    assert {"mini", "glm-tiny-random"} <= {each["backbone"] for each in listed(project, "backbones")}
    assert main(["ls", "backbones", "."]) == 2
    assert main(["ls", "tasks", "nowhere"]) == 2
    assert "'nowhere' does not exist" in project.capsys.readouterr().err
    (project.folder / "empty").mkdir()
    assert main(["ls", "tasks", "empty"]) == 0
    assert project.capsys.readouterr().out == "no tasks\n"


def test_the_doctor_names_what_is_missing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.capsys.readouterr()
    assert main(["doctor", "--json", "--data-root", "nowhere"]) == 0
    found = json.loads(project.capsys.readouterr().out)
    assert found["versions"]["torch"] == importlib.metadata.version("torch")
    assert found["features"]["backbone 'mini'"] == "ready"
    assert "does not exist" in found["folders"]["data root"]
    for able, said in ((True, "bf16 by AMX"), (False, "no fast bf16")):
        monkeypatch.setattr("ptv2kit.models.checkpoints.has_amx", lambda able=able: able)
        assert main(["doctor"]) == 0
        assert said in project.capsys.readouterr().out
    monkeypatch.setattr("ptv2kit.cli.doctor.importlib.util.find_spec", lambda name: None)
    assert main(["doctor"]) == 0
    assert "pip install 'ptv2kit[search]'" in project.capsys.readouterr().out


def test_the_command_alone_shows_its_help_and_lacking_words_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "train a recipe, or all runs of a suite" in capsys.readouterr().out
    for words, message in (
        (
            ["run"],
            "error: ptv2kit run needs FILE\n  hint: 'ptv2kit run --help' has examples; 'ptv2kit ls recipes' lists",
        ),
        (["predict"], "error: ptv2kit predict needs RUN\n"),
        (["preview"], "error: ptv2kit preview needs TASK\n"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--learning-rate", "1e-3"], "values of a recipe are given without dashes: train.learning_rate=1e-3"),
        (["--lr=1e-3"], "train.learning_rate=1e-3"),
        (["--num_train_epochs", "--json"], "train.epochs=VALUE"),
        (["--nonsense"], "'ptv2kit --help' and 'ptv2kit VERB --help' list the options"),
    ],
)
def test_options_of_other_tools_are_answered_with_the_key(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "quickstart", *words]) == 2
    assert hint in capsys.readouterr().err


def test_the_hub_is_asked_once_and_then_its_cache_serves(
    silent_hub: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert main(["plan", "quickstart", "backbone.name=nobody/nothing"]) == 3
    err = capsys.readouterr().err
    assert err.count("does not answer (no route): only its cache is used") == 1
    assert silent_hub == [2.5]
    assert huggingface_hub.constants.HF_HUB_OFFLINE
