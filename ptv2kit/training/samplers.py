"""How the next trial of a search is chosen, the same for every order in which processes come and go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, final

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState


@final
class PointSampler(BaseSampler):
    """Chooses a point that is given.

    Args:
        point: by key, as Optuna keeps it.
    """

    def __init__(self, point: Mapping[str, str] | None = None) -> None:
        self._point = point or {}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing is chosen together."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing is chosen together."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> str:
        """The point's value."""
        return self._point[param_name]


@final
class SeededSampler(BaseSampler):
    """Optuna's sampler with a seed of its own for each trial.

    With one seed for a whole process, a search that goes on would repeat its first trials, and two processes would try
    the same ones.

    Args:
        kind: which sampler.
    """

    def __init__(self, kind: Literal["tpe", "random"], seed: int) -> None:
        self._kind: Literal["tpe", "random"] = kind
        self._seed = seed
        self._inner: BaseSampler = RandomSampler(seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Seed anew."""
        seed = (self._seed * 1_000_003 + trial.number) % 2**32
        self._inner = TPESampler(seed=seed) if self._kind == "tpe" else RandomSampler(seed=seed)
        self._inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """As Optuna's sampler."""
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As Optuna's sampler."""
        return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """As Optuna's sampler."""
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """As Optuna's sampler."""
        self._inner.after_trial(study, trial, state, values)
