"""Runs that end too early, by whatever fault, and what `--resume` makes of them."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ptv2kit.cli.main import main
from ptv2kit.training.state import LogEntry, Step
from ptv2kit.training.writer import RunWriter
from tests.projects import Project, project, read_json

__all__ = ["project"]
ROOT = Path(__file__).parents[2]
LAST_STEP = 9


def outcome(run: Path) -> dict[str, Any]:
    """All that must not depend on whether a run was interrupted."""
    results = {key: value for key, value in read_json(run / "results.json").items() if key != "seconds"}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        for key in ("seconds", "training_seconds", "training_cpu_seconds"):
            line.pop(key, None)
    return {"results": results, "metrics": lines, "predictions": (run / "predictions/validation.jsonl").read_text()}


def assert_equal_runs(one: Path, other: Path) -> None:
    assert outcome(one) == outcome(other)
    tensors, others = (load_file(run / "prompt" / "prompt.safetensors") for run in (one, other))
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, others[name]), name


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], None]) -> None:
    """Let something happen in this step."""
    original = RunWriter.log

    def log(self: RunWriter, row: LogEntry) -> None:
        original(self, row)
        if isinstance(row, Step) and row.step == step:
            act()

    monkeypatch.setattr(RunWriter, "log", log)


def uninterrupted(project: Project) -> Path:
    assert main(["run", "recipe.yaml", "--runs-dir", "whole"]) == 0
    project.capsys.readouterr()
    [run] = (project.folder / "whole" / "tiny").iterdir()
    return run


@pytest.mark.parametrize(
    ("number", "code", "status"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated"), (signal.SIGHUP, 129, "hung_up")],
)
@pytest.mark.parametrize("step", [2, 3, 7])
def test_a_signal_saves_and_the_run_goes_on_to_the_same_end(
    project: Project, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int, status: str, step: int
) -> None:
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip(f"{number.name} is ignored here, as nohup has it")
    whole = uninterrupted(project)
    with monkeypatch.context() as patch:
        at_step(patch, step, lambda: os.kill(os.getpid(), number))
        found, _, err = project.run()
    assert found == code
    [run] = project.runs
    assert f"ptv2kit run runs/tiny/{run.name} --resume" in err
    assert read_json(run / "results.json")["status"] == status
    assert [path.name for path in (run / "checkpoints").glob("step-*")][-1:]
    found, _, err = project.run("--resume")
    assert found == 0, err
    assert f"resuming after step {step} of {LAST_STEP}" in err
    assert project.runs == [run]
    assert_equal_runs(run, whole)
    found, _, err = project.run("--resume")
    assert found == 2
    assert "there is no unfinished run in 'runs/tiny'" in err


def test_a_second_ctrl_c_does_not_wait(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        at_step(patch, 5, twice)
        assert project.run()[0] == 130
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert project.run("--resume")[0] == 0


def interrupt(project: Project, monkeypatch: pytest.MonkeyPatch, step: int) -> Path:
    with monkeypatch.context() as patch:
        at_step(patch, step, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert project.run()[0] == 143
    return project.runs[-1]


def test_a_changed_recipe_is_refused_with_the_keys_that_differ(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = interrupt(project, monkeypatch, 5)
    code, _, err = project.run("--resume", "train.learning_rate=0.01", "prompt.dropout=0.5", "train.epochs=5")
    assert code == 2
    for line in ("train.learning_rate: 0.05 → 0.01", "prompt.dropout: its default → 0.5", "train.epochs: 3 → 5"):
        assert line in err
    code, _, err = project.run("--resume", "--accept", "train.learning_rate", "train.learning_rate=0.01")
    assert code == 2
    assert "train.epochs, train.patience" in err
    project.change("rows.jsonl", '"met"', '"left"')
    code, _, err = project.run("--resume")
    assert code == 2
    assert "data" in err
    assert read_json(run / "results.json")["status"] == "terminated"


def test_accepted_keys_may_change(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    run = interrupt(project, monkeypatch, 5)
    code, _, err = project.run(
        "--resume", "--accept", "train.epochs", "train.epochs=4", "train.keep_checkpoints=1", "description=more"
    )
    assert code == 0, err
    assert "resuming with train.epochs: 3 → 4" in err
    assert read_json(run / "results.json")["epochs"] == 4
    assert "epochs: 4" in (run / "recipe.resolved.yaml").read_text()
    assert len(list((run / "checkpoints").glob("step-*"))) == 1
    code = main(["run", str(run), "--resume"])
    assert code == 2
    assert "has ended" in project.capsys.readouterr().err
    assert main(["run", str(run), "--resume", "--accept", "train.epochs", "train.epochs=5"]) == 0
    assert read_json(run / "results.json")["epochs"] == 5


def test_what_cannot_go_on(project: Project) -> None:
    assert project.run("--resume")[0] == 2
    code, _, err = project.run("--accept", "train.epochs")
    assert code == 2
    assert "--accept is for --resume" in err
    assert main(["run", "."]) == 2
    assert "is a folder" in project.capsys.readouterr().err


def run_in_a_process(before: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, after some lines of Python that cause a fault."""
    command = "from ptv2kit.cli.main import main\nsys.exit(main(['run', 'recipe.yaml', *sys.argv[1:]]))"
    script = f"import sys\n{before}\n{command}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, env=environment, check=False
    )


KILL_AT_STEP = """
import os, signal
from ptv2kit.training.writer import RunWriter
original = RunWriter.log
def log(self, row):
    original(self, row)
    if getattr(row, "step", 0) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
RunWriter.log = log
"""
KILL_WHILE_WRITING = """
import os, signal
original = os.fsync
def fsync(number):
    if "checkpoints/.step-00000006" in os.readlink(f"/proc/self/fd/{number}"):
        os.truncate(number, 1000)
        os.kill(os.getpid(), signal.SIGKILL)
    original(number)
os.fsync = fsync
"""


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "goes_on_after"), [(KILL_AT_STEP, 3), (KILL_WHILE_WRITING, 3)])
def test_a_killed_run_goes_on_to_the_same_end(project: Project, fault: str, goes_on_after: int) -> None:
    whole = uninterrupted(project)
    ended = run_in_a_process(fault)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    [run] = project.runs
    assert not (run / "results.json").exists()
    code, _, err = project.run("--resume")
    assert code == 0, err
    assert f"resuming after step {goes_on_after} of {LAST_STEP}" in err
    assert_equal_runs(run, whole)


@pytest.mark.night
def test_a_disk_that_refuses_loses_nothing(project: Project) -> None:
    """Files may not grow beyond a limit that the second checkpoint, with the optimizer's state, exceeds."""
    whole = uninterrupted(project)
    size = max(path.stat().st_size for path in (whole / "checkpoints").glob("step-*"))
    before = (
        "import signal, resource\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"from ptv2kit.training.checkpoint import Checkpoints\noriginal = Checkpoints.save\nsaves = []\n"
        "def save(*words):\n"
        "    saves.append(1)\n"
        f"    if len(saves) == 2:\n        resource.setrlimit(resource.RLIMIT_FSIZE, ({size - 1}, {size - 1}))\n"
        "    return original(*words)\n"
        "Checkpoints.save = save"
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    ended = run_in_a_process(before)
    assert ended.returncode == 1
    assert "the run folder cannot be written: File too large" in ended.stderr
    assert "--resume continues from them" in ended.stderr
    [run] = project.runs
    assert [path.name for path in (run / "checkpoints").glob("step-*")] == ["step-00000003.safetensors"]
    assert project.run("--resume")[0] == 0
    assert_equal_runs(run, whole)


@pytest.mark.slow
def test_a_full_file_system_loses_nothing(project: Project, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        ended = run_in_a_process("", "--runs-dir", str(disk), "train.keep_checkpoints=100", "train.epochs=50")
        assert ended.returncode == 1, ended.stderr
        assert "No space left on device" in ended.stderr
        [run] = (disk / "tiny").iterdir()
        assert [path.name for path in (run / "checkpoints").glob(".*")] == [".lock"]
        assert load_file(run / "prompt" / "prompt.safetensors")
        subprocess.run(["mount", "-o", "remount,size=6m", str(disk)], check=True)
        code = main(["run", str(run), "--resume"])
        assert code == 0, project.capsys.readouterr().err
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.night
def test_a_file_system_that_becomes_read_only_loses_nothing(project: Project, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    # A failing disk turns read-only below open files, which `mount` refuses: the run's lock is let go for it.
    close = KILL_AT_STEP.replace(
        "os.kill(os.getpid(), signal.SIGKILL)",
        "import subprocess; folder = '/proc/self/fd/'; "
        "[os.dup2(os.open('/dev/null', os.O_RDWR), int(fd)) for fd in os.listdir(folder)"
        f" if os.path.realpath(folder + fd).startswith({str(disk)!r})]; "
        f"subprocess.run(['mount', '-o', 'remount,ro', {str(disk)!r}], check=True)",
    )
    try:
        ended = run_in_a_process(close, "--runs-dir", str(disk))
        assert ended.returncode == 1, ended.stderr
        assert "the run folder cannot be written: Read-only file system" in ended.stderr
        assert "Traceback" not in ended.stderr
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        [run] = (disk / "tiny").iterdir()
        assert main(["run", "recipe.yaml", "--runs-dir", str(disk), "--resume"]) == 0
        assert_equal_runs(run, uninterrupted(project))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = uninterrupted(project)
    run = interrupt(project, monkeypatch, 7)
    newest = run / "checkpoints" / "step-00000007.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    code, _, err = project.run("--resume")
    assert code == 0
    assert "step-00000007.safetensors: this checkpoint is torn" in err
    assert "resuming after step 6" in err
    assert_equal_runs(run, whole)
