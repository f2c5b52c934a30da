"""`ptv2kit serve` as it is typed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from ptv2kit.cli.main import main
from tests.projects import Project, project

__all__ = ["project"]


@pytest.fixture
def run(project: Project) -> Path:
    assert project.run("train.epochs=1")[0] == 0
    [run] = project.runs
    return run


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--port", "70000"], "--port must be from 0 to 65535. Got 70000"),
        (["--queue", "0"], "--queue must be at least 1. Got 0"),
        (["--max-body", "-1"], "--max-body must be at least 1. Got -1"),
        (["--max-wait", "-1"], "--max-wait must be from 0 to 10000 milliseconds. Got -1"),
        (["--max-wait", "nan"], "--max-wait must be from 0 to 10000 milliseconds. Got nan"),
        (["--timeout", "0"], "--timeout must be above 0. Got 0"),
        (["--manage", "nothing"], "--manage: there is no folder 'nothing'"),
        (["--host", "256.0.0.1"], "cannot listen on 256.0.0.1, port 0"),
        (["--token-file", "empty"], "the file 'empty' holds no token"),
    ],
)
def test_options_are_checked_before_anything_is_loaded(project: Project, words: list[str], message: str) -> None:
    (project.folder / "empty").write_text("\n")
    assert main(["serve", "nothing", "--port", "0", *words]) == 2
    assert message in project.capsys.readouterr().err


def test_a_token_file_that_is_not_there(project: Project) -> None:
    assert main(["serve", "nothing", "--token-file", "none"]) == 3
    assert "none: error: the token cannot be read" in project.capsys.readouterr().err


def test_a_port_that_is_taken(project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["serve", "nothing", "--port", str(port)]) == 2
    err = project.capsys.readouterr().err
    assert f"cannot listen on 127.0.0.1, port {port}: Address already in use" in err
    assert "hint: choose another --port or --host" in err


def test_no_run_and_two_of_one_name(project: Project, run: Path) -> None:
    project.capsys.readouterr()
    assert main(["serve", "nothing", "--port", "0"]) == 2
    assert "'nothing' is not the folder of a run" in project.capsys.readouterr().err
    assert main(["serve", str(run), str(run), "--port", "0"]) == 2
    err = project.capsys.readouterr().err
    assert f"there already is a prompt 'tiny', of the run '{run}'" in err
    assert f"hint: give this one another name: NAME={run}" in err


def test_another_backbone_is_refused(project: Project, run: Path) -> None:
    assert project.run("train.epochs=1", "backbone.attention=eager")[0] == 0
    [other] = [each for each in project.runs if each != run]
    assert main(["serve", f"a={run}", f"b={other}", "--port", "0"]) == 2
    assert f"the run '{other}' has backbone.attention eager, but '{run}' has sdpa" in project.capsys.readouterr().err
    assert project.run("train.epochs=1", "method=fine_tuning")[0] == 0
    [tuned] = [each for each in project.runs if each not in (run, other)]
    project.capsys.readouterr()
    assert main(["serve", f"a={run}", f"b={tuned}", "--port", "0"]) == 2
    assert f"the run '{tuned}' trained its backbone" in project.capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_answers_until_a_signal_comes(project: Project, run: Path, number: signal.Signals) -> None:
    (project.folder / "token").write_text("secret\n")
    command = [sys.executable, "-m", "ptv2kit", "serve", f"who={run.relative_to(project.folder)}", "--port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*command, "--token-file", "token"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(3)]
        assert lines[0] == f"who: iob2, of {run.relative_to(project.folder)}\n"
        address = lines[2].split(": ", 1)[1].split("/predict", 1)[0]
        headers = {"authorization": "Bearer secret"}
        with httpx.Client(base_url=address, headers=headers, trust_env=False, timeout=60) as client:
            answer = client.post("/prompts/who/predict", json={"rows": ["ada met alan"]})
        assert answer.json()["answers"][0]["words"] == ["ada", "met", "alan"]
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    assert out == ""
    if number == signal.SIGINT:
        assert (process.returncode, err) == (130, "stopped\n")
    else:
        assert process.returncode in (143, -signal.SIGTERM)


def test_a_run_with_several_tasks_is_several_prompts(project: Project) -> None:
    from ptv2kit.training.load_together import LoadedRuns

    rows = [{"text": "ada met alan", "label": "no"}, {"text": "alan left", "label": "yes"}] * 2
    (project.folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (project.folder / "other.yaml").write_text(
        "task: other\ndata: {source: jsonl, splits: {train: texts.jsonl, validation: texts.jsonl}}\n"
        'input: {text: "{text}", max_length: 16}\nlabels: {scheme: classes, column: label, names: [no, yes]}\n'
    )
    assert project.run("task=[tiny.yaml, other.yaml]", "train.epochs=1")[0] == 0
    [run] = project.runs
    runs = LoadedRuns("cpu")
    assert runs.add(run) == ["tiny", "other"]
    assert runs.add(run, "again") == ["again.tiny", "again.other"]
    found = runs.predict([("tiny", "ada met alan"), ("again.other", "alan left"), ("other", "alan left")])
    assert found[0]["words"] == ["ada", "met", "alan"]
    assert found[1] == found[2]
