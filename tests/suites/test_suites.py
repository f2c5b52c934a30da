"""Suites: what their files may say, what `ptv2kit run` makes of them, and that it goes on where it was stopped."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from ptv2kit.cli.main import main
from ptv2kit.spec.cells import load_file, load_suite
from ptv2kit.spec.load import ResolvedRecipe
from tests.projects import SuiteProject, end_at, project, suites

__all__ = ["project", "suites"]

ROOT = Path(__file__).parents[2]
GRID = """suite: sizes
recipe: recipe.yaml
set: {train.epochs: 2}
grid:
  train.learning_rate: [1e-3, 5e-2]
  prompt.length: [2, 4]
"""
SEARCH = """suite: look
recipe: recipe.yaml
set: {train.epochs: 2}
search:
  trials: 3
  space:
    train.learning_rate: {low: 1e-3, high: 1e-1, log: true}
    prompt.length: {values: [2, 4]}
"""


def test_a_grid_is_run_and_shown(suites: SuiteProject) -> None:
    code, out, err = suites.run(GRID)
    assert code == 0, err
    assert "[4/4] learning_rate=0.05,length=4" in err
    rows = suites.table()
    assert [(row["learning_rate"], row["length"]) for row in rows] == [
        ("0.001", "2"),
        ("0.001", "4"),
        ("0.05", "2"),
        ("0.05", "4"),
    ]
    assert {row["status"] for row in rows} == {"finished"}
    assert {row["epochs"] for row in rows} == {"2"}
    assert [int(row["trained"]) for row in rows[:2]] == [2 * 2 * 2 * 32 + 165, 2 * 2 * 4 * 32 + 165]
    results = json.loads((suites.folder / "runs/sizes" / rows[3]["run"] / "results.json").read_text())
    assert float(rows[3]["score"]) == pytest.approx(results["score"], abs=0.01)
    table = (suites.folder / "runs/sizes/table.md").read_text()
    assert "| learning_rate | length | validation span_f1 | status" in table
    assert "4 of 4 finished." in table
    assert out.splitlines()[0] in table
    assert "suite: runs/sizes" in out
    best = max(rows, key=lambda row: float(row["score"]))
    loaded = load_file(suites.folder / "runs/sizes/best.yaml")
    assert isinstance(loaded, ResolvedRecipe)
    assert loaded.recipe.train.learning_rate == float(best["learning_rate"])
    assert main(["run", "runs/sizes/best.yaml", "--quiet"]) == 0
    [again] = (suites.folder / "runs" / "tiny").iterdir()
    assert again.name.split("-")[2] == best["run"].split("-")[-1]


@pytest.mark.slow
def test_what_is_finished_is_not_run_again(suites: SuiteProject) -> None:
    assert suites.run(GRID)[0] == 0
    before = suites.runs()
    code, out, err = suites.run(GRID)
    assert (code, suites.runs()) == (0, before)
    assert err.count("finished before") == 4
    assert "| 0.05          | 4      |" in out
    suites.run(GRID.replace("[2, 4]", "[2, 4, 8]"))
    assert len(suites.runs()) == 6
    suites.run(GRID.replace("epochs: 2", "epochs: 1"))
    assert len(suites.runs()) == 10
    rows = suites.folder / "rows.jsonl"
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:-1]))
    suites.run(GRID.replace("epochs: 2", "epochs: 1"))
    assert len(suites.runs()) == 14, "other data, other cells"


@pytest.mark.slow
def test_only_some_cells_are_run(suites: SuiteProject) -> None:
    folder = suites.folder / "runs/sizes"
    code, out, err = suites.run(GRID, "--only", "*length=4", "--only", "learning_rate=0.001,*")
    assert code == 0, err
    chosen = ["learning_rate=0.001,length=2", "learning_rate=0.001,length=4", "learning_rate=0.05,length=4"]
    assert sorted(path.parent.name for path in folder.glob("cells/*/cell.json")) == chosen
    assert "learning_rate=0.05,length=2" not in out + err
    assert not list(folder.glob("table.*")) + list(folder.glob("best*.yaml")), "tables are of the whole suite"
    code, _, err = suites.run(GRID)
    assert (code, err.count("finished before")) == (0, 3), err
    assert len(suites.table()) == 4
    code, _, err = suites.run(GRID, "--only", "*length=5")
    assert code == 2
    assert "--only '*length=5' matches no cell" in err
    _, _, err = suites.run(SEARCH, "--only", "*")
    assert "--only chooses cells of a grid, and this suite has a search" in err


@pytest.mark.slow
def test_a_description_or_an_expectation_runs_nothing_again(suites: SuiteProject) -> None:
    suites.run(GRID)
    recipe = suites.folder / "recipe.yaml"
    recipe.write_text(recipe.read_text() + "description: new\nexpect: [{metric: span_f1, value: 99}]\n")
    code, _, err = suites.run(GRID)
    assert len(suites.runs()) == 4
    assert code == 5
    assert "error: learning_rate=0.001,length=2: validation span_f1: expected 99, found " in err


def test_a_cell_that_fails_stops_no_other_and_is_tried_again(suites: SuiteProject) -> None:
    suite = GRID.replace("1e-3, 5e-2", "1e30, 5e-2").replace("epochs: 2}", "epochs: 2, train.max_gradient_norm: 0.0}")
    code, out, err = suites.run(suite)
    assert code == 1
    assert err.count("error: cell 'learning_rate=1e+30,length=") == 2
    assert [row["status"] for row in suites.table()] == ["failed", "failed", "finished", "finished"]
    assert "became nan" in suites.table()[0]["error"]
    assert "| failed " in out
    suites.run(suite)
    assert len(suites.runs()) == 6


@pytest.mark.slow
def test_failures_of_one_kind_end_with_its_code(suites: SuiteProject, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("not enough memory: you tried to allocate")

    monkeypatch.setattr("ptv2kit.training.trainer.Trainer.train", full)
    assert suites.run(GRID)[0] == 4

    def broken(*_: object) -> None:
        raise KeyError("boom")

    monkeypatch.setattr("ptv2kit.training.trainer.Trainer.train", broken)
    code, _, err = suites.run(GRID)
    assert code == 1
    assert "internal error: KeyError: 'boom'" in err
    assert [row["status"] for row in suites.table()] == ["failed"] * 4


@pytest.mark.slow
@pytest.mark.parametrize("text", [GRID, SEARCH])
def test_an_interrupted_suite_goes_on(suites: SuiteProject, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    from ptv2kit.suites import cell

    original, calls = cell.train_recipe, []

    def second_is_interrupted(*args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs["name"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr("ptv2kit.suites.cell.train_recipe", second_is_interrupted)
    code, _, err = suites.run(text)
    assert code == 130
    assert "error: interrupted after 1 of" in err
    assert suites.run(text)[0] == 0
    assert calls[1] == calls[2]
    assert len(calls) == (5 if text == GRID else 4)


def test_a_signal_while_a_cell_is_prepared_ends_it(suites: SuiteProject, monkeypatch: pytest.MonkeyPatch) -> None:
    from ptv2kit.suites import cell

    original = cell.train_recipe

    def signalled(*args: Any, **kwargs: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    monkeypatch.setattr("ptv2kit.suites.cell.train_recipe", signalled)
    text = GRID.replace("train.epochs: 2", "train.epochs: 100000, train.patience: 100000")
    code, _, err = suites.run(text)
    assert code == 143, err
    assert "epoch " not in err, "it ends with its first step"
    assert [row["status"] for row in suites.table()] == ["interrupted", "waiting", "waiting", "waiting"]


def test_cases_have_their_own_values_and_best_recipes(suites: SuiteProject) -> None:
    suite = """suite: methods
cases:
  - {name: deep, recipe: recipe.yaml, grid: {prompt.length: [2, 4]}}
  - {name: shallow, recipe: recipe.yaml, set: {method: prompt_tuning}}
set: {train.epochs: 1}
grid: {train.seed: [1]}
"""
    code, out, err = suites.run(suite)
    assert code == 0, err
    assert [row["cell"] for row in suites.table("methods")] == [
        "deep,seed=1,length=2",
        "deep,seed=1,length=4",
        "shallow,seed=1",
    ]
    assert "| shallow |" in out
    for name in ("deep", "shallow"):
        recipe = load_file(suites.folder / f"runs/methods/best.{name}.yaml")
        assert isinstance(recipe, ResolvedRecipe)
        assert recipe.recipe.method == ("p_tuning_v2" if name == "deep" else "prompt_tuning")


@pytest.mark.slow
def test_a_search_is_run_shown_and_goes_on(suites: SuiteProject) -> None:
    text = SEARCH + "  final: {train.epochs: 3}\n"
    code, out, err = suites.run(text)
    assert code == 0, err
    assert "[trial 3/3] learning_rate=" in err
    rows = suites.table("look")
    assert [row["cell"] for row in rows] == ["trial-001", "trial-002", "trial-003", "final"]
    best = max(rows[:3], key=lambda row: float(row["score"]))
    assert (rows[3]["learning_rate"], rows[3]["epochs"]) == (best["learning_rate"], "3")
    recipe = load_file(suites.folder / "runs/look/best.yaml")
    assert isinstance(recipe, ResolvedRecipe)
    assert recipe.recipe.train.epochs == 3
    assert recipe.recipe.train.learning_rate == float(best["learning_rate"])
    assert "best: final with " in out
    before = suites.runs("look")
    assert len(before) == 4
    assert suites.run(text)[0] == 0
    assert suites.runs("look") == before
    assert suites.run(text, "search.trials=4")[0] == 0
    assert {row["cell"] for row in suites.table("look")} == {row["cell"] for row in rows} | {"trial-004"}
    assert suites.run(text, "train.batch_size=6")[0] == 0
    assert len(suites.runs("look")) >= len(before) + 4, "another recipe is another study"


def test_of_a_search_the_best_is_judged(suites: SuiteProject) -> None:
    recipe = suites.folder / "recipe.yaml"
    recipe.write_text(recipe.read_text() + "expect: [{metric: span_f1, value: 101}]\n")
    code, _, err = suites.run(SEARCH)
    assert code == 5
    assert err.count("error: ") == 1
    assert "error: trial-00" in err


def test_json_is_for_programs(suites: SuiteProject) -> None:
    code, out, err = suites.run(GRID, "--json", "--quiet")
    assert (code, err) == (0, "")
    summary = json.loads(out)
    assert (summary["suite"], summary["status"], summary["missed"]) == ("sizes", "finished", [])
    assert summary["cells"][0]["settings"] == {"train.learning_rate": 0.001, "prompt.length": 2}
    assert summary["best"] in {cell["name"] for cell in summary["cells"]}


@pytest.mark.parametrize("text", [GRID, SEARCH])
def test_a_dry_run_writes_nothing(suites: SuiteProject, text: str) -> None:
    code, out, _ = suites.run(text, "--dry-run")
    assert code == 0
    assert "learning_rate=0.001,length=2" in out
    assert not (suites.folder / "runs").exists()


def test_the_resolved_suite_runs_from_anywhere(suites: SuiteProject, monkeypatch: pytest.MonkeyPatch) -> None:
    suites.run(GRID)
    monkeypatch.chdir(suites.folder / "runs")
    assert main(["validate", "sizes/suite.resolved.yaml"]) == 0
    assert main(["run", "sizes/suite.resolved.yaml", "--runs-dir", "."]) == 0
    assert "finished before" in suites.capsys.readouterr().err
    assert len(suites.runs()) == 4


def test_a_password_is_not_written(suites: SuiteProject) -> None:
    (suites.folder / "x").mkdir()
    url = f"sqlite://ada:secret@/{suites.folder}/x/s.db"
    code, _, err = suites.run(SEARCH + f"  storage: {url}\n")
    assert code == 2, "SQLite has no users"
    assert "secret" not in err
    assert "secret" not in (suites.folder / "runs/look/suite.resolved.yaml").read_text()


def test_optuna_missing_is_said_before_anything_runs(suites: SuiteProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    code, _, err = suites.run(SEARCH)
    assert code == 2
    assert "hint: pip install 'ptv2kit[search]'" in err
    assert not (suites.folder / "runs").exists()
    assert suites.run(GRID, "--dry-run")[0] == 0


@pytest.mark.parametrize(
    ("text", "old", "new", "message"),
    [
        (
            GRID,
            "[2, 4]",
            "[2, four]",
            "suite.yaml:6:22: error: 'prompt.length' must be an integer, found text 'four' (cell",
        ),
        (GRID, "[2, 4]", "[2, four]", "(cell 'learning_rate=0.001,length=four' and 1 more)"),
        (GRID, "train.epochs", "train.epoch", "suite.yaml:3:20: error: unknown key 'train.epoch' (in every cell)"),
        (GRID, "train.epochs", "train.epoch", "hint: did you mean 'train.epochs'?"),
        (GRID, "train.epochs", "recipe", "suite.yaml:3:7: error: 'recipe' cannot be set in a suite"),
        (
            GRID,
            "train.epochs",
            "prompt.length",
            "suite.yaml:6:3: error: 'prompt.length' is varied, and is set in another",
        ),
        (GRID, "[2, 4]", "[2, 4, 2]", "suite.yaml:6:25: error: 'grid.prompt.length' lists 2 twice"),
        (GRID, "[2, 4]", "[]", "suite.yaml:6:18: error: 'grid.prompt.length' must have at least 1 items"),
        (GRID, "[2, 4]", "2", "suite.yaml:6:18: error: 'grid.prompt.length' must be a list, found 2"),
        (GRID, "recipe.yaml", "none.yaml", "suite.yaml:2:9: error: recipe file 'none.yaml' does not exist"),
        (GRID, "recipe: recipe.yaml\n", "", "suite.yaml:1:1: error: missing key 'recipe'"),
        (GRID, GRID[GRID.index("grid") :], "", "suite.yaml:1:1: error: a suite has 'grid', 'cases' or 'search'"),
        (GRID, "grid:", "gird:", "suite.yaml:4:1: error: unknown key 'gird'"),
        (SEARCH, "trials: 3", "seed: 3", "suite.yaml:4:1: error: missing key 'search.trials'"),
        (SEARCH, "trials: 3", "sampler: grid", "must have 'values', or a 'step'"),
        (SEARCH, "low: 1e-3", "low: 1", "must have low ≤ high, found 1 and 0.1"),
        (SEARCH, "low: 1e-3", "low: 0", "low must be greater than 0, found 0"),
        (SEARCH, "log: true", "log: true, step: 0.1", "has 'log' or 'step', not both"),
        (SEARCH, "{values: [2, 4]}", "{values: [2, 4], low: 2}", "has 'values' or a range, not both"),
        (SEARCH, "{values: [2, 4]}", "{low: 2}", "must have 'low' and 'high', or 'values'"),
        (SEARCH, "{values: [2, 4]}", "{low: 1, high: 2.5, integer: true}", "must have whole numbers"),
        (SEARCH, "{values: [2, 4]}", "{low: 1, high: 2}", "suite.yaml:8:5: error: 'prompt.length' must be an integer"),
        (SEARCH, "[2, 4]", "[2, 0]", "suite.yaml:8:5: error: 'prompt.length' must be at least 1, found 0"),
        (
            SEARCH,
            "train.epochs",
            "prompt.length",
            "suite.yaml:8:5: error: 'prompt.length' is varied, and is set in another",
        ),
        (
            SEARCH,
            "search:",
            "grid: {train.seed: [1]}\nsearch:",
            "suite.yaml:4:1: error: a suite has 'grid' or 'search', not",
        ),
        (SEARCH, "trials: 3", "trials: 3\n  final: {train.epoch: 3}", "unknown key 'train.epoch' (cell 'learning_rate"),
        (SEARCH, "high: 1e-1", "hihg: 1e-1", "unknown key 'search.space.train.learning_rate.hihg'"),
    ],
)
def test_mistakes_are_named_where_they_stand(suites: SuiteProject, text: str, old: str, new: str, message: str) -> None:
    assert old in text
    for verb in ("validate", "run"):
        code, _, err = suites.run(text.replace(old, new, 1), verb=verb)
        assert code == 2
        assert message in err
    assert not (suites.folder / "runs").exists()


def test_what_needs_backbone_or_data_is_found_before_anything_runs(suites: SuiteProject) -> None:
    code, _, err = suites.run(GRID.replace("[2, 4]", "[2, 60]"))
    assert code == 2
    assert "exceed the 64 positions" in err
    assert "(cell 'learning_rate=0.001,length=60' and 1 more)" in err
    (suites.folder / "rows.jsonl").unlink()
    code, _, err = suites.run(GRID)
    assert code == 3
    assert "of split 'train' was not found" in err
    assert err.count("error:") == 2, "two splits, said once for all cells"
    assert not (suites.folder / "runs").exists()


def test_an_override_goes_to_every_cell_and_to_nothing_that_is_varied(suites: SuiteProject) -> None:
    (suites.folder / "suite.yaml").write_text(GRID)
    suite = load_suite(Path("suite.yaml"), ["train.epochs=1", "train.seed=3"])
    assert {(cell.resolved.recipe.train.epochs, cell.resolved.recipe.train.seed) for cell in suite.cells} == {(1, 3)}
    code, _, err = suites.run(GRID, "prompt.length=8")
    assert code == 2
    assert "command line: error: the suite varies 'prompt.length'" in err
    assert suites.run(GRID, "prompt={length: 8}")[0] == 2


def test_other_verbs_take_suites(suites: SuiteProject) -> None:
    assert suites.run(SEARCH, verb="validate")[1] == "suite.yaml: ok (suite)\n"
    code, out, _ = suites.run(SEARCH, "search.trials", verb="explain")
    assert (code, out.split()) == (0, ["search.trials", "3", "suite.yaml:5:11"])
    code, _, err = suites.run(SEARCH, verb="preview")
    assert (code, "a suite has no rows" in err) == (2, True)
    assert suites.run(SEARCH, "--data", verb="validate")[0] == 2


def test_every_listed_value_and_both_ends_are_validated(suites: SuiteProject) -> None:
    (suites.folder / "suite.yaml").write_text(SEARCH.replace("[2, 4]", "[2, 4, 8]"))
    cells = load_suite(Path("suite.yaml")).cells
    assert [tuple(cell.settings.values()) for cell in cells] == [(0.001, 2), (0.1, 4), (0.1, 8)]


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished(suites: SuiteProject) -> None:
    text = SEARCH.replace("train.epochs: 2", "train.epochs: 100000, train.patience: 100000")
    code, out, err = end_at(suites.start(text), "epoch   3/", signal.SIGINT)
    assert code == 130, err
    assert "Traceback" not in err
    assert "run the same command again to resume" in err
    assert "| waiting |" in out


def test_a_trial_has_one_process_and_a_cell_one_machine(suites: SuiteProject) -> None:
    code, _, err = suites.run(SEARCH, "distributed.gpus=2")
    assert code == 2
    assert "a trial of a search has one process" in err
    assert suites.run(SEARCH, "distributed.gpus=1", "--dry-run")[0] == 0
    code, _, err = suites.run(GRID, "distributed.hostfile=hosts")
    assert code == 2
    assert "a cell of a suite is trained on one machine" in err


def test_the_plan_counts_inputs_as_long_as_the_rows_are(suites: SuiteProject) -> None:
    def operations(length: int) -> float:
        code, out, err = suites.run(GRID, f"train.max_length={length}", "--dry-run", "--json")
        assert code == 0, err
        return json.loads(out)["operations"]

    assert operations(16) == operations(32) == operations(48)


def test_the_plan_says_which_row_keeps_it_from_knowing_the_time(suites: SuiteProject) -> None:
    rows = (suites.folder / "rows.jsonl").read_text().splitlines()
    rows[4] = json.dumps(json.loads(rows[4]) | {"words": 7})
    (suites.folder / "rows.jsonl").write_text("".join(f"{row}\n" for row in rows))
    code, out, err = suites.run(GRID, "--dry-run")
    assert code == 0, err
    assert "cells not known: rows.jsonl:5: column 'words'" in out
