"""`ptv2kit validate`: check recipes, tasks and suites, and with `--data` every row, without training anything."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from ptv2kit.cli.data_root import add_data_root
from ptv2kit.cli.output import show
from ptv2kit.cli.subject import find_subjects
from ptv2kit.errors import ConfigError, DataError, Problem

if TYPE_CHECKING:
    from rich.console import Console

    from ptv2kit.cli.subject import Subject
    from ptv2kit.config.load import ResolvedRecipe, ResolvedTask
    from ptv2kit.data.inspection import SplitReport
    from ptv2kit.data.sources import OpenSplit

EXAMPLES = """examples:
  ptv2kit validate recipes/quickstart.yaml
  ptv2kit validate recipes/*.yaml tasks/*.yaml
  ptv2kit validate recipes/quickstart.yaml --json
  ptv2kit validate tasks/squad_v2.yaml --data --data-root data --backbone mini
"""

_SHOWN = 20


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "validate",
        help="check recipes, tasks and suites, and with --data rows",
        description="Check recipe, task and suite files and print every problem of all of them. With --data, read "
        "every row: count rows and labels, measure lengths, find what is malformed, cut off, unseen in training or "
        "repeated.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="task, recipe or suite: a file or a name")
    parser.add_argument("--data", action="store_true", help="also read and check every row")
    parser.add_argument("--backbone", metavar="NAME", help="whose tokenizer (default: the recipe's, or mini)")
    add_data_root(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    parser.set_defaults(handler=run, trailing="files")


def run(args: argparse.Namespace) -> int:
    """Validate each file.

    Raises:
        ConfigError: with the problems of all files.
        DataError: with the problems of all rows; only if the files are without problems.
    """
    from ptv2kit.config.catalog import find_file
    from ptv2kit.config.cells import ResolvedSuite
    from ptv2kit.config.load import ResolvedRecipe, load_file

    problems: list[Problem] = []
    bad_rows: list[Problem] = []
    reports: list[dict[str, Any]] = []
    for path in (find_file(name, ["task", "recipe", "suite"]) for name in args.files):
        found: tuple[Problem, ...] = ()
        kind = ""
        report: dict[str, Any] = {}
        try:
            resolved = load_file(path)
            suite = isinstance(resolved, ResolvedSuite)
            kind = "suite" if suite else "recipe" if isinstance(resolved, ResolvedRecipe) else "task"
            if not args.json:
                show(f"{path}: ok ({kind})")
            if args.data and isinstance(resolved, ResolvedSuite):
                hint = "give its recipes"
                raise ConfigError("--data checks the rows of recipes and tasks", location=str(path), hint=hint)
            if args.data and not isinstance(resolved, ResolvedSuite):
                inspected = _inspect(resolved, args)
                report = {"tasks": [each.to_json() for each in inspected]} if len(inspected) > 1 else {}
                report |= inspected[0].to_json() if len(inspected) == 1 else {}
                for each in inspected:
                    bad_rows += each.bad_rows()
                    if not args.json:
                        each.show(named=len(inspected) > 1)
        except ConfigError as error:
            found = error.problems
            problems += found
        except DataError as error:
            found = error.problems
            bad_rows += found
        lines = [{"location": item.location, "message": item.message, "hint": item.hint} for item in found]
        tasks = report.get("tasks", [report])
        faulty = bool(found) or any(split["problems"] for task in tasks for split in task.get("splits", []))
        reports.append({"file": str(path), "ok": not faulty, "kind": kind, "problems": lines, **report})
    if args.json:
        show(json.dumps({"ok": not problems and not bad_rows, "files": reports}, indent=2))
        return ConfigError.exit_code if problems else DataError.exit_code if bad_rows else 0
    if problems:
        raise ConfigError(dict.fromkeys([*problems, *bad_rows]))
    if bad_rows:
        raise DataError(dict.fromkeys(bad_rows))
    return 0


@final
@dataclass(frozen=True)
class _Inspected:
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


def _inspect(resolved: ResolvedRecipe | ResolvedTask, args: argparse.Namespace) -> list[_Inspected]:
    """Read and check every row of every split of every task."""
    from ptv2kit.config.load import ResolvedRecipe
    from ptv2kit.data.sources import OpenSplit
    from ptv2kit.training.prepare import check_backbone

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


def _inspect_task(subject: Subject, splits: dict[str, OpenSplit]) -> _Inspected:

    from ptv2kit.data.inspection import inspect_splits
    from ptv2kit.data.preview import words_shown
    from ptv2kit.reporting.console import RowsConsole, open_console

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
    return _Inspected(subject.resolved.task.task, subject.max_length, reports, words)


def _show(splits: list[SplitReport], max_length: int) -> None:
    """The report as tables."""
    from rich.table import Table

    from ptv2kit.reporting.console import open_console

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
        ("labels alike but for blanks", ["; ".join(split.alike) or "0" for split in splits]),
        ("labels not in train", [", ".join(split.unseen) or "0" for split in splits]),
    ]
    for name, values in rows:
        table.add_row(name, *values)
    console.print(table)
    _show_labels(console, splits)


def _show_labels(console: Console, splits: list[SplitReport]) -> None:
    """How often each label occurs, most frequent first, with a bar for its share in the training split."""
    from rich.table import Table

    names = list(dict.fromkeys(name for split in splits for name in split.labels))
    total = max(1, sum(splits[0].labels.values()))
    table = Table("label", *(split.name for split in splits), f"share of {splits[0].name}")
    for name in names:
        share = splits[0].labels.get(name, 0) / total
        bar = "█" * round(30 * share)
        table.add_row(name, *(f"{split.labels.get(name, 0):,}" for split in splits), f"{share:6.1%} {bar}")
    console.print(table)
