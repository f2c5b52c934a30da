"""The search: what it finds, what it stops, and that processes may come, go and be killed."""

from __future__ import annotations

import math
import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest

from ptv2kit.errors import ConfigError, DataError
from ptv2kit.spec.suite import Parameter, Search
from ptv2kit.suites.study import SharedSearch, TrialOutcome
from ptv2kit.training.state import Evaluated, Log, Step
from ptv2kit.training.trainer import StopTraining
from tests.suites.study_process import search_with

ROOT = Path(__file__).parents[2]
RATE = Parameter(low=1e-4, high=1.0, log=True)


def open_search(folder: Path, **settings: Any) -> SharedSearch:
    search = Search.model_validate({"trials": 10, "space": {"rate": RATE}, **settings})
    return SharedSearch(search, "test", folder / "search.journal")


def near_a_hundredth(_: int, settings: Mapping[str, Any], watcher: Log) -> TrialOutcome:
    return TrialOutcome("finished", -abs(math.log10(settings["rate"]) + 2), {})


def curve(epochs: Sequence[float], watcher: Log) -> TrialOutcome:
    """Report a score after each epoch as the trainer does."""
    for epoch, score in enumerate(epochs, start=1):
        watcher(Step(epoch, len(epochs), epoch, 0.0, 0.0))
        try:
            watcher(Evaluated(epoch, epoch, {"accuracy": score, "f1": 0.0}, True, 0.0))
        except StopTraining:
            return TrialOutcome("stopped", score, {"epochs": epoch})
    return TrialOutcome("finished", max(epochs), {"epochs": len(epochs)})


def test_it_finds_a_good_rate(tmp_path: Path) -> None:
    search = open_search(tmp_path, trials=40)
    assert search.run(near_a_hundredth)
    later = [trial.score for trial in search.trials()[20:]]
    assert sum(score is not None and score > -0.5 for score in later) > len(later) / 2


def test_it_makes_the_same_choices_with_the_same_seed_also_when_it_goes_on(tmp_path: Path) -> None:
    whole = open_search(tmp_path / "whole", trials=14)
    whole.run(near_a_hundredth)
    open_search(tmp_path / "parts", trials=5).run(near_a_hundredth)
    open_search(tmp_path / "parts", trials=12).run(near_a_hundredth)
    parts = open_search(tmp_path / "parts", trials=14)
    parts.run(near_a_hundredth)
    assert [trial.settings for trial in whole.trials()] == [trial.settings for trial in parts.trials()]
    other = open_search(tmp_path / "other", trials=14, seed=12)
    other.run(near_a_hundredth)
    assert other.trials()[0].settings != whole.trials()[0].settings


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    open_search(tmp_path).run(near_a_hundredth)
    calls: list[int] = []

    def count(number: int, settings: Mapping[str, Any], watcher: Log) -> TrialOutcome:
        calls.append(number)
        return near_a_hundredth(number, settings, watcher)

    assert open_search(tmp_path).run(count)
    assert calls == []
    assert open_search(tmp_path, trials=11).run(count)
    assert calls == [10]


def test_a_trial_below_the_median_is_stopped_after_the_warm_up(tmp_path: Path) -> None:
    def worse_and_worse(number: int, _: Mapping[str, Any], watcher: Log) -> TrialOutcome:
        return curve([50.0 - number, 60.0 - number, 70.0 - number], watcher)

    search = open_search(tmp_path, trials=7, warmup_epochs=2)
    search.run(worse_and_worse)
    assert [trial.status for trial in search.trials()] == ["finished"] * 5 + ["stopped"] * 2
    assert [trial.facts["epochs"] for trial in search.trials()] == [3] * 5 + [2] * 2
    assert search.trials()[6].score is None
    kept = open_search(tmp_path / "none", trials=7, pruner="none")
    kept.run(worse_and_worse)
    assert {trial.status for trial in kept.trials()} == {"finished"}


def test_a_training_that_is_done_is_not_stopped(tmp_path: Path) -> None:
    search = open_search(tmp_path, trials=7)
    search.run(lambda number, settings, watcher: curve([50.0 - number], watcher))
    assert {trial.status for trial in search.trials()} == {"finished"}


def test_in_a_database_each_trial_gives_signs_of_life(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path}/shared.db"
    found: list[int] = []

    def wait(number: int, settings: Mapping[str, Any], watcher: Log) -> TrialOutcome:
        ends = time.monotonic() + 20
        while not found and time.monotonic() < ends:
            with closing(sqlite3.connect(tmp_path / "shared.db")) as database:
                found[:] = [row[0] for row in database.execute("select trial_id from trial_heartbeats")]
        return near_a_hundredth(number, settings, watcher)

    search = open_search(tmp_path, trials=1, storage=address)
    assert search.run(wait)
    assert len(found) == 1


def test_a_trial_that_failed_counts_and_stops_nothing(tmp_path: Path) -> None:
    def fails_twice(number: int, settings: Mapping[str, Any], watcher: Log) -> TrialOutcome:
        if number in (1, 2):
            return TrialOutcome("failed", None, {"error": "nan"})
        return near_a_hundredth(number, settings, watcher)

    search = open_search(tmp_path, trials=4)
    assert search.run(fails_twice)
    assert [trial.status for trial in search.trials()] == ["finished", "failed", "failed", "finished"]
    assert search.trials()[1].facts == {"error": "nan"}


@pytest.mark.parametrize("ends", ["interrupt", "error"])
def test_what_was_interrupted_is_tried_again_with_the_same_settings(tmp_path: Path, ends: str) -> None:
    def interrupted(number: int, settings: Mapping[str, Any], watcher: Log) -> TrialOutcome:
        if number == 2 and ends == "error":
            raise RuntimeError("a fault of ours")
        if number == 2:
            return TrialOutcome("interrupted", None, {})
        return near_a_hundredth(number, settings, watcher)

    search = open_search(tmp_path, trials=4)
    if ends == "error":
        with pytest.raises(RuntimeError, match="a fault of ours"):
            search.run(interrupted)
    else:
        assert not search.run(interrupted)
    before = search.trials()
    assert [trial.status for trial in before] == ["finished", "finished", "waiting"]
    again = open_search(tmp_path, trials=4)
    assert again.run(near_a_hundredth)
    after = again.trials()
    assert [trial.status for trial in after] == ["finished"] * 4
    assert after[2].settings == before[2].settings


def test_a_grid_is_tried_in_order_and_whole(tmp_path: Path) -> None:
    space = {
        "size": Parameter(low=2, high=6, step=2, integer=True),
        "layers": Parameter(values=("all", [1, 2], None)),
        "dropout": Parameter(low=0.0, high=0.3, step=0.3),
    }
    search = open_search(tmp_path, trials=None, sampler="grid", space=space)
    search.run(lambda number, settings, watcher: TrialOutcome("finished", float(number), {}))
    tried = [tuple(trial.settings.values()) for trial in search.trials()]
    assert tried == [(s, la, d) for s in (2, 4, 6) for la in ("all", [1, 2], None) for d in (0.0, 0.3)]
    assert all(isinstance(size, int) for size, _, _ in tried)


@pytest.fixture(params=["journal", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "shared.journal") if request.param == "journal" else f"sqlite:///{tmp_path}/shared.db"


def start(storage: str, trials: int, sampler: str, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.suites.study_process", storage, str(trials), sampler, str(seconds)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.night
@pytest.mark.parametrize("sampler", ["random", "grid"])
def test_processes_share_the_trials_and_repeat_none(storage: str, sampler: str) -> None:
    budget = 10
    search_with(storage, None if sampler == "grid" else budget, sampler)  # so that none of them has to make the tables
    processes = [start(storage, budget, sampler, 0.2) for _ in range(2)]
    said = [process.communicate(timeout=100)[0].split("\n")[:-1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    counted = Counter(line for lines in said for line in lines)
    assert counted == Counter(f"trial {number}" for number in range(budget))
    assert all(said), "each process has tried something"
    trials = search_with(storage, None if sampler == "grid" else budget, sampler).trials()
    assert {trial.status for trial in trials} == {"finished"}
    if sampler == "grid":
        assert len({tuple(trial.settings.values()) for trial in trials}) == budget


@pytest.mark.night
@pytest.mark.parametrize("sampler", ["tpe", "grid"])
def test_the_trial_of_a_killed_process_is_tried_again(storage: str, sampler: str) -> None:
    process = start(storage, 10, sampler, 60)
    assert process.stdout is not None
    assert process.stdout.readline() == "trial 0\n"
    search = search_with(storage, None if sampler == "grid" else 10, sampler)
    assert [trial.status for trial in search.trials()] == ["running"]
    before = search.trials()[0].settings
    process.kill()
    process.communicate(timeout=20)
    tried: list[int] = []

    def objective(number: int, settings: Mapping[str, Any], _: Log) -> TrialOutcome:
        tried.append(number)
        return TrialOutcome("finished", settings["x"], {})

    assert search.run(objective)
    assert tried == list(range(10))
    assert search.trials()[0].settings == before
    assert {trial.status for trial in search.trials()} == {"finished"}


def test_a_running_trial_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    inside: list[list[str]] = []

    def objective(number: int, settings: Mapping[str, Any], watcher: Log) -> TrialOutcome:
        other = open_search(tmp_path, trials=1)
        assert other.run(near_a_hundredth)
        inside.append([trial.status for trial in other.trials()])
        return near_a_hundredth(number, settings, watcher)

    search = open_search(tmp_path, trials=1)
    search.run(objective)
    assert inside == [["running"]]
    assert [trial.status for trial in search.trials()] == ["finished"]


@pytest.mark.parametrize(
    ("storage", "kind", "message"),
    [
        ("nosuch://host/name", ConfigError, "is not the address of a usable database: 'nosuch://host/name'"),
        ("sqlite:////nowhere/at/all.db", DataError, "the database of the search cannot be used"),
        ("/proc/search.journal", ConfigError, "the journal cannot be written"),
    ],
)
def test_a_storage_that_cannot_be_used_is_named(
    tmp_path: Path, storage: str, kind: type[ConfigError | DataError], message: str
) -> None:
    with pytest.raises(kind, match=message.replace("(", r"\(")):
        open_search(tmp_path, storage=storage)


def test_a_password_is_in_no_message(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        open_search(tmp_path, storage="nosuch://ada:secret@host/name")
    assert "secret" not in str(caught.value)


def test_a_journal_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "search.journal").write_text("no journal\n\n")
    with pytest.raises(DataError, match="this is not a complete journal of a search"):
        open_search(tmp_path)


def test_without_optuna_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError) as caught:
        open_search(tmp_path)
    assert caught.value.problems[0].hint == "pip install 'ptv2kit[search]'"


def test_a_study_of_version_0_1_is_continued(tmp_path: Path) -> None:
    """It kept no ranks; a trial whose process had died was tried again under another number."""
    storage = f"sqlite:///{tmp_path}/old.db"
    rates = optuna.distributions.FloatDistribution(1e-4, 1.0, log=True)
    study = optuna.create_study(study_name="test", storage=storage, direction="maximize")
    states = optuna.trial.TrialState
    for number, (state, more) in enumerate(
        [(states.COMPLETE, {}), (states.FAIL, {}), (states.COMPLETE, {"retry_of": 1}), (states.COMPLETE, {})]
    ):
        status = {"status": "finished"} if state == states.COMPLETE else {}
        study.add_trial(
            optuna.trial.create_trial(
                state=state,
                value=float(number) if status else None,
                params={"rate": 0.1 / (number + 1)},
                distributions={"rate": rates},
                user_attrs={"owner": "host:1:2", **status, **more},
            )
        )
    search = open_search(tmp_path, trials=5, storage=storage)
    assert [trial.score for trial in search.trials()] == [0.0, 2.0, 3.0]
    tried: list[int] = []

    def objective(number: int, settings: Mapping[str, Any], watcher: Log) -> TrialOutcome:
        tried.append(number)
        return near_a_hundredth(number, settings, watcher)

    assert search.run(objective)
    assert tried == [3, 4]
