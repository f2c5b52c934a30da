"""What a run survives: its terminal, its disk, its folder, a second command, and a kill at any moment."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from ptv2kit.cli.main import main
from ptv2kit.training.folder import RunFolder
from ptv2kit.training.prompt_file import load_prompt
from ptv2kit.training.state import Evaluated, LogEntry
from ptv2kit.training.writer import RunWriter
from tests.cli.test_resume import assert_equal_runs, at_step, uninterrupted
from tests.projects import Project, project, read_json

__all__ = ["project"]
ROOT = Path(__file__).parents[2]


def ptv2kit(project: Project, *words: str, **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "from ptv2kit.cli.main import entry_point; entry_point()", "run", "recipe.yaml"]
    return subprocess.Popen([*command, *words], cwd=project.folder, env=environment, text=True, **options)


class Killed(BaseException):
    """As SIGKILL, nothing of the program catches it."""


def kill() -> None:
    raise Killed


def test_the_prompt_is_that_of_the_checkpoint_a_run_resumes_from(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after an evaluation that kept a prompt, before the checkpoint that would know of it."""
    original = RunWriter.log

    def log(self: RunWriter, row: LogEntry) -> None:
        original(self, row)
        if isinstance(row, Evaluated) and row.epoch == 2:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(RunWriter, "log", log)
        with pytest.raises(Killed):
            project.run("train.checkpoint_steps=4", "train.learning_rate=0.02")
    [run] = project.runs
    assert load_prompt(run / "prompt")[1]["epoch"] == 2, "the test needs an epoch 2 that is better than epoch 1"
    code, _, err = project.run(
        "--resume", "--accept", "train.epochs", "train.epochs=1", "train.checkpoint_steps=4", "train.learning_rate=0.02"
    )
    assert code == 0, err
    results = read_json(run / "results.json")
    facts = load_prompt(run / "prompt")[1]
    assert results["best_epoch"] == facts["epoch"] == 1
    assert results["score"] == facts["validation"]["span_f1"]
    predictions = (run / "predictions/validation.jsonl").read_bytes()
    assert predictions == (run / "checkpoints/best/00001/prompt/predictions.jsonl").read_bytes()


def test_only_prompts_that_a_kept_checkpoint_knows_are_kept_beside_it(project: Project) -> None:
    assert project.run("train.epochs=6")[0] == 0
    [run] = project.runs
    best = read_json(run / "results.json")["best_epoch"]
    kept = {int(path.name) for path in (run / "checkpoints/best").iterdir()} - {0}
    assert best in kept
    assert len(kept) <= 2
    published, own = run / "prompt/prompt.safetensors", run / f"checkpoints/best/{best:05}/prompt/prompt.safetensors"
    assert published.samefile(own)


def test_a_second_command_does_not_train_the_same_run(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert project.run()[0] == 143
    [run] = project.runs
    before = (run / "metrics.jsonl").read_bytes()
    with RunFolder(run).locked():
        code, _, err = project.run("--resume")
        assert code == 2
        assert f"the run 'runs/tiny/{run.name}' is being trained by another process" in err
        assert (run / "metrics.jsonl").read_bytes() == before
    assert project.run("--resume")[0] == 0


@pytest.mark.parametrize("step", [2, 7])
def test_sigusr1_saves_a_checkpoint_and_the_run_goes_on(
    project: Project, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    whole = uninterrupted(project)
    with monkeypatch.context() as patch:
        at_step(patch, step, lambda: os.kill(os.getpid(), signal.SIGUSR1))
        assert project.run("train.keep_checkpoints=9")[0] == 0
    [run] = project.runs
    assert (run / f"checkpoints/step-{step:08}.safetensors").is_file()
    assert_equal_runs(run, whole)


def test_a_folder_that_is_deleted_meanwhile_ends_the_run_with_an_error(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def delete() -> None:
        for run in project.runs:
            shutil.rmtree(run)

    at_step(monkeypatch, 5, delete)
    code, _, err = project.run()
    assert code == 1
    assert "the folder was deleted while the run was training" in err or "cannot be written" in err
    assert not any((run / "results.json").exists() for run in project.runs)


WRITES = 40


@pytest.mark.night
def test_a_disk_that_fails_at_any_write_loses_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The n-th file that is written to the end fails, for every n until a run needs no more."""
    whole = uninterrupted(project)
    fsync = os.fsync
    for number in range(WRITES):
        count = 0

        def failing(descriptor: int, number: int = number) -> None:
            nonlocal count
            count += 1
            if count == number + 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr("ptv2kit.files.os.fsync", failing)
            code, _, err = project.run("--runs-dir", f"runs-{number}")
        runs = list((project.folder / f"runs-{number}" / "tiny").glob("*"))
        assert not list((project.folder / f"runs-{number}").rglob("*.tmp")), number
        if code == 0:
            assert count <= number
            break
        assert code == 1, (number, err)
        assert "the run folder cannot be written: No space left on device" in err
        for run in runs:
            if (run / "prompt/prompt.safetensors").exists():
                load_prompt(run / "prompt")
        if any((run / "recipe.resolved.yaml").exists() and not (run / "results.json").exists() for run in runs):
            code, _, err = project.run("--resume", "--runs-dir", f"runs-{number}")
            assert code == 0, (number, err)
            assert_equal_runs(runs[0], whole)
    else:
        raise AssertionError(f"a run makes more than {WRITES} writes")
    assert number > 15


@pytest.mark.night
@pytest.mark.parametrize("gone", ["closed pipe", "full device"])
def test_a_run_goes_on_when_its_messages_cannot_be_written(project: Project, gone: str) -> None:
    if gone == "full device":
        with Path("/dev/full").open("w") as full:
            process = ptv2kit(project, stderr=full, stdout=subprocess.PIPE)
            out, _ = process.communicate(timeout=120)
    else:
        read, write = os.pipe()
        process = ptv2kit(project, stderr=write, stdout=subprocess.PIPE)
        os.close(write)
        os.close(read)
        out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "span_f1" in out
    [run] = project.runs
    assert read_json(run / "results.json")["status"] == "finished"
    log = (run / "log.txt").read_text()
    for part in ("train: ", "% of the backbone", "epoch 3: ", "finished after 3 epochs"):
        assert part in log


@pytest.mark.slow
def test_nohup_keeps_a_run_alive(project: Project) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = ptv2kit(project, "train.epochs=30", stderr=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=ignore)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("epoch   1/"):
            process.send_signal(signal.SIGHUP)
            break
    process.communicate(timeout=120)
    assert process.returncode == 0


@pytest.mark.night
def test_child_processes_import_nothing_from_the_working_folder(project: Project) -> None:
    for name in ("random", "datasets", "torch"):
        (project.folder / f"{name}.py").write_text(f"open('{name}-was-imported', 'w').close()\n")
    (project.folder / "suite.yaml").write_text(
        "suite: s\nrecipe: recipe.yaml\ngrid: {prompt.length: [2, 3]}\nset: {train.epochs: 1}\n"
    )
    (project.folder / "search.yaml").write_text(
        "suite: f\nrecipe: recipe.yaml\nset: {train.epochs: 1}\n"
        "search: {sampler: grid, space: {prompt.length: {values: [2, 3]}}, pruner: none}\n"
    )
    assert main(["run", "suite.yaml", "--jobs", "2", "--quiet"]) == 0, project.capsys.readouterr().err
    assert main(["run", "search.yaml", "--jobs", "2", "--quiet"]) == 0, project.capsys.readouterr().err
    assert project.run("distributed.strategy=ddp", "distributed.gpus=2", "train.device=cpu")[0] == 0
    assert not list(project.folder.glob("*-was-imported"))


def test_results_of_a_finished_run_are_whole(project: Project) -> None:
    assert project.run()[0] == 0
    [run] = project.runs
    assert json.loads((run / "results.json").read_text())["score"] is not None
    assert load_file(run / "prompt/prompt.safetensors")
