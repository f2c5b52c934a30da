"""A look at a whole data set before anything is trained on it: counts, lengths, and what is wrong."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from ptv2kit.data.dataset import Progress
from ptv2kit.data.schemes.base import Feature, LabelScheme
from ptv2kit.data.sources import SplitData
from ptv2kit.errors import DataError, Problem

_REPORT_EVERY = 500
_PERCENTILES = (50, 90, 99, 100)


@final
@dataclass(frozen=True)
class SplitReport:
    """What a split holds.

    Args:
        name: of the split.
        source: where its rows come from.
        rows: all of them, the bad ones included.
        inputs: what the model reads: a window or a choice each.
        labels: how often each label occurs: classes, span types, answers.
        lengths: percentiles 50, 90, 99 and 100 of the untruncated inputs in sub-words.
        too_long: rows with an untruncated input above `max_length`.
        truncated: rows of which something that could matter is cut off: text, words, or the whole answer.
        unseen: labels that do not occur in the training split.
        repeated: rows whose input already occurred in this split.
        leaked: rows whose input also occurs in a split before this one.
        problems: faults of rows.
    """

    name: str
    source: str
    rows: int
    inputs: int
    labels: Mapping[str, int]
    lengths: Mapping[str, int]
    too_long: int
    truncated: int
    unseen: tuple[str, ...]
    repeated: int
    leaked: int
    problems: tuple[Problem, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON object with the fields' names."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "problems"}
        faults = [{"location": fault.location, "message": fault.message, "hint": fault.hint} for fault in self.problems]
        return {**fields, "labels": dict(self.labels), "lengths": dict(self.lengths), "problems": faults}


def inspect_splits(
    scheme: LabelScheme,
    untruncated: LabelScheme,
    splits: Mapping[str, SplitData],
    max_length: int,
    progress: Progress,
) -> list[SplitReport]:
    """Encode every row of every split and count what is there.

    Args:
        scheme: of the task, cutting off at `max_length`.
        untruncated: the same without a limit.
        splits: as they were read; `train` is the one that the others are compared with.
        max_length: longest input in sub-words.
        progress: told about the work every few hundred rows.
    """
    reports: list[SplitReport] = []
    seen: set[int] = set()
    train_labels: set[str] = set()
    for name, data in splits.items():
        features, whole, problems = _encode(scheme, untruncated, data, progress)
        lengths = [max(feature.length for feature in row) for row in whole]
        labels = Counter(label for row in features for label in scheme.counted(row[0].reference))
        inputs = [hash(tuple(encoding.ids for feature in row for encoding in feature.inputs)) for row in whole]
        if name == "train":
            train_labels = set(labels)
        reports.append(
            SplitReport(
                name=name,
                source=data.source,
                rows=len(data.rows),
                inputs=sum(len(feature.inputs) for row in features for feature in row),
                labels=dict(labels.most_common()),
                lengths={f"p{percent}": _percentile(lengths, percent) for percent in _PERCENTILES},
                too_long=sum(length > max_length for length in lengths),
                truncated=sum(any(feature.truncated for feature in row) for row in features),
                unseen=tuple(sorted(set(labels) - train_labels)),
                repeated=len(inputs) - len(set(inputs)),
                leaked=sum(key in seen for key in inputs),
                problems=tuple(problems),
            )
        )
        seen.update(inputs)
    return reports


def _encode(
    scheme: LabelScheme, untruncated: LabelScheme, data: SplitData, progress: Progress
) -> tuple[list[list[Feature]], list[list[Feature]], list[Problem]]:
    """The features of each good row, cut off and whole, and the faults of the others."""
    features: list[list[Feature]] = []
    whole: list[list[Feature]] = []
    problems: list[Problem] = []
    for index, row in enumerate(data.rows):
        if index % _REPORT_EVERY == 0:
            progress(f"checking {data.name}", index, len(data.rows))
        try:
            of_row = scheme.encode(row, index)
            whole.append(untruncated.encode(row, index))
        except DataError as error:
            problems += error.problems
        else:
            features.append(of_row)
    progress(f"checking {data.name}", len(data.rows), len(data.rows))
    return features, whole, problems


def _percentile(values: Sequence[int], percent: int) -> int:
    """The smallest value that at least `percent` in a hundred do not exceed; 0 of no values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else 0
