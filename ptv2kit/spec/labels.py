"""The task file's `labels`: what is learned and where it stands. One class for each label scheme."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from ptv2kit.errors import did_you_mean
from ptv2kit.spec.base import Fault, Section
from ptv2kit.spec.rows import Column
from ptv2kit.spec.template import TemplateText

Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
ClassNames = (
    Literal["from_train"]
    | Annotated[tuple[str, ...], Field(strict=False, min_length=2)]
    | Annotated[dict[str, str], Field(min_length=2)]
)

Weight = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Weights = Literal["balanced"] | Annotated[dict[str, Weight], Field(min_length=1)]
"""What each class counts in the loss, or `balanced`."""


def weight_faults(weights: Weights | None, names: Sequence[str] | None) -> Iterator[Fault]:
    """Weights of classes that do not exist.

    Args:
        names: of the classes; None if only the training rows tell them.
    """
    if not isinstance(weights, dict) or names is None:
        return
    for name in weights:
        if name not in names:
            hint = did_you_mean(name, list(names))
            yield Fault(("labels", "weights", name), f"'labels.weights' has '{name}', which is not a class", hint, True)


class LabelsBase(Section):
    """What labels of all schemes answer."""

    @property
    def listed(self) -> object:
        """What `names` holds; None of labels without names."""
        return vars(self).get("names")

    def faults(self) -> Iterator[Fault]:
        """Settings that contradict each other."""
        return iter(())


class Grouping(Section):
    """Rows that are scored together: the answers of one question, the candidates of one query."""

    by: TemplateText
    """Rows with the same text belong together, such as `{idx.paragraph}-{idx.question}`."""
    candidate: TemplateText | None = None
    """The row's candidate answer, for the `record` metrics: the one with the highest score of `names`' last class is
    chosen."""
    golds: Column | None = None
    """The column with the right answers of the group, for the `record` metrics."""


class ClassesLabels(LabelsBase):
    """One of several classes per row."""

    scheme: Literal["classes"]
    """What a label is: one of several classes."""
    column: Column
    """The column with the label: the class's name, or its index in `names` as an integer or boolean."""
    names: ClassNames = "from_train"
    """The classes in order; or a mapping from the value in the data to the class's name; or `from_train`: those that
    occur there, sorted."""
    positive: str | None = None
    """The class that the metrics `f1`, `precision` and `recall` are of."""
    negative: str | None = None
    """A class that means none of the others, such as `no_relation`; `micro_f1`, `macro_f1` and `weighted_f1` are over
    the others."""
    weights: Weights | None = None
    """How much a training row counts in the loss, by its class, such as `{spam: 5}`; classes that are left out count 1.
    `balanced`: as if all classes were equally frequent. Scores count every row once."""
    group: Grouping | None = None
    """Rows that are scored together; the last of `names` then means that a row's answer is right."""


class LabelsLabels(LabelsBase):
    """Any number of labels per row, also none."""

    scheme: Literal["labels"]
    """What a label is: any number of several labels."""
    column: Column
    """The column with the labels: a list of names or of indices in `names`, or a text that `separator` cuts."""
    names: ClassNames = "from_train"
    """The labels in order; or a mapping from the value in the data to the label's name; or `from_train`: those that
    occur there, sorted."""
    separator: Annotated[str, Field(min_length=1)] | None = None
    """What stands between two labels where `column` holds a text, such as `","`; null: it holds a list."""
    weights: Weights | None = None
    """How much a label counts in the loss where it is right, such as `{toxic: 10}`, beside 1 where it is wrong; labels
    that are left out count 1. `balanced`: both sides of each label count the same over the training rows."""
    threshold: Annotated[float, Field(gt=0.0, lt=1.0)] | Literal["best"] = 0.5
    """The probability from which a label is given; `best`: the one with the highest first metric on the validation
    split, of the steps 0.05, 0.10, … 0.95, kept with the run."""


class NumberLabels(LabelsBase):
    """A number per row, such as a similarity from 0 to 5."""

    scheme: Literal["number"]
    """What a label is: a number."""
    column: Column
    """The column with the number, which may be written as text."""


class ChoicesLabels(LabelsBase):
    """The right one of several choices."""

    scheme: Literal["choices"]
    """What a label is: the right one of several choices."""
    column: Column
    """The column with the label: the choice's index from 0, or its name in `names` or in `among`."""
    names: Names | None = None
    """What the data calls the choices in their order, such as `[A, B]`; null: indices."""
    among: Column | None = None
    """Of `input.options`, the column with the list of what the row calls them, such as `choices.label`."""


class Iob2Labels(LabelsBase):
    """A tag per word: `B-` opens a span, `I-` continues it, `O` is outside."""

    scheme: Literal["iob2"]
    """What a label is: a tag per word, in IOB2."""
    column: Column
    """The column with the list of tags, one for each word."""
    encoding: Literal["iob2", "iob1", "iobes", "bilou", "bmes", "io"] = "iob2"
    """How the data writes spans; everything becomes IOB2. `iob1` has `B-` only between touching spans; `iobes` has
    `E-` and `S-`, `bilou` `L-` and `U-`, `bmes` `M-`, `E-` and `S-`; in `io` a tag is the type alone, or `I-` with it,
    and equal neighbours are one span."""
    form: Literal["B-PER", "B_PER", "PER-B", "PER_B"] = "B-PER"
    """How a tag is spelled, by the example of a person's first word."""
    names: Literal["from_train"] | Names | Annotated[dict[str, str], Field(min_length=1)] = "from_train"
    """The span types without `B-` and `I-`, such as `[PER, LOC]`; or a mapping from the data's types to ours; or from
    the data's numbers to tags, such as `{"0": O, "1": B-PER, "2": I-PER}`; or `from_train`: as they occur there."""

    @property
    def numbered(self) -> bool:
        """Whether `names` gives the tag of each number."""
        return isinstance(self.names, dict) and all(name.isdecimal() for name in self.names)

    def faults(self) -> Iterator[Fault]:
        """Tags where `names` lists types."""
        names = self.names
        if isinstance(names, str) or self.numbered:
            return
        listed: Iterable[tuple[str | int, str]] = (
            enumerate(names)
            if isinstance(names, tuple)
            else [(key, name) for key, value in names.items() for name in (key, value)]
        )
        for key, name in listed:
            if name == "O" or name.startswith(("B-", "I-")):
                hint = "write PER for the tags B-PER and I-PER"
                yield Fault(("names", key), f"'labels.names' lists span types; '{name}' is a tag", hint)


class TagsLabels(LabelsBase):
    """A class for each word."""

    scheme: Literal["tags"]
    """What a label is: a class for each word, such as its part of speech."""
    column: Column
    """The column with the list of tags, or of numbers, one for each word."""
    names: Literal["from_train"] | Names | Annotated[dict[str, str], Field(min_length=1)] = "from_train"
    """The tags in order, such as `[NOUN, VERB, ADJ]`; or a mapping from the data's tags or numbers to ours, several of
    which may be one; or `from_train`: those that occur there, sorted."""


class SpansLabels(LabelsBase):
    """Spans by the characters of a text."""

    scheme: Literal["spans"]
    """What a label is: spans of a text, by characters."""
    column: Column
    """The column with the list of spans. Each is a list `[start, end, label]`, or a mapping with `start` (or
    `start_offset`), `end` (or `end_offset`), and `label` (or `labels` with one, `type`, `tag`), as Doccano, Prodigy,
    Label Studio and spaCy export them; characters count from 0, and the one at `end` is outside."""
    names: Literal["from_train"] | Names | Annotated[dict[str, str], Field(min_length=1)] = "from_train"
    """The span types, such as `[PER, LOC]`; or a mapping from the data's types to ours; or `from_train`: as they occur
    there."""
    misaligned: Literal["error", "widen", "drop"] = "error"
    """What becomes of a span that begins or ends within a word: an error that names the row, the whole words, or
    nothing."""
    overlapping: Literal["error", "longest"] = "error"
    """What becomes of spans that overlap: an error that names the row, or only the longest is learned."""


class StartEndLabels(LabelsBase):
    """The answer as a piece of the passage."""

    scheme: Literal["start_end"]
    """What a label is: where the answer starts and ends in the passage."""
    column: Column | None = None
    """The column with the answers in SQuAD's layout: a mapping of `text` and `answer_start`, each a list."""
    text: Column | None = None
    """Instead of `column`: the column with the answer's text, or a list of right texts. Without `start`, those that the
    passage does not have, such as aliases, count in scoring only; with `unanswerable`, a passage that has none of them
    is one without an answer."""
    start: Column | None = None
    """With `text`: the column with the answer's first character in the passage, from 0, or a list of them; null: where
    the text occurs first."""
    unanswerable: bool = False
    """Whether a row may have no answer; the model may then answer nothing."""
    null_threshold: float = 0.0
    """How much the score of no answer must exceed that of the best answer to be given."""
    max_answer_tokens: PositiveInt = 30
    """Longest answer in sub-words."""
    n_best: PositiveInt = 20
    """Answers that are kept, per window and per question."""

    def faults(self) -> Iterator[Fault]:
        """Columns of two layouts, and a threshold that is never used."""
        if (self.column is None) == (self.text is None):
            hint = "column for SQuAD's layout; text, with start if there is one, for columns of their own"
            yield Fault((), "'labels' must have either 'column' or 'text'", hint, at_key=True)
        if self.start is not None and self.text is None:
            yield Fault(("start",), "'labels.start' needs 'labels.text'")
        if not self.unanswerable and "null_threshold" in self.model_fields_set and self.null_threshold:
            yield Fault(("null_threshold",), "'labels.null_threshold' needs 'labels.unanswerable: true'")
