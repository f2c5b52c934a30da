"""Find and read a task's splits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from ptv2kit.config.task import (
    ConllSource,
    DataSource,
    HubSource,
    JsonlSource,
    ParquetSource,
    SplitName,
    TableSource,
    TaskBase,
)
from ptv2kit.data.rows import Row
from ptv2kit.data.sources.conll import read_conll
from ptv2kit.data.sources.hub import fingerprint_of_rows, hub_address, read_hub
from ptv2kit.data.sources.jsonl import read_jsonl
from ptv2kit.data.sources.lines import fingerprint_of_file
from ptv2kit.data.sources.parquet import read_parquet
from ptv2kit.data.sources.table import read_table
from ptv2kit.data.templates import with_derived
from ptv2kit.errors import ConfigError, DataError

_ROOT_HINT = "give the folder of the data with --data-root or the environment variable PTV2KIT_DATA"


@final
@dataclass(frozen=True)
class SplitData:
    """A split as it was read.

    Args:
        name: `train`, `validation` or `test`.
        rows: at least one, with the columns of `derive`.
        source: the file's path, or `hub:path@revision/name:split`.
        fingerprint: SHA-256 in hexadecimal: of the file's bytes, or of the rows of a hub data set.
        file: the file, if there is one; absolute.
    """

    name: str
    rows: tuple[Row, ...]
    source: str
    fingerprint: str
    file: Path | None = field(default=None, compare=False)


def read_split(task: TaskBase, split: SplitName, *, task_path: Path, data_root: Path | None) -> SplitData:
    """Read all rows of a split.

    Args:
        task: says what is read and how.
        split: which split.
        task_path: the task's file; relative paths are also looked up beside it.
        data_root: the folder in which relative paths and mirrors of hub data sets are looked up first.

    Raises:
        ConfigError: the task has no such split.
        DataError: the file is missing, unreadable, malformed or empty, or the hub does not deliver.
    """
    path = locate_split(task, split, task_path=task_path, data_root=data_root)
    if path is None:
        assert isinstance(task.data, HubSource)
        hub_split = _file_of(task, split, task_path)
        source = hub_address(task.data, hub_split)
        unread: Iterator[Row] = read_hub(task.data, hub_split, task.task, split)
    else:
        source = str(path)
        unread = read_rows(path, task.data)
    plain = tuple(unread)
    if not plain:
        raise DataError(f"split '{split}' is empty", location=source)
    return SplitData(
        name=split,
        rows=tuple(with_derived(row, task.derive) for row in plain),
        source=source,
        fingerprint=fingerprint_of_rows(plain) if path is None else fingerprint_of_file(path),
        file=None if path is None else path.absolute(),
    )


def locate_split(task: TaskBase, split: SplitName, *, task_path: Path, data_root: Path | None) -> Path | None:
    """The file of a split, without reading it; None if the split comes from the hub. Arguments as of `read_split`.

    Raises:
        ConfigError: the task has no such split.
        DataError: there is no such file, or it is a directory.
    """
    name = _file_of(task, split, task_path)
    if isinstance(task.data, HubSource):
        if data_root is None:
            return None
        mirrors = [data_root / task.task / f"{split}{suffix}" for suffix in (".jsonl.gz", ".jsonl")]
        return next((path for path in mirrors if _is_file(path)), None)
    # An absolute name stays as it is: a folder in front of it has no effect.
    roots = [task_path.parent] if data_root is None else [data_root, task_path.parent]
    places = list(dict.fromkeys(root / name for root in roots))
    for path in places:
        if _is_file(path):
            return path
    raise DataError(
        f"file '{name}' of split '{split}' was not found; looked for {' and '.join(str(path) for path in places)}",
        location=str(task_path),
        hint="" if Path(name).is_absolute() else _ROOT_HINT,
    )


def read_rows(path: Path, source: DataSource) -> Iterator[Row]:
    """The rows of one file in the format of `source`; a hub data set's mirror is JSON lines.

    Raises:
        DataError: the file is unreadable or malformed.
    """
    match source:
        case HubSource() | JsonlSource():
            return read_jsonl(path)
        case TableSource():
            return read_table(path, source)
        case ParquetSource():
            return read_parquet(path)
        case ConllSource():
            return read_conll(path, source)


def _file_of(task: TaskBase, split: SplitName, task_path: Path) -> str:
    splits = task.data.splits
    name = {"train": splits.train, "validation": splits.validation, "test": splits.test}[split]
    if name is None:
        raise ConfigError(
            f"task '{task.task}' has no split '{split}'", location=str(task_path), hint=f"add 'data.splits.{split}'"
        )
    return name


def _is_file(path: Path) -> bool:
    """Whether there is a file.

    Raises:
        DataError: it is a directory, or a folder above it cannot be entered.
    """
    try:
        if path.is_dir():
            raise DataError("expected a file. Got a directory", location=str(path))
        return path.exists()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", location=str(path)) from error
