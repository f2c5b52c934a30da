"""The project's goals for speed, beside what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from peers.timing import Spread


@dataclass(frozen=True)
class Goal:
    """A figure that should not be on the wrong side of a limit.

    Args:
        name: what is compared.
        kind: whether the limit is the least or the most.
        limit: the goal.
        value: what was measured; its median counts.
    """

    name: str
    kind: Literal["at least", "at most"]
    limit: float
    value: Spread

    @property
    def met(self) -> bool:
        """Whether the median is on the right side."""
        return self.value.median >= self.limit if self.kind == "at least" else self.value.median <= self.limit

    def __str__(self) -> str:
        return f"{'met   ' if self.met else 'MISSED'} {self.name}: {self.value}, {self.kind} {self.limit:g}"
