"""A folder with recipe, task and data, in which tests run the command."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ptv2kit.cli.main import main

TASK = """task: tiny
data: {source: jsonl, splits: {train: rows.jsonl, validation: rows.jsonl}}
input: {words: words, max_length: 16}
labels: {scheme: iob2, column: tags, names: [LOC, PER]}
"""


def end_at(process: subprocess.Popen[str], words: str, number: signal.Signals) -> tuple[int, str, str]:
    """Send a signal once the process says a line with this in it; its exit code, and what it said from then on."""
    assert process.stderr is not None
    for said in process.stderr:
        if words in said:
            process.send_signal(number)
            break
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


@dataclass
class Project:
    """A recipe, its task and data."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    def command(self, *words: str) -> tuple[int, str, str]:
        code = main(list(words))
        captured = self.capsys.readouterr()
        return code, captured.out, captured.err

    def run(self, *words: str) -> tuple[int, str, str]:
        return self.command("run", "recipe.yaml", *words)

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "ptv2kit", *words]
        return subprocess.Popen(command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def change(self, name: str, old: str, new: str) -> None:
        text = (self.folder / name).read_text()
        assert old in text
        (self.folder / name).write_text(text.replace(old, new))

    @property
    def runs(self) -> list[Path]:
        return sorted(self.folder.glob("runs/*/*"))


@dataclass
class SuiteProject:
    """A suite besides, whose text each test gives."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    def write(self, text: str) -> Path:
        path = self.folder / "suite.yaml"
        path.write_text(text)
        return path

    def run(self, text: str, *words: str, verb: str = "run") -> tuple[int, str, str]:
        self.write(text)
        return Project(self.folder, self.capsys).command(verb, "suite.yaml", *words)

    def start(self, text: str, *words: str) -> subprocess.Popen[str]:
        self.write(text)
        return Project(self.folder, self.capsys).start("run", "suite.yaml", *words)

    def runs(self, suite: str = "sizes") -> list[Path]:
        return sorted(path for path in self.folder.glob(f"runs/{suite}/cells/*/*") if path.is_dir())

    def table(self, suite: str = "sizes") -> list[dict[str, str]]:
        return list(csv.DictReader((self.folder / "runs" / suite / "table.csv").read_text().splitlines()))

    def record(self, suite: str, cell: str) -> dict[str, Any]:
        return read_json(self.folder / "runs" / suite / "cells" / cell / "cell.json")


def write_project(folder: Path, backbone: Path, rows: str) -> None:
    """A recipe, its task and data."""
    (folder / "rows.jsonl").write_text(rows)
    (folder / "tiny.yaml").write_text(TASK)
    (folder / "recipe.yaml").write_text(
        f"recipe: tiny\ntask: tiny.yaml\nbackbone: {{name: {backbone}}}\nprompt: {{length: 4}}\n"
        "train: {epochs: 3, batch_size: 4, learning_rate: 0.05}\n"
    )


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
    write_project(tmp_path, backbone, (task_file.parent / "rows.jsonl").read_text())
    return Project(tmp_path, capsys)


@pytest.fixture
def suites(project: Project) -> SuiteProject:
    return SuiteProject(project.folder, project.capsys)
