"""The task file: what the data means. One class for each label scheme; `labels.scheme` says which.

A new scheme adds its input, labels and task class here, one module in `ptv2kit/data/schemes` that is called like it,
and, only if its logits belong to a unit that no other scheme has, a head. The rest of the code asks a task; it does not
ask which scheme it has.
"""

# Fields that are declared again are narrower; pyright takes them for mutable, though sections are frozen.
# pyright: reportIncompatibleVariableOverride=false

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self, Union, cast

from pydantic import Discriminator, Field, Tag

from ptv2kit.spec.base import Fault, below
from ptv2kit.spec.inputs import ChoicesInput, InputBase, QuestionInput, SpansInput, TextInput, WordsInput
from ptv2kit.spec.labels import (
    ChoicesLabels,
    ClassesLabels,
    Iob2Labels,
    LabelsBase,
    LabelsLabels,
    NumberLabels,
    SpansLabels,
    StartEndLabels,
    TagsLabels,
    weight_faults,
)
from ptv2kit.spec.task_base import Head, TaskBase, Unit, columns_in, repeated
from ptv2kit.spec.template import MASK, OPTION, no_column, parse_template
from ptv2kit.spec.verbalizer import Words, mask_faults, unused_faults, word_faults


class SchemeTask(TaskBase):
    """What tasks of every scheme have. Fields are declared again with what the scheme allows."""

    input: InputBase
    """How a row becomes the model's input."""
    labels: LabelsBase
    """What a label is and where it stands."""
    head: Head = "linear"
    """What turns hidden states into scores."""
    metrics: tuple[str, ...]
    """What is measured; the first one chooses the best epoch."""

    @property
    def names_from_train(self) -> bool:
        """See `TaskBase.names_from_train`."""
        return self.labels.listed == "from_train"

    def listed_names(self) -> tuple[str, ...] | None:
        """The different names that `labels.names` gives, in order; None if it lists none."""
        listed = self.labels.listed
        if isinstance(listed, dict):
            listed = tuple(cast("dict[str, str]", listed).values())
        return tuple(dict.fromkeys(cast("tuple[str, ...]", listed))) if isinstance(listed, tuple) else None

    def names_of(self, found: Sequence[str]) -> tuple[str, ...]:
        """What `labels.names` lists, from the names of logits that were found in the training rows."""
        return tuple(found)

    def with_names(self, names: Sequence[str]) -> Self:
        """See `TaskBase.with_names`."""
        if not self.names_from_train:
            return self
        return self.model_copy(update={"labels": self.labels.model_copy(update={"names": self.names_of(names)})})

    def faults(self) -> Iterator[Fault]:
        """See `TaskBase.faults`."""
        yield from super().faults()
        yield from repeated(("labels", "names"), self.labels.listed)
        yield from repeated(("metrics",), self.metrics)
        yield from below("input", self.input.faults())
        yield from below("labels", self.labels.faults())


class TextTask(SchemeTask):
    """What tasks with a text, or a pair of texts, in each row have in common."""

    hub_task: ClassVar[tuple[str, str]] = ("text-classification", "Text Classification")

    input: TextInput
    """How a row becomes the model's input."""

    def input_columns(self) -> list[str]:
        """See `TaskBase.input_columns`."""
        return columns_in(self.input.text, self.input.pair or "")


class ClassesTask(TextTask):
    """A task with one class per row: sentiment, inference, yes/no questions."""

    labels_are_words: ClassVar[bool] = True

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
                "micro_f1",
                "weighted_f1",
                "matthews",
                "f1",
                "precision",
                "recall",
                "multirc_f1a",
                "multirc_exact_match",
                "record_f1",
                "record_exact_match",
            ],
            ...,
        ],
        Field(strict=False, min_length=1),
    ] = ("accuracy",)
    """What is measured; the first one chooses the best epoch. `f1`, `precision` and `recall` are those of the class
    `labels.positive`; `matthews` is the correlation of that name; `multirc_*` and `record_*` need `labels.group`."""

    @property
    def groups_rows(self) -> bool:
        """See `TaskBase.groups_rows`."""
        return self.labels.group is not None

    @property
    def mask_texts(self) -> Mapping[str, str]:
        """The text, and the second one of a pair."""
        return {"text": self.input.text, **({} if self.input.pair is None else {"pair": self.input.pair})}

    @property
    def class_words(self) -> Mapping[str, Words] | None:
        """See `TaskBase.class_words`."""
        return self.verbalizer

    @property
    def words_are_one_token(self) -> bool:
        """See `TaskBase.words_are_one_token`."""
        return self.verbalizer_tokens == "one"

    def logits(self) -> tuple[Unit, int | None]:
        """One for each class."""
        return "sequence", _count(self.listed_names())

    def faults(self) -> Iterator[Fault]:
        """See `TaskBase.faults`."""
        yield from super().faults()
        names, group = self.labels.names, self.labels.group
        if self.head == "linear":
            yield from unused_faults(self)
        else:
            yield from mask_faults(self.mask_texts, "'input.text' or 'input.pair'")
            yield from self.mask_column_faults()
            yield from word_faults(self.verbalizer, self.listed_names())
        if isinstance(names, dict) and len(set(names.values())) < 2:
            yield Fault(("labels", "names"), "'labels.names' must name at least two classes")
        positive, known = self.labels.positive, self.listed_names()
        for key, named in (("positive", positive), ("negative", self.labels.negative)):
            if named is not None and known is not None and named not in known:
                yield Fault(("labels", key), f"'labels.{key}' is '{named}', which is not a class")
        yield from weight_faults(self.labels.weights, known)
        for index, metric in enumerate(self.metrics):
            if metric in ("f1", "precision", "recall") and positive is None:
                hint = "set labels.positive to the class it is of; macro_f1, micro_f1 and weighted_f1 are of all"
                yield Fault(("metrics", index), f"metric '{metric}' needs 'labels.positive'", hint)
            if metric.startswith(("multirc_", "record_")) and group is None:
                yield Fault(("metrics", index), f"metric '{metric}' needs 'labels.group'")
            elif metric.startswith("record_") and group and (group.candidate is None or group.golds is None):
                message = f"metric '{metric}' needs 'labels.group.candidate' and 'labels.group.golds'"
                yield Fault(("metrics", index), message)
        if group is not None:
            yield from no_column(("labels", "group", "by"), (group.by,), "{idx}", "labels.group.by")
            if group.candidate is not None:
                path = ("labels", "group", "candidate")
                yield from no_column(path, (group.candidate,), "{entity}", ".".join(path))
            if self.names_from_train:
                message = "'labels.group' needs 'labels.names': the last of them means that a row's answer is right"
                yield Fault(("labels", "names"), message)

    def drawn_by(self, values: Mapping[str, Any]) -> tuple[str, str]:
        """See `TaskBase.drawn_by`; groups are told by the columns of the data that `labels.group.by` names."""
        together = super().drawn_by(values)[1]
        if self.labels.group is not None:
            made = [*self.derive, *(step.item for step in self.expand)]
            columns = [column.split(".")[0] for column in parse_template(self.labels.group.by).columns]
            together += "\0".join(str(values.get(column)) for column in columns if column not in made)
        return "" if together else str(values.get(self.labels.column, "")), together

    @property
    def class_column(self) -> str | None:
        """See `TaskBase.class_column`; the class of a row that is scored with others says nothing alone."""
        return self.labels.column if self.labels.group is None else None

    def class_of(self, value: object) -> str:
        """See `TaskBase.class_of`; several values may be mapped to one class."""
        written = str(value).lower() if isinstance(value, bool) else str(value)
        names = self.labels.names
        return names.get(written, written) if isinstance(names, dict) else written

    def takes_names(self, names: Sequence[str]) -> bool:
        """True if the classes are found in the data, or if all of these names are among those that are listed.

        Otherwise the task has names of its own, in the order of the data's integers.
        """
        own = self.labels.names
        return own == "from_train" or set(names) <= set(own)


class LabelsTask(TextTask):
    """A task with any number of labels per row: topics, emotions, tags of a text."""

    labels_are_words: ClassVar[bool] = True

    labels: LabelsLabels
    """What a label is and where it stands."""
    head: Literal["linear"] = "linear"
    """What turns hidden states into scores; each label has a probability of its own."""
    metrics: Annotated[
        tuple[
            Literal["micro_f1", "macro_f1", "samples_f1", "micro_precision", "micro_recall", "exact_match"],
            ...,
        ],
        Field(strict=False, min_length=1),
    ] = ("micro_f1", "macro_f1")
    """What is measured; the first one chooses the best epoch. `micro_*` count each label of each row, `macro_f1` is the
    mean over labels, `samples_f1` the mean over rows; `exact_match` is the share of rows with exactly the right
    labels."""

    def logits(self) -> tuple[Unit, int | None]:
        """One for each label."""
        return "labels", _count(self.listed_names())

    def faults(self) -> Iterator[Fault]:
        """See `TaskBase.faults`."""
        yield from super().faults()
        yield from weight_faults(self.labels.weights, self.listed_names())

    def takes_names(self, names: Sequence[str]) -> bool:
        """See `ClassesTask.takes_names`."""
        own = self.labels.names
        return own == "from_train" or set(names) <= set(own)

    def with_scores(self, scores: Mapping[str, float]) -> Self:
        """See `TaskBase.with_scores`: the threshold that was chosen."""
        if self.labels.threshold != "best" or "threshold" not in scores:
            return self
        labels = self.labels.model_copy(update={"threshold": scores["threshold"] / 100})
        return self.model_copy(update={"labels": labels})


class NumberTask(TextTask):
    """A task with a number per row: similarity, ratings, ages."""

    labels: NumberLabels
    """What a label is and where it stands."""
    head: Literal["linear"] = "linear"
    """What turns hidden states into the number; it is trained by the squared error."""
    metrics: Annotated[
        tuple[Literal["pearson", "spearman", "pearson_spearman", "mse", "rmse"], ...],
        Field(strict=False, min_length=1),
    ] = ("pearson", "spearman")
    """What is measured; the first one chooses the best epoch and must be a correlation. Correlations are on a scale of
    -100 to 100, `pearson_spearman` is the mean of both; `mse` and `rmse` are in the unit of the numbers, lower is
    better."""

    def logits(self) -> tuple[Unit, int | None]:
        """The number itself."""
        return "number", 1

    def faults(self) -> Iterator[Fault]:
        """See `TaskBase.faults`."""
        yield from super().faults()
        if self.metrics[0] in ("mse", "rmse"):
            message = f"the first metric chooses the best epoch by its highest value; '{self.metrics[0]}' cannot"
            yield Fault(("metrics", 0), message, "put pearson or spearman first")


class ChoicesTask(SchemeTask):
    """A task with one right choice of several: COPA, multiple-choice questions."""

    hub_task: ClassVar[tuple[str, str]] = ("multiple-choice", "Multiple Choice")

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

    @property
    def mask_texts(self) -> Mapping[str, str]:
        """The text; choices fill its mask."""
        return {"text": self.input.text}

    @property
    def words_are_one_token(self) -> bool:
        """See `TaskBase.words_are_one_token`."""
        return self.verbalizer_tokens == "one"

    def input_columns(self) -> list[str]:
        """See `TaskBase.input_columns`."""
        if self.input.options is None:
            return columns_in(self.input.text, *(self.input.choices or ()))
        columns = columns_in(self.input.text, self.input.option)
        return [self.input.options, *(column for column in columns if column != OPTION)]

    def logits(self) -> tuple[Unit, int | None]:
        """One for each choice; how many options a row has, only the data tells."""
        return "choices", len(self.input.choices or ()) or None

    def faults(self) -> Iterator[Fault]:
        """See `TaskBase.faults`."""
        yield from super().faults()
        if self.head == "linear":
            yield from unused_faults(self)
        else:
            yield from mask_faults(self.mask_texts, "'input.text'")
            if self.input.truncate == "pair":
                message = "'input.truncate' is pair, but a choice that fills a mask is never cut off"
                yield Fault(("input", "truncate"), message)
            for index, choice in enumerate(self.input.choices or ()):
                if MASK in parse_template(choice).columns:
                    message = "a choice cannot hold '{mask}': it is what fills the mask in 'input.text'"
                    yield Fault(("input", "choices", index), message)
            yield from self.mask_column_faults()
        names, choices = self.labels.names, self.input.choices or ()
        if self.input.options is not None and self.head == "verbalizer":
            message = "'head: verbalizer' needs 'input.choices', with the same number in every row"
            yield Fault(("input", "options"), message, "set head: linear", at_key=True)
        if self.labels.among is not None and (self.input.options is None or names is not None):
            yield Fault(
                ("labels", "among"), "'labels.among' needs 'input.options', and takes the place of 'labels.names'"
            )
        if choices and names is not None and len(names) != len(choices):
            message = f"'labels.names' has {len(names)} names for {len(choices)} choices"
            yield Fault(("labels", "names"), message)


class WordsTask(SchemeTask):
    """What tasks with a tag for each word of a list have in common."""

    hub_task: ClassVar[tuple[str, str]] = ("token-classification", "Token Classification")
    reads_words: ClassVar[bool] = True
    labels_are_words: ClassVar[bool] = True

    input: WordsInput
    """How a row becomes the model's input."""

    @property
    def stride(self) -> int:
        """See `TaskBase.stride`."""
        return self.input.stride

    def input_columns(self) -> list[str]:
        """See `TaskBase.input_columns`."""
        return self.input.columns()


class Iob2Task(WordsTask):
    """A task with spans over words: named entities, chunks, semantic roles."""

    labels: Iob2Labels
    """What a label is and where it stands."""
    head: Literal["linear"] = "linear"
    """What turns hidden states into scores."""
    metrics: Annotated[
        tuple[Literal["span_f1", "plain_span_f1", "span_precision", "span_recall", "srl_f1", "token_accuracy"], ...],
        Field(strict=False, min_length=1),
    ] = ("span_f1",)
    """What is measured; the first one chooses the best epoch. `span_f1` is micro F1 over all spans in
    seqeval's strict mode, `plain_span_f1` in its default mode, which the paper reports; `srl_f1` is that of CoNLL-2005:
    without the verb, continuations joined."""

    @property
    def tagged_columns(self) -> tuple[str, str] | None:
        """See `TaskBase.tagged_columns`."""
        return self.input.words, self.labels.column

    def logits(self) -> tuple[Unit, int | None]:
        """One for each tag: `O`, and two of each type."""
        names = self.listed_names()
        types = _types_of(names) if names is not None and self.labels.numbered else names
        return "token", None if types is None else 1 + 2 * len(types)

    def names_of(self, found: Sequence[str]) -> tuple[str, ...]:
        """The types of the tags that were found."""
        return _types_of(found)


class TagsTask(WordsTask):
    """A task with a class for each word: parts of speech, morphology, punctuation behind words."""

    labels: TagsLabels
    """What a label is and where it stands."""
    head: Literal["linear"] = "linear"
    """What turns hidden states into scores."""
    metrics: Annotated[
        tuple[Literal["token_accuracy", "macro_f1", "weighted_f1"], ...], Field(strict=False, min_length=1)
    ] = ("token_accuracy", "macro_f1")
    """What is measured; the first one chooses the best epoch. `token_accuracy` is the share of words with the right
    tag, `macro_f1` the mean over the tags that occur."""

    @property
    def tagged_columns(self) -> tuple[str, str] | None:
        """See `TaskBase.tagged_columns`."""
        return self.input.words, self.labels.column

    def logits(self) -> tuple[Unit, int | None]:
        """One for each tag."""
        return "token", _count(self.listed_names())


class SpansTask(SchemeTask):
    """A task with spans by the characters of a text, as annotation tools export them."""

    hub_task: ClassVar[tuple[str, str]] = ("token-classification", "Token Classification")
    reads_words: ClassVar[bool] = True
    labels_are_words: ClassVar[bool] = True

    input: SpansInput
    """How a row becomes the model's input."""
    labels: SpansLabels
    """What a label is and where it stands."""
    head: Literal["linear"] = "linear"
    """What turns hidden states into scores."""
    metrics: Annotated[
        tuple[Literal["span_f1", "plain_span_f1", "span_precision", "span_recall", "token_accuracy"], ...],
        Field(strict=False, min_length=1),
    ] = ("span_f1",)
    """What is measured, over whole spans; the first one chooses the best epoch."""

    @property
    def stride(self) -> int:
        """See `TaskBase.stride`."""
        return self.input.max_length // 4 if self.input.stride is None else self.input.stride

    def input_columns(self) -> list[str]:
        """See `TaskBase.input_columns`."""
        return [self.input.text]

    def logits(self) -> tuple[Unit, int | None]:
        """One for each tag: `O`, and two of each type."""
        types = self.listed_names()
        return "token", None if types is None else 1 + 2 * len(types)

    def names_of(self, found: Sequence[str]) -> tuple[str, ...]:
        """The types of the tags that were found."""
        return _types_of(found)


class StartEndTask(SchemeTask):
    """A task whose answer is a piece of a passage: extractive question answering."""

    hub_task: ClassVar[tuple[str, str]] = ("question-answering", "Question Answering")

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

    @property
    def stride(self) -> int:
        """See `TaskBase.stride`."""
        return self.input.stride

    def input_columns(self) -> list[str]:
        """See `TaskBase.input_columns`."""
        return columns_in(self.input.question, self.input.context)

    def logits(self) -> tuple[Unit, int | None]:
        """Start and end."""
        return "start_end", 2

    def faults(self) -> Iterator[Fault]:
        """See `TaskBase.faults`."""
        yield from super().faults()
        for index, metric in enumerate(self.metrics):
            if not self.labels.unanswerable and metric not in ("squad_f1", "squad_exact_match"):
                yield Fault(("metrics", index), f"metric '{metric}' needs 'labels.unanswerable: true'")
        first = self.metrics[0]
        # Over the questions with, or without, an answer: a split may have none of them.
        if first.startswith(("squad_has_answer", "squad_no_answer")) or first.endswith("_threshold"):
            yield Fault(("metrics", 0), f"the first metric chooses the best epoch; '{first}' cannot")


def _count(names: Sequence[str] | None) -> int | None:
    return None if names is None else len(names)


def _types_of(tags: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tag.partition("-")[2] for tag in tags if "-" in tag))


AnyTask = ClassesTask | LabelsTask | NumberTask | ChoicesTask | Iob2Task | TagsTask | SpansTask | StartEndTask
"""A task of any scheme."""

TASK_SECTIONS: Mapping[str, type[AnyTask]] = {
    "classes": ClassesTask,
    "labels": LabelsTask,
    "number": NumberTask,
    "choices": ChoicesTask,
    "iob2": Iob2Task,
    "tags": TagsTask,
    "spans": SpansTask,
    "start_end": StartEndTask,
}
"""The class that validates a task, by `labels.scheme`."""


def scheme_of(value: Any) -> str | None:
    """The label scheme of a task, raw or validated; None if it says none."""
    if isinstance(value, AnyTask):
        return value.labels.scheme
    labels: object = value.get("labels") if isinstance(value, dict) else None
    scheme: object = labels.get("scheme") if isinstance(labels, dict) else None
    return scheme if isinstance(scheme, str) else None


Task: Any = Annotated[
    Union[tuple(Annotated[task, Tag(scheme)] for scheme, task in TASK_SECTIONS.items())],  # noqa: UP007 - made, not written
    Discriminator(scheme_of),
]
"""Any task; `labels.scheme` says which class validates it."""
