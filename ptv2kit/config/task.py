"""The task file: what the data means. One class for each label scheme; `labels.scheme` says which.

A new scheme adds its labels, its input and its task class here, and one module in `ptv2kit/data/schemes`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, PositiveInt, Tag

from ptv2kit.config.base import Name, Section
from ptv2kit.config.template import parse_template


def _checked_template(text: str) -> str:
    parse_template(text)
    return text


TemplateText = Annotated[str, AfterValidator(_checked_template)]
"""Text with columns in braces, such as `"{premise} {joiner}"`."""

Column = Annotated[str, Field(min_length=1)]
"""A column of the data; `a.b` is field `b` of column `a`."""

SplitName = Literal["train", "validation", "test"]


class FileSplits(Section):
    """The files of each split. Relative paths are looked up under the data root, then beside the task file."""

    train: str
    """File to train on."""
    validation: str
    """File that chooses the best epoch."""
    test: str | None = None
    """File for the final score, if there is one."""


class HubSource(Section):
    """A data set of the Hugging Face hub, in a repository without a loading script."""

    source: Literal["hub"]
    """Where the rows come from."""
    path: str
    """Repository, such as `nyu-mll/glue`."""
    name: str | None = None
    """Configuration within the repository, such as `sst2`."""
    revision: str | None = None
    """Commit, branch or tag; a commit makes a run reproducible."""
    splits: FileSplits
    """The repository's name of each split; `<data root>/<task>/<split>.jsonl.gz` is read instead if it exists."""


class JsonlSource(Section):
    """Lines of JSON objects; a name that ends in `.gz` is gzip."""

    source: Literal["jsonl"]
    """Where the rows come from."""
    splits: FileSplits
    """The file of each split."""


class TableSource(Section):
    """Comma-separated (`csv`) or tab-separated (`tsv`) values with a header line; a name that ends in `.gz` is gzip."""

    source: Literal["csv", "tsv"]
    """Where the rows come from."""
    splits: FileSplits
    """The file of each split."""
    columns: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] | None = None
    """Names of the columns, for a file without a header line."""
    quoting: bool | None = None
    """Whether `"` quotes a field; the default is yes for csv and no for tsv."""


class ParquetSource(Section):
    """Apache Parquet files."""

    source: Literal["parquet"]
    """Where the rows come from."""
    splits: FileSplits
    """The file of each split."""


class ConllSource(Section):
    """One token a line in columns, a blank line after each sentence, `-DOCSTART-` lines skipped."""

    source: Literal["conll"]
    """Where the rows come from."""
    splits: FileSplits
    """The file of each split."""
    columns: dict[str, int] = Field(min_length=1)
    """Name and index of each column that is read; -1 is the last."""
    separator: Literal["whitespace", "tab", "space"] = "whitespace"
    """What stands between two columns."""
    comment: Annotated[str, Field(min_length=1)] | None = None
    """Lines that begin with this text are skipped."""


DataSource = Annotated[
    HubSource | JsonlSource | TableSource | ParquetSource | ConllSource, Field(discriminator="source")
]


class Lookup(Section):
    """A new column: the value of another one, looked up in a table."""

    column: Column
    """The column whose value is looked up."""
    map: dict[str, str] = Field(min_length=1)
    """Value to result; a value that is missing here is an error."""


class TextInput(Section):
    """One text, or a pair of texts, per row."""

    text: TemplateText
    """The text, or the first of a pair."""
    pair: TemplateText | None = None
    """The second text of a pair."""
    truncate: Literal["longest", "text", "pair"] = "longest"
    """Which text is shortened if both together exceed `max_length`."""
    max_length: Annotated[int, Field(ge=8)] = 256
    """Longest input in sub-word tokens, special tokens included, prompt not included."""


class WordsInput(Section):
    """Words that are already split."""

    words: Column
    """The column with the list of words."""
    max_length: Annotated[int, Field(ge=8)] = 256
    """Longest input in sub-word tokens, special tokens included, prompt not included."""


ClassNames = (
    Literal["from_train"]
    | Annotated[tuple[str, ...], Field(strict=False, min_length=2)]
    | Annotated[dict[str, str], Field(min_length=2)]
)


class ClassesLabels(Section):
    """One of several classes per row."""

    scheme: Literal["classes"]
    """What a label is: one of several classes."""
    column: Column
    """The column with the label: the class's name, or its index in `names` as an integer or boolean."""
    names: ClassNames = "from_train"
    """The classes in order; or a mapping from the value in the data to the class's name; or `from_train`: those that
    occur there, sorted."""


class Iob2Labels(Section):
    """A tag per word, in IOB2: `B-` opens a span, `I-` continues it, `O` is outside."""

    scheme: Literal["iob2"]
    """What a label is: a tag per word, in IOB2."""
    column: Column
    """The column with the list of tags, one for each word."""
    names: Literal["from_train"] | Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = "from_train"
    """The span types without `B-` and `I-`, such as `[PER, LOC]`; or `from_train`: as they occur there."""


class TaskBase(Section):
    """What every task has, whatever its scheme."""

    task: Name
    """Name of the task."""
    version: PositiveInt = 1
    """Raised whenever a change of this file changes scores; stored with each result."""
    description: str = ""
    """What a model learns from it."""
    licence: str = ""
    """Licence of the data, and who brings the files."""
    data: DataSource
    """Where the rows come from."""
    derive: dict[str, Lookup] = Field(default_factory=dict)
    """New columns, looked up from others."""
    head: Literal["linear"] = "linear"
    """What turns hidden states into scores."""


class ClassesTask(TaskBase):
    """A task with one class per row: sentiment, inference, yes/no questions."""

    input: TextInput
    """How a row becomes the model's input."""
    labels: ClassesLabels
    """What a label is and where it stands."""
    metrics: Annotated[tuple[Literal["accuracy", "macro_f1"], ...], Field(strict=False, min_length=1)] = ("accuracy",)
    """What is measured; the first one chooses the best epoch."""


class Iob2Task(TaskBase):
    """A task with spans over words: named entities, chunks, semantic roles."""

    input: WordsInput
    """How a row becomes the model's input."""
    labels: Iob2Labels
    """What a label is and where it stands."""
    metrics: Annotated[tuple[Literal["span_f1", "token_accuracy"], ...], Field(strict=False, min_length=1)] = (
        "span_f1",
    )
    """What is measured; the first one chooses the best epoch."""


def scheme_of(value: Any) -> str | None:
    """The label scheme of a task, raw or validated; None if it says none."""
    if isinstance(value, TaskBase):
        return str(value.model_dump(include={"labels": {"scheme"}})["labels"]["scheme"])
    labels: object = value.get("labels") if isinstance(value, dict) else None
    scheme: object = labels.get("scheme") if isinstance(labels, dict) else None
    return scheme if isinstance(scheme, str) else None


Task = Annotated[
    Annotated[ClassesTask, Tag("classes")] | Annotated[Iob2Task, Tag("iob2")],
    Discriminator(scheme_of),
]
"""Any task; `labels.scheme` says which class validates it."""
