"""Find and read a task's splits."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from ptv2kit.config.sources import (
    Conll04Source,
    Conll05Source,
    ConllSource,
    DataSource,
    GoldConllSource,
    HubSource,
    JsonlSource,
    ParquetSource,
    Splits,
    SquadSource,
    SrlLinesSource,
    TableSource,
)
from ptv2kit.config.task import TaskBase
from ptv2kit.data.rows import Row
from ptv2kit.data.sources.conll import read_conll
from ptv2kit.data.sources.conll04 import read_conll04
from ptv2kit.data.sources.conll05 import read_conll05, words_path
from ptv2kit.data.sources.gold_conll import read_gold_conll
from ptv2kit.data.sources.hub import fingerprint_of_rows, hub_address, read_hub
from ptv2kit.data.sources.jsonl import read_jsonl
from ptv2kit.data.sources.lines import fingerprint_of_file
from ptv2kit.data.sources.outside import tell_outside
from ptv2kit.data.sources.parquet import read_parquet
from ptv2kit.data.sources.squad import read_squad
from ptv2kit.data.sources.srl_lines import read_srl_lines
from ptv2kit.data.sources.table import read_table
from ptv2kit.data.templates import task_rows
from ptv2kit.errors import ConfigError, DataError
from ptv2kit.files import is_folder

_ROOT_HINT = "give the folder of the data with --data-root or the environment variable PTV2KIT_DATA"
_PATTERN = frozenset("*?[")


@final
@dataclass(frozen=True)
class Located:
    """The files of a split.

    Args:
        pattern: path or pattern with the folder in which it was found.
        files: at least one, sorted.
    """

    pattern: Path
    files: tuple[Path, ...]


@final
@dataclass(frozen=True)
class SplitData:
    """A split as it was read.

    Args:
        name: `train`, `validation`, `test` or `test_<name>`.
        rows: at least one, with `expand` and `derive` applied.
        source: the path or pattern, or `hub:path@revision/name:split`.
        fingerprint: SHA-256 in hexadecimal: of the file's bytes (of the files' fingerprints if there are several), or
            of the rows of a hub data set.
        pattern: path or pattern of the files, if there are any; absolute.
    """

    name: str
    rows: tuple[Row, ...]
    source: str
    fingerprint: str
    pattern: Path | None = field(default=None, compare=False)

    def limited(self, count: int | None, seed: int) -> SplitData:
        """At most `count` rows, drawn by `seed`, in the order of the data."""
        if count is None or count >= len(self.rows):
            return self
        chosen = sorted(random.Random(seed).sample(range(len(self.rows)), count))
        rows = tuple(self.rows[index] for index in chosen)
        return SplitData(self.name, rows, self.source, self.fingerprint, self.pattern)


def read_split(task: TaskBase, split: str, *, task_path: Path, data_root: Path | None) -> SplitData:
    """Read all rows of a split.

    Args:
        task: says what is read and how.
        split: which split.
        task_path: the task's file; relative paths are also looked up beside it.
        data_root: the folder in which relative paths and mirrors of hub data sets are looked up first.

    Raises:
        ConfigError: the task has no such split.
        DataError: a file is missing, unreadable, malformed or empty, or the hub does not deliver.
    """
    located = locate_split(task, split, task_path=task_path, data_root=data_root)
    if located is None:
        assert isinstance(task.data, HubSource)
        hub_split = _file_of(task, split, task_path)
        source = hub_address(task.data, hub_split)
        if is_folder(Path(task.data.path)):  # the library reads one just as well
            folder = [Path(task.data.path)]
            tell_outside(folder, task=task.task, split=split, task_path=task_path, data_root=data_root)
        plain = tuple(read_hub(task.data, hub_split, task.data.mirror or task.task, split))
        fingerprint = fingerprint_of_rows(plain)
    else:
        source = str(located.pattern)
        files = _files_read(located, task.data)
        tell_outside(files, task=task.task, split=split, task_path=task_path, data_root=data_root)
        plain = tuple(row for path in located.files for row in read_rows(path, task.data))
        fingerprint = _fingerprint(located, task.data)
    rows = tuple(task_rows(task, plain))
    if not rows:
        hint = "no row has what 'where' asks for" if task.where and plain else ""
        raise DataError(f"split '{split}' is empty", location=source, hint=hint)
    return SplitData(split, rows, source, fingerprint, None if located is None else located.pattern.absolute())


def read_file(task: TaskBase, path: Path) -> SplitData:
    """All rows of one file with labels: JSON Lines, CSV, TSV or Parquet if its name says so, else in the task's format.

    Raises:
        DataError: the file is missing, unreadable, malformed or empty.
    """
    if not _is_file(path):
        raise DataError("there is no such file", location=str(path))
    source = task.data
    splits = Splits(train=str(path), validation=str(path))
    match path.name.removesuffix(".gz").rpartition(".")[2]:
        case "jsonl" if not isinstance(source, SrlLinesSource):
            source = JsonlSource(source="jsonl", splits=splits)
        case "csv" | "tsv" as kind if not isinstance(source, TableSource):
            source = TableSource(source=kind, splits=splits)
        case "parquet":
            source = ParquetSource(source="parquet", splits=splits)
        case _:
            pass
    rows = tuple(task_rows(task, read_rows(path, source)))
    if not rows:
        raise DataError("the file has no rows", location=str(path))
    return SplitData("file", rows, str(path), fingerprint_of_file(path), path.absolute())


def locate_split(task: TaskBase, split: str, *, task_path: Path, data_root: Path | None) -> Located | None:
    """The files of a split, without reading them; None if the split comes from the hub. Arguments as of `read_split`.

    Raises:
        ConfigError: the task has no such split, or the data root is no folder.
        DataError: there is no such file, or it is a directory.
    """
    if data_root is not None and not data_root.is_dir():
        raise ConfigError(f"the data root '{data_root}' is no folder")
    name = _file_of(task, split, task_path)
    if isinstance(task.data, HubSource):
        if data_root is None:
            return None
        folder = data_root / (task.data.mirror or task.task)
        mirrors = [folder / f"{split}{suffix}" for suffix in (".jsonl.gz", ".jsonl")]
        return next((Located(path, (path,)) for path in mirrors if _is_file(path)), None)
    # An absolute name stays as it is: a folder in front of it has no effect.
    roots = [task_path.parent] if data_root is None else [data_root, task_path.parent]
    places = list(dict.fromkeys(root / name for root in roots))
    for root, path in zip(roots, places, strict=False):
        files = (path,) if _is_file(path) else tuple(_matching(root, name))
        if files:
            return Located(path, files)
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
        case SquadSource():
            return read_squad(path)
        case Conll04Source():
            return read_conll04(path, source)
        case Conll05Source():
            return read_conll05(path, source)
        case GoldConllSource():
            return read_gold_conll(path, source)
        case SrlLinesSource():
            return read_srl_lines(path)


def _fingerprint(located: Located, source: DataSource) -> str:
    prints = [fingerprint_of_file(path) for path in _files_read(located, source)]
    return prints[0] if len(prints) == 1 else hashlib.sha256("\n".join(prints).encode()).hexdigest()


def _files_read(located: Located, source: DataSource) -> list[Path]:
    words = [words_path(path) for path in located.files] if isinstance(source, Conll05Source) else []
    return [*located.files, *words]


def _matching(root: Path, name: str) -> Iterable[Path]:
    """The files that a pattern matches, sorted; none if it is no pattern."""
    if not _PATTERN & set(name):
        return []
    pattern = Path(name)
    if pattern.is_absolute():
        root, name = Path(pattern.anchor), str(pattern.relative_to(pattern.anchor))
    try:
        return sorted(path for path in root.glob(name) if path.is_file())
    except (ValueError, OSError, NotImplementedError) as error:
        raise DataError(f"no pattern of files: {error}", location=f"'{name}'") from error


def _file_of(task: TaskBase, split: str, task_path: Path) -> str:
    names = task.data.splits.by_name()
    if split not in names:
        raise ConfigError(
            f"task '{task.task}' has no split '{split}'", location=str(task_path), hint=f"it has {', '.join(names)}"
        )
    return names[split]


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
