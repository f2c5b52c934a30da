"""Workers of a suite: the order of the cells, their locks, and what is left of those that are killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from rich.console import Console

from ptv2kit.cli.main import main
from ptv2kit.files import is_locked
from ptv2kit.report.records import CellRecord
from ptv2kit.spec.cells import Cell, load_suite
from ptv2kit.suites import cell as cells
from ptv2kit.suites import crew
from ptv2kit.suites import worker as workers
from ptv2kit.suites.cell import Trained
from ptv2kit.suites.folder import SuiteFolder
from ptv2kit.suites.worker import KILLED, Worker
from tests.projects import SuiteProject, end_at, project, suites

__all__ = ["project", "suites"]

GRID = """suite: sizes
recipe: recipe.yaml
set: {train.epochs: 2}
grid:
  prompt.length: [2, 4, 8]
"""
CHAIN = """suite: chain
recipe: recipe.yaml
set: {train.epochs: 1}
cases:
  - {name: first, set: {train.seed: 1}}
  - {name: second, set: {init_from: "cell:first"}, grid: {train.seed: [2, 3]}}
"""


Ends = Callable[[Cell], Trained]


def ended(cell: Cell, status: str = "finished", **facts: object) -> Trained:
    return Trained(
        record_of(cell, status, **{"score": 50.0, "run": f"cells/{cell.name}/1", **facts}),
        "terminated" if status == "interrupted" else None,
    )


def record_of(cell: Cell, status: str, **facts: Any) -> CellRecord:
    return CellRecord(name=cell.name, case=cell.case, settings=dict(cell.settings), **{"status": status, **facts})


def failing(cell: Cell) -> Trained:
    return ended(cell, "failed", score=None, run="", error="no", exit_code=4)


@dataclass
class Work:
    """A worker that trains nothing: what becomes of a cell is decided by the test."""

    folder: SuiteFolder
    cells: tuple[Cell, ...]
    trained: list[Cell]
    worker: Worker

    @property
    def names(self) -> list[str]:
        return [cell.name for cell in self.trained]


@pytest.fixture
def work(suites: SuiteProject, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Work]:
    def make(text: str, ends: Ends = ended, session: str = "this") -> Work:
        suite = load_suite(suites.write(text))
        folder = SuiteFolder(suites.folder / "runs" / suite.suite.suite)
        trained: list[Cell] = []

        def train(cell: Cell, **_: object) -> Trained:
            trained.append(cell)
            return ends(cell)

        monkeypatch.setattr(workers, "train_cell", train)
        keys = ["" if cell.after else f"key of {cell.name}" for cell in suite.cells]
        worker = Worker(
            folder,
            suite.cells,
            keys,
            data_root=None,
            messages=Console(stderr=True),
            key=lambda cell: f"key of {cell.name}",
            session=session,
            changed=lambda: None,
        )
        return Work(folder, suite.cells, trained, worker)

    return make


def test_each_cell_is_trained_once(work: Callable[..., Work]) -> None:
    first = work(GRID)
    assert first.worker.run() is None
    assert first.names == ["length=2", "length=4", "length=8"]
    assert {record.status for record in first.worker.records()} == {"finished"}
    again = work(GRID, session="later")
    assert again.worker.run() is None
    assert again.names == []


def test_a_cell_starts_from_the_run_of_the_one_before(work: Callable[..., Work]) -> None:
    done = work(CHAIN)
    done.worker.run()
    assert done.names == ["first", "second,seed=2", "second,seed=3"]
    first, *others = done.trained
    assert first.resolved.recipe.init_from is None
    assert {cell.resolved.recipe.init_from for cell in others} == {str(done.folder.path / "cells/first/1")}
    assert [record.key for record in done.worker.records()] == [f"key of {cell.name}" for cell in done.cells]


def test_what_starts_from_a_failed_cell_fails_with_its_exit_code(work: Callable[..., Work]) -> None:
    done = work(CHAIN, failing)
    done.worker.run()
    assert done.names == ["first"]
    records = done.worker.records()
    assert [(record.status, record.exit_code) for record in records] == [("failed", 4)] * 3
    assert records[1].error == "needs cell 'first', which failed"
    assert done.folder.record_of("second,seed=2") == records[1], "it is written down too"


def test_a_failed_cell_is_tried_again_by_the_next_command_only(work: Callable[..., Work]) -> None:
    one = work(GRID, failing)
    one.worker.run()
    assert one.names == ["length=2", "length=4", "length=8"]
    beside = work(GRID)
    beside.worker.run()
    assert beside.names == [], "another worker of the same command"
    later = work(GRID, session="later")
    later.worker.run()
    assert later.names == ["length=2", "length=4", "length=8"]


def test_a_failed_start_is_tried_again_with_what_needs_it(work: Callable[..., Work]) -> None:
    work(CHAIN, failing).worker.run()
    later = work(CHAIN, session="later")
    later.worker.run()
    assert later.names == ["first", "second,seed=2", "second,seed=3"]
    assert {record.status for record in later.worker.records()} == {"finished"}


def test_a_fault_of_ours_costs_one_cell(work: Callable[..., Work], suites: SuiteProject) -> None:
    def broken(cell: Cell) -> Trained:
        if cell.name == "length=4":
            raise ValueError("a fault")
        return ended(cell)

    done = work(GRID, broken)
    done.worker.run()
    assert [record.status for record in done.worker.records()] == ["finished", "failed", "finished"]
    assert done.worker.records()[1].error == "internal error: ValueError: a fault"
    assert "in broken" in suites.capsys.readouterr().err, "with where it came from"


def test_a_signal_ends_the_worker(work: Callable[..., Work]) -> None:
    done = work(GRID, lambda cell: ended(cell, "interrupted"))
    assert done.worker.run() == "terminated"
    assert done.names == ["length=2"]
    assert [record.status for record in done.worker.records()] == ["interrupted", "waiting", "waiting"]


def test_a_signal_between_two_cells_ends_the_worker(work: Callable[..., Work]) -> None:
    def signalled(cell: Cell) -> Trained:
        os.kill(os.getpid(), signal.SIGTERM)
        return ended(cell)

    done = work(GRID, signalled)
    assert done.worker.run() == "terminated"
    assert done.names == ["length=2"]


def test_a_cell_that_another_process_trains_is_left_to_it(work: Callable[..., Work]) -> None:
    done = work(GRID)
    path = done.folder.lock("length=4")
    path.parent.mkdir(parents=True)
    with FileLock(path):
        done.worker.run()
        assert done.names == ["length=2", "length=8"]
        assert [record.status for record in done.worker.records()] == ["finished", "running", "finished"]
    assert done.worker.records()[1].status == "waiting"


def test_a_process_that_died_leaves_its_cell_to_the_next_command(work: Callable[..., Work]) -> None:
    dead = work(GRID)
    cell = dead.cells[1]
    begun = record_of(cell, "running", key="key of length=4", session="this")
    dead.folder.write_record(begun)
    assert dead.worker.records()[1].status == "interrupted"
    dead.worker.run()
    assert dead.names == ["length=2", "length=8"], "not tried twice by one command: it would be killed again"
    found = dead.worker.records()[1]
    assert (found.status, found.error, found.killed, found.exit_code) == ("failed", KILLED, True, 1)
    later = work(GRID, session="later")
    later.worker.run()
    assert later.names == ["length=4"]


def test_the_command_notes_what_its_dead_workers_left(work: Callable[..., Work]) -> None:
    done = work(GRID)
    cell = done.cells[0]
    done.folder.write_record(record_of(cell, "running", key="key of length=2", session="this"))
    done.worker.note_killed()
    assert done.worker.records()[0].error == KILLED


def test_the_lock_of_a_process_that_died_is_free(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    code = (
        "import os, sys; from filelock import FileLock\n"
        "lock = FileLock(sys.argv[1]); lock.acquire(); print('held', flush=True); sys.stdin.read(); os._exit(0)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert is_locked(path)
    holder.kill()
    holder.communicate()
    assert not is_locked(path)
    assert not is_locked(tmp_path / "none")


@pytest.mark.night
def test_two_at_a_time_find_what_one_finds(suites: SuiteProject) -> None:
    code, _, err = suites.run(GRID, "--jobs", "2", "--runs-dir", "two")
    assert code == 0, err
    assert err.count("; prints to two/sizes/worker-") == 2
    assert "[3/3] length=8: finished, " in err
    code, _, _ = suites.run(GRID, "--runs-dir", "one")
    assert code == 0
    for name in ("length=2", "length=4", "length=8"):
        one, two = (
            json.loads((suites.folder / runs / "sizes/cells" / name / "cell.json").read_text())
            for runs in ("one", "two")
        )
        assert one["key"] == two["key"]
        assert one["score"] == pytest.approx(two["score"], abs=0.01)
    code, out, err = suites.run(GRID, "--jobs", "2", "--runs-dir", "two")
    assert (code, err.count("finished before")) == (0, 3)
    assert "best: " in out


@pytest.mark.night
def test_a_second_command_is_one_more_worker(suites: SuiteProject) -> None:
    text = GRID.replace("epochs: 2", "epochs: 150").replace("[2, 4, 8]", "[2, 4, 8, 16]")
    commands = [suites.start(text, "--json"), suites.start(text, "--json")]
    ends = [command.communicate(timeout=300) for command in commands]
    assert [command.returncode for command in commands] == [0, 0], ends
    runs = [list((suites.folder / f"runs/sizes/cells/length={size}").glob("*/results.json")) for size in (2, 4, 8, 16)]
    assert [len(found) for found in runs] == [1, 1, 1, 1], "each cell was trained once"


@pytest.mark.slow
def test_a_killed_process_costs_its_cell_only_and_that_goes_on(suites: SuiteProject) -> None:
    text = GRID.replace("epochs: 2", "epochs: 150").replace("[2, 4, 8]", "[2, 4]")
    command = suites.start(text, "--jobs", "2", "--json")
    cells = suites.folder / "runs/sizes/cells"
    assert command.stderr is not None
    try:
        pids = [int(re.findall(r"process ([0-9]+)", command.stderr.readline())[0]) for _ in range(2)]
        while len({path.parts[-4] for path in cells.glob("*/*/checkpoints/step-*.safetensors")}) < 2:
            assert command.poll() is None, command.communicate()
            time.sleep(0.05)
        os.kill(pids[1], signal.SIGKILL)
        _, err = command.communicate(timeout=120)
    finally:
        command.kill()
    assert command.returncode == 1
    assert "worker 2 was ended by SIGKILL" in err
    statuses = {name: suites.record("sizes", name)["status"] for name in ("length=2", "length=4")}
    assert sorted(statuses.values()) == ["failed", "finished"]
    (killed,) = [name for name, status in statuses.items() if status == "failed"]
    assert f"error: cell '{killed}' failed: {KILLED}" in err
    before = sorted(path for path in (cells / killed).iterdir() if path.is_dir())
    code, _, err = suites.run(text)
    assert code == 0, err
    assert sorted(path for path in (cells / killed).iterdir() if path.is_dir()) == before, (
        "in the folder that was there"
    )
    assert err.count("finished before") == 1


def wait_for_checkpoints(suites: SuiteProject, command: subprocess.Popen[str], count: int) -> None:
    cells = suites.folder / "runs/sizes/cells"
    while len({path.parts[-4] for path in cells.glob("*/*/checkpoints/step-*.safetensors")}) < count:
        assert command.poll() is None, command.communicate()
        time.sleep(0.05)


def each_epoch_once(suites: SuiteProject, name: str) -> None:
    """A cell has one run, and the run each epoch once, however often it was begun."""
    [run] = [path for path in (suites.folder / "runs/sizes/cells" / name).iterdir() if path.is_dir()]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    epochs = [row["epoch"] for row in rows if row["kind"] == "validation"]
    assert epochs == list(range(1, len(epochs) + 1))


@pytest.mark.night
def test_when_all_are_killed_the_next_command_goes_on(suites: SuiteProject) -> None:
    text = GRID.replace("epochs: 2", "epochs: 100").replace("[2, 4, 8]", "[2, 4]")
    command = suites.start(text, "--jobs", "2")
    assert command.stderr is not None
    pids = [int(re.findall(r"process ([0-9]+)", command.stderr.readline())[0]) for _ in range(2)]
    wait_for_checkpoints(suites, command, 2)
    for pid in (*pids, command.pid):
        os.kill(pid, signal.SIGKILL)
    command.communicate()
    code, _, err = suites.run(text)
    assert code == 0, err
    for name in ("length=2", "length=4"):
        assert suites.record("sizes", name)["status"] == "finished"
        each_epoch_once(suites, name)


@pytest.mark.night
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_all_and_the_command_goes_on_later(
    suites: SuiteProject, number: signal.Signals, code: int
) -> None:
    text = GRID.replace("epochs: 2", "epochs: 400").replace("[2, 4, 8]", "[2, 4]")
    command = suites.start(text, "--jobs", "2")
    cells = suites.folder / "runs/sizes/cells"
    try:
        while len({path.parts[-4] for path in cells.glob("*/*/checkpoints/step-*.safetensors")}) < 2:
            assert command.poll() is None, command.communicate()
            time.sleep(0.05)
        command.send_signal(number)
        _, err = command.communicate(timeout=120)
    finally:
        command.kill()
    assert command.returncode == code, err
    assert "interrupted after 0 of 2 cells" in err
    for name in ("length=2", "length=4"):
        assert suites.record("sizes", name)["status"] == "interrupted"
        assert not is_locked(cells / name / ".lock")


@pytest.mark.night
def test_a_search_by_two_processes_has_as_many_trials_as_one(suites: SuiteProject) -> None:
    text = (
        "suite: look\nrecipe: recipe.yaml\nset: {train.epochs: 1}\n"
        "search: {trials: 4, space: {prompt.length: {values: [2, 4, 8, 16]}}}\n"
    )
    code, out, err = suites.run(text, "--jobs", "2")
    assert code == 0, err
    assert err.count("; prints to ") == 2
    assert out.count("| finished") == 4, out


def worker_of(suites: SuiteProject) -> int:
    """A process that trains a cell of this suites."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words, where = (entry / "cmdline").read_text().split("\0"), (entry / "cwd").resolve()
            except OSError:
                continue  # ended, or not ours
            if "--jobs" in words and where == suites.folder.resolve():
                return int(entry.name)
    raise AssertionError("no worker is running")


@pytest.mark.night
def test_a_local_ray_cluster_of_two_workers(suites: SuiteProject) -> None:
    ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        command = suites.start(CHAIN, "--engine", "ray", "--address", cluster.address)
        out, err = command.communicate(timeout=300)
        assert command.returncode == 0, err
        assert "Ray: 2 workers, a CPU for each" in err
        assert out.count("| finished") == 3
        assert not list((suites.folder / "runs/chain").glob(".stop-*"))
        again = suites.start(CHAIN, "--engine", "ray", "--address", cluster.address)
        _, err = again.communicate(timeout=300)
        assert (again.returncode, err.count("finished before")) == (0, 3), err
        long = GRID.replace("epochs: 2", "epochs: 400").replace("[2, 4, 8]", "[2, 4]")
        command = suites.start(long, "--engine", "ray", "--address", cluster.address)
        wait_for_checkpoints(suites, command, 2)
        os.kill(worker_of(suites), signal.SIGKILL)
        _, err = command.communicate(timeout=300)
        assert (command.returncode, err.count(KILLED)) == (1, 2), err
        code, _, err = suites.run(long)
        assert (code, err.count("finished before")) == (0, 1), err
        each_epoch_once(suites, "length=2")
        each_epoch_once(suites, "length=4")
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--address", "here:1"], "--address is for --engine ray"),
        (["--gpu", "h100"], "--gpu names a GPU to plan for: it is for --dry-run"),
        (["--resume"], "--resume is for a single run"),
    ],
)
def test_options_that_contradict(suites: SuiteProject, words: list[str], expected: str) -> None:
    code, _, err = suites.run(GRID, *words)
    assert code == 2
    assert expected in err
    assert not (suites.folder / "runs").exists()


def test_jobs_is_a_number(suites: SuiteProject, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["run", "suite.yaml", "--jobs", "0"])
    assert "expected a number from 1 on, or auto. Got '0'" in capsys.readouterr().err


def test_the_plan_of_a_suite_writes_nothing(suites: SuiteProject) -> None:
    code, out, _ = suites.run(CHAIN, "--dry-run", "--gpu", "h100", "--jobs", "2")
    assert code == 0
    assert "second,seed=2  waiting, " in out
    assert ", starts from first" in out
    assert "3 cells, 0 finished, 3 to train" in out
    assert "with 2 at one time" in out
    assert "disk: about " in out
    assert out.endswith("nothing was trained or written\n")
    assert not (suites.folder / "runs").exists()


def test_the_plan_of_a_suite_knows_what_is_finished(suites: SuiteProject) -> None:
    assert suites.run(GRID)[0] == 0
    code, out, _ = suites.run(GRID.replace("[2, 4, 8]", "[2, 4, 8, 16]"), "--dry-run", "--json")
    assert code == 0
    plan = json.loads(out)
    assert [cell["status"] for cell in plan["cells"]] == ["finished"] * 3 + ["waiting"]
    assert plan["hours"] > 0, "by the rate of the finished cells"
    assert 0 < plan["disk"]["needed"] < plan["disk"]["free"]
    assert plan["cells"][3]["operations"] > 0


def test_a_suite_that_does_not_fit_the_disk_is_refused(suites: SuiteProject, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    usage = shutil.disk_usage(suites.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    code, _, err = suites.run(GRID)
    assert code == 2
    assert "the runs will need about " in err
    assert "where 1 kB are free" in err
    assert "choose another disk with --runs-dir" in err


def test_a_hub_that_does_not_answer_is_asked_once_for_each_backbone(
    suites: SuiteProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ptv2kit.models import checkpoints

    asked: list[bool] = []

    def unreachable(source: str, revision: str | None, local: bool) -> object:
        asked.append(local)
        raise OSError("no route to the hub")

    monkeypatch.setattr(checkpoints, "_read_config", unreachable)
    code, _, err = suites.run(GRID.replace("set: {", "set: {backbone.name: nobody/nothing, "), "--dry-run")
    assert code == 3
    assert err.count("no route to the hub") == 1, err
    assert len(asked) <= 2, "by the check, not by the plan again nor by each of the three cells"


def test_a_record_of_a_killed_process_is_told_apart(tmp_path: Path) -> None:
    folder = SuiteFolder(tmp_path)
    record = CellRecord(name="a", status="failed", key="key", killed=True)
    folder.write_record(record)
    assert folder.record_of("a") == record
    assert record.model_copy(update={"killed": False}) != record


def test_workers_that_cannot_start_are_an_error(suites: SuiteProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew.sys, "executable", "/bin/false")
    code, _, err = suites.run(GRID, "--jobs", "2")
    assert code == 1
    assert "the workers ended and left 3 cells untouched, the first is 'length=2'" in err
    assert "runs/sizes/worker-*.log" in err


WIDE = """suite: wide
recipe: recipe.yaml
set: {train.epochs: 2, backbone.dropout: 0.0, backbone.attention_dropout: 0.0, prompt.dropout: 0.0}
cases:
  - {name: joint, set: {distributed.gpus: 2}}
  - {name: after, set: {init_from: "cell:joint"}}
  - {name: alone}
"""


def losses(folder: Path, record: dict[str, Any]) -> list[float]:
    lines = (folder / "runs" / "wide" / record["run"] / "metrics.jsonl").read_text().splitlines()
    return [row["loss"] for row in map(json.loads, lines) if row["kind"] == "train"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        pytest.param([], id="in this process"),
        pytest.param(["--jobs", "2"], id="by workers", marks=pytest.mark.night),
    ],
)
def test_a_cell_is_trained_by_several_processes(
    suites: SuiteProject, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What starts from it follows, and its numbers are those of one process."""
    launch, launched = cells.launch, list[int]()
    monkeypatch.setattr(cells, "launch", lambda count, *rest: launched.append(count) or launch(count, *rest))
    code, _, err = suites.run(WIDE, *words)
    logs = "".join(path.read_text() for path in suites.folder.glob("runs/wide/worker-*.log"))
    assert code == 0, err + logs
    assert launched == [2] or "2 processes, strategy" in logs
    joint, after, alone = (suites.record("wide", name) for name in ("joint", "after", "alone"))
    assert {record["status"] for record in (joint, after, alone)} == {"finished"}
    assert losses(suites.folder, joint) == pytest.approx(losses(suites.folder, alone), abs=2e-6)
    assert joint["metrics"] == alone["metrics"]
    start = (suites.folder / "runs/wide" / str(after["run"]) / "recipe.resolved.yaml").read_text()
    assert f"init_from: {suites.folder / 'runs/wide' / str(joint['run'])}" in start
    assert not (suites.folder / "runs/wide" / str(joint["run"]) / "checkpoints").exists()
    code, _, err = suites.run(WIDE)
    assert code == 0
    assert err.count("finished before") == 3
    code, out, _ = suites.run(WIDE.replace("suite: wide", "suite: other"), "--dry-run", "--runs-dir", "others")
    assert "waiting, 2 processes" in out


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.night
def test_a_cell_whose_process_is_killed_fails_and_goes_on_later(suites: SuiteProject) -> None:
    text = WIDE.replace("train.epochs: 2", "train.epochs: 400")
    process = suites.start(text, "train.patience=400")
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("epoch   3/"):
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            assert len(children) == 2
            os.kill(int(children[1]), signal.SIGKILL)
            break
    code, _, err = end_at(process, "alone", signal.SIGINT)
    assert code == 130, err
    joint = suites.record("wide", "joint")
    assert (joint["status"], joint["error"]) == ("failed", "process 1 of 2 was killed by SIGKILL")
    assert suites.record("wide", "after")["error"] == "needs cell 'joint', which failed"
    code, _, err = end_at(suites.start(text, "train.patience=400"), "resuming after step", signal.SIGTERM)
    assert code == 143, err
    assert suites.record("wide", "joint")["status"] == "interrupted"


def test_workers_get_as_many_gpus_as_their_cells_have_processes(
    suites: SuiteProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[dict[str, str]] = []

    class Ended:
        pid, returncode = 1, 0

        def poll(self) -> int:
            return 0

    def start(words: object, log: object, session: object, environment: dict[str, str]) -> Ended:
        started.append(environment)
        return Ended()

    monkeypatch.setattr(crew, "start_worker", start)
    monkeypatch.setattr(crew, "visible_gpus", lambda: ["0", "1", "2", "3", "4"])
    for count, processes in ((3, 1), (2, 2), (1, 8)):
        crew.local_crew(count, processes, [], suites.folder, "this", Console(stderr=True), lambda: None)
    assert [each["CUDA_VISIBLE_DEVICES"] for each in started] == ["0", "1", "2", "0,1", "2,3", "0,1,2,3,4"]
    assert [each["PTV2KIT_PROCESSES"] for each in started] == ["1", "1", "1", "2", "2", "8"]
