"""`ptv2kit predict`: a trained run answers rows without labels."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, final

from ptv2kit.cli.output import show
from ptv2kit.cli.subject import positive
from ptv2kit.cli.terminal import open_console
from ptv2kit.data.rows import Row
from ptv2kit.data.unlabelled import read_unlabelled, read_unlabelled_stream
from ptv2kit.errors import DataError
from ptv2kit.models.checkpoints import silence_libraries
from ptv2kit.training.answer_file import answer_file
from ptv2kit.training.load_run import LoadedRun, load_run
from ptv2kit.training.predict import Answer

if TYPE_CHECKING:
    from rich.console import Console


def run(args: argparse.Namespace) -> int:
    """Answer the rows.

    Raises:
        ConfigError: this is not a run, or the rows' format does not fit the task or `--to`.
        DataError: the file cannot be read, rows failed, or a file of the run is torn.
        TrainingError: the file of the answers cannot be written.
    """
    size = None if args.batch_size is None else positive("--batch-size", args.batch_size)
    messages = open_console(stderr=True, quiet=args.quiet)
    silence_libraries(quiet=args.quiet)
    if args.file != "-":
        _require_file(Path(args.file))
    faults = _Faults(strict=args.strict)
    count, name = 0, "<stdin>" if args.file == "-" else args.file
    with nullcontext() if args.to is None else answer_file(args.to) as file:
        loaded = load_run(args.folder, args.task, args.device)
        rows: Iterator[Row]
        if args.file == "-":
            rows = read_unlabelled_stream(sys.stdin.buffer, args.format, loaded.task, faults.on_row)
        else:
            rows = read_unlabelled(Path(args.file), args.format, loaded.task, faults.on_row)
        for answer in _watched(loaded, rows, size, 1 if args.file == "-" else 8, messages, to_file=args.to is not None):
            if answer.error is not None:
                faults.on_row(answer.error)
            count += answer.error is None
            if file is not None:
                file.write(answer)
            elif args.json:
                show(json.dumps(answer.to_json(), ensure_ascii=False), flush=args.file == "-")
            elif answer.error is None:
                show(_line(answer), flush=args.file == "-")
    messages.print(f"{count} answered" + (f", {faults.count} failed" if faults.count else ""), soft_wrap=True)
    if faults.count:
        raise DataError(f"{faults.count} of {faults.count + count} rows could not be answered", location=name)
    if not count:
        raise DataError("there is no row", location=name)
    return 0


@final
class _Faults:
    """Names rows that cannot be read, and counts them.

    Args:
        strict: whether the first one is the end.
    """

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self.count = 0

    def on_row(self, error: DataError) -> None:
        """A row that cannot be read."""
        if self._strict:
            raise error
        self.count += 1
        show(error, file=sys.stderr)


def _require_file(path: Path) -> None:
    if path.is_dir() or not path.exists():
        reason = "expected a file. Got a folder" if path.is_dir() else "there is no such file"
        raise DataError(reason, location=str(path))


def _watched(
    loaded: LoadedRun, rows: Iterator[Row], size: int | None, ahead: int, messages: Console, *, to_file: bool
) -> Iterator[Answer]:
    """The answers, with progress where someone looks."""
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.completed} rows"), TimeElapsedColumn())
    shown = messages.is_terminal and (to_file or not sys.stdout.isatty())
    with Progress(*columns, console=messages, transient=True, disable=not shown) as progress:
        task = progress.add_task("", total=None)
        yield from loaded.predictor(size).answers(rows, lambda done: progress.update(task, completed=done), ahead)


def _line(answer: Answer) -> str:
    """An answer for people: place, label and probability; all spans or labels where there are several."""
    values = answer.values
    assert values is not None
    if "spans" in values:
        spans = (f"{span['type']}[{span['text']}] {span['probability']:.2f}" for span in values["spans"])
        found = "  ".join(spans) or "no span"
    else:
        label, probability = values.get("text", values["label"]), values["probability"]
        shown = ", ".join(label) or "no label" if isinstance(label, list) else str(label) or "no answer"
        found = shown if probability is None else f"{shown}  {probability:.2f}"
    return f"{answer.location}: {found}"
