"""Methods take turns, so that what else the machine does meets all of them alike; ratios are taken within a turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Name = TypeVar("Name")


@dataclass(frozen=True)
class Spent:
    """Seconds of one turn: of this process on a core, and on the wall."""

    cpu: float
    wall: float


@dataclass(frozen=True)
class Spread:
    """A median with the smallest and the largest of its sample."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g}-{self.high:.3g})"


@dataclass(frozen=True)
class Clock:
    """Times at which something began."""

    cpu: float
    wall: float

    @classmethod
    def start(cls) -> Clock:
        """Now."""
        return cls(time.process_time(), time.perf_counter())

    def spent(self) -> Spent:
        """Since then."""
        return Spent(time.process_time() - self.cpu, time.perf_counter() - self.wall)


def take_turns(work: Mapping[Name, Callable[[], object]], rounds: int, warm_up: int) -> dict[Name, list[Spent]]:
    """Call each in turn, `warm_up` rounds unmeasured, then `rounds` measured ones.

    Args:
        work: what is measured, by name.
        rounds: measured calls of each.
        warm_up: calls of each before that.
    """
    spent: dict[Name, list[Spent]] = {name: [] for name in work}
    for number in range(warm_up + rounds):
        for name, call in work.items():
            clock = Clock.start()
            call()
            if number >= warm_up:
                spent[name].append(clock.spent())
    return spent


def spread(values: Sequence[float]) -> Spread:
    """The spread of a sample."""
    return Spread(statistics.median(values), min(values), max(values))


def ratios(values: Sequence[float], reference: Sequence[float]) -> Spread:
    """Of each turn's value to the reference's value of the same turn."""
    return spread(ratios_of(values, reference))


def ratios_of(values: Sequence[float], reference: Sequence[float]) -> list[float]:
    """Each turn's value by the reference's value of the same turn."""
    return [value / other for value, other in zip(values, reference, strict=True)]
