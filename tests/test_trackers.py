"""Experiment trackers are told what the run's own files say."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ptv2kit.training.trackers import flat
from tests.projects import Project, project, read_json

__all__ = ["project"]


def history(run: Path) -> list[float]:
    return [epoch["span_f1"] for epoch in read_json(run / "results.json")["history"]]


def tensorboard_values(run: Path, name: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_has_losses_scores_and_settings(project: Project) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install 'ptv2kit[tensorboard]'")
    assert project.run("trackers=[tensorboard]")[0] == 0
    [run] = project.runs
    found = tensorboard_values(run, "validation/span_f1")
    assert [step for step, _ in found] == [3, 6, 9]
    assert [value for _, value in found] == pytest.approx(history(run), rel=1e-5)
    assert [step for step, _ in tensorboard_values(run, "train/loss")] == [9]
    assert tensorboard_values(run, "best/validation/span_f1")[0][1] == pytest.approx(max(history(run)), rel=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_run_that_goes_on_repeats_no_step(project: Project) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install 'ptv2kit[tensorboard]'")
    assert project.run("trackers=[tensorboard]")[0] == 0
    [run] = project.runs
    (run / "results.json").unlink()
    (run / "checkpoints" / "step-00000009.safetensors").unlink()
    code, _, err = project.run("--resume")
    assert code == 0, err
    assert "resuming after step 6 of 9" in err
    assert [step for step, _ in tensorboard_values(run, "validation/span_f1")] == [3, 6, 9]


def test_trackers_may_change_when_a_run_goes_on(project: Project) -> None:
    assert project.run()[0] == 0
    [run] = project.runs
    (run / "results.json").unlink()
    assert project.run("--resume", "trackers=[]")[0] == 0


def log_records(content: bytes) -> Iterator[bytes]:
    """The records of a file in LevelDB's log format: blocks of 32 KiB, of pieces with checksum, length and type."""
    whole, at = b"", 7
    while at < len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield whole
            whole = b""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_weights_and_biases_offline(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed: pip install 'ptv2kit[wandb]'")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    assert project.run("trackers=[wandb]")[0] == 0
    [run] = project.runs
    [file] = (run / "wandb").glob("offline-run-*/*.wandb")

    def kept() -> tuple[list[float], dict[str, float]]:
        scores: list[float] = []
        summary: dict[str, float] = {}
        for data in log_records(file.read_bytes()):
            record: Any = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            for item in record.history.item:
                if "/".join([item.key, *item.nested_key]).strip("/") == "validation/span_f1":
                    scores.append(json.loads(item.value_json))
            for item in record.summary.update:
                summary["/".join([item.key, *item.nested_key]).strip("/")] = json.loads(item.value_json)
        return scores, summary

    deadline = time.monotonic() + 60  # a process of its own writes the file, and on a busy machine it is late
    while len(kept()[0]) < len(history(run)) and time.monotonic() < deadline:
        time.sleep(0.2)
    scores, summary = kept()
    assert scores == pytest.approx(history(run))
    assert summary["best/validation/span_f1"] == pytest.approx(max(history(run)))


@pytest.mark.night
@pytest.mark.filterwarnings("ignore")
def test_trackio_keeps_a_local_database(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackio", reason="trackio is not installed: pip install 'ptv2kit[trackio]'")
    monkeypatch.setenv("TRACKIO_DIR", str(project.folder / "trackio"))
    process_code = (
        "from ptv2kit.cli.main import main; raise SystemExit(main(['run', 'recipe.yaml', 'trackers=[trackio]']))"
    )
    root = Path(__file__).parents[1]
    ended = subprocess.run(
        [sys.executable, "-c", process_code],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert ended.returncode == 0, ended.stderr
    [run] = project.runs
    [database] = (project.folder / "trackio").rglob("ptv2kit.db")
    with sqlite3.connect(database) as connection:
        rows = [json.loads(row[0]) for row in connection.execute("SELECT metrics FROM metrics ORDER BY id")]
    assert [row["validation/span_f1"] for row in rows if "validation/span_f1" in row] == pytest.approx(history(run))


def test_a_tracker_that_is_missing_or_cannot_start_is_named_first(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ptv2kit.training.trackers.importlib.util.find_spec", lambda name: None)
    code, _, err = project.run("trackers=[trackio]")
    assert code == 2
    assert "trackers: 'trackio' is not installed" in err
    assert not project.runs
    monkeypatch.undo()
    monkeypatch.chdir(project.folder)

    original = importlib.import_module

    def fail(name: str, package: str | None = None) -> Any:
        if name == "wandb":
            raise OSError("no way")
        return original(name, package)

    monkeypatch.setattr("ptv2kit.training.trackers.importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("ptv2kit.training.trackers.importlib.import_module", fail)
    code, _, err = project.run("trackers=[wandb]")
    assert code == 2
    assert "trackers: wandb cannot start: OSError: no way" in err


@pytest.mark.filterwarnings("ignore")
def test_other_trackers_are_started_by_accelerate(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = pytest.importorskip("accelerate.tracking", reason="accelerate is not installed")
    told: list[tuple[str, object, int | None]] = []

    class Recording(tracking.GeneralTracker):
        name = "mlflow"
        requires_logging_directory = False
        tracker = None

        def __init__(self, experiment_name: str, run_name: str) -> None:
            super().__init__(_blank=True)
            told.append(("made", (experiment_name, run_name), None))

        def start(self) -> None:
            told.append(("start", None, None))

        def store_init_configuration(self, values: dict[str, object]) -> None:
            told.append(("settings", values["prompt.length"], None))

        def log(self, values: dict[str, float], step: int | None = None, **_: object) -> None:
            told.append(("log", values, step))

        def finish(self) -> None:
            told.append(("finish", None, None))

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "mlflow", Recording)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "ptv2kit.training.trackers.importlib.util.find_spec",
        lambda name: object() if name == "mlflow" else find(name),
    )
    assert project.run("trackers=[mlflow]")[0] == 0
    [run] = project.runs
    assert [kind for kind, _, _ in told[:3]] == ["made", "start", "settings"]
    assert told[0][1] == ("ptv2kit", f"{run.parent.name}-{run.name}")
    logged = [(values, step) for kind, values, step in told if kind == "log"]
    scores = [(values["validation/span_f1"], step) for values, step in logged if "validation/span_f1" in values]
    assert scores == [(pytest.approx(value), step) for value, step in zip(history(run), (3, 6, 9), strict=True)]
    assert told[-2][1]["best/validation/span_f1"] == pytest.approx(max(history(run)))
    assert told[-1][0] == "finish"


def test_settings_become_flat() -> None:
    assert flat({"a": {"b": 1, "c": {"d": [1, 2]}}, "e": None}) == {"a.b": 1, "a.c.d": "[1, 2]", "e": None}
