"""In which order the batches of several tasks come: each batch is of one task."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

Mixing = Literal["proportional", "uniform"] | float
"""How often a task's turn comes: by its number of batches, all equally often, or a temperature T between the two: by
its number of batches to the power 1/T."""


def batches_per_epoch(own: Sequence[int], mixing: Mixing) -> list[int]:
    """How many batches of each task an epoch has; all tasks together have as many as they have batches of their own.

    Args:
        own: batches of each task, at least one.
        mixing: see `Mixing`.

    Returns:
        At least one for each task; by the largest remainders, so that the sum is kept wherever that allows it.
    """
    match mixing:
        case "proportional":
            return list(own)
        case "uniform":
            weights = [1.0] * len(own)
        case temperature:
            weights = [count ** (1 / temperature) for count in own]
    shares = [sum(own) * weight / sum(weights) for weight in weights]
    counts = [max(1, int(share)) for share in shares]
    by_remainder = sorted(range(len(own)), key=lambda task: int(shares[task]) - shares[task])
    for task in by_remainder[: max(0, sum(own) - sum(counts))]:
        counts[task] += 1
    return counts


def batch_stream(one_pass: Callable[[int], Sequence[list[int]]], seed: int) -> Iterator[list[int]]:
    """Batches of one task without end: pass after pass over its rows, each in an order of its own.

    Args:
        one_pass: the batches of a pass, by its seed.
    """
    number = 0
    while True:
        number += 1
        yield from one_pass(pass_seed(seed, number))


def pass_seed(seed: int, number: int) -> int:
    """The seed of a pass, counted from 1."""
    return seed * 1_000_003 + number


def turns(counts: Sequence[int], seed: int) -> list[int]:
    """The task of each batch of an epoch, shuffled; a single task needs no shuffling.

    Args:
        counts: from `batches_per_epoch`.
    """
    order = [task for task, count in enumerate(counts) for _ in range(count)]
    random.Random(seed).shuffle(order)
    return order
