"""Cells of a suite at one time: their order, their locks, and what is left of those that are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from rich.console import Console

from ptv2kit.cli.cell_job import CellJob
from ptv2kit.cli.cell_lock import SILENCE, CellLock, living_holder, read_holder
from ptv2kit.cli.main import main
from ptv2kit.cli.spread import Ended, Spread
from ptv2kit.config.cells import Cell, load_suite
from ptv2kit.reporting.suite_folder import CellRecord, SuiteFolder

TASK = """task: tiny
data: {source: jsonl, splits: {train: rows.jsonl, validation: rows.jsonl}}
input: {words: words, max_length: 16}
labels: {scheme: iob2, column: tags, names: [LOC, PER]}
"""
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


@dataclass
class Project:
    """A folder with a suite, its recipe, task and data, and the command run in it."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    def write(self, text: str) -> Path:
        path = self.folder / "suite.yaml"
        path.write_text(text)
        return path

    def run(self, text: str, *words: str) -> tuple[int, str, str]:
        self.write(text)
        code = main(["run", "suite.yaml", *words])
        captured = self.capsys.readouterr()
        return code, captured.out, captured.err

    def start(self, text: str, *words: str) -> subprocess.Popen[str]:
        self.write(text)
        command = [sys.executable, "-m", "ptv2kit", "run", "suite.yaml", *words]
        return subprocess.Popen(command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def record(self, suite: str, cell: str) -> dict[str, object]:
        return json.loads((self.folder / "runs" / suite / "cells" / cell / "cell.json").read_text())


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
    (tmp_path / "rows.jsonl").write_text((task_file.parent / "rows.jsonl").read_text())
    (tmp_path / "tiny.yaml").write_text(TASK)
    (tmp_path / "recipe.yaml").write_text(
        f"recipe: tiny\ntask: tiny.yaml\nbackbone: {{name: {backbone}}}\nprompt: {{length: 4}}\n"
        "train: {epochs: 3, batch_size: 4, learning_rate: 0.05}\n"
    )
    return Project(tmp_path, capsys)


@dataclass
class Stub:
    """An engine that trains nothing: what becomes of a job is decided by the test."""

    folder: SuiteFolder
    slots: int
    outcome: Callable[[CellJob], Ended]
    started: list[CellJob] = field(default_factory=list[CellJob])
    most: int = 0
    signals: list[signal.Signals] = field(default_factory=list[signal.Signals])
    inside: bool = False
    _running: list[CellJob] = field(default_factory=list[CellJob])

    def start(self, job: CellJob) -> str:
        self.started.append(job)
        self._running.append(job)
        self.most = max(self.most, len(self._running))
        return "paper"

    def ended(self) -> list[Ended]:
        if not self._running:
            return []
        return [self.outcome(self._running.pop(0))]

    def stop(self, number: signal.Signals) -> None:
        self.signals.append(number)

    def close(self) -> None:
        assert not self._running, "closed while jobs run"

    @property
    def names(self) -> list[str]:
        return [job.cell.name for job in self.started]


def finish(folder: SuiteFolder, status: str = "finished") -> Callable[[CellJob], Ended]:
    def outcome(job: CellJob) -> Ended:
        cell = job.cell
        record = CellRecord(
            cell.name, cell.case, cell.settings, status, job.key, score=50.0, run=f"cells/{cell.name}/1"
        )
        folder.write_record(record)
        return Ended(cell.name)

    return outcome


def spread(folder: SuiteFolder, engine: Stub, cells: Sequence[Cell]) -> tuple[list[CellRecord], Spread]:
    told: list[Sequence[CellRecord]] = []
    quiet = Console(quiet=True)
    made = Spread(folder, engine, quiet, None, lambda cell: f"key of {cell.name}", told.append)
    records = made.run(cells, ["" if cell.after else f"key of {cell.name}" for cell in cells])
    assert [record.name for record in told[-1]] == [cell.name for cell in cells]
    return records, made


def test_as_many_cells_run_as_there_are_slots(project: Project, tmp_path: Path) -> None:
    folder = SuiteFolder(tmp_path / "runs/sizes")
    cells = load_suite(project.write(GRID)).cells
    engine = Stub(folder, 2, finish(folder))
    records, _ = spread(folder, engine, cells)
    assert engine.names == ["length=2", "length=4", "length=8"]
    assert engine.most == 2
    assert {record.status for record in records} == {"finished"}
    again = Stub(folder, 2, finish(folder))
    spread(folder, again, cells)
    assert again.names == [], "finished cells are not trained again"


def test_a_cell_waits_for_the_one_that_it_starts_from(project: Project, tmp_path: Path) -> None:
    folder = SuiteFolder(tmp_path / "runs/chain")
    cells = load_suite(project.write(CHAIN)).cells
    engine = Stub(folder, 3, finish(folder))
    records, _ = spread(folder, engine, cells)
    assert engine.names == ["first", "second,seed=2", "second,seed=3"]
    assert engine.most == 2
    first, *others = engine.started
    assert first.cell.resolved.recipe.init_from is None
    assert {job.cell.resolved.recipe.init_from for job in others} == {str(folder.path / "cells/first/1")}
    assert [record.key for record in records] == [f"key of {cell.name}" for cell in cells]


def test_what_starts_from_a_failed_cell_fails_with_its_exit_code(project: Project, tmp_path: Path) -> None:
    folder = SuiteFolder(tmp_path / "runs/chain")
    cells = load_suite(project.write(CHAIN)).cells

    def fail(job: CellJob) -> Ended:
        cell = job.cell
        folder.write_record(CellRecord(cell.name, cell.case, cell.settings, "failed", job.key, error="no", exit_code=4))
        return Ended(cell.name)

    engine = Stub(folder, 2, fail)
    records, _ = spread(folder, engine, cells)
    assert engine.names == ["first"]
    assert [record.status for record in records] == ["failed"] * 3
    assert {record.exit_code for record in records} == {4}
    assert records[1].error == "needs cell 'first', which failed"
    assert folder.record_of("second,seed=2") == records[1], "it is written down too"


def test_a_process_that_leaves_no_record_is_a_failed_cell_and_the_others_go_on(
    project: Project, tmp_path: Path
) -> None:
    folder = SuiteFolder(tmp_path / "runs/sizes")
    cells = load_suite(project.write(GRID)).cells
    good = finish(folder)

    def outcome(job: CellJob) -> Ended:
        return Ended(job.cell.name, "its process was killed") if job.cell.name == "length=4" else good(job)

    records, _ = spread(folder, Stub(folder, 1, outcome), cells)
    assert [record.status for record in records] == ["finished", "failed", "finished"]
    assert (records[1].error, records[1].exit_code, records[1].killed) == ("its process was killed", 1, True)


def test_a_signal_stops_new_cells_and_is_passed_on(project: Project, tmp_path: Path) -> None:
    folder = SuiteFolder(tmp_path / "runs/sizes")
    cells = load_suite(project.write(GRID)).cells

    def outcome(job: CellJob) -> Ended:
        os.kill(os.getpid(), signal.SIGTERM)
        return finish(folder, "interrupted")(job)

    engine = Stub(folder, 1, outcome)
    records, made = spread(folder, engine, cells)
    assert engine.names == ["length=2"]
    assert engine.signals == [signal.SIGTERM]
    assert made.stopped == signal.SIGTERM
    assert [record.status for record in records] == ["interrupted", "waiting", "waiting"]


def test_a_cell_that_another_command_trains_is_left_to_it(project: Project, tmp_path: Path) -> None:
    folder = SuiteFolder(tmp_path / "runs/sizes")
    cells = load_suite(project.write(GRID)).cells
    folder.lock("length=4").parent.mkdir(parents=True)
    lock = CellLock.take(folder.lock("length=4"), folder.guard)
    assert lock is not None
    with lock:
        engine = Stub(folder, 2, finish(folder))
        records, _ = spread(folder, engine, cells)
    assert engine.names == ["length=2", "length=8"]
    assert records[1].status == "running"


def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    path, guard = tmp_path / "cell.lock", tmp_path / ".guard"
    lock = CellLock.take(path, guard)
    assert lock is not None
    with lock:
        lock.say(text="epoch 1/2", done=3, total=9)
        assert CellLock.take(path, guard) is None
        holder = living_holder(path, guard)
        assert holder is not None
        assert f"process {os.getpid()} on " in holder.shown
    assert not path.exists()
    assert CellLock.take(path, guard) is not None


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    path, guard = tmp_path / "cell.lock", tmp_path / ".guard"
    code = (
        "import os, sys; from pathlib import Path; from ptv2kit.cli.cell_lock import CellLock\n"
        "assert CellLock.take(Path(sys.argv[1]), Path(sys.argv[2])) is not None; os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(path), str(guard)], check=True)
    assert read_holder(path) is not None
    assert living_holder(path, guard) is None
    assert CellLock.take(path, guard) is not None


@pytest.mark.parametrize(("silence", "lives"), [(SILENCE / 2, True), (SILENCE * 2, False)])
def test_a_process_of_another_machine_lives_while_it_is_not_silent(tmp_path: Path, silence: float, lives: bool) -> None:
    path, guard = tmp_path / "cell.lock", tmp_path / ".guard"
    path.write_text(json.dumps({"owner": "elsewhere:17:99"}))
    then = time.time() - silence
    os.utime(path, (then, then))
    assert (living_holder(path, guard) is not None) is lives
    assert (CellLock.take(path, guard) is None) is lives


@pytest.mark.slow
def test_two_at_a_time_find_what_one_finds(project: Project) -> None:
    code, _, err = project.run(GRID, "--jobs", "2", "--runs-dir", "two")
    assert code == 0, err
    assert "[1/3] length=2: starts on process " in err
    assert "[3/3] length=8: finished, " in err
    code, _, _ = project.run(GRID, "--runs-dir", "one")
    assert code == 0
    for name in ("length=2", "length=4", "length=8"):
        one, two = (
            json.loads((project.folder / runs / "sizes/cells" / name / "cell.json").read_text())
            for runs in ("one", "two")
        )
        assert one["key"] == two["key"]
        assert one["score"] == pytest.approx(two["score"], abs=0.01)
    code, out, err = project.run(GRID, "--jobs", "2", "--runs-dir", "two")
    assert (code, err.count("finished before")) == (0, 3)
    assert "best: " in out


@pytest.mark.slow
def test_a_killed_process_costs_its_cell_only_and_that_goes_on(project: Project) -> None:
    text = GRID.replace("epochs: 2", "epochs: 400").replace("[2, 4, 8]", "[2, 4]")
    command = project.start(text, "--jobs", "2", "--json")
    lock = SuiteFolder(project.folder / "runs/sizes").lock("length=4")
    checkpoints = project.folder / "runs/sizes/cells/length=4"
    try:
        while not list(checkpoints.glob("*/checkpoints/step-*.safetensors")):
            assert command.poll() is None, command.communicate()
            time.sleep(0.05)
        holder = read_holder(lock)
        assert holder is not None
        os.kill(int(holder.owner.split(":")[1]), signal.SIGKILL)
        _, err = command.communicate(timeout=120)
    finally:
        command.kill()
    assert command.returncode == 1
    assert "error: cell 'length=4' failed: its process was killed by SIGKILL" in err
    assert project.record("sizes", "length=2")["status"] == "finished"
    before = sorted(path for path in checkpoints.iterdir() if path.is_dir())
    code, _, err = project.run(text)
    assert code == 0, err
    assert sorted(path for path in checkpoints.iterdir() if path.is_dir()) == before, "in the folder that was there"
    assert "length=2: finished before" in err


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_all_and_the_command_goes_on_later(project: Project, number: signal.Signals, code: int) -> None:
    text = GRID.replace("epochs: 2", "epochs: 400").replace("[2, 4, 8]", "[2, 4]")
    command = project.start(text, "--jobs", "2")
    cells = project.folder / "runs/sizes/cells"
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
        assert project.record("sizes", name)["status"] == "interrupted"
        assert not (cells / name / "cell.lock").exists()


@pytest.mark.slow
def test_a_search_by_two_processes_has_as_many_trials_as_one(project: Project) -> None:
    text = (
        "suite: look\nrecipe: recipe.yaml\nset: {train.epochs: 1}\n"
        "search: {trials: 4, space: {prompt.length: {values: [2, 4, 8, 16]}}}\n"
    )
    code, out, err = project.run(text, "--jobs", "2")
    assert code == 0, err
    assert err.count("searches; it prints to ") == 2
    assert out.count("| finished") == 4, out


@pytest.mark.slow
def test_a_local_ray_cluster_of_two_workers(project: Project) -> None:
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    from ptv2kit.cli.ray_engine import require_ray

    ray = require_ray()
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        command = project.start(CHAIN, "--engine", "ray", "--address", cluster.address)
        out, err = command.communicate(timeout=300)
        assert command.returncode == 0, err
        assert "Ray: 2 machines, a CPU for each cell" in err
        assert out.count("| finished") == 3
        assert not list((project.folder / "runs/chain").glob(".seen-*"))
        again = project.start(CHAIN, "--engine", "ray", "--address", cluster.address)
        _, err = again.communicate(timeout=300)
        assert (again.returncode, err.count("finished before")) == (0, 3), err
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
def test_options_that_contradict(project: Project, words: list[str], expected: str) -> None:
    code, _, err = project.run(GRID, *words)
    assert code == 2
    assert expected in err
    assert not (project.folder / "runs").exists()


def test_jobs_is_a_number(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["run", "suite.yaml", "--jobs", "0"])
    assert "expected a number from 1 on, or auto. Got '0'" in capsys.readouterr().err


def test_the_plan_of_a_suite_writes_nothing(project: Project) -> None:
    code, out, _ = project.run(CHAIN, "--dry-run", "--gpu", "h100", "--jobs", "2")
    assert code == 0
    assert "second,seed=2  waiting, " in out
    assert ", starts from first" in out
    assert "3 cells, 0 finished, 3 to train" in out
    assert "with 2 at one time" in out
    assert "disk: about " in out
    assert out.endswith("nothing was trained or written\n")
    assert not (project.folder / "runs").exists()


def test_the_plan_of_a_suite_knows_what_is_finished(project: Project) -> None:
    assert project.run(GRID)[0] == 0
    code, out, _ = project.run(GRID.replace("[2, 4, 8]", "[2, 4, 8, 16]"), "--dry-run", "--json")
    assert code == 0
    plan = json.loads(out)
    assert [cell["status"] for cell in plan["cells"]] == ["finished"] * 3 + ["waiting"]
    assert plan["hours"] > 0, "by the rate of the finished cells"
    assert 0 < plan["disk"]["needed"] < plan["disk"]["free"]
    assert plan["cells"][3]["operations"] > 0


def test_a_suite_that_does_not_fit_the_disk_is_refused(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    usage = shutil.disk_usage(project.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    code, _, err = project.run(GRID)
    assert code == 2
    assert "the runs will need about " in err
    assert "where 1 kB are free" in err
    assert "choose another disk with --runs-dir" in err


def test_a_hub_that_does_not_answer_is_asked_once_for_each_backbone(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ptv2kit.models import backbones

    asked: list[bool] = []

    def unreachable(source: str, revision: str | None, local: bool) -> object:
        asked.append(local)
        raise OSError("no route to the hub")

    monkeypatch.setattr(backbones, "_read_config", unreachable)
    code, _, err = project.run(GRID.replace("set: {", "set: {backbone.name: nobody/nothing, "), "--dry-run")
    assert code == 3
    assert err.count("no route to the hub") == 1, err
    assert len(asked) <= 4, "by the check and by the plan, not by each of the three cells"


def test_a_record_of_a_killed_process_is_told_apart(tmp_path: Path) -> None:
    folder = SuiteFolder(tmp_path)
    record = CellRecord("a", "", {}, "failed", "key", killed=True)
    folder.write_record(record)
    assert folder.record_of("a") == record
    assert replace(record, killed=False) != record
