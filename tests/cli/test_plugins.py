"""Metrics and readers of other packages, found by their entry points; labels that no training row has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from ptv2kit.cli.main import main
from ptv2kit.spec import plugins
from tests.projects import Project, project

__all__ = ["project"]


def share_of_outside(found: list[tuple[str, ...]], right: list[tuple[str, ...]]) -> float:
    assert len(found) == len(right)
    return 100 * sum(tags.count("O") for tags in found) / sum(map(len, found))


def no_number(found: list[Any], right: list[Any]) -> str:
    return "much"


def read_lists(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line:
            raise ValueError(f"line {number} is empty")
        words, tags = line.split(" | ")
        yield {"words": words.split(), "tags": tags.split()}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [
        EntryPoint("outside", f"{__name__}:share_of_outside", "ptv2kit.metrics"),
        EntryPoint("text", f"{__name__}:no_number", "ptv2kit.metrics"),
        EntryPoint("gone", f"{__name__}:nothing", "ptv2kit.metrics"),
        EntryPoint("lists", f"{__name__}:read_lists", "ptv2kit.readers"),
    ]

    def entry_points(*, group: str, name: str | None = None) -> list[EntryPoint]:
        return [each for each in entries if each.group == group and name in (None, each.name)]

    monkeypatch.setattr(plugins, "entry_points", entry_points)


def test_a_metric_of_another_package_is_shown_and_kept(project: Project) -> None:
    project.change("tiny.yaml", "task: tiny", "task: tiny\nextra_metrics: [outside]")
    code, out, err = project.run("--json", "train.epochs=1")
    assert code == 0, err
    values = json.loads(out)["metrics"]["validation"]
    assert list(values)[-1] == "outside"
    assert 0 < values["outside"] < 100


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("outsde", "'extra_metrics': no installed package has 'outsde'\n"),
        ("text", "the metric 'text' returned 'much'. Expected a finite number"),
        ("gone", "'gone' of 'ptv2kit.metrics' (tests.cli.test_plugins:nothing) cannot be imported"),
    ],
)
def test_metrics_that_cannot_be(project: Project, name: str, message: str) -> None:
    project.change("tiny.yaml", "task: tiny", f"task: tiny\nextra_metrics: [{name}]")
    code, _, err = project.run("train.epochs=1")
    assert code == 2
    assert message in err


def test_a_reader_of_another_package_gives_the_rows(project: Project) -> None:
    lines = ["ada left paris | B-PER O B-LOC", "alan left rome | B-PER O B-LOC"] * 6
    (project.folder / "rows.txt").write_text("\n".join(lines))
    task = (project.folder / "tiny.yaml").read_text()
    start = task.index("data:")
    line = task[start : task.index("\n", start)]
    project.change(
        "tiny.yaml", line, "data: {source: plugin, reader: lists, splits: {train: rows.txt, validation: 25%}}"
    )
    code, _, err = project.run("train.epochs=1")
    assert code == 0, err
    assert "train: 9 rows from" in err
    (project.folder / "rows.txt").write_text("\n".join([*lines, "", "x | O"]))
    code, _, err = project.run("train.epochs=1")
    assert code == 3
    assert "rows.txt: error: reader 'lists': line 13 is empty" in err


def test_a_label_without_a_training_row_is_said(project: Project) -> None:
    project.change("tiny.yaml", "names: [LOC, PER]", "names: [LOC, PER, ORG]")
    code, _, err = project.run("train.epochs=1")
    assert code == 0
    assert "train: no row has 'ORG', which labels.names lists" in err
    assert main(["validate", "tiny.yaml", "--data"]) == 0
    assert "labels of the task without a row\tORG\tORG" in project.capsys.readouterr().out
