"""What a report shows besides scores, from run folders that are written by hand."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from scipy import stats

from ptv2kit.cli.main import main
from ptv2kit.report.cells import MINUS, Cell, Column, make
from ptv2kit.report.charts import EPOCHS, Chart, Panel, Point, Series, charts
from ptv2kit.report.configurations import Stat, merge
from ptv2kit.report.entries import Entry, collect
from ptv2kit.report.evidence import evidence
from ptv2kit.report.exported import to_csv, to_latex
from ptv2kit.report.figures import draw
from ptv2kit.report.records import Run


def write_run(
    folder: Path,
    scores: dict[str, float],
    *,
    method: str = "p_tuning_v2",
    seed: int = 1,
    init_from: str | None = None,
    metric: str = "accuracy",
    predictions: list[dict[str, Any]] | None = None,
    history: list[float] | None = None,
) -> None:
    """A finished run whose tasks have scores; the first metric chooses the epoch."""
    folder.mkdir(parents=True)
    several = len(scores) > 1
    names = {task: f"task.{task}.resolved.yaml" if several else "task.resolved.yaml" for task in scores}
    recipe = {
        "recipe": "r",
        "task": list(names.values()) if several else next(iter(names.values())),
        "backbone": {"name": "mini"},
        "method": method,
        "init_from": init_from,
        "train": {"seed": seed},
    }
    (folder / "recipe.resolved.yaml").write_text(yaml.safe_dump(recipe))
    for task, file in names.items():
        (folder / file).write_text(yaml.safe_dump({"task": task, "metrics": [metric]}))
    key = {task: f"{task}/validation" if several else "validation" for task in scores}
    measured = history or [min(scores.values()), max(scores.values())]
    results = {
        "status": "finished",
        "parameters": {"backbone": 100, "prompt": 1, "trained": 2, "share": 0.02},
        "best_epoch": 1,
        "epochs": 2,
        "seconds": 3.0,
        "metrics": {key[task]: {metric: value} for task, value in scores.items()},
        "history": [{f"{task}/{metric}" if several else metric: value for task in scores} for value in measured],
        "evaluated": [0.5 * (index + 1) for index in range(len(measured))],
        "types": {key[task]: [{"name": "x", "precision": 1, "recall": 2, "f1": 3, "support": 4}] for task in scores},
    }
    (folder / "results.json").write_text(json.dumps(results))
    if predictions is not None:
        (folder / "predictions").mkdir()
        (folder / "predictions" / "validation.jsonl").write_text("".join(json.dumps(x) + "\n" for x in predictions))


def section_of(folder: Path) -> Any:
    [group] = collect([folder], folder)
    return merge(group)


def test_the_joint_stage_is_no_bar_and_multi_task_training_has_its_own_name(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"one": 50.0}, method="fine_tuning")
    write_run(tmp_path / "b", {"one": 40.0})
    write_run(tmp_path / "c", {"two": 30.0})
    write_run(tmp_path / "d", {"one": 32.7, "two": 33.0})
    write_run(tmp_path / "e", {"one": 17.5}, init_from="d")
    bars = charts(section_of(tmp_path))[0]
    found = {(series.name, point.label): point.stat.mean for series in bars.panels[0].series for point in series.points}
    assert found == {
        ("fine-tuning", "one"): 50.0,
        ("P-Tuning v2", "one"): 40.0,
        ("P-Tuning v2", "two"): 30.0,
        ("multi-task P-Tuning v2", "one"): 17.5,
    }
    assert set(bars.missing) == {"fine-tuning on two", "multi-task P-Tuning v2 on two"}
    files = draw(bars)
    assert {name.rpartition(".")[2] for name in files} == {"png", "svg", "pdf"}
    assert files == draw(bars), "the same numbers give the same bytes"


def test_a_case_has_the_same_name_on_every_task(tmp_path: Path) -> None:
    """On `one` another case differs from it in nothing else; on `two` there is no other."""
    write_run(tmp_path / "a", {"one": 40.0})
    write_run(tmp_path / "b", {"two": 50.0})
    section = section_of(tmp_path)
    one, two = section.configurations
    named = (replace(one, case="plain"), replace(one, case="long"), replace(two, case="long"))
    bars = charts(replace(section, configurations=named))[0]
    found = {(series.name, point.label) for series in bars.panels[0].series for point in series.points}
    assert found == {("plain", "one"), ("long", "one"), ("long", "two")}
    assert set(bars.missing) == {"plain on two"}


def test_a_chart_counts_what_is_missing_and_has_no_room(tmp_path: Path) -> None:
    for number in range(11):
        write_run(tmp_path / str(number), {f"task{number}": 40.0}, method="lora" if number == 0 else "p_tuning_v2")
    missing = charts(section_of(tmp_path))[0].missing
    assert (missing[-1], len(missing)) == ("and 3 more", 9)
    assert all(" on task" in each for each in missing[:-1])


def test_curves_are_means_over_seeds_at_the_epochs_of_the_evaluations(tmp_path: Path) -> None:
    for seed, history in ((1, [10.0, 20.0, 30.0]), (2, [20.0, 40.0, 50.0])):
        write_run(tmp_path / str(seed), {"one": 30.0}, seed=seed, history=history)
    write_run(tmp_path / "ft", {"one": 30.0}, method="fine_tuning", history=[1.0, 2.0])
    curves = charts(section_of(tmp_path))[-1]
    assert curves.x_label == EPOCHS
    [panel] = curves.panels
    points = {series.name: [(p.x, p.stat.mean, p.stat.count) for p in series.points] for series in panel.series}
    assert points == {
        "P-Tuning v2": [(0.5, 15.0, 2), (1.0, 30.0, 2), (1.5, 40.0, 2)],
        "fine-tuning": [(0.5, 1.0, 1), (1.0, 2.0, 1)],
    }


def test_paired_differences_have_the_interval_of_students_t(tmp_path: Path) -> None:
    ours, theirs = [60.0, 62.0, 61.5, 70.0], [59.0, 63.0, 58.5, 60.0]
    for seed, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        write_run(tmp_path / f"p{seed}", {"one": one}, seed=seed)
        write_run(tmp_path / f"f{seed}", {"one": other}, seed=seed, method="fine_tuning")
    write_run(tmp_path / "alone", {"one": 1.0}, seed=9, method="lora")
    [table] = [each for each in evidence(section_of(tmp_path), "k") if each.title == "Paired differences"]
    [row] = table.rows
    shown = [cell.text for cell in row.cells]
    expected = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert shown[1:4] == ["P-Tuning v2", "fine-tuning", "4"]
    assert shown[4] == "+3.25"
    assert shown[5].replace(MINUS, "-") == f"{expected.low:+.2f} to {expected.high:+.2f}"


def test_mistakes_come_with_their_text_the_most_confident_first(tmp_path: Path) -> None:
    lines = [
        {"row": i, "location": f"/data/rows.csv:{i + 1}", "label": "yes" if i % 3 else "no", "reference": "no"}
        | {"probability": 0.5 + i / 100, "input": {"title": "a title", "text": f"sentence number {i}"}}
        for i in range(30)
    ]
    write_run(tmp_path / "runs" / "a", {"one": 33.0}, predictions=lines)
    found = {table.title: table for table in evidence(section_of(tmp_path / "runs"), "k")}
    worst = found["Most confident mistakes: one"]
    assert len(worst.rows) == 20
    assert "20 of 20 that are wrong" in worst.note
    assert [cell.text for cell in worst.rows[0].cells] == [
        *("rows.csv:30", "no", "yes", "0.79"),
        "a title / sentence number 29",
    ]
    confused = found["Confused classes: one"]
    assert [[cell.text for cell in row.cells] for row in confused.rows] == [["no", "10", "20"], ["yes", "0", "0"]]
    bars = charts(section_of(tmp_path / "runs"))[0]
    assert bars.chance == {"one": 100.0}, "all of the references are the same"


def test_spans_are_shown_with_their_words(tmp_path: Path) -> None:
    line = {"row": 0, "location": "rows.conll:1", "label": ["B-PER", "O", "O", "O"], "probability": 0.9}
    line |= {"reference": ["B-PER", "I-PER", "O", "B-LOC"], "input": {"tokens": ["Ada", "Lovelace", "left", "Rome"]}}
    write_run(tmp_path / "runs" / "a", {"one": 33.0}, predictions=[line], metric="span_f1")
    [table] = [each for each in evidence(section_of(tmp_path / "runs"), "k") if "mistakes" in each.title]
    right, wrong, text = (table.rows[0].cells[index].text for index in (1, 2, 4))
    assert (right, wrong) == ("PER[Ada Lovelace]  LOC[Rome]", "PER[Ada]")
    assert text == "Ada Lovelace left Rome"
    line["label"] = ["O"] * 4
    write_run(tmp_path / "others" / "a", {"one": 33.0}, predictions=[line], metric="span_f1")
    [table] = [each for each in evidence(section_of(tmp_path / "others"), "k") if "mistakes" in each.title]
    assert table.rows[0].cells[2].text == "no span"


def test_of_tags_the_wrong_ones_are_shown_with_their_words(tmp_path: Path) -> None:
    line = {"row": 0, "location": "rows.conll:1", "label": ["PROPN", "NOUN", "ADJ"], "probability": 0.9}
    line |= {"reference": ["PROPN", "VERB", "ADV"], "input": {"tokens": ["Ada", "runs", "fast"], "at": 1}}
    write_run(tmp_path / "runs" / "a", {"one": 33.0}, predictions=[line], metric="token_accuracy")
    [table] = [each for each in evidence(section_of(tmp_path / "runs"), "k") if "mistakes" in each.title]
    assert [table.rows[0].cells[index].text for index in (1, 2)] == ["runs/VERB  fast/ADV", "runs/NOUN  fast/ADJ"]
    assert table.rows[0].cells[4].text == "Ada runs fast"


def test_tables_for_other_programs(tmp_path: Path) -> None:
    columns = [
        Column[str]("name", "name_of", lambda item: Cell(item)),
        Column[str]("score", "score", lambda _: Cell(f"{MINUS}1.23 ± 0.5", -1.2345), numeric=True),
    ]
    table = make("k", "Title", "", columns, ["a & b", "50 %"])
    latex = to_latex(table)
    assert r"a \& b & $-$1.23 $\pm$ 0.5 \\" in latex
    assert r"name\_of & score \\" in latex
    assert r"\begin{tabular}{lr}" in latex
    rows = list(csv.reader(to_csv(table).splitlines()))
    assert rows == [
        ["name_of", "score", "score (exact)"],
        ["a & b", "-1.23 ± 0.5", "-1.2345"],
        ["50 %", "-1.23 ± 0.5", "-1.2345"],
    ]


def test_the_number_of_a_bar_is_legible_whatever_its_height() -> None:
    """White at the foot of a bar; in the bar's own colour above one that is too short for it."""
    points = [Series(name, (Point(0, "rte", Stat(mean, None, 1), None),)) for name, mean in (("a", 80.0), ("b", 2.0))]
    chart = Chart("c", "c", "bars", "task", "linear", ("a", "b"), (Panel("", "accuracy", tuple(points)),))
    drawn = draw(chart)["c.svg"].decode()

    def colour(number: str) -> str:
        found = re.search(rf'<!-- {number} -->\s*<g style="fill: (#\w+)', drawn)
        assert found is not None
        return found[1]

    assert colour("80.0") == "#ffffff"
    assert colour("2.0") != "#ffffff"


@pytest.mark.parametrize(("lowest", "said"), [(39.0, "accuracy"), (52.0, "accuracy, from 40 up")])
def test_bars_that_do_not_start_at_zero_say_so(lowest: float, said: str) -> None:
    points = [Series(name, (Point(0, "rte", Stat(of, None, 1), None),)) for name, of in (("a", 80.0), ("b", lowest))]
    chart = Chart("c", "c", "bars", "task", "linear", ("a", "b"), (Panel("", "accuracy", tuple(points)),))
    drawn = draw(chart)["c.svg"].decode()
    assert re.findall("<!-- (accuracy.*) -->", drawn) == [said]


def test_more_bars_than_colours_are_hatched() -> None:
    """Eight have a colour of their own; the ninth looks otherwise than the first, in the bar and in the legend."""
    for count, hatched in ((8, 0), (9, 2)):
        names = tuple(f"m{index}" for index in range(count))
        series = tuple(Series(name, (Point(0, "rte", Stat(70.0, None, 1), None),)) for name in names)
        chart = Chart("c", "c", "bars", "task", "linear", names, (Panel("", "accuracy", series),))
        drawn = draw(chart)["c.svg"].decode()
        assert len(re.findall(r"fill: url\(#h\w+\)", drawn)) == hatched


def test_figure_1_of_the_kept_study_names_backbones_as_its_suite_does(
    tmp_path: Path,
) -> None:
    root = Path(__file__).parents[1]
    suite, kept = root / "recipes" / "suites" / "mini" / "figure1.yaml", root / "docs" / "study"
    assert main(["report", str(suite), "--runs-dir", str(kept), "--to", str(tmp_path)]) == 0
    drawn = (tmp_path / "mini-figure1.svg").read_text(encoding="utf-8")
    assert "<!-- MiniLM-L6 -->" in drawn
    assert "<!-- SmolLM2-135M -->" in drawn


def test_without_matplotlib_the_tables_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "runs" / "a", {"one": 33.0})
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name))
    assert main(["report", str(tmp_path / "runs"), "--to", str(tmp_path / "out")]) == 0
    assert "no figures: they need matplotlib" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.md", "report.html", "tables"}
    assert "33.00" in (tmp_path / "out" / "report.md").read_text()


def test_what_auto_was_on_the_machine_of_a_run_is_no_change_of_the_suite() -> None:
    values = {"backbone.dtype": "bf16", "train.seed": 1}
    entry = Entry("a", "", {}, {"backbone.dtype": "auto", "train.seed": 2}, (), (), "finished")
    assert entry.with_run(Run(Path("a"), values, (), None, None)).changed == ("train.seed 1, now 2",)
