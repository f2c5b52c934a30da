"""What every task file has, whatever its label scheme."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PositiveInt

from ptv2kit.spec.base import Fault, Name, Section, below
from ptv2kit.spec.plugins import plugin_faults
from ptv2kit.spec.rows import Column, Derivation, Expansion, Previous, Replacement
from ptv2kit.spec.sources import DataSource, GoldConllSource, PluginSource
from ptv2kit.spec.template import MASK, TemplateText, no_column, parse_template
from ptv2kit.spec.verbalizer import Words

Unit = Literal["sequence", "labels", "number", "choices", "token", "start_end", "words", "answers"]
"""What has logits; it decides the head. Of a linear head: an input as a whole for one of several classes, for any
number of labels, or for a number; each of several inputs; each token; each token as start and as end. Of a verbalizer:
its words at one place, or answers of several tokens."""
Head = Literal["linear", "verbalizer"]


LANGUAGE = r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$"
LanguageCode = Annotated[str, Field(pattern=LANGUAGE)]
"""ISO 639, such as `en`, with parts of BCP 47 where they matter: `zh-Hant`."""


class TaskBase(Section):
    """What every task has, whatever its scheme."""

    hub_task: ClassVar[tuple[str, str]]
    """What the hub calls this kind of task: its tag and its title."""
    reads_words: ClassVar[bool] = False
    """Whether rows hold words that are already split, which some backbones need another tokenizer for."""
    labels_are_words: ClassVar[bool] = False
    """Whether a prompt can start from the labels' names."""

    task: Name
    """Name of the task."""
    version: PositiveInt = 1
    """Raised whenever a change of this file changes scores; stored with each result."""
    description: str = ""
    """What a model learns from it."""
    licence: str = ""
    """Licence of the data, and who brings the files."""
    languages: Annotated[tuple[LanguageCode, ...], Field(strict=False)] = ()
    """Of the rows, as the hub lists models by them: `[en]`; stands in a run's model card."""
    data: DataSource
    """Where the rows come from."""
    extra_metrics: Annotated[tuple[Name, ...], Field(strict=False)] = ()
    """Metrics of other installed packages, shown and kept beside `metrics`: entry points of the group
    `ptv2kit.metrics`, each a function of the predicted and the right labels that returns a number."""
    defaults: dict[str, str | int | float | bool | Annotated[tuple[str, ...], Field(strict=False)]] = Field(
        default_factory=dict
    )
    """What a column holds in rows where it is missing or null, such as `{title: ""}`; before `expand` and `derive`."""
    expand: Annotated[tuple[Expansion, ...], Field(strict=False)] = ()
    """One row for each item of a list, step after step; before `derive`."""
    derive: dict[str, Derivation] = Field(default_factory=dict)
    """New columns made from others."""
    where: dict[Column, Annotated[tuple[str, ...], Field(strict=False, min_length=1)]] = Field(default_factory=dict)
    """Only rows whose column holds one of the texts are kept, such as `{predicate_pos: [VB, VBD]}`; after `derive`."""
    distinct: TemplateText | None = None
    """Of rows with the same text only the first one is kept."""

    @property
    def stride(self) -> int:
        """Sub-words that neighbouring windows of a long input share; 0 for inputs that are cut off instead."""
        return 0

    @property
    def names_from_train(self) -> bool:
        """Whether only the training rows tell which labels there are."""
        return False

    @property
    def groups_rows(self) -> bool:
        """Whether rows are scored together, so that a limit would tear them apart."""
        return False

    @property
    def mask_texts(self) -> Mapping[str, str]:
        """The templates in which a verbalizer's mask may be, by key of `input`."""
        return {}

    @property
    def class_words(self) -> Mapping[str, Words] | None:
        """A verbalizer's words of each class; None where answers differ from row to row."""
        return None

    @property
    def words_are_one_token(self) -> bool:
        """Whether each word of a verbalizer must be one token of the vocabulary."""
        return False

    @property
    def class_column(self) -> str | None:
        """The column with each row's class, None if rows have none of their own."""
        return None

    def class_of(self, value: object) -> str:
        """The class that a value of `class_column` means, as far as the task file tells."""
        return str(value)

    @property
    def tagged_columns(self) -> tuple[str, str] | None:
        """The column with the words and that with a tag for each, None if labels are not of words."""
        return None

    def input_columns(self) -> list[str]:
        """The columns of a row that become the model's input, in order of first use, made ones too."""
        raise NotImplementedError

    def logits(self) -> tuple[Unit, int | None]:
        """What has logits with a linear head, and how many each has; None if only the training rows tell."""
        raise NotImplementedError

    def takes_names(self, names: Sequence[str]) -> bool:
        """Whether integer labels of the data, to which the data itself gives these names, are read by their names."""
        return False

    def with_names(self, names: Sequence[str]) -> Self:
        """The task with the labels that were found in its training rows, where it does not list them itself."""
        return self

    def drawn_by(self, values: Mapping[str, Any]) -> tuple[str, str]:
        """How rows are drawn for splits that are shares: the class, and what is drawn together; empty without any."""
        together = [step.previous for step in self.derive.values() if isinstance(step, Previous)]
        return "", "\0".join(str(values.get(column)) for column in together)

    def with_scores(self, scores: Mapping[str, float]) -> Self:
        """The task with what a training has chosen on the validation split, from the scores of its best epoch."""
        return self

    def faults(self) -> Iterator[Fault]:
        """Settings that contradict each other."""
        yield from below("data", below("splits", self.data.splits.faults()))
        if isinstance(self.data, PluginSource):
            yield from plugin_faults("ptv2kit.readers", self.data.reader, ("data", "reader"))
        for index, name in enumerate(self.extra_metrics):
            yield from plugin_faults("ptv2kit.metrics", name, ("extra_metrics", index))
        if self.distinct is not None:
            yield from no_column(("distinct",), (self.distinct,), "{id}", "distinct")
        made = [step.item for step in self.expand]
        for index, item in enumerate(made):
            if item in made[:index]:
                yield Fault(("expand", index, "item"), f"'expand' makes the column '{item}' twice")
        for name, derivation in self.derive.items():
            if name in made:
                yield Fault(
                    ("derive", name), f"'derive' makes the column '{name}', which 'expand' has made", at_key=True
                )
            if isinstance(derivation, Replacement):
                path = ("derive", name, "text")
                yield from no_column(path, (derivation.text,), "{text}", ".".join(path))
                if "" in derivation.replace:
                    message = f"'derive.{name}.replace' replaces an empty text"
                    yield Fault(("derive", name, "replace"), message, at_key=True)
        if isinstance(self.data, GoldConllSource) and self.data.layout == "propbank" and self.data.unit == "sentence":
            message = "'data.unit' is sentence, but the propbank layout has no named entities"
            yield Fault(("data", "unit"), message)

    def mask_column_faults(self) -> Iterator[Fault]:
        """Columns that a verbalizer's mask would hide."""
        made: list[tuple[str | int, ...]] = [("derive", name) for name in self.derive if name == MASK]
        made += [("expand", number, "item") for number, step in enumerate(self.expand) if step.item == MASK]
        message = "a column 'mask' would be hidden by '{mask}', where the words belong"
        return (Fault(path, message, "give the column another name", at_key=True) for path in made)


def repeated(path: tuple[str, ...], listed: object) -> Iterator[Fault]:
    """A list that names one thing twice; anything but a list names nothing."""
    twice = [name for name in listed if listed.count(name) > 1] if isinstance(listed, tuple) else []
    if twice:
        yield Fault(path, f"'{'.'.join(path)}' names '{twice[0]}' twice")


def columns_in(*templates: str) -> list[str]:
    """The columns that templates name, in order of first use."""
    columns = [column for template in templates for column in parse_template(template).columns]
    return [column for column in dict.fromkeys(columns) if column != MASK]
