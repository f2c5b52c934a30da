"""The task file: what the data means. One class for each label scheme; `labels.scheme` says which.

A new scheme adds its input, labels and task class here, one module in `ptv2kit/data/schemes` that is called like it,
and, only if its logits belong to a unit that no other scheme has, a head. The rest of the code asks a task; it does not
ask which scheme it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self, Union

from pydantic import Discriminator, Field, NonNegativeInt, PositiveInt, Tag

from ptv2kit.spec.base import Fault, Name, Section, below
from ptv2kit.spec.rows import Column, Derivation, Expansion, Replacement
from ptv2kit.spec.sources import DataSource, GoldConllSource
from ptv2kit.spec.template import MASK, TemplateText, no_column, parse_template
from ptv2kit.spec.verbalizer import Words, mask_faults, unused_faults, word_faults

MaxLength = Annotated[int, Field(ge=8)]
Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
Unit = Literal["sequence", "choices", "token", "start_end"]
"""What has logits, of a linear head: an input as a whole, each of several inputs, each token, each token twice."""
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

    def faults(self) -> Iterator[Fault]:
        """Texts that are the same for every row, and a pair that is not there."""
        yield from no_column(("text",), (self.text, self.pair or ""), "{text}", "input.text")
        if self.truncate == "pair" and self.pair is None:
            yield Fault(("truncate",), "'input.truncate' is pair, but there is no 'input.pair'")


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

    def faults(self) -> Iterator[Fault]:
        """Choices that are the same, for every row or among themselves."""
        if len(set(self.choices)) < len(self.choices):
            yield Fault(("choices",), "'input.choices' has the same choice twice")
        for index, choice in enumerate(self.choices):
            yield from no_column(("choices", index), (choice,), "{choice1}", f"input.choices[{index}]")


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

    def faults(self) -> Iterator[Fault]:
        """Texts that are the same for every row, and windows that do not advance."""
        yield from no_column(("question",), (self.question,), "{question}", "input.question")
        yield from no_column(("context",), (self.context,), "{context}", "input.context")
        if self.stride >= self.max_length:
            message = f"'input.stride' must be less than 'input.max_length' ({self.max_length}), found {self.stride}"
            yield Fault(("stride",), message)


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

    def faults(self) -> Iterator[Fault]:
        """Columns of two layouts, and a threshold that is never used."""
        if (self.column is None) == (self.text is None):
            hint = "column for SQuAD's layout; text, with start if there is one, for columns of their own"
            yield Fault((), "'labels' must have either 'column' or 'text'", hint, at_key=True)
        if self.start is not None and self.text is None:
            yield Fault(("start",), "'labels.start' needs 'labels.text'")
        if not self.unanswerable and "null_threshold" in self.model_fields_set and self.null_threshold:
            yield Fault(("null_threshold",), "'labels.null_threshold' needs 'labels.unanswerable: true'")


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

    def faults(self) -> Iterator[Fault]:
        """Settings that contradict each other."""
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

    def _mask_column_faults(self) -> Iterator[Fault]:
        """Columns that a verbalizer's mask would hide."""
        made: list[tuple[str | int, ...]] = [("derive", name) for name in self.derive if name == MASK]
        made += [("expand", number, "item") for number, step in enumerate(self.expand) if step.item == MASK]
        message = "a column 'mask' would be hidden by '{mask}', where the words belong"
        return (Fault(path, message, "give the column another name", at_key=True) for path in made)


class ClassesTask(TaskBase):
    """A task with one class per row: sentiment, inference, yes/no questions."""

    hub_task: ClassVar[tuple[str, str]] = ("text-classification", "Text Classification")
    labels_are_words: ClassVar[bool] = True

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

    @property
    def names_from_train(self) -> bool:
        """See `TaskBase.names_from_train`."""
        return self.labels.names == "from_train"

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

    def input_columns(self) -> list[str]:
        """See `TaskBase.input_columns`."""
        return _columns(self.input.text, self.input.pair or "")

    def logits(self) -> tuple[Unit, int | None]:
        """One for each class."""
        return "sequence", None if self.names_from_train else len(self.labels.names)

    def faults(self) -> Iterator[Fault]:
        """See `TaskBase.faults`."""
        yield from super().faults()
        yield from _repeated(("labels", "names"), self.labels.names)
        yield from _repeated(("metrics",), self.metrics)
        names, group = self.labels.names, self.labels.group
        if self.head == "linear":
            yield from unused_faults(self)
        else:
            yield from mask_faults(self.mask_texts, "'input.text' or 'input.pair'")
            yield from self._mask_column_faults()
            known = tuple(dict.fromkeys(names.values())) if isinstance(names, dict) else names
            yield from word_faults(self.verbalizer, None if isinstance(known, str) else known)
        yield from below("input", self.input.faults())
        if isinstance(names, dict) and len(set(names.values())) < 2:
            yield Fault(("labels", "names"), "'labels.names' must name at least two classes")
        for index, metric in enumerate(self.metrics):
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
        return _columns(self.input.text, *self.input.choices)

    def logits(self) -> tuple[Unit, int | None]:
        """One for each choice."""
        return "choices", len(self.input.choices)

    def faults(self) -> Iterator[Fault]:
        """See `TaskBase.faults`."""
        yield from super().faults()
        yield from _repeated(("labels", "names"), self.labels.names)
        yield from _repeated(("metrics",), self.metrics)
        if self.head == "linear":
            yield from unused_faults(self)
        else:
            yield from mask_faults(self.mask_texts, "'input.text'")
            if self.input.truncate == "pair":
                message = "'input.truncate' is pair, but a choice that fills a mask is never cut off"
                yield Fault(("input", "truncate"), message)
            for index, choice in enumerate(self.input.choices):
                if MASK in parse_template(choice).columns:
                    message = "a choice cannot hold '{mask}': it is what fills the mask in 'input.text'"
                    yield Fault(("input", "choices", index), message)
            yield from self._mask_column_faults()
        yield from below("input", self.input.faults())
        names, choices = self.labels.names, self.input.choices
        if names is not None and len(names) != len(choices):
            message = f"'labels.names' has {len(names)} names for {len(choices)} choices"
            yield Fault(("labels", "names"), message)


class Iob2Task(TaskBase):
    """A task with spans over words: named entities, chunks, semantic roles."""

    hub_task: ClassVar[tuple[str, str]] = ("token-classification", "Token Classification")
    reads_words: ClassVar[bool] = True
    labels_are_words: ClassVar[bool] = True

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

    @property
    def names_from_train(self) -> bool:
        """See `TaskBase.names_from_train`."""
        return self.labels.names == "from_train"

    def input_columns(self) -> list[str]:
        """See `TaskBase.input_columns`."""
        append = self.input.append
        return [self.input.words, *([] if append is None else [append.column, append.at])]

    def logits(self) -> tuple[Unit, int | None]:
        """One for each tag: `O`, and two of each type."""
        names = self.labels.names
        types = names.values() if isinstance(names, dict) else names
        return "token", None if self.names_from_train else 1 + 2 * len(set(types))

    def faults(self) -> Iterator[Fault]:
        """See `TaskBase.faults`."""
        yield from super().faults()
        yield from _repeated(("labels", "names"), self.labels.names)
        yield from _repeated(("metrics",), self.metrics)
        yield from below("labels", self.labels.faults())

    def with_names(self, names: Sequence[str]) -> Self:
        """See `TaskBase.with_names`; the names are tags, and what is listed are types."""
        if self.labels.names != "from_train":
            return self
        types = tuple(dict.fromkeys(name.partition("-")[2] for name in names if "-" in name))
        return self.model_copy(update={"labels": self.labels.model_copy(update={"names": types})})


class StartEndTask(TaskBase):
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
        return _columns(self.input.question, self.input.context)

    def logits(self) -> tuple[Unit, int | None]:
        """Start and end."""
        return "start_end", 2

    def faults(self) -> Iterator[Fault]:
        """See `TaskBase.faults`."""
        yield from super().faults()
        yield from _repeated(("metrics",), self.metrics)
        yield from below("input", self.input.faults())
        yield from below("labels", self.labels.faults())
        for index, metric in enumerate(self.metrics):
            if not self.labels.unanswerable and metric not in ("squad_f1", "squad_exact_match"):
                yield Fault(("metrics", index), f"metric '{metric}' needs 'labels.unanswerable: true'")
        first = self.metrics[0]
        # Over the questions with, or without, an answer: a split may have none of them.
        if first.startswith(("squad_has_answer", "squad_no_answer")) or first.endswith("_threshold"):
            yield Fault(("metrics", 0), f"the first metric chooses the best epoch; '{first}' cannot")


def _repeated(path: tuple[str, ...], listed: object) -> Iterator[Fault]:
    """A list that names one thing twice; anything but a list names nothing."""
    twice = [name for name in listed if listed.count(name) > 1] if isinstance(listed, tuple) else []
    if twice:
        yield Fault(path, f"'{'.'.join(path)}' names '{twice[0]}' twice")


def _columns(*templates: str) -> list[str]:
    columns = [column for template in templates for column in parse_template(template).columns]
    return [column for column in dict.fromkeys(columns) if column != MASK]


AnyTask = ClassesTask | ChoicesTask | Iob2Task | StartEndTask
"""A task of any scheme."""

TASK_SECTIONS: Mapping[str, type[AnyTask]] = {
    "classes": ClassesTask,
    "choices": ChoicesTask,
    "iob2": Iob2Task,
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
