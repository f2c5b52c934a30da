"""A task's splits, read and encoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import final

from ptv2kit.data.batching import grouped_batches, token_batches
from ptv2kit.data.kept_states import KeptStates
from ptv2kit.data.rows import Row
from ptv2kit.data.schemes.base import LabelScheme
from ptv2kit.data.schemes.records import Batch, Feature
from ptv2kit.data.sources import SplitData
from ptv2kit.errors import DataError, Problem
from ptv2kit.machine import collector_paused

_SHOWN = 20
_AT_ONCE = 500

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many rows are done, and how many there are."""


@final
@dataclass(frozen=True)
class EncodedSplit:
    """A split that is ready for the model.

    Args:
        data: rows, where they came from, and their fingerprint.
        features: one or more for each row.
        states: hidden states that are looked up instead of computed; None: there are none.
    """

    data: SplitData
    features: tuple[Feature, ...]
    states: KeptStates | None = None

    def batches(self, batch_size: int | None, batch_tokens: int | None, seed: int) -> list[list[int]]:
        """The batches of one pass, as indices of features: of a number of features, or of tokens."""
        if batch_size is not None:
            return grouped_batches(self.lengths, batch_size, seed)
        assert batch_tokens is not None
        return token_batches(self.lengths, [len(feature.inputs) for feature in self.features], batch_tokens, seed)

    def batch(self, scheme: LabelScheme, chosen: Sequence[int]) -> Batch:
        """Some features as one batch, by their indices, with the hidden states that were kept for them."""
        batch = scheme.collate([self.features[index] for index in chosen])
        if self.states is None:
            return batch
        return replace(batch, trunk_states=self.states.padded(chosen, batch.input_ids.shape[1]))

    @property
    def lengths(self) -> list[int]:
        """Sub-words of each feature's longest input."""
        return [feature.length for feature in self.features]

    @property
    def truncated(self) -> int:
        """Features of which something that could matter was cut off at `max_length`."""
        return sum(feature.truncated for feature in self.features)


def encode_split(scheme: LabelScheme, data: SplitData, progress: Progress) -> EncodedSplit:
    """Encode all rows of a split.

    Args:
        progress: told about the work every few hundred rows.

    Raises:
        DataError: with the faults of all rows; the first 20 are spelled out. Where malformed rows are left out, it is
            one only if no row is whole.
    """
    features: list[Feature] = []
    problems: list[Problem] = []
    kept: list[Row] = []
    with collector_paused():
        for index, row in enumerate(data.rows):
            if index % _AT_ONCE == 0:
                progress(f"encoding {data.name}", index, len(data.rows))
                scheme.encode_ahead(data.rows[index : index + _AT_ONCE])
            try:
                features += scheme.encode(row, len(kept))
                kept.append(row)
            except DataError as error:
                problems += error.problems
    progress(f"encoding {data.name}", len(data.rows), len(data.rows))
    if data.skipped is not None and kept:
        data = replace(data, rows=tuple(kept), skipped=(*data.skipped, *problems))
        problems = []
    if len(problems) > _SHOWN:
        problems[_SHOWN:] = [Problem(f"and {len(problems) - _SHOWN} more", location=data.source)]
    if problems:
        raise DataError(problems)
    return EncodedSplit(data, tuple(features))
