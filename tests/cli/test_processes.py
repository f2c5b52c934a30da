"""One training on several processes: the same numbers, and what happens when one of them ends."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ptv2kit.cli.main import main
from tests.projects import Project, project, read_json

__all__ = ["project"]
ROOT = Path(__file__).parents[2]
STILL = ("backbone.dropout=0", "backbone.attention_dropout=0", "prompt.dropout=0", "train.batch_size=5")
TOLERANCE = 2e-6
"""Sums over rows are formed in another order."""

needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None,
    reason="deepspeed is not installed: pip install 'ptv2kit[distributed]'",
)


def start(*words: str, file: str = "recipe.yaml") -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "ptv2kit", "run", file, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["kind"] == "train"]


def only_run(folder: Path) -> Path:
    [run] = (folder / "tiny").iterdir()
    return run


@pytest.mark.parametrize(
    "words",
    [
        ["distributed.strategy=ddp", "train.micro_batch_size=1"],
        pytest.param(["distributed.strategy=zero1"], marks=needs_deepspeed),
        ["distributed.strategy=ddp", "train.layer_norm_learning_rate=0.01"],
        pytest.param(["distributed.strategy=zero2", "train.layer_norm_learning_rate=0.01"], marks=needs_deepspeed),
        pytest.param(["distributed.strategy=zero2", "train.micro_batch_size=1"], marks=needs_deepspeed),
        pytest.param(
            [
                "distributed.strategy=zero3",
                "train.micro_batch_size=2",
                "train.gradient_checkpointing=true",
                # Without this the tiny weights would not be put in parts.
                "deepspeed={zero_optimization: {stage3_param_persistence_threshold: 0}}",
            ],
            marks=needs_deepspeed,
        ),
    ],
    ids=["ddp", "zero1", "ddp and LayerNorms", "zero2 and LayerNorms", "zero2", "zero3"],
)
@pytest.mark.night
def test_the_numbers_are_those_of_one_process(project: Project, words: list[str]) -> None:
    """Five rows a batch do not divide evenly; the last batch has two."""
    project.change("tiny.yaml", "validation: rows.jsonl", "validation: rows.jsonl, test: rows.jsonl")
    alike = [word for word in words if word.startswith("train.layer_norm")]
    assert main(["run", "recipe.yaml", *STILL, "train.epochs=10", "--runs-dir", "one", *alike]) == 0
    process = start(*STILL, "train.epochs=10", "distributed.gpus=2", "--runs-dir", "two", "--json", *words)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert "2 processes, strategy" in err
    one, two = only_run(project.folder / "one"), only_run(project.folder / "two")
    assert json.loads(out)["status"] == "finished"
    assert len(losses(two)) == 3
    assert losses(two) == pytest.approx(losses(one), abs=TOLERANCE)
    assert read_json(two / "results.json")["history"] == read_json(one / "results.json")["history"]
    assert read_json(two / "results.json")["metrics"] == read_json(one / "results.json")["metrics"]
    tensors, others = (load_file(run / "prompt" / "prompt.safetensors") for run in (one, two))
    for name, tensor in tensors.items():
        assert torch.allclose(tensor, others[name], atol=1e-4), name
    first, second = (
        [json.loads(line)["label"] for line in (run / "predictions/test.jsonl").read_text().splitlines()]
        for run in (one, two)
    )
    assert first == second


def children(process: subprocess.Popen[str]) -> list[int]:
    """In the order in which they were started."""
    return [int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def end_early(act: Callable[[subprocess.Popen[str]], None], *words: str) -> tuple[int, str]:
    process = start(*STILL, "train.epochs=400", "distributed.gpus=2", *words)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("epoch   5/"):
            act(process)
            break
    _, err = process.communicate(timeout=120)
    return process.returncode, err


@pytest.mark.night
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("strategy", ["ddp", pytest.param("zero2", marks=needs_deepspeed)])
def test_a_killed_process_ends_the_others_and_the_run_goes_on(project: Project, strategy: str) -> None:
    """It goes on as it was, and as well on one process: checkpoints fit any strategy."""
    code, err = end_early(
        lambda process: os.kill(children(process)[1], signal.SIGKILL), f"distributed.strategy={strategy}"
    )
    assert code == 1
    assert "process 1 of 2 was killed by SIGKILL" in err
    assert "Traceback" not in err
    run = only_run(project.folder / "runs")
    assert not (run / "results.json").exists()
    done = max(int(path.stem.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*"))
    assert done >= 12
    longer = ("--resume", "--accept", "train.epochs", f"train.epochs={done // 3 + 5}")
    ends: list[list[float]] = []
    for gpus, now in ((2, strategy), (1, "none")):
        copied = project.folder / f"copy-{now}"
        shutil.copytree(run, copied)
        process = start(*longer, f"distributed.gpus={gpus}", f"distributed.strategy={now}", file=str(copied))
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert f"resuming after step {done}" in err
        ends.append(losses(copied))
    assert ends[0] == pytest.approx(ends[1], abs=TOLERANCE)


@pytest.mark.skipif(sys.platform != "linux", reason="asks the C library to abort at the end")
def test_a_command_that_has_ended_well_does_not_fail_while_libraries_are_taken_apart() -> None:
    """As it does now and then with threads of gloo that are still there; what Python registers is called before."""
    script = (
        "import atexit, ctypes\nfrom ptv2kit.cli import main as command\n"
        "libc = ctypes.CDLL(None)\nlibc.__cxa_atexit(libc.abort, None, None)\n"
        "def main():\n    atexit.register(print, 'at the end')\n    print('done', end=', ')\n    return 3\n"
        "command.main = main\ncommand.entry_point()\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "done, at the end\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="closes streams as a shell does")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_command_without_streams_ends_as_ever(closed: str) -> None:
    for file, code in (("recipes/quickstart.yaml", 0), ("recipes/none.yaml", 2)):
        command = f"{shlex.quote(sys.executable)} -m ptv2kit validate {file} {closed}"
        ended = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=False)
        assert ended.returncode == code
        said = "cannot read the file" if code and closed == ">&-" else ""
        assert said in ended.stderr
        assert "Traceback" not in ended.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_a_full_device_refuses_is_an_error(unbuffered: str) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "ptv2kit", "validate", "recipes/quickstart.yaml"],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert ended.returncode == 1
    assert ended.stderr == "error: the output of this command cannot be written: No space left on device\n"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_is_no_complaint(unbuffered: str) -> None:
    command = f"{shlex.quote(sys.executable)} -m ptv2kit ls tasks | true; exit ${{PIPESTATUS[0]}}"
    env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    ended = subprocess.run(["bash", "-c", command], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", "")


@pytest.mark.night
def test_sigterm_reaches_all_processes_and_the_run_goes_on(project: Project) -> None:
    code, err = end_early(lambda process: process.send_signal(signal.SIGTERM), "distributed.strategy=ddp")
    assert code == 143, err
    run = only_run(project.folder / "runs")
    assert f"ptv2kit run runs/tiny/{run.name} --resume" in err
    assert read_json(run / "results.json")["status"] == "terminated"


@pytest.mark.night
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_no_process_is_left_when_the_first_one_is_killed(project: Project) -> None:
    started: list[int] = []

    def kill(process: subprocess.Popen[str]) -> None:
        started.extend(children(process))
        process.kill()

    code, _ = end_early(kill, "distributed.strategy=ddp")
    assert code == -signal.SIGKILL
    assert len(started) == 2
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{number}").exists() for number in started):
        assert time.monotonic() < deadline, "processes are left"
        time.sleep(0.1)
    run = only_run(project.folder / "runs")
    words = ["--resume", "--accept", "train.epochs", "train.epochs=8", "distributed.gpus=1"]
    assert main(["run", str(run), *words]) == 0


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.night
def test_it_runs_within_torchrun(project: Project) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ports = ["--master-port", str(free_port())]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *ports, "-m", "ptv2kit", "run"]
    ended = subprocess.run(
        [*command, "recipe.yaml", *STILL, "--json"], capture_output=True, text=True, env=environment, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["status"] == "finished"
    assert len(project.runs) == 1


@needs_deepspeed
@pytest.mark.night
def test_it_runs_within_the_launcher_of_deepspeed(project: Project) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    launcher = str(Path(sys.executable).with_name("deepspeed"))
    many = ["--num_accelerators", "2", "--master_port", str(free_port())]
    command = [launcher, *many, "--module", "ptv2kit", "run", "recipe.yaml", *STILL, "--quiet"]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 0, ended.stderr
    assert read_json(project.runs[0] / "results.json")["status"] == "finished"
    assert len(project.runs) == 1


def test_a_hostfile_starts_the_launcher_of_deepspeed(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    (project.folder / "hosts").write_text("localhost slots=2\n")
    monkeypatch.setattr("ptv2kit.training.launch.subprocess.call", lambda words, env: calls.append(words) or 7)
    monkeypatch.setattr("ptv2kit.training.launch.Path.is_file", lambda path: True)
    assert project.run("distributed.hostfile=hosts")[0] == 7
    [[launcher, *words]] = calls
    assert Path(launcher).name == "deepspeed"
    assert words[:5] == ["--hostfile", "hosts", "--no_local_rank", "--module", "ptv2kit"]
    assert words[5:] == ["run", "recipe.yaml", "distributed.hostfile=hosts"]


def write_boolq(folder: Path) -> None:
    rows = [
        {"question": f"is {word} a colour", "passage": f"{word} is {kind}.", "label": int(kind == "a colour")}
        for word, kind in (("red", "a colour"), ("two", "a number"), ("blue", "a colour"), ("six", "a number")) * 3
    ]
    (folder / "boolq").mkdir()
    for split in ("train", "validation"):
        with gzip.open(folder / "boolq" / f"{split}.jsonl.gz", "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)


@needs_deepspeed
@pytest.mark.night
def test_the_glm_10b_recipe_runs_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With random weights of a size for tests; the paper's score is missed, which is exit code 5."""
    write_boolq(tmp_path)
    monkeypatch.chdir(tmp_path)
    tiny = ["backbone.name=glm-tiny-random", "distributed.strategy=zero3", "distributed.gpus=2", "train.epochs=2"]
    whole = "deepspeed={zero_optimization: {stage3_param_persistence_threshold: 0}}"
    process = start(*tiny, whole, "--data-root", str(tmp_path), "--json", file=str(ROOT / "recipes/glm-10b-boolq.yaml"))
    out, err = process.communicate(timeout=240)
    assert process.returncode == 5, err
    results = json.loads(out)
    assert results["status"] == "finished"
    assert results["epochs"] == 2
    [checkpoint, *_] = sorted((tmp_path / results["run"] / "checkpoints").iterdir())
    assert checkpoint.stat().st_size < 4 * 4 * results["parameters"]["trained"] + 100_000


@pytest.mark.parametrize(
    "case",
    [
        pytest.param("{name: deep, set: {distributed.strategy: ddp}}", marks=pytest.mark.slow),
        pytest.param(
            "{name: tuned, set: {method: fine_tuning, backbone.dtype: fp32, train.micro_batch_size: 2, "
            "train.learning_rate: 1e-5, distributed.strategy: zero2}}",
            marks=[needs_deepspeed, pytest.mark.night],
        ),
    ],
    ids=["deep", "tuned"],
)
def test_a_cell_of_glm_10b_has_two_processes(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the cells of table 2, with random weights of a size for tests."""
    write_boolq(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "suite.yaml").write_text(
        f"suite: wide\nrecipe: {ROOT}/recipes/paper/glm-10b.yaml\n"
        "set: {task: boolq, backbone.name: glm-tiny-random, distributed.gpus: 2, train.epochs: 2}\n"
        f"cases:\n  - {case}\n"
    )
    process = start("--data-root", str(tmp_path), "--json", file="suite.yaml")
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert "2 processes, strategy" in err
    [cell] = json.loads(out)["cells"]
    assert (cell["status"], cell["epochs"]) == ("finished", 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["distributed.strategy=zero1"], "there is one process"),
        (["distributed.offload=cpu", "distributed.strategy=ddp"], "which only zero3 can"),
        (["distributed.offload=nvme", "distributed.strategy=zero3"], "nvme_path belong together"),
        (["distributed.strategy=zero3", "method=fine_tuning"], "zero3 is for frozen ones"),
        (["distributed.strategy=zero3", "train.layer_norm_learning_rate=0.01"], "which zero3 has in parts"),
        (["deepspeed={optimizer: {}}"], "a recipe says this with train.learning_rate"),
        (["deepspeed={zero_optimisation: {}}"], "did you mean 'zero_optimization'?"),
        (["deepspeed={zero_optimization: {stage: 2}}"], "distributed.strategy"),
        (["deepspeed={steps_per_print: 5}"], "is for zero1, zero2 and zero3"),
        (["distributed.hostfile=hosts"], "hosts' does not exist"),
    ],
)
def test_what_does_not_fit_is_refused(project: Project, words: list[str], message: str) -> None:
    code, _, err = project.run(*words)
    assert code == 2
    assert message in err
    assert project.runs == []
