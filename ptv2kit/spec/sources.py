"""The task file's `data` section: where rows come from. One class for each format; `data.source` says which."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeInt

from ptv2kit.spec.base import Fault, Name, Section

SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%")
"""A split that is a share of the training rows, such as `10%`."""


class Splits(Section):
    """Where each split is: a file, or a pattern such as `train/**/*_gold_conll` for several.

    Relative paths are looked up under the data root, then beside the task file.
    """

    train: str
    """What is trained on."""
    validation: str
    """What chooses the best epoch; or a share of the training rows that is kept from training, such as `10%`: the same
    classes in the same shares as far as rows allow, rows of one `labels.group` together."""
    test: str | Annotated[dict[Name, str], Field(min_length=1)] | None = None
    """What is scored at the end with the best epoch, if any; a share as of `validation`; or a mapping of several such
    as `{wsj: test.wsj.txt, brown: test.brown.txt}`, which become the splits `test_wsj` and `test_brown`."""
    seed: NonNegativeInt = 13
    """Draws the rows of splits that are shares; the same for every run, whatever `train.seed` says."""

    def by_name(self) -> dict[str, str]:
        """Name of each split to its file: `train`, `validation`, and `test` or `test_<name>` for each test."""
        match self.test:
            case None:
                tests: dict[str, str] = {}
            case str():
                tests = {"test": self.test}
            case _:
                tests = {f"test_{name}": file for name, file in self.test.items()}
        return {"train": self.train, "validation": self.validation, **tests}

    def selecting_on(self, share: str) -> Splits:
        """The best epoch is chosen on a share of the training rows, and what was to choose it is a test split."""
        if "validation" in self.shares():
            return self
        match self.test:
            case None:
                test: str | dict[str, str] = self.validation
            case str():
                test = {"validation": self.validation, "test": self.test}
            case _:
                test = {"validation": self.validation, **self.test}
        return self.model_copy(update={"validation": share, "test": test})

    def shares(self) -> dict[str, float]:
        """The splits that are shares of the training rows, each between 0 and 1."""
        found = {split: SHARE.fullmatch(file.strip()) for split, file in self.by_name().items()}
        return {split: float(match[1]) / 100 for split, match in found.items() if match is not None}

    def faults(self) -> Iterator[Fault]:
        """Shares that leave nothing to train on."""
        shares = self.shares()
        if "train" in shares:
            yield Fault(("train",), "'data.splits.train' cannot be a share", "give the file, and shares for the others")
        for split, share in shares.items():
            if split != "train" and not 0 < share <= 0.5:
                path = ("validation",) if split == "validation" else ("test",)
                yield Fault(path, f"'data.splits.{path[0]}' must be a share above 0% and up to 50%")


def _text_encoding(name: str) -> str:
    try:
        "".encode(name)
    except (LookupError, ValueError) as error:
        raise ValueError("must be an encoding of texts that Python knows, such as cp1252") from error
    return codecs.lookup(name).name


Encoding = Annotated[str, AfterValidator(_text_encoding)]
"""How the bytes of a file of text are read."""


class _Rows(Section):
    """What every source has."""

    on_fault: Literal["error", "skip"] = "error"
    """What becomes of a malformed row: `error` ends the run before anything is trained; `skip` leaves the row out,
    counts it, and the results say how many there were."""


class HubSource(_Rows):
    """A data set of the Hugging Face hub, in a repository without a loading script."""

    source: Literal["hub"]
    """Where the rows come from."""
    path: str
    """Repository, such as `nyu-mll/glue`."""
    name: str | None = None
    """Configuration within the repository, such as `sst2`."""
    revision: str | None = None
    """Commit, branch or tag; a commit makes a run reproducible."""
    mirror: Name | None = None
    """Folder of the data root that may hold the rows, for clusters without internet; null: the task's name."""
    splits: Splits
    """The repository's name of each split; `<data root>/<mirror>/<split>.jsonl.gz` is read instead if it exists. Where
    validation is a share, a test split may also be there under the repository's name, or as `validation.jsonl.gz`."""


class JsonlSource(_Rows):
    """Lines of JSON objects, or one array of them; a name that ends in `.gz` is gzip."""

    source: Literal["jsonl"]
    """Where the rows come from."""
    splits: Splits
    """The file of each split."""
    records: Annotated[str, Field(min_length=1)] | None = None
    """Of a file that is one JSON object, the field that holds the array of rows, such as `data`; `a.b` is field `b` of
    field `a`."""


class TableSource(_Rows):
    """Comma-separated (`csv`) or tab-separated (`tsv`) values with a header line; a name that ends in `.gz` is gzip.

    Columns without a name, and records whose fields are all empty, are left out.
    """

    source: Literal["csv", "tsv"]
    """Where the rows come from."""
    splits: Splits
    """The file of each split."""
    columns: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] | None = None
    """Names of the columns, for a file without a header line."""
    quoting: bool | None = None
    """Whether fields may be quoted; the default is yes for csv and no for tsv."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """What stands between two fields, such as `";"`; null: a comma for csv, a tab for tsv."""
    quote: Annotated[str, Field(min_length=1, max_length=1)] = '"'
    """The character that quotes a field."""
    encoding: Encoding = "utf-8"
    """How the file's bytes are read, such as `cp1252` for what Excel saves as CSV in Western Europe."""
    sentence: Annotated[str, Field(min_length=1)] | None = None
    """Of a file with a word in each record, the column that tells the sentences apart: records that follow each other
    with the same value there, or with none, are one row, and every other column is a list of texts."""


class ParquetSource(_Rows):
    """Apache Parquet files."""

    source: Literal["parquet"]
    """Where the rows come from."""
    splits: Splits
    """The file of each split."""


class ConllSource(_Rows):
    """One token a line in columns, a blank line after each sentence, `-DOCSTART-` lines skipped."""

    source: Literal["conll"]
    """Where the rows come from."""
    splits: Splits
    """The file of each split."""
    columns: dict[str, int] = Field(min_length=1)
    """Name and index of each column that is read; -1 is the last."""
    separator: Literal["whitespace", "tab", "space"] = "whitespace"
    """What stands between two columns."""
    comment: Annotated[str, Field(min_length=1)] | None = None
    """Lines that begin with this text are skipped."""
    numbered: bool = False
    """Whether the first column numbers the words, as in CoNLL-U: lines that number several or none, such as `3-4` and
    `8.1`, are skipped."""
    encoding: Encoding = "utf-8"
    """How the file's bytes are read, such as `latin-1` for CoNLL-2002."""


class SquadSource(_Rows):
    """SQuAD's own nested JSON, 1.1 or 2.0; a row a question: `id`, `title`, `context`, `question`, `answers`."""

    source: Literal["squad"]
    """Where the rows come from."""
    splits: Splits
    """The file of each split."""


class Conll04Source(_Rows):
    """CoNLL-2004 entities and relations as they are handed around; a row a sentence: `tokens`, `tags` in IOB2.

    Two-column files (`token tag`) are read by `conll`.
    """

    source: Literal["conll04"]
    """Where the rows come from."""
    layout: Literal["corp", "multihead"]
    """`corp`: `conll04.corp` with nine columns, an entity a line; `multihead`: index, token, tag, relations, heads,
    with `#doc` lines between sentences."""
    splits: Splits
    """The file of each split."""


class Conll05Source(_Rows):
    """CoNLL-2005 words and props side by side; a row a predicate: `tokens`, `predicate_index`, `predicate`, `tags`.

    The splits name the props; the words are read from the same path with `words` in place of `props`.
    """

    source: Literal["conll05"]
    """Where the rows come from."""
    splits: Splits
    """The props of each split, such as `train/props/train.*.props.gz`."""


class GoldConllSource(_Rows):
    """`_gold_conll` files of CoNLL-2012 and of the PropBank release."""

    source: Literal["gold_conll"]
    """Where the rows come from."""
    layout: Literal["conll12", "propbank"]
    """`conll12`: with speaker, entities and coreference; `propbank`: with the roleset, then the roles."""
    unit: Literal["predicate", "sentence"] = "predicate"
    """What a row is: a predicate with `tokens`, `predicate_index`, `predicate`, `tags`; or (`conll12` only) a sentence
    with `tokens` and the `tags` of its named entities."""
    splits: Splits
    """The files of each split, such as `conll-2012/train/**/*_gold_conll`."""


class SrlLinesSource(_Rows):
    """One predicate a line: `index tokens ||| tags`; a row has `tokens`, `predicate_index` and `tags`."""

    source: Literal["srl_lines"]
    """Where the rows come from."""
    splits: Splits
    """The file of each split."""


class FastTextSource(_Rows):
    """fastText's lines, `__label__good it was fun`; a row has `text`, `labels`, and `label`, the first of them."""

    source: Literal["fasttext"]
    """Where the rows come from."""
    splits: Splits
    """The file of each split."""
    prefix: Annotated[str, Field(min_length=1)] = "__label__"
    """How a word begins that is a label."""
    encoding: Encoding = "utf-8"
    """How the file's bytes are read."""


class TextsSource(_Rows):
    """A text in each file, in a folder for each class; a row has `text`, `label`, the folder's name, and `file`."""

    source: Literal["texts"]
    """Where the rows come from."""
    splits: Splits
    """The files of each split, such as `train/*/*.txt`."""
    encoding: Encoding = "utf-8"
    """How the files' bytes are read."""


class BratSource(_Rows):
    """brat's standoff files; a row is a document with `text`, `spans`, each `[start, end, type]`, and `file`.

    Only entities (`T` lines) are read.
    """

    source: Literal["brat"]
    """Where the rows come from."""
    splits: Splits
    """The annotations of each split, such as `train/*.ann`; the text of each is in the `.txt` file beside it."""
    discontinuous: Literal["error", "widen", "drop"] = "error"
    """What becomes of an entity in several pieces: an error, one from its first character to its last, or none."""
    encoding: Encoding = "utf-8"
    """How the files' bytes are read."""


class PluginSource(_Rows):
    """Rows that a function of another installed package reads."""

    source: Literal["plugin"]
    """Where the rows come from."""
    reader: Name
    """An entry point of the group `ptv2kit.readers`: a function of a file's path that gives a mapping for each row."""
    splits: Splits
    """The file of each split."""


DataSource = Annotated[
    HubSource
    | JsonlSource
    | TableSource
    | ParquetSource
    | ConllSource
    | SquadSource
    | Conll04Source
    | Conll05Source
    | GoldConllSource
    | SrlLinesSource
    | FastTextSource
    | TextsSource
    | BratSource
    | PluginSource,
    Field(discriminator="source"),
]
