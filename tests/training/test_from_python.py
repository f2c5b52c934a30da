"""`ptv2kit.train`: what the command does, from Python."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import ptv2kit
from ptv2kit.cli.main import main
from ptv2kit.errors import ConfigError, DataError, InterruptedRunError
from ptv2kit.models.model import PromptedModel
from ptv2kit.training.signals import StopSignals
from tests.projects import Project, project

__all__ = ["project"]


def test_it_trains_as_the_command_and_prints_nothing(project: Project) -> None:
    _, out, _ = project.run("--json", "train.seed=12", "train.epochs=2")
    of_command = json.loads(out)
    run = ptv2kit.train("recipe.yaml", **{"train.seed": 12, "train.epochs": 2})
    assert project.capsys.readouterr() == ("", "")
    assert run.scores == of_command["metrics"]
    assert run.score == of_command["score"]
    assert json.loads((run.folder / "results.json").read_text())["seed"] == 12
    assert run.predict([{"words": ["ada", "left", "paris"]}]) == run.load().predict(
        [{"words": ["ada", "left", "paris"]}]
    )


def test_notes_and_missed_values_are_there_for_who_asks(project: Project, tmp_path: Path) -> None:
    expect = [{"metric": "span_f1", "value": 101.0}]
    run = ptv2kit.train(
        Path("recipe.yaml"), runs_dir=tmp_path / "kept", verbose=True, **{"train.epochs": 1, "expect": expect}
    )
    assert "run folder: " in project.capsys.readouterr().err
    assert run.folder.is_relative_to(tmp_path / "kept")
    [missed] = run.missed
    assert missed.startswith("validation span_f1: expected 101")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train.epoch": 3}, "argument of ptv2kit.train: error: unknown key 'train.epoch'\n    train.epoch=3\n"),
        ({"train.seed": "x"}, "'train.seed' must be an integer, found text 'x'"),
        ({"distributed.gpus": 2}, "the recipe asks for several processes, and ptv2kit.train is one"),
    ],
)
def test_mistakes_are_our_errors(project: Project, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ptv2kit.train("recipe.yaml", **settings)
    assert message in str(caught.value)
    assert not project.runs


def test_a_task_is_not_trained(project: Project) -> None:
    with pytest.raises(ConfigError, match=r"'tiny\.yaml' is a task"):
        ptv2kit.train("tiny.yaml")


def test_an_interrupted_run_is_resumed(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(StopSignals, "__call__", lambda _: True)
        with pytest.raises(InterruptedRunError, match="resume=True"):
            ptv2kit.train("recipe.yaml")
    run = ptv2kit.train("recipe.yaml", resume=True)
    assert [run.folder.absolute()] == project.runs
    assert run.outcome.status == "finished"


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "p_tuning_v2"},
        {"method": "p_tuning_v2", "prompt.layers": "2-2"},
        {"method": "fine_tuning"},
        {"method": "lora"},
        {"method": "prompt_tuning"},
    ],
)
def test_the_model_is_gone_before_the_next_run_needs_its_memory(project: Project, settings: dict[str, object]) -> None:
    def models() -> int:
        return sum(type(found) is PromptedModel for found in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = models()
        assert ptv2kit.train("recipe.yaml", **{"train.epochs": 1}, **settings).score is not None
        assert models() == before
    finally:
        gc.enable()


def key(folder: Path) -> str:
    """What decides a run's result, in the name of its folder."""
    return folder.name.split("-")[2]


def test_rows_in_memory_take_the_place_of_files(project: Project) -> None:
    rows = [json.loads(line) for line in (project.folder / "rows.jsonl").read_text().splitlines()]
    settings = {"train.epochs": 1}
    from_files = ptv2kit.train("recipe.yaml", **settings)
    (project.folder / "rows.jsonl").unlink()
    run = ptv2kit.train("recipe.yaml", rows={"train": iter(rows), "validation": rows}, **settings)
    assert run.scores == from_files.scores
    again = ptv2kit.train("recipe.yaml", rows={"train": rows, "validation": rows}, runs_dir="others", **settings)
    assert (again.scores, key(again.folder)) == (run.scores, key(run.folder))
    shares = ptv2kit.train("recipe.yaml", rows={"train": rows, "test": rows}, **settings)
    assert set(shares.scores) == {"validation", "test"}
    assert main(["evaluate", str(run.folder), "--quiet"]) == 0
    kept = sorted(
        path.relative_to(project.folder / "runs/.rows").name for path in project.folder.glob("runs/.rows/*/*")
    )
    assert kept == ["test.jsonl", "train.jsonl", "train.jsonl", "validation.jsonl"]


def test_a_pandas_table_is_its_rows(project: Project) -> None:
    """Also lists that are arrays, as pandas reads them of Parquet, and empty cells."""
    rows = [json.loads(line) for line in (project.folder / "rows.jsonl").read_text().splitlines()]
    arrays = [{**row, "words": np.array(row["words"], dtype=object), "note": float("nan")} for row in rows]
    table = pd.DataFrame(arrays)
    settings = {"train.epochs": 1}
    run = ptv2kit.train("recipe.yaml", rows={"train": table, "validation": table}, **settings)
    same = [{"words": row["words"], "tags": row["tags"], "note": None} for row in rows]
    expected = ptv2kit.train("recipe.yaml", rows={"train": same, "validation": same}, **settings)
    assert (run.scores, key(run.folder)) == (expected.scores, key(expected.folder))
    assert run.predict(table[["words"]]) == run.predict(rows)
    assert run.evaluate(table) == run.scores["validation"]


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ("ada", ConfigError, r"expected a list of rows. Got a single one\n  hint: put it into a list: \[row\]"),
        ({"words": ["ada"]}, ConfigError, "expected a list of rows"),
        ([7], DataError, "row 1: error: expected a mapping of columns, or a text. Got int"),
    ],
)
def test_one_row_is_not_taken_for_many(project: Project, rows: Any, error: type[Exception], message: str) -> None:
    run = ptv2kit.train("recipe.yaml", **{"train.epochs": 1})
    with pytest.raises(error, match=message):
        run.predict(rows)


def test_what_a_loaded_run_refuses_and_shows(project: Project) -> None:
    run = ptv2kit.train("recipe.yaml", **{"train.epochs": 1})
    loaded = run.load()
    rows = [{"words": ["ada"], "tags": ["O"]}]
    for ask in (loaded.predict, loaded.evaluate):
        with pytest.raises(ConfigError, match="batch_size must be at least 1"):
            ask(rows, batch_size=0)
    with pytest.raises(ConfigError, match="there is no device 'cuda:1'\n  hint: auto, cpu, cuda or mps"):
        ptv2kit.load(run.folder, device="cuda:1")
    ptv2kit.train("recipe.yaml", rows={"train": rows * 20})  # makes the folder runs/.rows
    with pytest.raises(ConfigError, match=r"hint: known: tiny$"):
        ptv2kit.load("others")
    assert repr(run) == f"TrainedRun({str(run.folder)!r}, {run.scores})"
    assert repr(loaded).startswith(f"LoadedRun({str(run.folder)!r}, task 'tiny', backbone ")
    together = ptv2kit.load_together({"a": run.folder})
    for asked in ("a", ["ada"], [("a", rows[0], 3)]):
        with pytest.raises(ConfigError, match="row 1: expected a pair: the name of a prompt, and a row"):
            together.predict(asked)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "there is no row to score"),
        ([{"words": ["ada"]}, {"words": ["ada"], "tags": ["X"]}], r"row 1.*no column 'tags'(.|\n)*row 2"),
    ],
)
def test_rows_that_cannot_be_scored(project: Project, rows: Any, message: str) -> None:
    run = ptv2kit.train("recipe.yaml", **{"train.epochs": 1})
    with pytest.raises(DataError, match=message):
        run.evaluate(rows)


def test_rows_are_scored_after_what_the_task_makes_of_them(project: Project) -> None:
    derived = 'derive: {parts: {column: text, split: " "}}\ninput: {words: parts'
    project.change("tiny.yaml", "input: {words: words", derived)
    rows = [json.loads(line) for line in (project.folder / "rows.jsonl").read_text().splitlines()]
    texts = [{"text": " ".join(row["words"]), "tags": row["tags"]} for row in rows]
    (project.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    run = ptv2kit.train("recipe.yaml", **{"train.epochs": 1})
    assert run.evaluate(texts) == run.scores["validation"]
    assert main(["evaluate", str(run.folder), "--data", "rows.jsonl", "--json"]) == 0
    assert json.loads(project.capsys.readouterr().out)["metrics"] == run.evaluate(iter(texts), batch_size=1)


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ({"validation": []}, ConfigError, "rows has validation"),
        ({"train": [], "dev": []}, ConfigError, "rows has train, dev"),
        ({"train": [{"words": ["a"], "tags": {1}}]}, DataError, "train: row 1: error: not a mapping of what JSON has"),
        ({"train": [{"words": ["a"]}, 7]}, DataError, "train: row 2: error: expected a mapping of columns. Got int"),
        ({"train": {"words": ["a"]}}, ConfigError, "expected a list of rows"),
        ({"train": []}, DataError, "is empty"),
    ],
)
def test_rows_that_cannot_be(project: Project, rows: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ptv2kit.train("recipe.yaml", rows=rows)
