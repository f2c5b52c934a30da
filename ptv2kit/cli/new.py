"""`ptv2kit new`: a first task file from data, a first recipe from a task."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from ptv2kit.cli.output import show
from ptv2kit.data.proposals.proposal import Proposal
from ptv2kit.data.proposals.propose import propose
from ptv2kit.data.proposals.recognition import Found, find_files, find_split_names, is_data_set, recognise
from ptv2kit.data.rows import Row
from ptv2kit.data.sources import matching_files, read_rows, read_split_if_here
from ptv2kit.data.sources.hub import read_hub, split_names
from ptv2kit.data.unlabelled import has_labels
from ptv2kit.errors import ConfigError, DataError, TrainingError
from ptv2kit.files import is_folder, write_atomically
from ptv2kit.spec.catalog import find_file
from ptv2kit.spec.layers import SMOLLM2
from ptv2kit.spec.load import load_recipe, load_task
from ptv2kit.spec.sources import SHARE, DataSource, HubSource, Splits, TextsSource
from ptv2kit.spec.task import AnyTask
from ptv2kit.spec.yaml import quoted

_LOOKED_AT = 100_000
_FIRST = 100


def new_task(args: argparse.Namespace) -> int:
    """Write a task file.

    Raises:
        ConfigError: the file exists, or its format is not known.
        DataError: the rows cannot be read, or no scheme fits them.
    """
    path: Path = args.file
    file_name = path.name.removesuffix(".gz")
    read_name = file_name if is_folder(path) else file_name.rpartition(".")[0] or file_name
    name = _name(args.name or (args.to.stem if args.to else read_name))
    target: Path = args.to or Path(f"{name}.yaml")
    _require_new(target)
    found = _named_splits(path, args.config) if is_data_set(path) else find_files(path)
    splits = {"train": found.splits["train"], "validation": args.validation or found.splits.get("validation", "10%")}
    test = args.test or found.splits.get("test")
    # One file cannot be both; two shares of 10% are different rows.
    if test is not None and (test != splits["validation"] or SHARE.fullmatch(test)):
        splits["test"] = test
    source, rows, doubts = _first_rows(args, name, splits)
    unscored = _folders_only_trained(splits) if isinstance(source, TextsSource) else set[str]()
    proposal = propose([row for row in rows if not unscored or row.values["label"] not in unscored])
    if unscored:
        proposal = _without_folders(proposal, unscored, _folders(splits["train"]) - unscored)
    others = [f"'{each}' is not used: --test takes one" for each in found.others if each not in splits.values()]
    proposal = replace(proposal, doubts=(*doubts, *others, *proposal.doubts))
    _write(target, _task_text(name, source, splits, target, proposal, len(rows)))
    task = load_task(target).task
    asked_for = {"train", *(split for split in ("validation", "test") if getattr(args, split) is not None)}
    of_folder = {} if isinstance(source, HubSource) else found.splits
    bare = [
        split for split in of_folder if split in splits.keys() - asked_for and _is_bare(task, source, splits[split])
    ]
    if bare:
        files = " and ".join(f"'{splits.pop(split)}'" for split in bare)
        doubt = f"there are no labels in {files}, so they are no split: 'ptv2kit predict' answers their rows"
        proposal = replace(proposal, doubts=(*proposal.doubts, doubt))
        splits = {"train": splits["train"], "validation": "10%", **splits}
        _write(target, _task_text(name, source, splits, target, proposal, len(rows)))
        load_task(target)
    show(f"{target}: scheme {proposal.scheme}, for {proposal.why}")
    if len(rows) == _LOOKED_AT:
        show(f"look at it: labels that do not occur in the first {_LOOKED_AT:,} rows are missing in 'labels.names'")
    for doubt in proposal.doubts:
        show(f"look at it: {doubt}")
    show(f"next: ptv2kit validate {target} --data; ptv2kit preview {target}; ptv2kit new recipe {target}")
    return 0


def _named_splits(path: Path, config: str | None) -> Found:
    """What the splits of a data set are called; a test split only where it is all that could choose the epoch, because
    many have no labels there."""
    names = split_names(str(path), config)
    found = find_split_names(names)
    if "train" not in found.splits:
        raise DataError(f"no split is called train; there are {', '.join(names)}", location=str(path))
    taken = {split: name for split, name in found.splits.items() if split != "test" or len(names) == 2}
    return Found(taken, tuple(name for name in found.others if "test" not in name))


def _first_rows(
    args: argparse.Namespace, name: str, splits: Mapping[str, str]
) -> tuple[DataSource, list[Row], Sequence[str]]:
    """How the training rows are read, the first of them, and what is doubtful about it."""
    named = Splits.model_validate(splits)
    doubts: Sequence[str] = ()
    if is_data_set(args.file):
        whole = str(args.file.absolute()) if is_folder(args.file) else str(args.file)
        source = HubSource(source="hub", path=whole, name=args.config, splits=named)
        read = read_hub(source, splits["train"], name, "train", takes_names=lambda _: True)
    else:
        for split, given in splits.items():
            _require_file(split, given)
        columns = None if args.columns is None else [column.strip() for column in args.columns.split(",")]
        source, doubts = recognise(Path(splits["train"]), named, columns)
        files = matching_files(Path(), splits["train"])
        read = itertools.chain.from_iterable(read_rows(file, source, takes_names=lambda _: True) for file in files)
    rows = list(itertools.islice(read, _LOOKED_AT))
    if not rows:
        raise DataError("the file has no rows", location=splits["train"])
    return source, rows, doubts


def _is_bare(task: AnyTask, source: DataSource, pattern: str) -> bool:
    """Whether the first rows of a split have no labels, as test rows of GLUE and of competitions."""
    file = matching_files(Path(), pattern)[0]
    try:
        rows = list(itertools.islice(read_rows(file, source, lambda _: None, takes_names=lambda _: True), _FIRST))
    except DataError:
        return False  # it stays a split, and `validate --data` names what is wrong with it
    return bool(rows) and not has_labels(task, rows)


def _folders(pattern: str) -> set[str]:
    """The names of the folders that the files of a pattern are in."""
    return {file.parent.name for file in matching_files(Path(), pattern)}


def _folders_only_trained(splits: Mapping[str, str]) -> set[str]:
    """The classes of training documents that no other split has, such as IMDB's `unsup`, whose texts have none.

    Empty unless the others have two of the classes.
    """
    others = [_folders(given) for split, given in splits.items() if split != "train" and not SHARE.fullmatch(given)]
    trained, scored = _folders(splits["train"]), set[str]().union(*others)
    return trained - scored if len(trained & scored) > 1 else set()


def _without_folders(proposal: Proposal, left_out: set[str], kept: set[str]) -> Proposal:
    """The proposal for the rows of some folders alone."""
    names = " and ".join(map(repr, sorted(left_out)))
    where = {"where": (f"{{label: {_flow(sorted(kept))}}}", f"not {names}, which only the training rows have")}
    doubt = f"the texts in {names} are left out: no other split has that folder"
    return replace(proposal, sections={**where, **proposal.sections}, doubts=(doubt, *proposal.doubts))


def _require_file(split: str, given: str) -> None:
    """Raise `DataError` unless a split is a file, a pattern of some, or a share."""
    if SHARE.fullmatch(given) is None and not matching_files(Path(), given):
        share = f"--{split} {given}% keeps a share of the rows for it"
        hint = share if re.fullmatch(r"\d+(\.\d+)?", given) else ""
        raise DataError("there is no such file", location=given, hint=hint)


def new_recipe(args: argparse.Namespace) -> int:
    """Write a recipe.

    Raises:
        ConfigError: the file exists, or the task is not valid.
    """
    args.task = find_file(args.task, ["task"])
    task = load_task(args.task).task
    name = _name(args.name or (args.to.stem if args.to else f"{task.task}-{args.backbone.rpartition('/')[2]}"))
    target: Path = args.to or Path(f"{name}.yaml")
    _require_new(target)
    data = read_split_if_here(task, "train", task_path=args.task, data_root=None)
    rows = None if data is None else len(data.rows)
    _write(target, _recipe_text(name, args.task, task, args.backbone, target, rows))
    load_recipe(target)
    show(f"{target}: {task.task} with {args.backbone}")
    show(f"next: ptv2kit plan {target}; ptv2kit run {target}")
    return 0


def _task_text(
    name: str, source: DataSource, splits: Mapping[str, str], target: Path, proposal: Proposal, rows: int
) -> str:
    """The task file."""
    as_they_are = isinstance(source, HubSource)
    files = ", ".join(
        f"{split}: {given if as_they_are or SHARE.fullmatch(given) else _path(Path(given), target)}"
        for split, given in splits.items()
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


def _epochs(rows: int | None, most: int, examples: int) -> int:
    """As many as show about so many examples, but `most` where there are few, or nobody knows how many."""
    return most if rows is None else min(most, max(1, round(examples / rows)))


def _recipe_text(name: str, path: Path, task: AnyTask, backbone: str, target: Path, rows: int | None) -> str:
    """The recipe; the values of the embedded backbones are those of `docs/results-mini.md`, the others the paper's most
    frequent ones. The paper's longest runs show a backbone a million examples."""
    unit, _ = task.logits()
    epochs, settings = _epochs(rows, 30, 1_000_000), ""
    prompt, train = "{length: 16, dropout: 0.1}", "batch_size: 16, learning_rate: 7e-3"
    if backbone in ("mini", SMOLLM2):
        epochs = _epochs(rows, 8, 16_000)
        rate = "5e-3" if backbone == SMOLLM2 else "4e-2" if unit == "token" else "2e-2"
        whole = unit not in ("token", "start_end")
        prompt = f"{{length: {16 if whole else 32}, dropout: 0.0, init: tokens, positions: unshifted}}"
        # The pooler of MiniLM was never trained for sentences.
        pooling = ", pooling: mean" if whole and backbone == "mini" else ""
        settings = f", dropout: 0.0, attention_dropout: 0.0{pooling}" if backbone == "mini" else ""
        train = f"batch_size: 4, learning_rate: {rate}, head_learning_rate: 5e-3, betas: [0.9, 0.95], warmup_ratio: 0.1"
    train = f"epochs: {epochs}, {train}"
    of_rows = "" if rows is None else f" epochs are for {rows:,} rows;"
    return "\n".join(
        [
            f"recipe: {name}",
            'description: ""',
            f"task: {_path(path, target)}",
            f"backbone: {{name: {json.dumps(backbone)}{settings}}}",
            "method: p_tuning_v2           # compare: fine_tuning, lora, linear_probe, prompt_tuning",
            f"prompt: {prompt}  # easy tasks need 8 to 20, tagging and answers 64 and more",
            f"train: {{{train}}}  #{of_rows} search the learning rate first: 1e-3 to 1e-1",
            "# worth a try on words and answers: prompt.attention=separate, train.layer_norm_learning_rate=5e-3",
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
