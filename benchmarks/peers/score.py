"""How long a method trains until the validation rows reach a score, from the first step on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from peers.epoch import epochs
from peers.methods import MethodName
from peers.rows import prepared_rows
from peers.setting import Setting
from peers.timing import Clock, Spent


@dataclass(frozen=True)
class TimeToScore:
    """One training.

    Args:
        seed: of everything.
        reached: whether the score was reached within the epochs that were allowed.
        spent: until the evaluation that showed it, or the last one.
        scores: after each epoch.
    """

    seed: int
    reached: bool
    spent: Spent
    scores: tuple[float, ...]


def time_to_score(
    setting: Setting,
    name: MethodName,
    data: str,
    data_root: Path,
    rows: int,
    validation_rows: int,
    target: float,
    most_epochs: int,
) -> TimeToScore:
    """Train until `target` is reached; to be called in a process of its own.

    ptv2kit's prompt starts as its own recipes for small backbones let it, from the keys and values of real tokens.
    """
    setting.prepare_process()
    prepared = prepared_rows(setting, data, data_root, rows, validation_rows)
    stream = epochs(name, setting, prepared, None, init="tokens")
    clock = Clock.start()
    scores: list[float] = []
    while len(scores) < most_epochs and (not scores or scores[-1] < target):
        scores.append(next(stream).score)
    return TimeToScore(setting.seed, scores[-1] >= target, clock.spent(), tuple(scores))
