"""`ptv2kit predict`: a trained run answers rows without labels."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from ptv2kit.cli.output import show
from ptv2kit.cli.subject import silence_libraries
from ptv2kit.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console

    from ptv2kit.data.rows import Row
    from ptv2kit.evaluation.predict import Answer
    from ptv2kit.training.load_run import LoadedRun

EXAMPLES = """examples:
  ptv2kit predict runs/quickstart/20261123-130443-1f2e3d4c sentences.txt
  ptv2kit predict runs/mini-squad/20261123-130443-1f2e3d4c questions.jsonl --json > answers.jsonl
  ptv2kit predict runs/mini-sst2/20261123-130443-1f2e3d4c reviews.csv --batch-size 64
  echo '{"sentence": "a joy from start to end"}' | ptv2kit predict runs/mini-sst2/20261123-130443-1f2e3d4c -
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "predict",
        help="let a run answer rows without labels",
        description="Answer every row of a file, or of standard input, with the best prompt of a run. The file is JSON "
        "Lines, CSV or TSV with the columns that the task reads, or plain text if it reads only one. Rows that cannot "
        "be read are named on stderr, and the rest goes on; the exit code is 3 then.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", help="folder of a run, or hub:USER/NAME")
    parser.add_argument("file", metavar="FILE", help="rows to answer; - is standard input")
    parser.add_argument("--format", choices=["jsonl", "csv", "tsv", "text"], help="instead of what the name tells")
    parser.add_argument("--task", metavar="NAME", help="which task of a run with several")
    parser.add_argument("--batch-size", type=int, metavar="N", help="inputs per forward pass (default: the recipe's)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: auto")
    parser.add_argument("--strict", action="store_true", help="stop at the first row that cannot be read")
    parser.add_argument("--json", action="store_true", help="print a JSON object for each row")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr, only errors")
    parser.set_defaults(handler=run, trailing="")


def run(args: argparse.Namespace) -> int:
    """Answer the rows.

    Raises:
        ConfigError: this is no run, or the rows' format does not fit the task.
        DataError: the file cannot be read, rows failed, or a file of the run is torn.
    """

    from ptv2kit.cli.subject import positive
    from ptv2kit.data.unlabelled import read_unlabelled, read_unlabelled_stream
    from ptv2kit.reporting.console import open_console
    from ptv2kit.training.hub_runs import find_run
    from ptv2kit.training.load_run import load_run

    size = None if args.batch_size is None else positive("--batch-size", args.batch_size)
    messages = open_console(stderr=True, quiet=args.quiet)
    silence_libraries()
    if args.file != "-":
        _require_file(Path(args.file))
    loaded = load_run(find_run(args.run), args.task, args.device)
    faults = _Faults(strict=args.strict)
    rows: Iterator[Row]
    if args.file == "-":
        rows = read_unlabelled_stream(sys.stdin.buffer, args.format, loaded.task, faults.on_row)
    else:
        rows = read_unlabelled(Path(args.file), args.format, loaded.task, faults.on_row)
    count, name = 0, "<stdin>" if args.file == "-" else args.file
    for answer in _watched(loaded, rows, size, 1 if args.file == "-" else 8, messages):
        if answer.error is not None:
            faults.on_row(answer.error)
            if args.json:
                show(json.dumps(answer.to_json(), ensure_ascii=False))
            continue
        count += 1
        show(json.dumps(answer.to_json(), ensure_ascii=False) if args.json else _line(answer), flush=args.file == "-")
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
    loaded: LoadedRun, rows: Iterator[Row], size: int | None, ahead: int, messages: Console
) -> Iterator[Answer]:
    """The answers, with progress where someone looks."""
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.completed} rows"), TimeElapsedColumn())
    shown = messages.is_terminal and not sys.stdout.isatty()
    with Progress(*columns, console=messages, transient=True, disable=not shown) as progress:
        task = progress.add_task("", total=None)
        yield from loaded.predictor(size).answers(rows, lambda done: progress.update(task, completed=done), ahead)


def _line(answer: Answer) -> str:
    """An answer for people: place, label and probability, of spans all of them."""
    values = answer.values
    assert values is not None
    if "spans" in values:
        spans = (f"{span['type']}[{span['text']}] {span['probability']:.2f}" for span in values["spans"])
        found = "  ".join(spans) or "no span"
    else:
        shown = values.get("text", values["label"]) or "no answer"
        found = f"{shown}  {values['probability']:.2f}"
    return f"{answer.location}: {found}"
