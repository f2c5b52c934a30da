"""`ptv2kit report`: its numbers are those of the runs, what is missing is named, and a browser shows it."""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, final

import pytest

from ptv2kit.cli.main import main
from tests.projects import write_project

pytest.importorskip("matplotlib", reason="the extra 'report' is not installed")

SUITE = """suite: depth
description: How deep <prompts> reach.
recipe: recipe.yaml
set: {train.epochs: 2, train.learning_rate: 0.01}
grid:
  train.seed: [1, 2]
  prompt.layers: [1-1, 1-2, 2-2]
rules:
  - where: {prompt.layers: 1-2}
    expect:
      - {metric: span_f1, value: 99.5, source: "paper, figure 3", origin: paper}
      - {metric: span_f1, value: 98.5, source: released results, origin: released}
"""
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@final
class Rows(HTMLParser):
    """The cells of a table, by the keys of its columns; numbers where a cell has one."""

    def __init__(self, table: str) -> None:
        super().__init__()
        self._table = table
        self._inside = False
        self._key = ""
        self.rows: list[dict[str, Any]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "table":
            self._inside = re.fullmatch(self._table, found.get("id") or "") is not None
        elif tag == "tr" and self._inside:
            self.rows.append({})
        elif tag in ("td", "th") and self._inside:
            self._key = found.get("data-key") or ""
            value = found.get("data-value")
            self.rows[-1][self._key] = "" if value is None else float(value)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._key = ""

    def handle_data(self, data: str) -> None:
        if self._inside and self._key and self.rows[-1].get(self._key) == "":
            self.rows[-1][self._key] = data


def table(page: str, name: str) -> list[dict[str, Any]]:
    parser = Rows(name)
    parser.feed(page)
    return [row for row in parser.rows if row][1:]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, backbone: Path, task_file: Path) -> Path:
    """A suite whose six cells are trained."""
    folder = tmp_path_factory.mktemp("depth")
    write_project(folder, backbone, (task_file.parent / "rows.jsonl").read_text())
    (folder / "suite.yaml").write_text(SUITE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["run", "suite.yaml", "--quiet"]) in (0, 5)
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it for each test."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def results(folder: Path, layers: str) -> list[dict[str, Any]]:
    paths = sorted(folder.glob(f"runs/depth/cells/seed=*,layers={layers}/*/results.json"))
    assert len(paths) == 2
    return [json.loads(path.read_text()) for path in paths]


def test_the_training_loss_is_a_mean_of_the_last_eighth(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [run] = folder.glob("runs/depth/cells/seed=1,layers=2-2/*/")
    losses = [*range(14), 4.0, 2.0]
    lines = [{"kind": "train", "step": step, "loss": loss} for step, loss in enumerate(losses)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    capsys.readouterr()
    assert main(["report", str(run), "--json"]) == 0
    [part] = json.loads(capsys.readouterr().out)["parts"]
    [item] = part["configurations"]
    assert (item["loss"]["mean"], item["cpu_seconds"]) == (3.0, None)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "lo')
    assert main(["report", str(run), "--json"]) == 3
    assert f"{run}/metrics.jsonl:17: error: it is not a line of a run's log" in capsys.readouterr().err


def test_a_report_says_what_the_runs_say(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["report", "suite.yaml", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    [part] = report["parts"]
    assert (part["finished"], part["total"], part["missing"]) == (6, 6, [])
    assert len(part["configurations"]) == 3, "seeds are merged"
    for item in part["configurations"]:
        found = results(folder, item["settings"]["prompt.layers"])
        best = [max(epoch["span_f1"] for epoch in each["history"]) for each in found]
        last = [each["history"][-1]["span_f1"] for each in found]
        assert item["seeds"] == [1, 2]
        for name, values in (("validation_max", best), ("validation_last", last)):
            assert item[name]["mean"] == pytest.approx(statistics.fmean(values))
            assert item[name]["deviation"] == pytest.approx(statistics.stdev(values))
        runs = [folder / run for run in item["runs"]]
        logs = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in runs]
        losses = [[line["loss"] for line in log if line["kind"] == "train"][-1] for log in logs]  # one of a short run
        assert item["loss"]["mean"] == pytest.approx(statistics.fmean(losses))
        times = [[line for line in log if line["kind"] == "validation"][-1]["training_cpu_seconds"] for log in logs]
        assert item["cpu_seconds"] == pytest.approx(statistics.fmean(times))
        expected = {found["origin"]: found for found in item["comparisons"]}
        assert set(expected) == ({"paper", "released"} if item["settings"]["prompt.layers"] == "1-2" else set())
        for origin, value in (("paper", 99.5), ("released", 98.5)) if expected else ():
            assert expected[origin]["value"] == value
            assert expected[origin]["difference"] == pytest.approx(item["validation_max"]["mean"] - value)
            assert expected[origin]["missed"] is (origin == "paper" and item["validation_max"]["mean"] < value)
    where = folder / "runs/depth/report"
    figures = {f"{name}.{kind}" for name in ("depth", "depth-curves") for kind in ("png", "svg", "pdf")}
    assert {path.name for path in where.iterdir()} == {"report.md", "report.html", "tables", *figures}
    assert (where / "depth.png").read_bytes().startswith(b"\x89PNG")
    text = (where / "report.md").read_text()
    assert r"How deep \<prompts\> reach." in text
    assert "depth.svg" in text or "depth.png" in text
    page = (where / "report.html").read_text()
    assert "How deep &lt;prompts&gt; reach." in page
    assert not re.findall(r'(?:src|href)="(?!#)[^"]*"', page), "the page needs nothing else"
    assert page.count("<svg") >= 1


def test_what_is_missing_or_failed_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = (folder / "suite.yaml").read_text()
    (folder / "suite.yaml").write_text(suite.replace("[1, 2]", "[1, 2, 3]"))
    record = folder / "runs/depth/cells/seed=2,layers=1-1/cell.json"
    content = json.loads(record.read_text())
    record.write_text(json.dumps({**content, "status": "failed", "error": "out of <memory>", "run": "", "metrics": {}}))
    capsys.readouterr()
    assert main(["report", "suite.yaml"]) == 0
    out = capsys.readouterr().out
    assert "depth: 5 of 9 cells finished" in out
    text = (folder / "runs/depth/report/report.md").read_text()
    page = (folder / "runs/depth/report/report.html").read_text()
    for layers in ("1-1", "1-2", "2-2"):
        assert f"seed=3,layers={layers}" in text
        assert f"seed=3,layers={layers}" in page
    assert "out of &lt;memory&gt;" in page


@pytest.mark.parametrize("source", ["suite.yaml", "runs/depth"])
def test_a_part_of_a_suite(folder: Path, capsys: pytest.CaptureFixture[str], source: str) -> None:
    suite = (folder / "suite.yaml").read_text()
    (folder / "suite.yaml").write_text(suite.replace("[1, 2]", "[1, 2, 3]"))
    capsys.readouterr()
    assert main(["report", source, "--only", "seed=1,*", "--json"]) == 0
    [part] = json.loads(capsys.readouterr().out)["parts"]
    assert (part["finished"], part["total"], part["missing"]) == (3, 3, [])
    assert [item["seeds"] for item in part["configurations"]] == [[1], [1], [1]]
    whole = 9 if source == "suite.yaml" else 6
    text = (folder / "runs/depth/report/report.md").read_text()
    assert f"Only 3 of the suite's {whole} cells: those that match seed=1,\\*." in text
    assert "no longer has" not in text
    assert main(["report", source, "--only", "seed=7,*"]) == 2
    assert "--only 'seed=7,*' matches no cell" in capsys.readouterr().err


def test_only_is_for_suites(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = next(folder.glob("runs/depth/cells/*/*/results.json")).parent
    assert main(["report", str(run), "--only", "seed=1,*"]) == 2
    assert f"--only chooses cells of a suite, and '{run}' is not one" in capsys.readouterr().err


def test_a_torn_result_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = next(folder.glob("runs/depth/cells/*/*/results.json"))
    path.write_text(path.read_text()[:100])
    capsys.readouterr()
    assert main(["report", "suite.yaml"]) == 3
    assert f"{path.relative_to(folder)}: error: it is not valid JSON" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("nothing", "there is no suite 'nothing'"),
        ("recipe.yaml", "'recipe.yaml' is a recipe, not a suite"),
        ("empty", "'empty' is not the folder of a run or of a suite"),
    ],
)
def test_what_cannot_be_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], source: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text("recipe: tiny\ntask: tiny\n")
    (tmp_path / "empty").mkdir()
    assert main(["report", source]) == 2
    assert expected in capsys.readouterr().err


def test_single_runs_side_by_side(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(path.parent) for path in sorted(folder.glob("runs/depth/cells/seed=1*/*/results.json"))]
    capsys.readouterr()
    assert main(["report", *runs, "--to", "out", "--json"]) == 0
    [part] = json.loads(capsys.readouterr().out)["parts"]
    assert (part["name"], part["finished"]) == ("runs", 3)
    assert {item["settings"]["prompt.layers"] for item in part["configurations"]} == {"1-1", "1-2", "2-2"}


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_shows_the_numbers_of_the_runs_and_sorts_them(folder: Path) -> None:
    assert CHROMIUM is not None
    for number, path in enumerate(sorted(folder.glob("runs/depth/cells/*/*/results.json"))):
        content = json.loads(path.read_text())  # a model this small has the same few scores again and again
        for epoch, values in enumerate(content["history"]):
            values["span_f1"] = 60.0 + 3.1 * (number * 5 % 6) + epoch
        content["metrics"]["validation"]["span_f1"] = content["history"][-1]["span_f1"]
        path.write_text(json.dumps(content))
    assert main(["report", "suite.yaml"]) == 0
    page = (folder / "runs/depth/report/report.html").read_text()
    click = (
        "<script>{const head=[...document.querySelectorAll('table')].find(each=>/configurations/.test(each.id))"
        ".querySelector('th[data-key=validation_max] button');head.click();document.title=document.body.scrollWidth}"
        "</script></body>"
    )
    (folder / "clicked.html").write_text(page.replace("</body>", click))
    shown = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"file://{folder}/clicked.html"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    assert re.search(r"<title>\d+</title>", shown), "the page's script ran"
    rows = table(shown, r".*configurations.*")
    assert len(rows) == 3
    means = {}
    for layers in ("1-1", "1-2", "2-2"):
        best = [max(epoch["span_f1"] for epoch in each["history"]) for each in results(folder, layers)]
        means[layers] = statistics.fmean(best)
    assert len(set(means.values())) == 3, "else the order shows nothing"
    assert [row["validation_max"] for row in rows] == pytest.approx(sorted(means.values(), reverse=True))
    assert {row["prompt.layers"]: row["validation_max"] for row in rows} == pytest.approx(means)
    assert 'aria-sort="descending"' in shown
