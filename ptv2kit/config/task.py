"""The task file: what the data means. One class for each label scheme; `labels.scheme` says which.

A new scheme adds its input, labels and task class here, what they may contradict in `checks.py`, one module in
`ptv2kit/data/schemes`, and, only if its logits belong to a unit that no other scheme has, a head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, NonNegativeInt, PositiveInt, Tag

from ptv2kit.config.base import Name, Section
from ptv2kit.config.rows import Column, Derivation, Expansion
from ptv2kit.config.sources import DataSource
from ptv2kit.config.template import TemplateText

MaxLength = Annotated[int, Field(ge=8)]
Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
Words = str | Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
Head = Literal["linear", "verbalizer"]


class TextInput(Section):
    """One text, or a pair of texts, per row."""

    text: TemplateText
    """The text, or the first of a pair."""
    pair: TemplateText | None = None
    """The second text of a pair."""
    truncate: Literal["longest", "text", "pair"] = "longest"
    """Which text is shortened if both together exceed `max_length`."""
    max_length: MaxLength = 256
    """Longest input in sub-word tokens, special tokens included, prompt not included."""


class ChoicesInput(Section):
    """One text with several continuations, each of which becomes a pair `text`, choice."""

    text: TemplateText
    """The text that the choices have in common."""
    choices: Annotated[tuple[TemplateText, ...], Field(strict=False, min_length=2)]
    """The choices in order."""
    truncate: Literal["longest", "text", "pair"] = "longest"
    """What is shortened if text and choice together exceed `max_length`; `pair` is the choice."""
    max_length: MaxLength = 256
    """Longest input in sub-word tokens, special tokens included, prompt not included."""


class AppendedWord(Section):
    """A word of the row that is repeated after the sentence, such as the verb whose arguments are asked for."""

    column: Column
    """The column with the list of words."""
    at: Column
    """The column with the word's index in that list, from 0."""
    separator: Annotated[str, Field(min_length=1)] | None = None
    """What stands between sentence and word, cut into sub-words like any word; null: the tokenizer's own separator.
    The official code writes `[SEP]`, which is its own separator to BERT only."""


class WordsInput(Section):
    """Words that are already split."""

    words: Column
    """The column with the list of words."""
    append: AppendedWord | None = None
    """A word repeated after the sentence; it is never cut off and never scored."""
    max_length: MaxLength = 256
    """Longest input in sub-word tokens, special tokens included, prompt not included."""


class QuestionInput(Section):
    """A question and the passage that holds its answer; a long passage is read in overlapping windows."""

    question: TemplateText
    """The question; blanks before it are dropped."""
    context: TemplateText
    """The passage; the answer is a piece of it."""
    max_length: MaxLength = 384
    """Longest window in sub-word tokens, question and special tokens included, prompt not included."""
    stride: NonNegativeInt = 128
    """Sub-words of the passage that two neighbouring windows share."""


ClassNames = (
    Literal["from_train"]
    | Annotated[tuple[str, ...], Field(strict=False, min_length=2)]
    | Annotated[dict[str, str], Field(min_length=2)]
)


class Grouping(Section):
    """Rows that are scored together: the answers of one question, the candidates of one query."""

    by: TemplateText
    """Rows with the same text belong together, such as `{idx.paragraph}-{idx.question}`."""
    candidate: TemplateText | None = None
    """The row's candidate answer, for the `record` metrics: the one with the highest score of `names`' last class is
    chosen."""
    golds: Column | None = None
    """The column with the right answers of the group, for the `record` metrics."""


class ClassesLabels(Section):
    """One of several classes per row."""

    scheme: Literal["classes"]
    """What a label is: one of several classes."""
    column: Column
    """The column with the label: the class's name, or its index in `names` as an integer or boolean."""
    names: ClassNames = "from_train"
    """The classes in order; or a mapping from the value in the data to the class's name; or `from_train`: those that
    occur there, sorted."""
    group: Grouping | None = None
    """Rows that are scored together; the last of `names` then means that a row's answer is right."""


class ChoicesLabels(Section):
    """The right one of several choices."""

    scheme: Literal["choices"]
    """What a label is: the right one of several choices."""
    column: Column
    """The column with the label: the choice's index from 0, or its name in `names`."""
    names: Names | None = None
    """What the data calls the choices, in the order of `input.choices`, such as `[A, B]`; null: indices."""


class Iob2Labels(Section):
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


class StartEndLabels(Section):
    """The answer as a piece of the passage."""

    scheme: Literal["start_end"]
    """What a label is: where the answer starts and ends in the passage."""
    column: Column | None = None
    """The column with the answers in SQuAD's layout: a mapping of `text` and `answer_start`, each a list."""
    text: Column | None = None
    """Instead of `column`: the column with the answer's text, or a list of right texts."""
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
    expand: Annotated[tuple[Expansion, ...], Field(strict=False)] = ()
    """One row for each item of a list, step after step; before `derive`."""
    derive: dict[str, Derivation] = Field(default_factory=dict)
    """New columns made from others."""
    where: dict[Column, Annotated[tuple[str, ...], Field(strict=False, min_length=1)]] = Field(default_factory=dict)
    """Only rows whose column holds one of the texts are kept, such as `{predicate_pos: [VB, VBD]}`; after `derive`."""
    distinct: TemplateText | None = None
    """Of rows with the same text only the first one is kept."""

    def takes_names(self, names: Sequence[str]) -> bool:
        """Whether integer labels of the data, to which the data itself gives these names, are read by their names."""
        return False

    def with_names(self, names: Sequence[str]) -> Self:
        """The task with the labels that were found in its training rows, where it does not list them itself."""
        return self


class ClassesTask(TaskBase):
    """A task with one class per row: sentiment, inference, yes/no questions."""

    input: TextInput
    """How a row becomes the model's input."""
    labels: ClassesLabels
    """What a label is and where it stands."""
    head: Head = "linear"
    """What turns hidden states into scores: a linear layer that is trained, or `verbalizer`: the backbone's own frozen
    language-model head, which fills `{mask}` in one text of `input` with the words of `verbalizer`."""
    verbalizer: Annotated[dict[str, Words], Field(min_length=2)] | None = None
    """Of `head: verbalizer`, the word of each class, or a list of words whose probabilities are added up, such as
    `{entailment: " Yes", not_entailment: " No"}`; with its leading blank if it stands behind another word."""
    verbalizer_tokens: Literal["one", "any"] = "one"
    """Whether each word must be one token of the backbone's vocabulary, or may be several: the score is then the sum of
    their log-probabilities."""
    metrics: Annotated[
        tuple[
            Literal[
                "accuracy",
                "macro_f1",
                "multirc_f1a",
                "multirc_exact_match",
                "record_f1",
                "record_exact_match",
            ],
            ...,
        ],
        Field(strict=False, min_length=1),
    ] = ("accuracy",)
    """What is measured; the first one chooses the best epoch. `multirc_*` and `record_*` need `labels.group`."""

    def takes_names(self, names: Sequence[str]) -> bool:
        """True if the classes are found in the data, or if all of these names are among those that are listed.

        Otherwise the task has names of its own, in the order of the data's integers.
        """
        own = self.labels.names
        return own == "from_train" or set(names) <= set(own)

    def with_names(self, names: Sequence[str]) -> Self:
        """See `TaskBase.with_names`."""
        if self.labels.names != "from_train":
            return self
        return self.model_copy(update={"labels": self.labels.model_copy(update={"names": tuple(names)})})


class ChoicesTask(TaskBase):
    """A task with one right choice of several: COPA, multiple-choice questions."""

    input: ChoicesInput
    """How a row becomes the model's inputs, one for each choice."""
    labels: ChoicesLabels
    """What a label is and where it stands."""
    head: Head = "linear"
    """What turns hidden states into scores: a linear layer that is trained and reads each choice as a pair with `text`,
    or `verbalizer`: the backbone's own frozen language-model head, which fills `{mask}` in `text` with each choice."""
    verbalizer_tokens: Literal["one", "any"] = "any"
    """Of `head: verbalizer`, whether each choice must be one token of the backbone's vocabulary, or may be several: the
    score is the sum of their log-probabilities."""
    metrics: Annotated[tuple[Literal["accuracy"], ...], Field(strict=False, min_length=1)] = ("accuracy",)
    """What is measured; the first one chooses the best epoch."""


class Iob2Task(TaskBase):
    """A task with spans over words: named entities, chunks, semantic roles."""

    input: WordsInput
    """How a row becomes the model's input."""
    labels: Iob2Labels
    """What a label is and where it stands."""
    head: Literal["linear"] = "linear"
    """What turns hidden states into scores."""
    metrics: Annotated[
        tuple[Literal["span_f1", "plain_span_f1", "srl_f1", "token_accuracy"], ...], Field(strict=False, min_length=1)
    ] = ("span_f1",)
    """What is measured; the first one chooses the best epoch. `span_f1` is micro F1 over all spans in
    seqeval's strict mode, `plain_span_f1` in its default mode, which the paper reports; `srl_f1` is that of CoNLL-2005:
    without the verb, continuations joined."""

    def with_names(self, names: Sequence[str]) -> Self:
        """See `TaskBase.with_names`; the names are tags, and what is listed are types."""
        if self.labels.names != "from_train":
            return self
        types = tuple(dict.fromkeys(name.partition("-")[2] for name in names if "-" in name))
        return self.model_copy(update={"labels": self.labels.model_copy(update={"names": types})})


class StartEndTask(TaskBase):
    """A task whose answer is a piece of a passage: extractive question answering."""

    input: QuestionInput
    """How a row becomes the model's inputs, one for each window."""
    labels: StartEndLabels
    """What a label is and where it stands."""
    head: Literal["linear"] = "linear"
    """What turns hidden states into scores."""
    metrics: Annotated[
        tuple[
            Literal[
                "squad_exact_match",
                "squad_f1",
                "squad_best_exact_match",
                "squad_best_f1",
                "squad_best_exact_match_threshold",
                "squad_best_f1_threshold",
                "squad_has_answer_exact_match",
                "squad_has_answer_f1",
                "squad_no_answer_accuracy",
            ],
            ...,
        ],
        Field(strict=False, min_length=1),
    ] = ("squad_f1", "squad_exact_match")
    """What is measured; the first one chooses the best epoch. All but the first two need `labels.unanswerable`."""


def scheme_of(value: Any) -> str | None:
    """The label scheme of a task, raw or validated; None if it says none."""
    if isinstance(value, TaskBase):
        return str(value.model_dump(include={"labels": {"scheme"}})["labels"]["scheme"])
    labels: object = value.get("labels") if isinstance(value, dict) else None
    scheme: object = labels.get("scheme") if isinstance(labels, dict) else None
    return scheme if isinstance(scheme, str) else None


AnyTask = ClassesTask | ChoicesTask | Iob2Task | StartEndTask
"""A task of any scheme."""

TASK_SECTIONS: Mapping[str, type[AnyTask]] = {
    "classes": ClassesTask,
    "choices": ChoicesTask,
    "iob2": Iob2Task,
    "start_end": StartEndTask,
}
"""The class that validates a task, by `labels.scheme`."""

Task = Annotated[
    Annotated[ClassesTask, Tag("classes")]
    | Annotated[ChoicesTask, Tag("choices")]
    | Annotated[Iob2Task, Tag("iob2")]
    | Annotated[StartEndTask, Tag("start_end")],
    Discriminator(scheme_of),
]
"""Any task; `labels.scheme` says which class validates it."""
