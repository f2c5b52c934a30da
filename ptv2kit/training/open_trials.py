"""Trials that this process tries: what was chosen for them, who watches them, and how they end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, final

import optuna

from ptv2kit.config.suite import Parameter, Search
from ptv2kit.training.samplers import PointSampler
from ptv2kit.training.trainer import StopTraining
from ptv2kit.training.trial_outcome import FACTS, STATUS, TrialOutcome, chosen_value


@final
class OpenTrial:
    """A trial that is being tried.

    Args:
        rank: its number among the trials that count.
        points: of the grid, if it is one.
    """

    def __init__(
        self,
        study: optuna.Study,
        trial: optuna.Trial,
        rank: int,
        search: Search,
        points: Sequence[Mapping[str, Any]],
    ) -> None:
        self._study = study
        self._trial = trial
        self._open = True
        self.number = rank
        self.watcher = PruningWatcher(trial)
        self.interrupted = False
        if points:
            study.sampler = PointSampler({key: json.dumps(value) for key, value in points[rank].items()})
        self.settings: dict[str, Any] = {
            key: _suggest(trial, key, parameter, listed=bool(points)) for key, parameter in search.space.items()
        }

    @property
    def number_in_study(self) -> int:
        """Its number among all attempts."""
        return self._trial.number

    def close(self, outcome: TrialOutcome) -> None:
        """Tell the study how the trial ended."""
        assert self._open, "a trial ends once"
        if outcome.status == "interrupted":
            self.interrupted = True
            self.abandon()
            return
        self._open = False
        self._trial.set_user_attr(FACTS, json.dumps(dict(outcome.facts), ensure_ascii=False))
        self._trial.set_user_attr(STATUS, outcome.status)
        if outcome.status == "stopped":
            self._study.tell(self._trial, state=optuna.trial.TrialState.PRUNED)
        elif outcome.status == "failed" or outcome.score is None:
            self._study.tell(self._trial, state=optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(self._trial, outcome.score)

    def abandon(self) -> None:
        """If it has not ended, leave it to be tried again: without a status it is as one whose process is gone."""
        if self._open:
            self._open = False
            self._study.tell(self._trial, state=optuna.trial.TrialState.FAIL)


@final
class PruningWatcher:
    """Reports each epoch's score to the study and ends the training if the pruner says so."""

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial
        self._last = False

    def on_step(self, step: int, total_steps: int, epoch: float, loss: float, learning_rate: float) -> None:
        """Note whether the last epoch is over: a training that is done is not stopped."""
        self._last = step >= total_steps

    def on_evaluating(self, done: int, total: int) -> None:
        """Nothing to report."""

    def on_evaluation(self, epoch: int, values: dict[str, float], best: bool, seconds: float) -> None:
        """Report the first metric."""
        self._trial.report(next(iter(values.values())), epoch)
        if not self._last and self._trial.should_prune():
            raise StopTraining


def _suggest(trial: optuna.Trial, key: str, parameter: Parameter, *, listed: bool) -> Any:
    """What the sampler chooses. Listed values are kept as JSON, so that any value of YAML can be one."""
    values = parameter.listed() if listed else parameter.values
    if values is not None:
        return json.loads(trial.suggest_categorical(key, [json.dumps(value) for value in values]))
    assert parameter.low is not None
    assert parameter.high is not None
    if parameter.integer:
        step = 1 if parameter.step is None else int(parameter.step)
        return trial.suggest_int(key, int(parameter.low), int(parameter.high), log=parameter.log, step=step)
    return chosen_value(
        parameter, trial.suggest_float(key, parameter.low, parameter.high, log=parameter.log, step=parameter.step)
    )
