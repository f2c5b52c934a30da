"""A look at a whole data set before anything is trained on it: counts, lengths, and what is wrong."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, final

from ptv2kit.data.rows import Row
from ptv2kit.data.schemes.base import LabelScheme
from ptv2kit.data.sources import OpenSplit
from ptv2kit.data.tokens import Subwords
from ptv2kit.errors import DataError, Problem

_AT_ONCE = 500
_PERCENTILES = (50, 90, 99, 100)


@final
@dataclass(frozen=True)
class SplitReport:
    """What a split holds.

    Args:
        source: where its rows come from.
        rows: all of them, the bad ones included.
        inputs: what the model reads: a window or a choice each.
        labels: how often each label occurs: classes, span types, answers.
        lengths: percentiles 50, 90, 99 and 100 of the untruncated inputs in sub-words.
        too_long: rows with an untruncated input above `max_length`.
        truncated: rows of which something that could matter is cut off: text, words, or the whole answer.
        unseen: labels that do not occur in the training split.
        unknown: sub-words that the vocabulary cannot write.
        unreachable: gold spans with a word that yields no sub-word, which no model can find.
        alike: labels that differ by blanks alone.
        repeated: rows whose input already occurred in this split.
        leaked: rows whose input also occurs in a split before this one.
        problems: faults of rows.
        skipped: whether malformed rows are left out by the task, so that they are no error.
        lacking: labels that the task lists and no row has.
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
    unknown: int
    unreachable: int
    alike: tuple[str, ...]
    repeated: int
    leaked: int
    problems: tuple[Problem, ...]
    skipped: bool = False
    lacking: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A JSON object with the fields' names."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "problems"}
        faults = [{"location": fault.location, "message": fault.message, "hint": fault.hint} for fault in self.problems]
        return {**fields, "labels": dict(self.labels), "lengths": dict(self.lengths), "problems": faults}


def inspect_splits(
    scheme: LabelScheme,
    untruncated: LabelScheme,
    subwords: Subwords,
    splits: Mapping[str, OpenSplit],
    max_length: int,
    progress: Callable[[str, int], None],
) -> list[SplitReport]:
    """Encode every row of every split and count what is there; only counts are kept in memory.

    Args:
        scheme: of the task, cutting off at `max_length`.
        untruncated: the same without a limit.
        splits: `train` is the one that the others are compared with.
        max_length: longest input in sub-words.
        progress: told what is done, and how many rows, every few hundred rows.

    Raises:
        DataError: a split has no row, or its file cannot be read to the end.
    """
    reports: list[SplitReport] = []
    seen: set[int] = set()
    train_labels: set[str] = set()
    for name, split in splits.items():
        report, inputs = _inspect(scheme, untruncated, subwords, split, max_length, seen, progress)
        if name == "train":
            train_labels = set(report.labels)
        lacking = tuple(kind for kind in scheme.kinds if kind not in report.labels)
        reports.append(replace(report, unseen=tuple(sorted(set(report.labels) - train_labels)), lacking=lacking))
        seen |= inputs
    return reports


def _inspect(
    scheme: LabelScheme,
    untruncated: LabelScheme,
    subwords: Subwords,
    split: OpenSplit,
    max_length: int,
    seen: set[int],
    progress: Callable[[str, int], None],
) -> tuple[SplitReport, set[int]]:
    """The counts of a split, and a hash of the input of each row; `unseen` and `lacking` are left empty."""
    labels: Counter[str] = Counter()
    lengths: Counter[int] = Counter()
    counts: Counter[str] = Counter()
    hashes: set[int] = set()
    problems: list[Problem] = []

    for chunk in _chunks(split):
        progress(f"checking {split.name}", counts["rows"])
        rows = [each for each in chunk if isinstance(each, Row)]
        scheme.encode_ahead(rows)
        untruncated.encode_ahead(rows)
        counts["rows"] += len(chunk)
        for row in chunk:
            try:
                if isinstance(row, DataError):
                    raise row
                features, whole = scheme.encode(row, 0), untruncated.encode(row, 0, labelled=False)
            except DataError as error:
                problems += error.problems
                continue
            encodings = [encoding for feature in whole for encoding in feature.inputs]
            length = max(feature.length for feature in whole)
            labels.update(scheme.counted(features[0].reference))
            lengths[length] += 1
            key = hash(tuple(encoding.ids for encoding in encodings))
            counts["inputs"] += sum(len(feature.inputs) for feature in features)
            counts["too long"] += length > max_length
            counts["truncated"] += any(feature.truncated for feature in features)
            counts["unknown"] += sum(encoding.ids.count(subwords.unknown_id) for encoding in encodings)
            counts["unreachable"] += scheme.unreachable(features[0].reference, whole[0])
            counts["repeated"] += key in hashes
            counts["leaked"] += key in seen
            hashes.add(key)
    if not counts["rows"]:
        raise DataError(f"split '{split.name}' is empty", location=split.source)
    report = SplitReport(
        name=split.name,
        source=split.source,
        rows=counts["rows"],
        inputs=counts["inputs"],
        labels=dict(labels.most_common()),
        lengths={f"p{percent}": _percentile(lengths, percent) for percent in _PERCENTILES},
        too_long=counts["too long"],
        truncated=counts["truncated"],
        unseen=(),
        unknown=counts["unknown"],
        unreachable=counts["unreachable"],
        alike=_alike(labels),
        repeated=counts["repeated"],
        leaked=counts["leaked"],
        problems=tuple(problems),
        skipped=split.task.data.on_fault == "skip",
    )
    return report, hashes


def _chunks(split: OpenSplit) -> Iterator[tuple[Row | DataError, ...]]:
    """A few hundred rows at a time, in the order of the file; of a malformed one its error."""
    chunk: list[Row | DataError] = []
    for row in split.rows(chunk.append):
        chunk.append(row)
        if len(chunk) >= _AT_ONCE:
            yield tuple(chunk)
            chunk.clear()
    if chunk:
        yield tuple(chunk)


def _alike(labels: Iterable[str]) -> tuple[str, ...]:
    """Labels that are the same but for blanks around them or within them, each group as one text."""
    groups: dict[str, list[str]] = {}
    for label in labels:
        groups.setdefault(" ".join(label.split()), []).append(label)
    return tuple(" and ".join(map(repr, sorted(group))) for group in groups.values() if len(group) > 1)


def _percentile(counted: Mapping[int, int], percent: int) -> int:
    """The smallest value that at least `percent` in a hundred do not exceed; 0 of no values."""
    rest = math.ceil(sum(counted.values()) * percent / 100)
    for value in sorted(counted):
        rest -= counted[value]
        if rest <= 0:
            return value
    return 0
