"""A search with Optuna that several processes can share, that can be killed at any moment, and that can be continued.

The study, in a journal or a database, is the only truth. Every trial is first put into Optuna's queue with a rank, from
0 to the study's budget: so the count holds for all processes together, and no point of a grid is tried twice or left
out. A trial whose process has died returns to the queue with the same rank and settings.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

from filelock import FileLock

from ptv2kit.errors import require_extra
from ptv2kit.files import is_locked
from ptv2kit.spec.suite import Parameter, Search
from ptv2kit.training.state import Log, LogEntry, Step
from ptv2kit.training.trainer import StopTraining

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

_RANK, _LOCK, _STATUS, _FACTS = "rank", "lock", "status", "facts"
"""Names under which the study keeps what we know of a trial."""
_WITHDRAWN = "withdrawn"
_STATUSES = {"COMPLETE": "finished", "PRUNED": "stopped", "RUNNING": "running", "WAITING": "waiting"}

TrialStatus = Literal["finished", "stopped", "failed", "running", "waiting"]


@final
@dataclass(frozen=True)
class TrialOutcome:
    """What came out of a trial.

    Args:
        status: `stopped` by the pruner; `interrupted` by the user: it is tried again.
        score: what is searched for, higher is better; None if nothing was measured.
        facts: what else to keep; plain values.
    """

    status: Literal["finished", "stopped", "failed", "interrupted"]
    score: float | None
    facts: Mapping[str, Any]


@final
@dataclass(frozen=True)
class TrialRecord:
    """A trial as the study knows it.

    Args:
        number: rank within the study, from 0.
        settings: what was chosen, by dotted key.
        status: how far it is.
        facts: what was kept of it.
    """

    number: int
    settings: Mapping[str, Any]
    status: TrialStatus
    score: float | None
    facts: Mapping[str, Any]


Objective = Callable[[int, Mapping[str, Any], Log], TrialOutcome]
"""Trains a trial: its number, its settings, and a watcher that ends the training if the pruner says so."""


class _EndedError(Exception):
    """A trial failed, was interrupted, or was one too many; what is to be known of it is in the study."""


def require_optuna() -> None:
    """Make sure that the extra `search` is installed.

    Raises:
        ConfigError: it is not.
    """
    require_extra("optuna", "a search needs Optuna", "search")


@final
class SharedSearch:
    """One study.

    Args:
        search: what is searched and how; its `storage` says where, if it is set.
        name: of the study; processes with the same name and storage share it.
        journal: where the trials are kept unless `search.storage` says otherwise; absolute.

    Raises:
        ConfigError: Optuna or the database's driver is not installed, or the address is not valid.
        DataError: the journal is damaged, or the database cannot be reached.
    """

    def __init__(self, search: Search, name: str, journal: Path) -> None:
        require_optuna()
        import optuna

        from ptv2kit.suites.study_storage import open_storage

        self._search = search
        self._points = search.points() if search.sampler == "grid" else []
        self._interrupted = False
        storage, kept = open_storage(search.storage, journal)
        self._is_journal = kept is not None
        self._locks = (kept or journal).with_suffix(".locks") / name.replace("/", "-")
        pruners = optuna.pruners
        pruner = pruners.MedianPruner(n_warmup_steps=search.warmup_epochs)
        with _quiet():
            self._study = optuna.create_study(
                study_name=name,
                storage=storage,
                direction="maximize",
                load_if_exists=True,
                pruner=pruners.NopPruner() if search.pruner == "none" else pruner,
            )

    def run(self, objective: Objective) -> bool:
        """Try until all trials are done or are being done by other processes.

        Args:
            objective: trains a trial; may raise, then the trial is tried again next time.

        Returns:
            Whether it came to this end, and was not interrupted.
        """
        self._interrupted = False
        self._locks.mkdir(parents=True, exist_ok=True)
        with _quiet():
            while not self._interrupted:
                # Held until the trial has its own lock: otherwise another process could take it for one that died.
                with FileLock(self._locks / "queue") as queue, ExitStack() as held:
                    self._recover()
                    if not self._prepare_next():
                        return True
                    trying = partial(self._try, objective, queue, held)
                    self._study.optimize(trying, n_trials=1, catch=(_EndedError,))
        return False

    def trials(self) -> tuple[TrialRecord, ...]:
        """Every trial that was begun, in order; of one that was tried again only the last attempt."""
        records: list[TrialRecord] = []
        for rank, trial in sorted(self._last_attempts().items()):
            failed = trial.state.name == "FAIL" and _STATUS in trial.user_attrs
            status: Any = "failed" if failed else _STATUSES.get(trial.state.name, "waiting")
            space = self._search.space
            settings = {key: _chosen(space[key], trial.params[key]) for key in space if key in trial.params}
            score = trial.value if status == "finished" else None
            if settings or status != "waiting":
                facts = json.loads(trial.user_attrs.get(_FACTS, "{}"))
                records.append(TrialRecord(rank, settings, status, score, facts))
        return tuple(records)

    def _last_attempts(self) -> dict[int, FrozenTrial]:
        """By rank."""
        ranks: dict[int, int] = {}
        found: dict[int, FrozenTrial] = {}
        for trial in self._study.get_trials(deepcopy=False):
            attributes = trial.user_attrs
            rank = attributes.get(_RANK)
            if rank is None and "owner" in attributes:
                # Version 0.1 kept no ranks: they are the order of the trials, and a retry has that of the first try.
                rank = ranks.get(attributes.get("retry_of", -1), len(found))
            if rank is not None and attributes.get(_STATUS) != _WITHDRAWN:
                ranks[trial.number] = rank
                found[rank] = trial
        return found

    def _recover(self) -> None:
        """Put trials whose process has died into the queue again."""
        import optuna

        for rank, trial in self._last_attempts().items():
            if trial.state.name == "RUNNING" and self._is_orphan(rank, trial):
                try:
                    self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
                except ValueError:
                    continue  # it has ended since the trials were read
            elif trial.state.name != "FAIL" or _STATUS in trial.user_attrs:
                continue
            again = optuna.trial.create_trial(
                state=optuna.trial.TrialState.WAITING,
                params=trial.params,
                distributions=trial.distributions,
                user_attrs={_RANK: rank},
                system_attrs=trial.system_attrs,
            )
            self._study.add_trial(again)

    def _is_orphan(self, rank: int, trial: FrozenTrial) -> bool:
        """Whether the process of a running trial has died.

        On another machine that shares only a database, its heartbeat tells; `Study.optimize` looks after it.
        """
        host, _, path = trial.user_attrs.get(_LOCK, ":").partition(":")
        own = self._lock(rank) if self._is_journal else Path(path)
        return (self._is_journal or host == platform.node()) and not is_locked(own)

    def _prepare_next(self) -> bool:
        """Make sure that the queue has a trial, and choose its sampler; False if all trials have been begun."""
        import optuna

        attempts = self._last_attempts()
        waiting = [rank for rank, trial in attempts.items() if trial.state.name == "WAITING"]
        rank = min(waiting, default=len(attempts))
        if not waiting:
            if rank >= self._search.budget:
                return False
            point = self._points[rank] if self._points else {}
            kept = {key: json.dumps(value) for key, value in point.items()}
            self._study.enqueue_trial(kept, user_attrs={_RANK: rank})
        # A seed for each trial: with one for a process, a search that is continued would repeat its first trials.
        seed = (self._search.seed * 1_000_003 + rank) % 2**32
        samplers = optuna.samplers
        self._study.sampler = (
            samplers.TPESampler(seed=seed) if self._search.sampler == "tpe" else samplers.RandomSampler(seed=seed)
        )
        return True

    def _try(self, objective: Objective, queue: FileLock, held: ExitStack, trial: optuna.Trial) -> float:
        import optuna

        rank = trial.user_attrs.get(_RANK)
        if rank is None or any(
            each.user_attrs.get(_RANK) == rank and (each.state.name != "FAIL" or _STATUS in each.user_attrs)
            for each in self._study.get_trials(deepcopy=False)
            if each.number < trial.number
        ):
            # Machines that share only a database have no common lock on its queue: this one came too late.
            trial.set_user_attr(_STATUS, _WITHDRAWN)
            raise _EndedError
        path = self._lock(rank)
        held.enter_context(FileLock(path))  # until Optuna has written how the trial ended
        trial.set_user_attr(_LOCK, f"{platform.node()}:{path}")
        listed = bool(self._points)
        settings = {key: _suggest(trial, key, each, listed=listed) for key, each in self._search.space.items()}
        queue.release()
        outcome = objective(rank, settings, _watcher(trial))
        if outcome.status == "interrupted":
            self._interrupted = True
            raise _EndedError  # without a status it is as one whose process has died
        trial.set_user_attr(_FACTS, json.dumps(dict(outcome.facts), ensure_ascii=False))
        trial.set_user_attr(_STATUS, outcome.status)
        if outcome.status == "stopped":
            raise optuna.TrialPruned
        if outcome.status == "failed" or outcome.score is None:
            raise _EndedError
        return outcome.score

    def _lock(self, rank: int) -> Path:
        return self._locks / f"{rank:05}"


def _watcher(trial: optuna.Trial) -> Log:
    """Report each evaluation's score to the study, and end the training if the pruner says so."""
    last = False

    def log(row: LogEntry) -> None:
        nonlocal last
        if isinstance(row, Step):
            last = row.step >= row.total_steps  # a training that is done is not stopped
            return
        trial.report(next(iter(row.values.values())), row.number)
        if not last and trial.should_prune():
            raise StopTraining

    return log


def _suggest(trial: optuna.Trial, key: str, parameter: Parameter, *, listed: bool) -> Any:
    """What the sampler chooses. Listed values are kept as JSON, so that any value of YAML can be one."""
    values = parameter.listed() if listed else parameter.values
    if values is not None:
        return _chosen(parameter, trial.suggest_categorical(key, [json.dumps(value) for value in values]))
    assert parameter.low is not None
    assert parameter.high is not None
    if parameter.integer:
        step = 1 if parameter.step is None else int(parameter.step)
        return trial.suggest_int(key, int(parameter.low), int(parameter.high), log=parameter.log, step=step)
    kept = trial.suggest_float(key, parameter.low, parameter.high, log=parameter.log, step=parameter.step)
    return _chosen(parameter, kept)


def _chosen(parameter: Parameter, kept: Any) -> Any:
    """A value of the recipe from what Optuna keeps."""
    return json.loads(kept) if isinstance(kept, str) else parameter.number(kept)


@contextmanager
def _quiet() -> Generator[None]:
    """Optuna's own lines would stand between ours; what it has to say is in the table."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
