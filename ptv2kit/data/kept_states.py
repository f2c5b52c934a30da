"""Hidden states of a split that were computed once and are looked up from then on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import final

import torch
from torch import Tensor

from ptv2kit.data.batching import sorted_token_batches
from ptv2kit.data.schemes.records import Feature


@final
@dataclass(frozen=True)
class StatesLayout:
    """Where the hidden states of each input lie: one input after the other, in the order in which they are computed.

    Args:
        batches: features that are computed together, each exactly once.
        counts: for each feature the kept positions of each of its inputs.
        starts: for each feature the first row of each of its inputs.
        padded_to: positions that every input has, padding included; None: only its tokens.
    """

    batches: tuple[tuple[int, ...], ...]
    counts: tuple[tuple[int, ...], ...]
    starts: tuple[tuple[int, ...], ...]
    padded_to: int | None

    @property
    def positions(self) -> int:
        """Rows in all."""
        return sum(sum(counts) for counts in self.counts)


def states_layout(features: Sequence[Feature], batch_size: int, *, padding: bool) -> StatesLayout:
    """The layout for a split.

    Args:
        batch_size: features of average length per forward pass.
        padding: whether padding is kept too, up to the longest input of the split.
    """
    lengths = [feature.length for feature in features]
    padded_to = max(lengths, default=0) if padding else None
    counts = [
        tuple(len(encoding.ids) if padded_to is None else padded_to for encoding in feature.inputs)
        for feature in features
    ]
    inputs = [len(feature.inputs) for feature in features]
    padded = lengths if padded_to is None else [padded_to] * len(features)
    tokens = sum(length * count for length, count in zip(padded, inputs, strict=True))
    # As many tokens as an average batch has: where few are long, they would otherwise have the others padded.
    budget = batch_size * tokens // max(1, len(features))
    batches = sorted_token_batches(range(len(features)), padded, inputs, budget)
    order = [feature for batch in batches for feature in batch]
    sizes = [count for feature in order for count in counts[feature]]
    begins = iter(accumulate(sizes, initial=0))
    starts: list[tuple[int, ...]] = [()] * len(features)
    for feature in order:
        starts[feature] = tuple(next(begins) for _ in counts[feature])
    return StatesLayout(tuple(map(tuple, batches)), tuple(counts), tuple(starts), padded_to)


@final
@dataclass(frozen=True)
class KeptStates:
    """What enters the lowest prompted layer, for every input of a split.

    Args:
        layout: where each input's hidden states lie.
        rows: `[positions, hidden]`, in memory or mapped from a file.
    """

    layout: StatesLayout
    rows: Tensor

    def padded(self, features: Sequence[int], length: int) -> Tensor:
        """The hidden states of some features' inputs, `[inputs, length, hidden]`; 0 where nothing was kept.

        Args:
            features: their indices within the split.
        """
        places = [place for feature in features for place in self._places(feature)]
        padded = torch.zeros(len(places), length, self.rows.shape[1], dtype=self.rows.dtype)
        for own, (start, count) in zip(padded, places, strict=True):
            count = min(count, length)
            own[:count] = self.rows[start : start + count]
        return padded

    def _places(self, feature: int) -> Iterator[tuple[int, int]]:
        return zip(self.layout.starts[feature], self.layout.counts[feature], strict=True)
