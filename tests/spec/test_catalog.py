"""Names of tasks, recipes and suites: the project's files first, then the catalog's."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptv2kit.cli.main import main
from ptv2kit.errors import ConfigError
from ptv2kit.spec.catalog import FOLDERS, catalog_entry, catalog_folder, entries, find_file
from ptv2kit.spec.load import load_recipe
from tests.projects import Project, project

__all__ = ["project"]
RTE = (Path(__file__).parents[2] / "tasks/rte.yaml").read_text()


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_name_is_found_in_an_empty_folder(empty: Path) -> None:
    assert find_file("quickstart", ["recipe"]) == catalog_folder() / "recipes/quickstart.yaml"
    assert find_file("mini/table3", ["recipe", "suite"]) == catalog_folder() / "recipes/suites/mini/table3.yaml"
    assert find_file("rte", ["task"]).is_file()


def test_the_projects_file_wins_and_a_path_wins_over_both(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (empty / "tasks").mkdir()
    (empty / "tasks/rte.yaml").write_text(RTE.replace("max_length: 256", "max_length: 64"))
    assert find_file("rte", ["task"]) == Path("tasks/rte.yaml")
    assert load_recipe(find_file("mini-rte", ["recipe"])).task.task.input.max_length == 64
    (empty / "rte.yaml").write_text(RTE)
    assert find_file("rte.yaml", ["task"]) == Path("rte.yaml")
    both = [entry for entry in entries("task") if entry.name == "rte"]
    assert [(entry.origin, entry.hidden) for entry in both] == [("project", False), ("catalog", True)]
    assert main(["ls", "tasks"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines() if line.startswith("rte\t")]
    assert [line[1] for line in lines] == ["project", "catalog, hidden by the project's"]


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["run", "quikstart"], "there is no recipe or suite 'quikstart'", "did you mean 'quickstart'?"),
        (["run", "mini/tabel3"], "there is no recipe or suite 'mini/tabel3'", "did you mean 'mini/table3'?"),
        (["preview", "rtee"], "there is no task or recipe 'rtee'", "did you mean 'rte'?"),
        (["plan", "glm-10b-bolq"], "there is no recipe or suite", "did you mean 'glm-10b-boolq'?"),
        (["validate", "zzzzzz"], "looked in recipes/, recipes/suites/, tasks/", "'ptv2kit ls tasks'"),
        (["cp", "glm-10b-bolq"], "the catalog has no task or recipe or suite", "did you mean 'glm-10b-boolq'?"),
        (["cp", "quickstart"], "'quickstart' is a task and a recipe", "say which: --kind task"),
        (["evaluate", "quikstart"], "there are no runs of this name", ""),
    ],
)
def test_unknown_names_say_where_they_were_looked_up(
    empty: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str, hint: str
) -> None:
    assert main(words) == 2
    err = capsys.readouterr().err
    assert message in err
    assert hint in err


def test_a_task_of_a_recipe_is_looked_up_in_the_catalog(empty: Path) -> None:
    (empty / "recipe.yaml").write_text(
        "recipe: r\ntask: rtee\nbackbone: {name: mini}\nprompt: {length: 4}\ntrain: {epochs: 1, learning_rate: 0.1}\n"
    )
    with pytest.raises(ConfigError, match=r"recipe.yaml:2:7: error: there is no task 'rtee'") as info:
        load_recipe(Path("recipe.yaml"))
    assert "did you mean 'rte'?" in str(info.value)
    (empty / "recipe.yaml").write_text((empty / "recipe.yaml").read_text().replace("rtee", "rte"))
    assert load_recipe(Path("recipe.yaml")).task.task.task == "rte"


def test_a_task_cannot_be_run(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (empty / "rte.yaml").write_text(RTE)
    assert main(["run", "rte.yaml"]) == 2
    err = capsys.readouterr().err
    assert "'rte.yaml' is a task, which a recipe trains" in err
    assert "ptv2kit new recipe rte.yaml" in err


def test_a_copy_brings_what_it_extends_and_is_found_by_its_name(
    empty: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cp", "glm-10b-boolq"]) == 0
    assert capsys.readouterr().out.split() == ["recipes/glm-10b-boolq.yaml", "recipes/base/glm.yaml"]
    assert find_file("glm-10b-boolq", ["recipe"]) == Path("recipes/glm-10b-boolq.yaml")
    assert load_recipe(Path("recipes/glm-10b-boolq.yaml")).recipe.backbone.name == "THUDM/glm-10b"
    assert main(["cp", "glm-10b-boolq"]) == 2
    assert "already exists" in capsys.readouterr().err
    assert main(["cp", "glm-10b-cb"]) == 0, "a shared ancestor that is there stays"
    assert main(["cp", "mini/table3", "study"]) == 0
    assert main(["validate", "study/recipes/suites/mini/table3.yaml"]) == 0
    assert main(["cp", "quickstart", "--kind", "task"]) == 0
    assert (empty / "tasks/quickstart/train.jsonl").is_file()


@pytest.mark.parametrize("kind", ["task", "recipe", "suite"])
def test_everything_in_the_catalog_can_be_copied(tmp_path: Path, kind: str) -> None:
    from ptv2kit.spec.catalog import copy_entry

    names = [entry.name for entry in entries(kind, tmp_path)]  # pyright: ignore[reportArgumentType]
    assert len(names) > 10
    for name in names:
        written = copy_entry(catalog_entry(name, kind), tmp_path / name.replace("/", "_"))  # pyright: ignore[reportArgumentType]
        assert FOLDERS[kind] in str(written[0])  # pyright: ignore[reportArgumentType]


def test_a_run_is_named_by_its_recipe(project: Project) -> None:
    assert project.run("train.epochs=1")[0] == 0
    [first] = project.runs
    assert project.run("train.epochs=1", "train.seed=5")[0] == 0
    newest = next(run for run in project.runs if run != first)
    (newest / "results.json").unlink()
    project.capsys.readouterr()
    for name in ("tiny", "runs/tiny", str(first)):
        assert main(["evaluate", name, "--json"]) == 0
        assert first.name in project.capsys.readouterr().out or name == str(first)
    assert main(["predict", "tiny", "rows.jsonl"]) == 0
    assert main(["export", "tiny", "--to", "adapter"]) in (0, 2)
    project.capsys.readouterr()
    (first / "results.json").unlink()
    assert main(["predict", "tiny", "rows.jsonl"]) == 2
    assert "no run in 'runs/tiny' is finished" in project.capsys.readouterr().err
    assert main(["predict", "tinny", "rows.jsonl"]) == 2
    assert "did you mean 'tiny'?" in project.capsys.readouterr().err
