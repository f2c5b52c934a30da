"""How batches of several tasks follow each other."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptv2kit.data.batching import grouped_batches
from ptv2kit.training.mixing import batch_stream, batches_per_epoch, turns


@pytest.mark.parametrize(
    ("own", "mixing", "expected"),
    [
        ([90, 9, 1], "proportional", [90, 9, 1]),
        ([90, 9, 1], "uniform", [34, 33, 33]),
        ([81, 16, 1], 1.0, [81, 16, 1]),
        ([81, 16, 1], 2.0, [63, 28, 7]),  # √81 : √16 : 1 = 9 : 4 : 1 of 98
        ([1000, 1], 1.0, [1000, 1]),
        ([7], "uniform", [7]),
    ],
)
def test_an_epoch_is_shared_out(own: list[int], mixing: Any, expected: list[int]) -> None:
    assert batches_per_epoch(own, mixing) == expected


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=6), st.one_of(st.just("uniform"), st.floats(1.0, 100.0)))
def test_every_task_has_a_turn_and_the_epoch_its_length(own: list[int], mixing: Any) -> None:
    counts = batches_per_epoch(own, mixing)
    assert min(counts) >= 1
    assert abs(sum(counts) - sum(own)) <= len(own)
    assert sum(counts) >= sum(own)


def test_a_higher_temperature_is_nearer_to_uniform() -> None:
    smallest = [batches_per_epoch([900, 90, 10], temperature)[2] for temperature in (1.0, 2.0, 5.0, 100.0)]
    assert smallest == sorted(smallest)
    assert smallest[0] == 10
    assert smallest[-1] > 300


def test_a_stream_goes_on_where_its_pass_stopped() -> None:
    """A task that has fewer turns than batches in an epoch sees its other rows in the next one."""
    lengths = list(range(1, 24))
    batches = list(islice(batch_stream(partial(grouped_batches, lengths, 4), 11), 12))
    first, second = batches[:6], batches[6:]
    assert sorted(row for batch in first for row in batch) == list(range(23))
    assert sorted(row for batch in second for row in batch) == list(range(23))
    assert first != second
    # The first pass is the first epoch of a run of this task alone.
    assert first == list(grouped_batches(lengths, 4, 11 * 1_000_003 + 1))


def test_turns_are_shuffled_by_the_seed() -> None:
    assert sorted(turns([3, 2], 5)) == [0, 0, 0, 1, 1]
    assert turns([30, 20], 5) == turns([30, 20], 5) != turns([30, 20], 6)
    assert turns([4], 5) == [0, 0, 0, 0]
