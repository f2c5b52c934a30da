"""Runs of several tasks on one tiny backbone, and servers of them."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from ptv2kit.cli.main import main
from ptv2kit.serve.app import build_app
from ptv2kit.serve.server import build_server
from ptv2kit.serve.settings import Settings
from ptv2kit.training.load_together import LoadedRuns

TASKS = {
    "names": "input: {words: words, max_length: 16}\nlabels: {scheme: iob2, column: tags, names: [LOC, PER]}",
    "yes": 'input: {text: "{who}", pair: "{where}", max_length: 16}\n'
    "labels: {scheme: classes, column: label, names: [no, yes]}",
    "mood": 'input: {text: "{who}", max_length: 12}\nlabels: {scheme: classes, column: label, names: [no, yes]}',
    "pick": 'input: {text: "{who} met", choices: ["{one}", "{two}"], max_length: 16}\n'
    "labels: {scheme: choices, column: choice}",
    "find": 'input: {question: "{who} met", context: "{context}", max_length: 12, stride: 2}\n'
    "labels: {scheme: start_end, text: answer, unanswerable: true}",
}
SETTINGS = {
    "names": ["prompt.length=4"],
    "yes": ["prompt.length=2", "prompt.layers=2-2"],
    "mood": ["method=prompt_tuning", "prompt.length=3"],
    "pick": ["method=linear_probe"],
    "find": ["prompt.length=5", "prompt.reparameterization=mlp"],
}
ROWS: dict[str, dict[str, Any]] = {
    "names": {"words": ["ada", "met", "alan", "in", "paris"]},
    "yes": {"who": "ada met alan", "where": "paris"},
    "mood": {"who": "alan left"},
    "pick": {"who": "ada", "one": "alan in rome", "two": "paris"},
    "find": {"who": "ada", "context": "ada met alan in paris and left for rome in paris in rome for alan"},
}
"""A row that each task can answer; of `find` it takes several windows."""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, backbone: Path) -> Path:
    """A folder with `runs/<task>/…` of each task."""
    folder = tmp_path_factory.mktemp("served")
    rows = [
        {
            **{"words": [who, "met", where], "tags": ["B-PER", "O", "B-LOC"], "who": who, "where": where},
            **{"label": "yes" if where == "rome" else "no", "one": where, "two": "paris in rome", "choice": 0},
            **{"context": f"{who} left for {where}", "answer": where},
        }
        for who in ("ada", "alan")
        for where in ("paris", "rome")
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = Path.cwd()
    os.chdir(folder)
    try:
        for name, text in TASKS.items():
            splits = "data: {source: jsonl, splits: {train: rows.jsonl, validation: rows.jsonl}}"
            (folder / f"{name}.yaml").write_text(f"task: {name}\n{splits}\n{text}\n")
            (folder / f"recipe-{name}.yaml").write_text(
                f"recipe: {name}\ntask: {name}.yaml\nbackbone: {{name: {backbone}}}\n"
                "prompt: {init_scale: 0.5}\ntrain: {epochs: 1, batch_size: 2, learning_rate: 0.05}\n"
            )
            assert main(["run", f"recipe-{name}.yaml", "--quiet", *SETTINGS[name]]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture(scope="session")
def run_of(folder: Path) -> Callable[[str], Path]:
    """The run of a task."""

    def run_of(task: str) -> Path:
        [run] = (folder / "runs" / task).iterdir()
        return run

    return run_of


Serve = Callable[..., httpx.Client]


@pytest.fixture
def serve(run_of: Callable[[str], Path]) -> Generator[Serve]:
    """`serve("names", "yes", queue=3)`: a client of a server of these prompts with these settings."""
    stack: list[Any] = []

    def serve(*tasks: str, runs: Mapping[str, Path] | None = None, **settings: Any) -> httpx.Client:
        loaded = LoadedRuns("cpu")
        for name, run in (runs or {task: run_of(task) for task in tasks or TASKS}).items():
            loaded.add(run, name)
        server = _serving(loaded, Settings(**settings))
        stack.append(server)
        return server.__enter__()

    yield serve
    for server in reversed(stack):
        server.__exit__(None, None, None)


@contextmanager
def _serving(runs: LoadedRuns, settings: Settings) -> Generator[httpx.Client]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = build_server(build_app(runs, settings), settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            # Trust nothing of the environment, such as a proxy.
            port = listening.getsockname()[1]
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:
                yield client
        finally:
            server.handle_exit(signal.SIGTERM, None)
            thread.join(timeout=60)
            assert not thread.is_alive()
