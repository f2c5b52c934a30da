"""A search with Optuna that several processes can share, that can be killed at any moment, and that can go on later.

The journal or the database is the only truth. A trial is *fresh* or a *retry* of one whose process is gone. Every fresh
trial has a rank, the number of fresh trials before it, and the study has as many ranks as it may have trials: so the
count holds for all processes together, and no point of a grid is tried twice or left out. Optuna's own GridSampler
promises neither, and ends the whole search from within a trial.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

from ptv2kit.config.suite import Search
from ptv2kit.errors import ConfigError
from ptv2kit.training.owners import is_gone, this_process
from ptv2kit.training.trainer import TrainingEvents
from ptv2kit.training.trial_outcome import FACTS, STATUS, TrialOutcome, chosen_value

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from ptv2kit.training.open_trials import OpenTrial

_OWNER, _RETRY_OF, _WITHDRAWN = "owner", "retry_of", "withdrawn"

TrialStatus = Literal["finished", "stopped", "failed", "running", "waiting"]


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


Objective = Callable[[int, Mapping[str, Any], TrainingEvents], TrialOutcome]
"""Trains a trial: its number, its settings, and a watcher that ends the training if the pruner says so."""


def require_optuna() -> None:
    """Make sure that the extra `search` is installed.

    Raises:
        ConfigError: it is not.
    """
    try:
        import optuna  # noqa: F401 # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        raise ConfigError(
            "a search needs Optuna, which is not installed", hint="pip install 'ptv2kit[search]'"
        ) from error


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

        from ptv2kit.training.study_storage import open_storage

        self._search = search
        self._points = search.points() if search.sampler == "grid" else []
        self._storage = open_storage(search.storage, journal)
        with _quiet():
            pruners = optuna.pruners
            self._study = optuna.create_study(
                study_name=name,
                storage=self._storage,
                direction="maximize",
                load_if_exists=True,
                pruner=pruners.NopPruner()
                if search.pruner == "none"
                else pruners.MedianPruner(n_warmup_steps=search.warmup_epochs),
            )

    def run(self, objective: Objective) -> bool:
        """Try until all trials are done or are being done by other processes.

        Args:
            objective: trains a trial; may raise, then the trial is tried again next time.

        Returns:
            Whether it came to this end, and was not interrupted.
        """
        from ptv2kit.training.heartbeat import signs_of_life

        with _quiet():
            self._recover()
            while self._has_work():
                trial = self._open()
                if trial is not None:
                    try:
                        with signs_of_life(self._storage, self._study.study_name, [trial.number_in_study]):
                            trial.close(objective(trial.number, trial.settings, trial.watcher))
                    finally:
                        trial.abandon()
                self._recover()
                if trial is not None and trial.interrupted:
                    return False
        return True

    def trials(self) -> tuple[TrialRecord, ...]:
        """Every trial that counts, in order; of one that was tried again only the last attempt."""
        frozen = self._study.get_trials(deepcopy=False)
        records: list[TrialRecord] = []
        for rank, first in enumerate(_fresh(frozen)):
            last = _last_attempt(first, frozen)
            status = _status(last)
            if status == "waiting" and rank >= self._search.budget:
                continue  # one too many, whose process ended before it could say so
            records.append(
                TrialRecord(
                    number=rank,
                    settings={
                        key: chosen_value(parameter, last.params[key])
                        for key, parameter in self._search.space.items()
                        if key in last.params
                    },
                    status=status,
                    score=last.value if last.state.name == "COMPLETE" else None,
                    facts=json.loads(last.user_attrs.get(FACTS, "{}")),
                )
            )
        return tuple(records)

    def _open(self) -> OpenTrial | None:
        """Begin a trial that is waiting or still to be made; None if another process was faster."""
        import optuna

        from ptv2kit.training.open_trials import OpenTrial
        from ptv2kit.training.samplers import PointSampler, SeededSampler

        sampler = self._search.sampler
        self._study.sampler = PointSampler() if sampler == "grid" else SeededSampler(sampler, self._search.seed)
        with warnings.catch_warnings():
            # The signs of life that `Study.optimize` would give are given by `signs_of_life`.
            warnings.filterwarnings("ignore", message="Heartbeat of storage")
            trial = self._study.ask()
        trial.set_user_attr(_OWNER, this_process())
        rank = self._rank(trial)
        if rank is None:
            trial.set_user_attr(STATUS, _WITHDRAWN)
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return None
        return OpenTrial(self._study, trial, rank, self._search, self._points)

    def _rank(self, trial: optuna.Trial) -> int | None:
        """The trial's rank; None if it is one too many: another process had the last one, or tries the same again."""
        frozen = self._study.get_trials(deepcopy=False)
        own = next(each for each in frozen if each.number == trial.number)
        first = own
        while _RETRY_OF in first.user_attrs:
            earlier = [each for each in frozen if each.number < first.number]
            if any(each.user_attrs.get(_RETRY_OF) == first.user_attrs[_RETRY_OF] for each in earlier):
                return None
            first = next(each for each in frozen if each.number == first.user_attrs[_RETRY_OF])
        rank = [each.number for each in _fresh(frozen)].index(first.number)
        return rank if rank < self._search.budget else None

    def _has_work(self) -> bool:
        frozen = self._study.get_trials(deepcopy=False)
        waiting = any(trial.state.name == "WAITING" for trial in frozen)
        return waiting or len(_fresh(frozen)) < self._search.budget

    def _recover(self) -> None:
        """Put trials whose process is gone into the queue again; the new one is made after the old one is closed."""
        import optuna

        with warnings.catch_warnings():
            # Those of a database without a heartbeat, also of other machines; the journal has none.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.storages.fail_stale_trials(self._study)
        frozen = self._study.get_trials(deepcopy=False)
        retried = {trial.user_attrs.get(_RETRY_OF) for trial in frozen}
        for trial in frozen:
            if trial.state.name == "RUNNING" and _is_orphan(trial):
                try:
                    self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
                except ValueError:
                    continue  # its process, or another one that recovers it, was faster
            elif trial.state.name != "FAIL" or STATUS in trial.user_attrs:
                continue
            if trial.number in retried:
                continue
            self._study.add_trial(
                optuna.trial.create_trial(
                    state=optuna.trial.TrialState.WAITING,
                    params=trial.params,
                    distributions=trial.distributions,
                    user_attrs={_RETRY_OF: trial.number},
                )
            )


def _fresh(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Trials that count."""
    return [
        trial for trial in trials if _RETRY_OF not in trial.user_attrs and trial.user_attrs.get(STATUS) != _WITHDRAWN
    ]


def _last_attempt(first: FrozenTrial, trials: Sequence[FrozenTrial]) -> FrozenTrial:
    """The trial itself, or the retry of its retry, and so on."""
    last = first
    for trial in trials:
        if trial.user_attrs.get(_RETRY_OF) == last.number and trial.user_attrs.get(STATUS) != _WITHDRAWN:
            last = trial
    return last


def _status(trial: FrozenTrial) -> TrialStatus:
    match trial.state.name:
        case "COMPLETE":
            return "finished"
        case "PRUNED":
            return "stopped"
        case "RUNNING":
            return "running"
        case "FAIL" if STATUS in trial.user_attrs:
            return "failed"
        case _:
            return "waiting"


def _is_orphan(trial: FrozenTrial) -> bool:
    """Whether the process of a running trial is gone, as far as can be known from this machine."""
    owner = trial.user_attrs.get(_OWNER)
    return owner is not None and is_gone(owner)


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
