"""`ptv2kit evaluate`: score a trained run on a split or a file."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from ptv2kit.cli.output import show
from ptv2kit.cli.subject import positive
from ptv2kit.cli.terminal import open_console, print_table
from ptv2kit.data.dataset import encode_split
from ptv2kit.data.sources import SplitData, read_file, read_split
from ptv2kit.errors import ConfigError, TrainingError, did_you_mean
from ptv2kit.exchange.hub import PREFIX
from ptv2kit.files import write_atomically
from ptv2kit.models.checkpoints import silence_libraries
from ptv2kit.spec.load import ResolvedRecipe
from ptv2kit.training.console import RowsConsole, scores_table
from ptv2kit.training.evaluate import evaluate, prediction_lines
from ptv2kit.training.load_run import LoadedRun, load_run, read_run


def run(args: argparse.Namespace) -> int:
    """Score a run.

    Raises:
        ConfigError: this is not a run, or its task has no such split.
        DataError: the rows could not be loaded or are malformed, or a file of the run is torn.
    """
    if args.data is not None and args.split is not None:
        raise ConfigError("--split and --data cannot both be given")
    if args.batch_size is not None:
        positive("--batch-size", args.batch_size)
    messages = open_console(stderr=True, quiet=args.quiet)
    silence_libraries(quiet=args.quiet)
    folder: Path = args.folder
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
        lines = prediction_lines(loaded.scheme, data.rows, found.predictions)
        try:
            write_atomically(args.predictions, lines.encode())
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
    print_table(console, scores_table(found.scores, f"{loaded.task.task}: {data.name}, {len(data.rows)} rows"))
    return 0


def _rows(resolved: ResolvedRecipe, loaded: LoadedRun, args: argparse.Namespace) -> SplitData:
    """The rows of the split or of the file."""
    if args.data is not None:
        return read_file(loaded.task, args.data)
    split = args.split or "validation"
    known = list(loaded.task.data.splits.by_name())
    if split not in known:
        hint = did_you_mean(split, known) or f"it has {', '.join(known)}; --data takes a file"
        raise ConfigError(f"task '{loaded.task.task}' has no split '{split}'", hint=hint)
    path = next(task.path for task in resolved.tasks if task.task.task == loaded.task.task)
    data = read_split(loaded.task, split, task_path=path, data_root=args.data_root)
    return data.limited(*loaded.recipe.limit_of(split), loaded.task)
