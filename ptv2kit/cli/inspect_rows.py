"""Every row of every split: counted, checked and shown, for `ptv2kit validate --data`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, final

from ptv2kit.cli.output import show
from ptv2kit.cli.subject import Subject, find_subjects
from ptv2kit.cli.terminal import open_console, print_table
from ptv2kit.data.inspection import SplitReport, inspect_splits
from ptv2kit.data.preview import words_shown
from ptv2kit.data.sources import OpenSplit
from ptv2kit.errors import DataError, Problem
from ptv2kit.spec.load import ResolvedRecipe, ResolvedTask
from ptv2kit.training.console import RowsConsole
from ptv2kit.training.prepare import check_backbone

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN = 20
_NAMED, _COUNTED = 10, 60
"""Labels that a cell names, and that a table counts; `--json` has all."""


@final
@dataclass(frozen=True)
class InspectedTask:
    """A task whose rows have all been read.

    Args:
        task: its name.
        max_length: longest input that is allowed.
        splits: what was found.
        words: of a verbalizer, of each class in sub-words.
    """

    task: str
    max_length: int
    splits: list[SplitReport]
    words: dict[str, list[list[str]]]

    def to_json(self) -> dict[str, Any]:
        splits = [split.to_json() for split in self.splits]
        words = {"verbalizer": self.words} if self.words else {}
        return {"task": self.task, "max_length": self.max_length, **words, "splits": splits}

    def bad_rows(self) -> list[Problem]:
        """The first problems of each split, and how many more there are."""
        shown: list[Problem] = []
        for split in self.splits:
            if split.skipped:
                continue
            shown += split.problems[:_SHOWN]
            if len(split.problems) > _SHOWN:
                shown.append(Problem(f"and {len(split.problems) - _SHOWN} more", location=split.source))
        return shown

    def show(self, *, named: bool) -> None:
        """Print tables, under the task's name if there are several."""
        if named:
            show(f"\n{self.task}:")
        for name, words in self.words.items():
            show(f"the mask is filled for {name}: {' or '.join(' '.join(word) for word in words)}")
        _show(self.splits, self.max_length)


def inspect_rows(resolved: ResolvedRecipe | ResolvedTask, args: argparse.Namespace) -> list[InspectedTask]:
    """Read and check every row of every split of every task."""
    if isinstance(resolved, ResolvedRecipe):
        for each in resolved.tasks:
            check_backbone(resolved.recipe, each.task)
    found: list[tuple[Subject, dict[str, OpenSplit]]] = []
    problems: list[Problem] = []
    for subject in find_subjects(resolved, args.backbone):
        task, path = subject.resolved.task, subject.resolved.path
        splits: dict[str, OpenSplit] = {}
        for name in task.data.splits.by_name():
            try:
                splits[name] = OpenSplit.find(task, name, task_path=path, data_root=args.data_root)
            except DataError as error:
                problems += error.problems
        found.append((subject, splits))
    if problems:
        raise DataError(dict.fromkeys(problems))
    return [_inspect_task(subject, splits) for subject, splits in found]


def _inspect_task(subject: Subject, splits: dict[str, OpenSplit]) -> InspectedTask:
    faults: list[Problem] = []
    rows = splits["train"].rows(lambda error: faults.extend(error.problems))
    first = next(rows, None)
    if first is None:
        raise DataError(faults[:_SHOWN] or [Problem("split 'train' is empty", location=splits["train"].source)])
    # Malformed rows between good ones are reported by the inspection.
    scheme, untruncated, subwords = subject.schemes(chain([first], rows))
    with RowsConsole(open_console(stderr=True)) as console:

        def progress(what: str, done: int) -> None:
            console.on_rows(what, done, None)

        reports = inspect_splits(scheme, untruncated, subwords, splits, subject.max_length, progress)
    words = words_shown(scheme, subwords)
    return InspectedTask(subject.resolved.task.task, subject.max_length, reports, words)


def _show(splits: list[SplitReport], max_length: int) -> None:
    """The report as tables."""
    from rich.table import Table

    console = open_console()
    table = Table("", *(split.name for split in splits), title_justify="left")
    rows: list[tuple[str, list[str]]] = [
        ("rows", [f"{split.rows:,}" for split in splits]),
        ("inputs of the model", [f"{split.inputs:,}" for split in splits]),
        ("malformed", [f"{len(split.problems):,}{', left out' if split.skipped else ''}" for split in splits]),
        *((f"sub-words, {name}", [f"{split.lengths[name]:,}" for split in splits]) for name in splits[0].lengths),
        (f"longer than max_length {max_length}", [f"{split.too_long:,}" for split in splits]),
        ("cut off, or answer lost", [f"{split.truncated:,}" for split in splits]),
        ("repeated within the split", [f"{split.repeated:,}" for split in splits]),
        ("also in a split before", [f"{split.leaked:,}" for split in splits]),
        ("unknown sub-words", [f"{split.unknown:,}" for split in splits]),
        ("gold spans without a sub-word", [f"{split.unreachable:,}" for split in splits]),
        ("labels alike but for blanks", [_listed(split.alike, "; ") for split in splits]),
        ("labels not in train", [_listed(split.unseen, ", ") for split in splits]),
        ("labels of the task without a row", [_listed(split.lacking, ", ") for split in splits]),
    ]
    for name, values in rows:
        table.add_row(name, *values)
    print_table(console, table)
    _show_labels(console, splits)


def _listed(names: Sequence[str], separator: str) -> str:
    """Names in a cell, the first few of many; 0 of none."""
    more = [f"and {len(names) - _NAMED:,} more"] if len(names) > _NAMED else []
    return separator.join([*names[:_NAMED], *more]) or "0"


def _show_labels(console: Console, splits: list[SplitReport]) -> None:
    """How often each label occurs, most frequent first, with a bar for its share in the training split."""
    from rich.table import Table

    names = list(dict.fromkeys(name for split in splits for name in split.labels))
    total = max(1, sum(splits[0].labels.values()))
    table = Table("label", *(split.name for split in splits), f"share of {splits[0].name}")
    for name in names[:_COUNTED]:
        share = splits[0].labels.get(name, 0) / total
        bar = "█" * round(30 * share)
        table.add_row(name, *(f"{split.labels.get(name, 0):,}" for split in splits), f"{share:6.1%} {bar}")
    if len(names) > _COUNTED:
        table.add_row(f"{len(names) - _COUNTED:,} rarer ones: --json has them", style="dim")
    print_table(console, table)
