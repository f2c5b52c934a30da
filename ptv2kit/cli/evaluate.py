"""`ptv2kit evaluate`: score a trained run on a split or a file."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptv2kit.cli.data_root import add_data_root
from ptv2kit.cli.output import show
from ptv2kit.cli.subject import silence_libraries
from ptv2kit.errors import ConfigError, TrainingError, did_you_mean

if TYPE_CHECKING:
    from ptv2kit.config.load import ResolvedRecipe
    from ptv2kit.data.sources import SplitData
    from ptv2kit.training.load_run import LoadedRun

EXAMPLES = """examples:
  ptv2kit evaluate runs/quickstart/20261123-130443-1f2e3d4c
  ptv2kit evaluate runs/mini-wikigold/20261123-130443-1f2e3d4c --split test --data-root data
  ptv2kit evaluate runs/mini-wikigold/20261123-130443-1f2e3d4c --data other.jsonl --predictions found.jsonl
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "evaluate",
        help="score a run on a split or a file with labels",
        description="Score the best prompt of a run with the metrics of its task. A split is read as it was for the "
        "run, with the limits of its recipe.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", help="folder of a run, or hub:USER/NAME")
    parser.add_argument("--split", metavar="NAME", help="a split of the task (default: validation)")
    parser.add_argument("--data", type=Path, metavar="FILE", help="instead of a split: a file in the task's format")
    parser.add_argument("--task", metavar="NAME", help="which task of a run with several")
    parser.add_argument("--batch-size", type=int, metavar="N", help="inputs per forward pass (default: the recipe's)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: auto")
    parser.add_argument("--predictions", type=Path, metavar="FILE", help="write each row's prediction, as JSON Lines")
    add_data_root(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of the table")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr, only errors")
    parser.set_defaults(handler=run, trailing="")


def run(args: argparse.Namespace) -> int:
    """Score a run.

    Raises:
        ConfigError: this is no run, or its task has no such split.
        DataError: the rows cannot be had or are malformed, or a file of the run is torn.
    """
    from ptv2kit.cli.subject import positive
    from ptv2kit.data.dataset import encode_split
    from ptv2kit.evaluation.evaluate import evaluate
    from ptv2kit.files import write_atomically
    from ptv2kit.reporting.console import RowsConsole, open_console, scores_table
    from ptv2kit.training.hub_runs import PREFIX, find_run
    from ptv2kit.training.load_run import load_run, read_run

    if args.data is not None and args.split is not None:
        raise ConfigError("--split and --data cannot both be given")
    if args.batch_size is not None:
        positive("--batch-size", args.batch_size)
    messages = open_console(stderr=True, quiet=args.quiet)
    silence_libraries()
    folder = find_run(args.run)
    resolved = read_run(folder)
    loaded = load_run(folder, args.task, args.device)
    data = _rows(resolved, loaded, args)
    with RowsConsole(messages) as rows:
        split = encode_split(loaded.scheme, data, rows.on_rows)
        size = args.batch_size or loaded.recipe.train.eval_batch_size
        found = evaluate(
            loaded.model,
            loaded.scheme,
            split,
            size,
            loaded.device,
            lambda done, total: rows.on_rows("scoring", done, total),
        )
    if args.predictions is not None:
        lines = [prediction.to_json(data.rows[prediction.row].location) for prediction in found.predictions]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        try:
            write_atomically(args.predictions, text.encode())
        except OSError as error:
            raise TrainingError(f"cannot be written: {error.strerror}", location=str(args.predictions)) from error
    if args.json:
        facts = {
            "run": args.run if args.run.startswith(PREFIX) else str(folder),
            "task": loaded.task.task,
            "split": data.name,
            "source": data.source,
            "sha256": data.fingerprint,
            "rows": len(data.rows),
            "metrics": found.scores.values,
            "types": [asdict(of_type) for of_type in found.scores.types],
        }
        show(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", end="")
        return 0
    console = open_console()
    console.print(scores_table(found.scores, f"{loaded.task.task}: {data.name}, {len(data.rows)} rows"))
    return 0


def _rows(resolved: ResolvedRecipe, loaded: LoadedRun, args: argparse.Namespace) -> SplitData:
    """The rows of the split or of the file."""
    from ptv2kit.data.sources import read_file, read_split

    if args.data is not None:
        return read_file(loaded.task, args.data)
    split = args.split or "validation"
    known = list(loaded.task.data.splits.by_name())
    if split not in known:
        hint = did_you_mean(split, known) or f"it has {', '.join(known)}; --data takes a file"
        raise ConfigError(f"task '{loaded.task.task}' has no split '{split}'", hint=hint)
    path = next(task.path for task in resolved.tasks if task.task.task == loaded.task.task)
    limits = loaded.recipe.limit.model_dump()
    data = read_split(loaded.task, split, task_path=path, data_root=args.data_root)
    return data.limited(limits[split.split("_")[0]], loaded.recipe.train.seed)
