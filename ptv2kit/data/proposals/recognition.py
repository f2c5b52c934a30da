"""Which format a file has, by its name and its first lines: the `data` section of a first task."""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from ptv2kit.data.proposals.columns import LABEL_NAMES, PAIRS, WORD_NAMES, are_numbers, only_counts
from ptv2kit.data.sources import matching_files
from ptv2kit.data.sources.lines import CONLL, JSON_LINES, LONGEST_FILE, encoding_of, ending_of, read_lines, unreadable
from ptv2kit.data.sources.table import delimiter_of, is_quoted, split_records
from ptv2kit.data.spans import style_of
from ptv2kit.errors import ConfigError, DataError
from ptv2kit.files import is_file, is_folder
from ptv2kit.spec.sources import (
    BratSource,
    ConllSource,
    DataSource,
    FastTextSource,
    JsonlSource,
    ParquetSource,
    Splits,
    SquadSource,
    TableSource,
    TextsSource,
)

_TABLES = ("csv", "tsv", "tab", "txt")
_SPLIT_ENDINGS = ("train", "dev", "valid", "test", "testa", "testb")
"""How old corpora call their files: `eng.train`, whose content tells the format."""
_ENDINGS = (*JSON_LINES, "parquet", *CONLL, *_TABLES, *_SPLIT_ENDINGS)
"""Of files of data; where one split has several, the first is taken."""
_OF_THE_HUB = ("dataset_infos.json", "dataset_info.json")
_SHARD = re.compile(r"\d{5}-of-\d{5}")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "devel", "testa"),
    "test": ("test", "testb"),
}
"""What the files and splits of data sets are called, the usual name first."""
_CONLLU = {"tokens": 1, "upos": 3, "xpos": 4, "deprels": 7}
_UNIVERSAL = re.compile("ADJ|ADP|ADV|AUX|CCONJ|DET|INTJ|NOUN|NUM|PART|PRON|PROPN|PUNCT|SCONJ|SYM|VERB|X|_")
_DOCUMENTS = ("*.ann", "*/*.txt", "*/[0-9]*")
"""How the files of a split with a document in each file are called: brat's, and texts in a folder for each class, which
have numbers for names in 20 Newsgroups."""
_LABEL = "__label__"
_DELIMITERS = (",", "\t", ";", "|")
_LOOKED_AT = 500
_MOST = 0.9
"""Share of the first records that must have as many fields as the first."""
_SENTENCES = re.compile(r"(sentence|sent|doc|document)([ _-]*(#|id|idx|no|number|index))?", re.IGNORECASE)


class Recognised(NamedTuple):
    """The format of a file.

    Args:
        source: reads it.
        doubts: what a person should look at.
    """

    source: DataSource
    doubts: tuple[str, ...]


def is_data_set(path: Path) -> bool:
    """Whether a path means what `datasets` reads: a repository of the hub, or a folder that `save_to_disk` wrote."""
    if is_folder(path):
        return any(is_file(path / name) for name in ("dataset_dict.json", "state.json"))
    return not is_file(path) and _REPOSITORY.fullmatch(str(path)) is not None and ending_of(path) not in _ENDINGS


class Found(NamedTuple):
    """Which names, files or patterns of files are the splits.

    Args:
        splits: `train`, `validation` and `test`, as far as there are.
        others: that could be one of these too, such as `dev_mismatched` beside `dev_matched`.
    """

    splits: dict[str, str]
    others: tuple[str, ...] = ()


def find_split_names(names: Iterable[str]) -> Found:
    """Which of some names, or files by the first part of theirs, are the splits.

    Where none is called `dev`, one that begins so is taken, such as `dev_matched`.
    """
    parts = {name: Path(name).name.lower().split(".")[0] for name in sorted(names)}
    splits, others = dict[str, str](), list[str]()
    for split, usual in _SPLIT_NAMES.items():
        ordered = [name for part in usual for name in parts if parts[name] == part][:1]
        if not ordered and split != "train":
            ordered = [name for name, part in parts.items() if re.match(rf"({'|'.join(usual)})[^a-z]", part)]
        if ordered:
            splits[split] = ordered[0]
            others += ordered[1:]
    return Found(splits, tuple(others))


def find_files(path: Path) -> Found:
    """The files of the splits: a file is that of the training rows, and so is the only one of a folder, or else the one
    that is called `train`; a pattern where a split has several, or each document has a file of its own.

    A repository of the hub has them in a folder `data`.

    Raises:
        DataError: the folder has no file of training rows.
    """
    if not is_folder(path):
        return Found({"train": str(path)})
    files = [file for file in sorted(path.iterdir()) if file.name not in _OF_THE_HUB]
    inside = [str(file) for file in files if ending_of(file) in _ENDINGS and not is_folder(file)]
    folders = [str(each) for each in files if is_folder(each)]
    found = _find_called(inside)
    # Folders come before a single file: IMDB has one of ratings beside its folders.
    splits = (
        found.splits
        or _find_documents(_find_called(folders).splits)
        or ({"train": inside[0]} if len(inside) == 1 else _find_documents({"train": str(path)}))
    )
    if not splits and is_folder(path / "data"):
        return find_files(path / "data")
    if not splits:
        shown = ", ".join(Path(file).name for file in inside[:10]) or "no file of data"
        hint = f"name the file of the training rows; the folder has {shown}"
        raise DataError("this is a folder without a file that is called train", location=str(path), hint=hint)
    return found._replace(splits=splits)


def _find_called(names: Sequence[str]) -> Found:
    """The splits among files or folders that are called so, or else whose names have the word somewhere, such as
    `snli_1.0_train.jsonl`; none if not exactly one is that of the training rows.

    Of one split in several formats, as SNLI's and UD's, one is taken; of `train-00000-of-00002.parquet` all parts.
    """
    found = find_split_names(names)
    if "train" in found.splits:
        return found
    splits, others, ending = dict[str, str](), list[str](), ""
    for split, usual in _SPLIT_NAMES.items():
        word = re.compile(rf"(?<![a-z])({'|'.join(usual)})(?![a-z])")
        those = [name for name in names if word.search(Path(name).name.lower())]
        endings = {ending_of(Path(name)) for name in those}
        ending = ending or next((each for each in _ENDINGS if each in endings), "")
        if ending not in _SPLIT_ENDINGS:
            those = [name for name in those if ending in ("", ending_of(Path(name)))]
        patterns = {_SHARD.sub("*", name) for name in those}
        if split == "train" and ending == "txt" and {ending_of(Path(name)) for name in names} != {"txt"}:
            return Found({})  # guidelines for training, beside a table
        if split == "train" and len(patterns) != 1:
            return Found({})
        if patterns:
            splits[split], *more = those if len(those) == len(patterns) else sorted(patterns)
            others += more
    return Found(splits, tuple(others))


def _find_documents(roots: Mapping[str, str]) -> dict[str, str]:
    """The patterns of splits whose documents are files, below the folder of each; empty without any to train on."""
    for pattern in _DOCUMENTS:
        found = {split: f"{root}/{pattern}" for split, root in roots.items() if _has_documents(Path(root), pattern)}
        if "train" in found:
            return found
    return {}


def _has_documents(root: Path, pattern: str) -> bool:
    files = (file for file in root.glob(pattern) if is_file(file))
    return any(file.suffix in (".ann", ".txt") or file.name.isdecimal() for file in files)


def recognise(path: Path, splits: Splits, columns: Sequence[str] | None = None) -> Recognised:
    """Find out how a file of rows is written.

    Args:
        path: of the file, whose name tells the kind: JSON, a table, Parquet, or a word a line; or a pattern of files.
        splits: of the task, for the source.
        columns: what the columns of a table without a header line are called; None: the first line tells, if it can.

    Raises:
        ConfigError: the name does not tell a format, or only a table can have `columns`.
        DataError: the file is missing or unreadable, or JSON of another shape.
    """
    files = matching_files(Path(), str(path))
    if not files:
        raise DataError("there is no such file", location=str(path))
    kind = ending_of(path)
    if path != files[0] and (kind in ("ann", "txt") or files[0].name.isdecimal()):
        some = [file.with_suffix(".txt") if kind == "ann" else file for file in files[:: len(files) // _LOOKED_AT + 1]]
        encoding = next((each for each in map(encoding_of, some) if each != "utf-8"), "utf-8")
        brat = BratSource(source="brat", splits=splits, encoding=encoding)
        texts = TextsSource(source="texts", splits=splits, encoding=encoding)
        return _doubted(Recognised(brat if kind == "ann" else texts, ()), encoding)
    path = files[0]
    if columns is not None and kind not in _TABLES:
        raise ConfigError(f"--columns names the columns of a table, and '{path}' is not one by its name")
    if kind in JSON_LINES:
        return Recognised(_json_source(path, splits) if kind == "json" else _json_lines(splits), ())
    if kind == "parquet":
        return Recognised(ParquetSource(source="parquet", splits=splits), ())
    if kind in CONLL or kind in (*_TABLES, *_SPLIT_ENDINGS) or _begins_with_label(path):
        encoding = encoding_of(path)
        lines = [line.rstrip("\r\n") for _, line in itertools.islice(read_lines(path, encoding=encoding), _LOOKED_AT)]
        if lines and lines[0].startswith(_LABEL):
            found = Recognised(FastTextSource(source="fasttext", splits=splits, encoding=encoding), ())
        elif kind in CONLL or (columns is None and _is_conll(lines)):
            found = _conll_source(lines, splits, encoding)
        else:
            found = _table_source(path, kind, splits, encoding, columns)
        return _doubted(found, encoding)
    spreadsheet = "save the sheet as CSV" if kind in ("xlsx", "xls", "ods") else ""
    raise ConfigError(
        f"'{path}' is not a JSON, CSV, TSV, Parquet or CoNLL file by its name",
        hint=spreadsheet
        or "'ptv2kit schema task --markdown' lists all formats; 'ptv2kit cp conll03' copies an example",
    )


def _doubted(found: Recognised, encoding: str) -> Recognised:
    if encoding == "utf-8":
        return found
    doubt = f"the file is not UTF-8 and is read as {encoding}: are letters with accents right?"
    return found._replace(doubts=(doubt, *found.doubts))


def _json_source(path: Path, splits: Splits) -> DataSource:
    """JSON Lines or one array of rows, whatever the name says, or SQuAD's own nested file.

    Raises:
        DataError: the file is one object of another shape.
    """
    lines = _json_lines(splits)
    first = [line for line in itertools.islice((line for _, line in read_lines(path, LONGEST_FILE)), 2) if line.strip()]
    if (len(first) > 1 and _parsed(first[0]) is not None) or not first or not first[0].lstrip().startswith("{"):
        return lines
    whole = _parsed("".join(line for _, line in read_lines(path, LONGEST_FILE)))
    if whole is None:
        return lines  # the reader names the line
    if _is_squad(whole.get("data")):
        return SquadSource(source="squad", splits=splits)
    found = {name: len(value) for name, value in _arrays(whole) if all(isinstance(item, dict) for item in value)}
    if found:
        return lines.model_copy(update={"records": max(found, key=lambda name: found[name])})
    lists = [name for name, value in whole.items() if isinstance(value, list)]
    by_index = _counts(whole) or any(map(_counts, whole.values()))  # as pandas writes rows, or columns, unless told
    if not by_index and (not lists or (len(first) == 1 and len(lists) < len(whole))):
        return lines  # the only row
    shown = f", with lists in {', '.join(map(repr, lists))}" if lists else ""
    hint = "write each row as a line; pandas does with to_json('rows.jsonl', orient='records', lines=True)"
    raise DataError(f"the file is one JSON object{shown}. Expected rows", location=str(path), hint=hint)


def _json_lines(splits: Splits) -> JsonlSource:
    return JsonlSource(source="jsonl", splits=splits)


def _parsed(text: str) -> dict[str, Any] | None:
    """A JSON object, None if the text is not one."""
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _arrays(whole: Mapping[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    """The arrays of an object and of the objects in it, with their paths."""
    for name, value in whole.items():
        if isinstance(value, list) and value:
            yield name, cast("list[Any]", value)
        elif isinstance(value, dict):
            yield from ((f"{name}.{inner}", array) for inner, array in _arrays(cast("dict[str, Any]", value)))


def _counts(value: Any) -> bool:
    """Whether an object has numbers for names, as an index of rows."""
    names = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    return bool(names) and all(map(str.isdecimal, names))


def _is_squad(value: Any) -> bool:
    items = cast("list[Any]", value) if isinstance(value, list) else []
    return bool(items) and isinstance(items[0], Mapping) and "paragraphs" in items[0]


def _begins_with_label(path: Path) -> bool:
    """Whether a file of any name begins with a label of fastText's, whose files are called `.train` and `.valid`."""
    try:
        with path.open("rb") as file:
            return file.read(len(_LABEL)) == _LABEL.encode()
    except OSError as error:
        raise unreadable(path, error) from error


def _is_conll(lines: Sequence[str]) -> bool:
    """Whether each line ends in a tag, and sentences end in blank lines."""
    words = [line for line in lines if line.strip() and not line.startswith(("#", "-DOCSTART-"))]
    cells = [line.split() for line in words]
    tags = [row[-1] for row in cells if len(row) > 1]
    tagged = len(tags) == len(words) and style_of(tags) is not None
    return bool(tagged) and any(not line.strip() for line in lines)


def _is_conllu(lines: Sequence[str]) -> bool:
    """Whether each line has the ten columns of CoNLL-U, of which the first numbers the words and the fourth is one of
    the universal parts of speech."""
    cells = [line.split("\t") for line in lines if line.strip() and not line.startswith("#")]
    ids = [row for row in cells if len(row) == 10 and re.fullmatch(r"\d+([-.]\d+)?", row[0])]
    return bool(cells) and len(ids) == len(cells) and all(_UNIVERSAL.fullmatch(row[3]) for row in cells)


def _conll_source(lines: Sequence[str], splits: Splits, encoding: str) -> Recognised:
    """Tabs stand between columns where a token holds a blank; comments are as in CoNLL-U. Tags are in the last column
    that holds only tags, and tokens in the first that does not only count."""
    if _is_conllu(lines):
        columns = dict(_CONLLU)
        source = ConllSource(
            source="conll",
            columns=columns,
            separator="tab",
            comment="#",
            numbered=True,
            encoding=encoding,
            splits=splits,
        )
        return Recognised(source, ("'upos' is learned; 'xpos' and 'deprels' can be in its place in 'labels.column'",))
    comment = "# " if any(re.match(r"# \S+ ?=", line) for line in lines) else None
    words = [line for line in lines if line.strip() and not line.startswith(("-DOCSTART-", comment or "-DOCSTART-"))]
    cells = [line.split("\t") for line in words]
    by_tabs = all(len(row) > 1 for row in cells) and any(" " in cell.strip() for row in cells for cell in row)
    cells = cells if by_tabs else [line.split() for line in words]
    columns = list(zip(*cells, strict=False)) if len({len(row) for row in cells}) == 1 else []
    tags = [index for index, values in enumerate(columns) if style_of(values) is not None]
    tokens = next((index for index, values in enumerate(columns) if not all(map(str.isdecimal, values))), 0)
    source = ConllSource(
        source="conll",
        columns={"tokens": tokens, "tags": tags[-1] if tags and tags[-1] < len(columns) - 1 else -1},
        separator="tab" if by_tabs else "whitespace",
        comment=comment,
        encoding=encoding,
        splits=splits,
    )
    return Recognised(source, ())


def _table_source(path: Path, kind: str, splits: Splits, encoding: str, columns: Sequence[str] | None) -> Recognised:
    """The first delimiter, with quotes or without, by which most records have as many fields as the first."""
    usual = TableSource(source="csv" if kind == "csv" else "tsv", splits=splits, encoding=encoding)
    found, records = usual, list[list[str]]()
    for delimiter in dict.fromkeys((delimiter_of(usual), *_DELIMITERS)):
        for quoting in (is_quoted(usual), not is_quoted(usual)):
            rows = _first_records(path, delimiter, encoding, quoting=quoting)
            width = len(rows[0]) if rows else 0
            whole = [row for row in rows if len(row) == width]  # a malformed one is named when all are read
            if width > max(1, len(records[0]) if records else 1) and len(whole) >= _MOST * len(rows):
                changed = {"delimiter": delimiter} if delimiter != delimiter_of(usual) else {}
                changed |= {"quoting": quoting} if quoting != is_quoted(usual) else {}
                found, records = usual.model_copy(update=changed), whole
        if records:
            break
    if not records and kind == "txt":
        message = f"'{path}' is neither a table nor a file with a word and its tag in each line"
        hint = 'write each row as a line of JSON, such as {"text": "…", "label": "…"}, to a .jsonl file'
        raise ConfigError(message, hint=hint)
    doubts: tuple[str, ...] = ()
    if columns is None and _has_no_header(records):
        columns = [f"column{number}" for number in range(1, len(records[0]) + 1)]
        doubts = (f"the file has no header line, so its columns are called {', '.join(columns)}; --columns names them",)
    if columns is not None:
        return Recognised(found.model_copy(update={"columns": tuple(columns)}), doubts)
    return Recognised(found.model_copy(update={"sentence": _sentence_column(records)}), doubts)


def _first_records(path: Path, delimiter: str, encoding: str, *, quoting: bool) -> list[list[str]]:
    """The first records; none where they cannot be read so."""
    records = split_records(path, delimiter, quoting=quoting, quote='"', encoding=encoding)
    try:
        found = [fields for _, fields in itertools.islice(records, _LOOKED_AT)]
    except (DataError, csv.Error):
        return []
    quoted = any(field.startswith('"') and field.endswith('"') for fields in found for field in fields if field)
    return [] if quoted and not quoting else found  # quotes that are not read would be part of the texts


def _has_no_header(records: Sequence[Sequence[str]]) -> bool:
    """Whether the first record is a row: it has no usual name of a column, but a number in a column of numbers, or a
    value that its column has again."""
    if len(records) < 2:
        return False
    names = [name.strip().lower() for name in records[0]]
    usual = (*LABEL_NAMES, *WORD_NAMES, *itertools.chain(*PAIRS))
    if any(name in usual or only_counts(name) for name in names) or names == [str(each) for each in range(len(names))]:
        return False
    for name, *values in zip(*records, strict=True):
        few = len(set(values)) <= max(2, len(values) // 2)
        if name and ((name in values and few) or are_numbers([name, *values])):
            return True
    return False


def _sentence_column(records: Sequence[Sequence[str]]) -> str | None:
    """The column that tells sentences apart, where another one holds a tag in each record; None otherwise."""
    if len(records) < 2:
        return None
    columns = {name: values for name, *values in zip(*records, strict=True)}
    tagged = any(style_of(values) is not None for values in columns.values())
    return next((name for name in columns if tagged and _SENTENCES.fullmatch(name.strip())), None)
