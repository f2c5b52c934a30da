"""What may go wrong while cells are trained at one time: lost races, stale records, lost workers, two signals."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from ptv2kit.cli import cell_lock
from ptv2kit.cli.cell_job import CellJob
from ptv2kit.cli.cell_lock import CellLock, living_holder, read_holder
from ptv2kit.cli.spread import Ended, Spread
from ptv2kit.config.cells import Cell, load_suite
from ptv2kit.errors import DataError
from ptv2kit.reporting.suite_folder import CellRecord, SuiteFolder
from tests.test_spread import CHAIN, GRID, Project, Stub, finish, spread
from tests.test_spread import project as project


def record_of(cell: Cell, status: str) -> CellRecord:
    return CellRecord(cell.name, cell.case, cell.settings, status, f"key of {cell.name}", score=50.0, run="cells/x/1")


def test_a_cell_that_was_lost_to_another_command_is_waited_for(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ptv2kit.cli.spread._ASK", 0.0)
    folder = SuiteFolder(tmp_path / "runs/chain")
    cells = load_suite(project.write(CHAIN)).cells
    good, other = finish(folder), list[CellLock]()

    def outcome(job: CellJob) -> Ended:
        if job.cell.name != "first":
            return good(job)
        lock = CellLock.take(folder.lock("first"), folder.guard)  # the other command was faster
        assert lock is not None
        other.append(lock.__enter__())
        folder.write_record(record_of(job.cell, "running"))
        return Ended("first")

    def changed(records: Sequence[CellRecord]) -> None:
        if other and records[0].status == "running":
            folder.write_record(record_of(cells[0], "finished"))
            other.pop().__exit__(None, None, None)

    engine = Stub(folder, 2, outcome)
    made = Spread(folder, engine, Console(quiet=True), None, lambda cell: f"key of {cell.name}", changed)
    records = made.run(cells, ["key of first", "", ""])
    assert engine.names == ["first", "second,seed=2", "second,seed=3"]
    assert [record.status for record in records] == ["finished"] * 3


@pytest.mark.parametrize("before", ["interrupted", "failed"])
def test_what_an_earlier_attempt_left_does_not_speak_for_a_killed_process(
    project: Project, tmp_path: Path, before: str
) -> None:
    folder = SuiteFolder(tmp_path / "runs/sizes")
    cells = load_suite(project.write(GRID)).cells
    folder.write_record(record_of(cells[0], before))
    engine = Stub(folder, 1, lambda job: Ended(job.cell.name, "its process was killed"))
    records, _ = spread(folder, engine, cells[:1])
    assert (records[0].status, records[0].error, records[0].killed) == ("failed", "its process was killed", True)
    assert folder.record_of(cells[0].name) == records[0]


def test_a_worker_that_is_lost_is_a_failed_cell_though_its_lock_still_counts(project: Project, tmp_path: Path) -> None:
    folder = SuiteFolder(tmp_path / "runs/sizes")
    cells = load_suite(project.write(GRID)).cells

    def outcome(job: CellJob) -> Ended:
        folder.write_record(record_of(job.cell, "running"))
        folder.lock(job.cell.name).write_text(json.dumps({"owner": "elsewhere:17:99"}))
        return Ended(job.cell.name, "its Ray worker was lost")

    records, _ = spread(folder, Stub(folder, 1, outcome), cells[:1])
    assert (records[0].status, records[0].error) == ("failed", "its Ray worker was lost")
    found = folder.record_of(cells[0].name)
    assert found is not None
    assert found.status == "running", "who holds the lock writes the record"


def test_a_cell_that_was_stopped_before_it_began_is_still_waiting(project: Project, tmp_path: Path) -> None:
    folder = SuiteFolder(tmp_path / "runs/sizes")
    cells = load_suite(project.write(GRID)).cells

    def outcome(job: CellJob) -> Ended:
        os.kill(os.getpid(), signal.SIGINT)
        return Ended(job.cell.name, stopped=signal.SIGINT)

    records, made = spread(folder, Stub(folder, 1, outcome), cells)
    assert made.stopped == signal.SIGINT
    assert [record.status for record in records] == ["waiting"] * 3
    assert folder.record_of(cells[0].name) is None


def test_a_second_ctrl_c_ends_all_at_once(project: Project, tmp_path: Path) -> None:
    folder = SuiteFolder(tmp_path / "runs/sizes")
    cells = load_suite(project.write(GRID)).cells

    class Endless(Stub):
        closed = False

        def ended(self) -> list[Ended]:
            if self.started:
                os.kill(os.getpid(), signal.SIGINT)
            return []

        def close(self) -> None:
            self.closed = True

    engine = Endless(folder, 1, finish(folder))
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        spread(folder, engine, cells)
    assert engine.signals == [signal.SIGINT]
    assert engine.closed
    assert signal.getsignal(signal.SIGINT) == before


def test_a_torn_record_is_named_and_the_engine_is_closed(project: Project, tmp_path: Path) -> None:
    folder = SuiteFolder(tmp_path / "runs/sizes")
    cells = load_suite(project.write(GRID)).cells
    folder.write_record(record_of(cells[1], "finished"))
    path = folder.runs / cells[1].name / "cell.json"
    path.write_text("{")

    class Closing(Stub):
        closed = False

        def close(self) -> None:
            self.closed = True

    engine = Closing(folder, 1, finish(folder))
    with pytest.raises(DataError, match="hint: delete it; the cell is run again"):
        spread(folder, engine, cells)
    assert (engine.names, engine.closed) == ([], True)


def test_two_processes_that_want_the_same_locks_never_have_one_twice(tmp_path: Path) -> None:
    guard, taken, clash = tmp_path / ".guard", list[str](), list[str]()
    start = threading.Barrier(8)

    def want() -> None:
        start.wait()
        for index in range(20):
            path = tmp_path / str(index) / "cell.lock"
            lock = CellLock.take(path, guard)
            if lock is not None:
                (clash if path.parent.name in taken else taken).append(path.parent.name)

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sorted(taken, key=int), clash) == ([str(index) for index in range(20)], [])


def test_a_process_of_another_container_is_judged_by_its_silence_not_by_its_pid(tmp_path: Path) -> None:
    path, guard = tmp_path / "cell.lock", tmp_path / ".guard"
    lock = CellLock.take(path, guard)
    assert lock is not None
    host, _, _ = json.loads(path.read_text())["owner"].rsplit(":", 2)
    # Containers with the host's network have its name, but pids of their own.
    path.write_text(json.dumps({"owner": f"{host}:1:99", "pids": "pid:[4]"}))
    assert living_holder(path, guard) is not None
    assert CellLock.take(path, guard) is None
    path.write_text(json.dumps({"owner": f"{host}:1:99"}))
    assert living_holder(path, guard) is None


@pytest.mark.parametrize("text", ["{", "[]", '{"pid": 3}', '{"owner": "nobody"}'])
def test_a_lock_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "cell.lock").write_text(text)
    with pytest.raises(DataError, match=r"cell\.lock: error: this is no lock of a cell"):
        living_holder(tmp_path / "cell.lock", tmp_path / ".guard")


def test_who_lost_a_lock_leaves_it_to_its_new_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell_lock, "BEAT", 0.001)
    path, guard = tmp_path / "cell.lock", tmp_path / ".guard"
    lock = CellLock.take(path, guard)
    assert lock is not None
    with lock:
        beats = next(thread for thread in threading.enumerate() if thread.name == "cell lock")
        with cell_lock.guarded(guard):
            path.write_text(json.dumps({"owner": "elsewhere:17:99"}))
        beats.join(timeout=30)
        assert not beats.is_alive()
    found = read_holder(path)
    assert found is not None
    assert found.owner == "elsewhere:17:99"
