"""Find and read a task's splits."""

from __future__ import annotations

import hashlib
import itertools
import random
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import final

from ptv2kit.data.rows import Fault, Row, raise_fault
from ptv2kit.data.sources.conll05 import words_path
from ptv2kit.data.sources.formats import read_rows
from ptv2kit.data.sources.hub import fingerprint_of_rows, hub_address, read_hub
from ptv2kit.data.sources.lines import CONLL, JSON_LINES, ending_of, fingerprint_of_file
from ptv2kit.data.sources.outside import tell_outside
from ptv2kit.data.templates import task_rows
from ptv2kit.errors import ConfigError, DataError, Problem
from ptv2kit.files import is_folder
from ptv2kit.spec.sources import (
    BratSource,
    Conll05Source,
    ConllSource,
    DataSource,
    HubSource,
    JsonlSource,
    ParquetSource,
    Splits,
    SquadSource,
    SrlLinesSource,
    TableSource,
)
from ptv2kit.spec.task_base import TaskBase

_ROOT_HINT = "give the folder of the data with --data-root or the environment variable PTV2KIT_DATA"
_SHOWN = 20
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
        skipped: malformed rows that were left out; None: a malformed row is an error.
    """

    name: str
    rows: tuple[Row, ...]
    source: str
    fingerprint: str
    pattern: Path | None = field(default=None, compare=False)
    skipped: tuple[Problem, ...] | None = None

    def limited(self, limit: int | str | None, seed: int, task: TaskBase) -> SplitData:
        """The rows of a limit, drawn by `seed`, in the order of the data.

        Args:
            limit: at most this number of rows, or of each class where it says `16 per class`; None: all.
            task: tells the class of a row.

        Raises:
            DataError: a row has no class.
        """
        if limit is None or (isinstance(limit, int) and limit >= len(self.rows)):
            return self
        groups = classes_of(task, self.rows) if isinstance(limit, str) else {"": range(len(self.rows))}
        count = int(limit.split()[0]) if isinstance(limit, str) else limit
        generator = random.Random(seed)
        drawn = [generator.sample(groups[name], min(count, len(groups[name]))) for name in sorted(groups)]
        return replace(self, rows=tuple(self.rows[index] for index in sorted(itertools.chain(*drawn))))


def classes_of(task: TaskBase, rows: Sequence[Row]) -> dict[str, list[int]]:
    """The indices of the rows of each class.

    Raises:
        DataError: a row has no class.
    """
    assert task.class_column is not None, "the recipe was checked"
    found: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        found.setdefault(task.class_of(row.value(task.class_column)), []).append(index)
    return found


def read_split(task: TaskBase, split: str, *, task_path: Path, data_root: Path | None) -> SplitData:
    """Read all rows of a split; arguments and errors as of `read_splits`."""
    return read_splits(task, [split], task_path=task_path, data_root=data_root)[split]


def read_splits(
    task: TaskBase, splits: Iterable[str], *, task_path: Path, data_root: Path | None
) -> dict[str, SplitData]:
    """Read all rows of splits; the file of training rows that several have shares of is read once.

    Args:
        task: says what is read and how.
        splits: which splits.
        task_path: the task's file; relative paths are also looked up beside it.
        data_root: the folder in which relative paths and mirrors of hub data sets are looked up first.

    Raises:
        ConfigError: the task has no such split.
        DataError: a file is missing, unreadable, malformed or empty, or the hub does not deliver. With `data.on_fault:
            skip` malformed rows are left out, and it is an error only if all are.
    """
    shared: _SharedFile | None = None
    read: dict[str, SplitData] = {}
    for split in splits:
        found = OpenSplit.find(task, split, task_path=task_path, data_root=data_root)
        skipped: list[Problem] = []
        on_fault = _collect(skipped) if task.data.on_fault == "skip" else raise_fault
        if found.is_share:
            shared = shared or _SharedFile.read(found)
            skipped += shared.skipped
            plain: Iterable[Row] = [row for row in shared.rows if shared.split_of[row.location] == split]
        else:
            plain = found.plain_rows(on_fault)
        if found.located is None:
            plain = list(plain)
        rows = tuple(task_rows(task, plain, on_fault))
        if not rows:
            if skipped:
                raise DataError(skipped[:_SHOWN])
            hint = "no row has what 'where' asks for" if task.where else ""
            if shared is not None and len(shared.rows) <= len(task.data.splits.shares()):
                hint = f"too few rows ({len(shared.rows)}) for shares of them: give each split a file"
            raise DataError(f"split '{split}' is empty", location=found.source, hint=hint)
        fingerprint = fingerprint_of_rows(plain) if found.located is None else _fingerprint(found.located, task.data)
        if found.is_share:
            # Which rows of the file are meant decides what comes out as much as the file does.
            drawn = f"{fingerprint} {sorted(task.data.splits.shares().items())} {task.data.splits.seed}"
            fingerprint = hashlib.sha256(drawn.encode()).hexdigest()
        left_out = tuple(skipped) if task.data.on_fault == "skip" else None
        read[split] = SplitData(split, rows, found.source, fingerprint, found.pattern, left_out)
    return read


def _collect(problems: list[Problem]) -> Fault:
    return lambda error: problems.extend(error.problems)


@final
@dataclass(frozen=True)
class OpenSplit:
    """A split that was found and can be read row by row, as often as needed.

    Args:
        task: says how it is read.
        source: the path or pattern, or `hub:path@revision/name:split`.
        located: its files; None: it is the hub's.
    """

    task: TaskBase
    name: str
    source: str
    located: Located | None
    hub_split: str
    task_path: Path

    @staticmethod
    def find(task: TaskBase, split: str, *, task_path: Path, data_root: Path | None) -> OpenSplit:
        """Look up a split; arguments and errors as of `read_split`."""
        located = locate_split(task, split, task_path=task_path, data_root=data_root)
        hub_split = _file_of(task, split, task_path)
        if located is None:
            assert isinstance(task.data, HubSource)
            files = [Path(task.data.path)] if is_folder(Path(task.data.path)) else []  # the library reads one too
            source = hub_address(task.data, hub_split)
        else:
            files, source = _files_read(located, task.data), str(located.pattern)
        tell_outside(files, task=task.task, split=split, task_path=task_path, data_root=data_root)
        return OpenSplit(task, split, source, located, hub_split, task_path)

    @property
    def pattern(self) -> Path | None:
        """The absolute path or pattern of the files, if there are any."""
        return None if self.located is None else self.located.pattern.absolute()

    def rows(self, on_fault: Fault) -> Iterator[Row]:
        """The rows, with `expand`, `derive`, `where` and `distinct` applied; `on_fault` receives malformed ones."""
        return task_rows(self.task, self.plain_rows(on_fault), on_fault)

    def plain_rows(self, on_fault: Fault) -> Iterator[Row]:
        """The rows as they are in the data; of a share of the training rows, or of what shares leave of them, only
        those."""
        rows = self.rows_of_file(on_fault)
        if not self.is_share:
            return rows
        wanted = share_of_each(self.task, self.rows_of_file(lambda _: None))
        return (row for row in rows if wanted[row.location] == self.name)

    @property
    def is_share(self) -> bool:
        """Whether it is a share of the training rows, or what shares leave of them."""
        shares = self.task.data.splits.shares()
        return bool(shares) and self.name in ("train", *shares)

    def rows_of_file(self, on_fault: Fault) -> Iterator[Row]:
        """The rows of the files, whatever share of them is meant."""
        data, takes_names = self.task.data, self.task.takes_names
        if self.located is None:
            assert isinstance(data, HubSource)
            name = "train" if self.name in data.splits.shares() else self.name
            return read_hub(data, self.hub_split, data.mirror or self.task.task, name, takes_names)
        return (row for path in self.located.files for row in read_rows(path, data, on_fault, takes_names))


@final
@dataclass(frozen=True)
class _SharedFile:
    """The training rows that several splits are shares of.

    Args:
        split_of: by a row's location.
        skipped: malformed rows that were left out.
    """

    rows: tuple[Row, ...]
    split_of: Mapping[str, str]
    skipped: tuple[Problem, ...]

    @staticmethod
    def read(split: OpenSplit) -> _SharedFile:
        skipped: list[Problem] = []
        rows = tuple(split.rows_of_file(_collect(skipped) if split.task.data.on_fault == "skip" else raise_fault))
        return _SharedFile(rows, share_of_each(split.task, rows), tuple(skipped))


def read_file(task: TaskBase, path: Path) -> SplitData:
    """All rows of one file with labels: JSON, CSV, TSV, Parquet, or a word and its tag a line if its name says so, else
    in the task's format.

    Raises:
        DataError: the file is missing, unreadable, malformed or empty.
    """
    if not _is_file(path):
        raise DataError("there is no such file", location=str(path))
    source = task.data
    splits = Splits(train=str(path), validation=str(path))
    kind, tagged = ending_of(path), task.tagged_columns
    nested = kind == "json" and isinstance(source, SquadSource | JsonlSource)
    if kind in JSON_LINES and not nested and not isinstance(source, SrlLinesSource):
        source = JsonlSource(source="jsonl", splits=splits)
    elif kind in ("csv", "tsv") and not isinstance(source, TableSource):
        source = TableSource(source="csv" if kind == "csv" else "tsv", splits=splits)
    elif kind == "parquet":
        source = ParquetSource(source="parquet", splits=splits)
    elif kind in CONLL and tagged is not None and not isinstance(source, ConllSource):
        source = ConllSource(source="conll", splits=splits, columns={tagged[0]: 0, tagged[1]: -1})
    rows = tuple(task_rows(task, read_rows(path, source, raise_fault, task.takes_names), raise_fault))
    if not rows:
        raise DataError("the file has no rows", location=str(path))
    return SplitData("file", rows, str(path), fingerprint_of_file(path), path.absolute())


def read_split_if_here(task: TaskBase, split: str, *, task_path: Path, data_root: Path | None) -> SplitData | None:
    """`read_split` if the files are on this machine; None if there are none, or the split comes from the hub."""
    try:
        located = locate_split(task, split, task_path=task_path, data_root=data_root)
    except DataError:
        return None
    return None if located is None else read_split(task, split, task_path=task_path, data_root=data_root)


def locate_split(task: TaskBase, split: str, *, task_path: Path, data_root: Path | None) -> Located | None:
    """The files of a split, without reading them; None if the split comes from the hub. Arguments as of `read_split`.

    Raises:
        ConfigError: the task has no such split, or the data root is not a folder.
        DataError: there is no such file, or it is a directory.
    """
    if data_root is not None and not data_root.is_dir():
        raise ConfigError(f"the data root '{data_root}' is not a folder")
    name = _file_of(task, split, task_path)
    if isinstance(task.data, HubSource):
        if data_root is None:
            return None
        folder = data_root / (task.data.mirror or task.task)
        mirrors = [
            folder / f"{mirror}{suffix}" for mirror in _mirrors(task, split) for suffix in (".jsonl.gz", ".jsonl")
        ]
        return next((Located(path, (path,)) for path in mirrors if _is_file(path)), None)
    # An absolute name stays as it is: a folder in front of it has no effect.
    roots = [task_path.parent] if data_root is None else [data_root, task_path.parent]
    places = list(dict.fromkeys(root / name for root in roots))
    for root, path in zip(roots, places, strict=False):
        files = (path,) if _is_file(path) else tuple(matching_files(root, name))
        if files:
            return Located(path, files)
    raise DataError(
        f"file '{name}' of split '{split}' was not found; looked for {' and '.join(str(path) for path in places)}",
        location=str(task_path),
        hint="" if Path(name).is_absolute() else _ROOT_HINT,
    )


def _mirrors(task: TaskBase, split: str) -> list[str]:
    """The names that a split may have in a mirror: ours; a share's is that of the training rows.

    Where validation is a share, the test split can be what the hub calls validation (`train.select_on`), and a mirror
    that was made for the task as it stands calls it so too.
    """
    shares = task.data.splits.shares()
    if split in shares:
        return ["train"]
    if split == "test" and "validation" in shares:
        return [task.data.splits.by_name()["test"], "test", "validation"]
    return [split]


def _fingerprint(located: Located, source: DataSource) -> str:
    prints = [fingerprint_of_file(path) for path in _files_read(located, source)]
    return prints[0] if len(prints) == 1 else hashlib.sha256("\n".join(prints).encode()).hexdigest()


def _files_read(located: Located, source: DataSource) -> list[Path]:
    beside = list[Path]()
    if isinstance(source, Conll05Source):
        beside = [words_path(path) for path in located.files]
    elif isinstance(source, BratSource):
        beside = [path.with_suffix(".txt") for path in located.files]
    return [*located.files, *beside]


def matching_files(root: Path, name: str) -> list[Path]:
    """The file of that name, or the files that it matches as a pattern, sorted."""
    if (root / name).is_file():
        return [root / name]
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
    return names["train" if split in task.data.splits.shares() else split]


def share_of_each(task: TaskBase, rows: Iterable[Row]) -> dict[str, str]:
    """The split of each training row, by the row's location, where some splits are shares of them.

    Rows are drawn class by class, so that each split has the classes in the same shares; rows of one `labels.group`
    are drawn together.
    """
    drawn = list(dict.fromkeys((row.location, *task.drawn_by(row.values)) for row in rows))
    strata: dict[str, dict[str, list[str]]] = {}
    for location, stratum, group in drawn:
        strata.setdefault(stratum, {}).setdefault(group or location, []).append(location)
    generator = random.Random(task.data.splits.seed)  # not train.seed: all runs are scored on the same rows
    shares = task.data.splits.shares()
    total = sum(map(len, strata.values()))
    # What a split is still to get; parts of a row are carried on to the next class, and each split gets something.
    owed = {split: max(0.0, 1 - share * total) for split, share in shares.items()}
    found: dict[str, str] = {}
    for stratum in sorted(strata):
        groups = sorted(strata[stratum])  # sorted first: the draw must not depend on the order of a dictionary
        generator.shuffle(groups)
        first = 0
        for split, share in shares.items():
            owed[split] += share * len(groups)
            count = min(round(owed[split]), len(groups) - first)
            owed[split] -= count
            found |= {place: split for group in groups[first : first + count] for place in strata[stratum][group]}
            first += count
        found |= {place: "train" for group in groups[first:] for place in strata[stratum][group]}
    return found


def _is_file(path: Path) -> bool:
    """Whether there is a file.

    Raises:
        DataError: it is a directory, or a folder above it cannot be entered.
    """
    try:
        mode = path.stat().st_mode  # `exists` of Python 3.14 keeps the system's reason to itself
    except (FileNotFoundError, NotADirectoryError, ValueError):  # of ValueError: a name with a null byte
        return False
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", location=str(path)) from error
    if stat.S_ISDIR(mode):
        raise DataError("expected a file. Got a directory", location=str(path))
    return True
