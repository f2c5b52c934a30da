"""What is shown of a run, and its folder."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from ptv2kit.cli.terminal import print_table
from ptv2kit.data.schemes.records import Scores, TypeScore
from ptv2kit.models.counts import ParameterCount
from ptv2kit.spec.load import load_task
from ptv2kit.spec.recipe import Recipe
from ptv2kit.training import console as console_module
from ptv2kit.training.card import model_card
from ptv2kit.training.console import RowsConsole, TrainingConsole, duration, scores_table
from ptv2kit.training.folder import RunFolder, environment, run_key
from ptv2kit.training.results import Outcome, TaskOutcome
from ptv2kit.training.state import Evaluated, Step

ROOT = Path(__file__).parents[1]

SCORES = Scores({"span_f1": 50.0}, (TypeScore("LOC", 40.0, 60.0, 48.0, 7), TypeScore("[/x]", 50.0, 50.0, 50.0, 3)))


def console(*, terminal: bool, width: int = 80) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, highlight=False, markup=False)


def text_of(shown: Console) -> str:
    assert isinstance(shown.file, io.StringIO)
    return shown.file.getvalue()


def test_off_a_terminal_there_is_a_line_per_interval_and_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = console(terminal=False)
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with TrainingConsole(shown, "span_f1", epochs=2) as training:
        for step in range(1, 7):
            now[0] += 4.0
            training.log(Step(step, 12, step / 6, loss=0.5, learning_rate=1e-3))
        training.progress(3, 3)
        training.log(Evaluated(1, 1, {"span_f1": 61.254}, best=True, seconds=1.0))
        training.log(Step(7, 12, 7 / 6, loss=0.25, learning_rate=5e-4))
        now[0] += 100.0
        training.log(Step(8, 12, 8 / 6, loss=0.25, learning_rate=5e-4))
    assert text_of(shown).splitlines() == [
        "step 3/12  loss 0.500 rate 1.0e-03  left 0:36",
        "step 6/12  loss 0.500 rate 1.0e-03  left 0:24",
        "epoch   1/2  loss 0.5000  rate 1.0e-03  span_f1 61.25  best",
        "step 8/12  loss 0.250 rate 5.0e-04 span_f1 61.25 best 61.25  left 1:02",
    ]


def test_on_a_terminal_the_bar_shows_epoch_loss_rate_metric_best_and_time_left() -> None:
    shown = console(terminal=True, width=100)
    with TrainingConsole(shown, "span_f1", epochs=2) as training:
        training.log(Step(1, 4, 0.5, loss=0.5, learning_rate=1e-3))
        training.log(Evaluated(1, 1, {"span_f1": 61.254}, best=True, seconds=1.0))
        training.log(Step(2, 4, 1.0, loss=0.5, learning_rate=1e-3))
        training.log(Step(3, 4, 1.5, loss=0.25, learning_rate=5e-4))
    last = text_of(shown).rsplit("epoch 2/2", 1)[1]
    for part in ("75%", "left", "loss 0.375", "rate 5.0e-04", "span_f1 61.25", "best 61.25"):
        assert part in last


def test_long_work_writes_a_line_every_ten_seconds_off_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(console_module.time, "monotonic", lambda: clock[0])
    shown = console(terminal=False)
    with RowsConsole(shown) as rows, TrainingConsole(shown, "span_f1", epochs=2) as training:
        for done, clock[0] in ((0, 101.0), (500, 109.0), (1000, 111.0), (1500, 112.0), (2000, 122.0)):
            rows.on_rows("encoding train", done, 4000)
        rows.on_rows("checking train", 2500, None)
        clock[0] = 140.0
        rows.on_rows("checking train", 3000, None)
        training.progress(64, 1000)
        clock[0] = 141.0
        training.progress(128, 1000)
    assert [line.strip() for line in text_of(shown).splitlines() if line.strip()] == [
        "encoding train: 1,000 of 4,000 rows",
        "encoding train: 2,000 of 4,000 rows",
        "checking train: 3,000 rows",
        "evaluating 64 of 1,000 inputs",
    ]


def test_reading_rows_is_silent_off_a_terminal() -> None:
    quiet, shown = console(terminal=False), console(terminal=True)
    for target in (quiet, shown):
        with RowsConsole(target) as rows:
            rows.on_rows("encoding train", 0, 10)
            rows.on_rows("encoding train", 10, 10)
    assert text_of(quiet) == ""
    assert "encoding train" in text_of(shown)


def test_the_table_has_a_row_per_type_and_metric() -> None:
    shown = console(terminal=False)
    shown.print(scores_table(SCORES, "title"))
    lines = [line.replace("│", " ").split() for line in text_of(shown).splitlines()]
    assert ["LOC", "40.00", "60.00", "48.00", "7"] in lines
    assert ["[/x]", "50.00", "50.00", "50.00", "3"] in lines
    assert ["span_f1", "50.00", "10"] in lines


def test_of_many_types_the_frequent_ones_are_shown() -> None:
    types = tuple(TypeScore(f"type{number}", 0.0, 0.0, 0.0, number) for number in range(100))
    shown = console(terminal=False)
    shown.print(scores_table(Scores({"accuracy": 1.0}, types), "title"))
    lines = [line.replace("│", " ").split() for line in text_of(shown).splitlines()]
    assert [int(line[-1]) for line in lines if line and line[0].startswith("type") and line[0] != "type"] == list(
        range(40, 100)
    )
    assert "40 rarer ones: --json, or results.json" in text_of(shown)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (61.4, "1:01"), (3600, "1:00:00")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_two_runs_within_a_second_have_two_folders(tmp_path: Path) -> None:
    first, second = (RunFolder.create(tmp_path, "one", "abcd0123") for _ in range(2))
    assert first.path != second.path
    assert first.path.is_dir()
    assert second.path.is_dir()


def test_the_key_stands_for_the_content() -> None:
    assert run_key({"a": 1, "b": [2]}) == run_key({"b": [2], "a": 1}) != run_key({"a": 1, "b": [3]})
    assert len(run_key({})) == 8


def test_the_environment_names_what_decides_a_result() -> None:
    found = environment()
    assert {"torch", "transformers"} <= set(found["packages"])
    assert "ptv2kit" in found


def test_expectations() -> None:
    from ptv2kit.models.counts import ParameterCount
    from ptv2kit.training.results import Outcome, TaskOutcome

    recipe = Recipe.model_validate(
        {
            "recipe": "r",
            "task": "t",
            "backbone": {"name": "b"},
            "train": {"epochs": 1, "learning_rate": 1.0},
            "expect": [
                {"metric": "span_f1", "value": 50.0},
                {"metric": "span_f1", "value": 51.0, "tolerance": 1.0},
                {"metric": "span_f1", "value": 51.0, "tolerance": 0.5, "source": "table 3"},
            ],
        }
    )
    from ptv2kit.spec.task import Iob2Task

    task = Iob2Task.model_validate(
        {
            "task": "t",
            "data": {"source": "jsonl", "splits": {"train": "a", "validation": "b"}},
            "input": {"words": "w"},
            "labels": {"scheme": "iob2", "column": "t"},
        }
    )
    tasks = (TaskOutcome(task, 1, {"validation": SCORES}),)
    outcome = Outcome(recipe, tasks, "finished", ParameterCount(1000, 20, 10), 1, 1, 2.0, (), ())
    assert outcome.missed() == ["validation span_f1: expected 51 - 0.5, found 50.00 (table 3)"]
    assert "| validation | span_f1 | 50.00 |" in model_card(outcome)
    assert "(3.00%)" in model_card(outcome)


@pytest.mark.parametrize(("terminal", "width", "drawn"), [(True, 80, True), (True, 12, False), (False, 80, False)])
def test_a_table_is_drawn_only_where_it_fits(terminal: bool, width: int, drawn: bool) -> None:
    shown = console(terminal=terminal, width=width)
    print_table(shown, scores_table(SCORES, "title"))
    lines = text_of(shown).splitlines()
    assert ("┏" in text_of(shown)) is drawn
    if not drawn:
        assert lines[:3] == ["title", "type\tprecision\trecall\tF1\tin data", "LOC\t40.00\t60.00\t48.00\t7"]


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("mini", "sentence-transformers/all-MiniLM-L6-v2"),
        ("roberta-large", "roberta-large"),
        ("microsoft/deberta-xlarge", "microsoft/deberta-xlarge"),
        ("glm-tiny-random", None),
        ("/models/own", None),
        ("./own", None),
    ],
)
def test_the_card_names_the_backbone_as_the_hub_knows_it(backbone: str, expected: str | None) -> None:
    task = load_task(ROOT / "tasks" / "sst2.yaml").task
    train = {"epochs": 1, "learning_rate": 1e-3}
    values = {"recipe": "r", "licence": "cc0-1.0", "task": "sst2", "backbone": {"name": backbone}, "train": train}
    recipe = Recipe.model_validate(values)
    scores = (TaskOutcome(task, 1, {"validation": Scores({"accuracy": 50.0}, ())}),)
    card = model_card(Outcome(recipe, scores, "finished", ParameterCount(1000, 20, 10), 1, 1, 2.0, (), ()))
    facts = yaml.safe_load(card.split("---")[1])
    assert facts.get("base_model") == expected
    assert (facts["language"], facts["license"]) == (["en"], "cc0-1.0")
    assert (facts["datasets"], facts["metrics"]) == (["nyu-mll/glue"], ["accuracy"])
    assert 'predict([{"sentence": ' in card
