"""`ptv2kit new`: a first task file from data, a first recipe from a task."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from ptv2kit.cli.output import show
from ptv2kit.data.proposal import Proposal, propose
from ptv2kit.data.recognition import recognise
from ptv2kit.data.sources import read_rows
from ptv2kit.errors import ConfigError, DataError, TrainingError
from ptv2kit.files import write_atomically
from ptv2kit.spec.catalog import find_file
from ptv2kit.spec.load import load_recipe, load_task
from ptv2kit.spec.sources import SHARE, DataSource, Splits
from ptv2kit.spec.task import AnyTask
from ptv2kit.spec.yaml import quoted

_LOOKED_AT = 100_000


def new_task(args: argparse.Namespace) -> int:
    """Write a task file.

    Raises:
        ConfigError: the file exists, or its format is not known.
        DataError: the rows cannot be read, or no scheme fits them.
    """
    name = _name(args.name or args.file.name.removesuffix(".gz").rpartition(".")[0])
    target: Path = args.to or Path(f"{name}.yaml")
    _require_new(target)
    others = {"validation": args.validation, "test": args.test}
    for split, given in others.items():
        if given is not None and SHARE.fullmatch(given) is None and not Path(given).is_file():
            share = f"--{split} {given}% keeps a share of the rows for it"
            hint = share if re.fullmatch(r"\d+(\.\d+)?", given) else ""
            raise DataError("there is no such file", location=given, hint=hint)
    splits = {"train": str(args.file), **{split: given for split, given in others.items() if given is not None}}
    columns = None if args.columns is None else [column.strip() for column in args.columns.split(",")]
    source, doubts = recognise(args.file, Splits(train=str(args.file), validation=args.validation), columns)
    rows = list(itertools.islice(read_rows(args.file, source, takes_names=lambda _: True), _LOOKED_AT))
    if not rows:
        raise DataError("the file has no rows", location=str(args.file))
    proposal = propose(rows)
    proposal = replace(proposal, doubts=(*doubts, *proposal.doubts))
    _write(target, _task_text(name, source, splits, target, proposal, len(rows)))
    load_task(target)
    show(f"{target}: scheme {proposal.scheme}, for {proposal.why}")
    if len(rows) == _LOOKED_AT:
        show(f"look at it: labels that do not occur in the first {_LOOKED_AT:,} rows are missing in 'labels.names'")
    for doubt in proposal.doubts:
        show(f"look at it: {doubt}")
    show(f"next: ptv2kit validate {target} --data; ptv2kit preview {target}; ptv2kit new recipe {target}")
    return 0


def new_recipe(args: argparse.Namespace) -> int:
    """Write a recipe.

    Raises:
        ConfigError: the file exists, or the task is not valid.
    """
    args.task = find_file(args.task, ["task"])
    task = load_task(args.task).task
    name = _name(args.name or f"{task.task}-{args.backbone.rpartition('/')[2]}")
    target: Path = args.to or Path(f"{name}.yaml")
    _require_new(target)
    _write(target, _recipe_text(name, args.task, task, args.backbone, target))
    load_recipe(target)
    show(f"{target}: {task.task} with {args.backbone}")
    show(f"next: ptv2kit plan {target}; ptv2kit run {target}")
    return 0


def _task_text(
    name: str, source: DataSource, splits: Mapping[str, str], target: Path, proposal: Proposal, rows: int
) -> str:
    """The task file."""
    files = ", ".join(
        f"{split}: {given if SHARE.fullmatch(given) else _path(Path(given), target)}" for split, given in splits.items()
    )
    written = source.model_dump(mode="json", exclude={"splits"}, exclude_defaults=True)
    format_of = ", ".join(f"{key}: {value if key == 'source' else _flow(value)}" for key, value in written.items())
    lines = [
        f"# Proposed from the first {rows:,} rows: {_comment(proposal.why)}. Read it before you trust it.",
        *(f"# Look at it: {_comment(doubt)}." for doubt in proposal.doubts),
        f"task: {name}",
        "version: 1                    # raise it when a change of this file changes scores",
        'description: ""               # what a model learns from it',
        'licence: ""                   # of the data',
        f"data: {{{format_of}, splits: {{{files}}}}}",
    ]
    lines += [
        f"{key}: {text}{f'  # {comment}' if comment else ''}" for key, (text, comment) in proposal.sections.items()
    ]
    return "\n".join(lines) + "\n"


def _recipe_text(name: str, path: Path, task: AnyTask, backbone: str, target: Path) -> str:
    """The recipe; the values of the embedded backbone are those of `docs/results-mini.md`, the others the paper's most
    frequent ones."""
    prompt, train = "{length: 16, dropout: 0.1}", "epochs: 30, batch_size: 16, learning_rate: 7e-3"
    settings = ""
    if backbone == "mini":
        unit, _ = task.logits()
        rate = "4e-2" if unit == "token" else "2e-2"
        pooled = unit not in ("token", "start_end")  # the pooler of MiniLM was never trained for sentences
        prompt = f"{{length: {16 if pooled else 32}, dropout: 0.0, init: tokens, positions: unshifted}}"
        settings = f", dropout: 0.0, attention_dropout: 0.0{', pooling: mean' if pooled else ''}"
        train = (
            f"epochs: 8, batch_size: 4, learning_rate: {rate}, head_learning_rate: 5e-3, betas: [0.9, 0.95], "
            "warmup_ratio: 0.1"
        )
    return "\n".join(
        [
            f"recipe: {name}",
            'description: ""',
            f"task: {_path(path, target)}",
            f"backbone: {{name: {json.dumps(backbone)}{settings}}}",
            "method: p_tuning_v2           # compare: fine_tuning, lora, linear_probe, prompt_tuning",
            f"prompt: {prompt}  # easy tasks need 8 to 20, tagging and answers 64 and more",
            f"train: {{{train}}}  # search the learning rate first: 1e-3 to 1e-1",
            "# worth a try on words and answers: train.layer_norm_learning_rate=5e-3, which trains the LayerNorms too",
            "",
        ]
    )


def _name(text: str) -> str:
    """A name that a task or recipe may have."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-._") or "new"


def _path(path: Path, target: Path) -> str:
    """A path as the file at `target` writes it."""
    relative = os.path.relpath(path.absolute(), target.absolute().parent)
    return quoted(relative if not relative.startswith("../../..") else str(path.absolute()))


def _flow(value: Any) -> str:
    """A value in a YAML flow mapping."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_flow(each)}' for key, each in cast('dict[str, Any]', value).items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(_flow(each) for each in cast('list[Any]', value))}]"
    return quoted(value) if isinstance(value, str) else json.dumps(value)


def _comment(text: str) -> str:
    """In one line, because columns and labels of the data could end it."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _require_new(target: Path) -> None:
    if target.exists():
        raise ConfigError(f"'{target}' exists", hint="name another file with --to")


def _write(target: Path, text: str) -> None:
    try:
        write_atomically(target, text.encode())
    except OSError as error:
        raise TrainingError(f"cannot be written: {error.strerror}", location=str(target)) from error
