"""The task file's `input`: how a row becomes what the model reads. One class for each shape of input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt

from ptv2kit.spec.base import Fault, Section
from ptv2kit.spec.rows import Column
from ptv2kit.spec.template import OPTION, TemplateText, no_column, parse_template

MaxLength = Annotated[int, Field(ge=8)]


def _stride_faults(stride: int, max_length: int) -> Iterator[Fault]:
    if stride >= max_length:
        yield Fault(("stride",), f"'input.stride' must be less than 'input.max_length' ({max_length}), found {stride}")


class InputBase(Section):
    """What inputs of all schemes answer."""

    def faults(self) -> Iterator[Fault]:
        """Settings that contradict each other."""
        raise NotImplementedError


class TextInput(InputBase):
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


class ChoicesInput(InputBase):
    """One text with several continuations, each of which becomes a pair `text`, choice."""

    text: TemplateText
    """The text that the choices have in common."""
    choices: Annotated[tuple[TemplateText, ...], Field(strict=False, min_length=2)] | None = None
    """The choices in order, where every row has as many."""
    options: Column | None = None
    """Instead of `choices`: the column with the list of options, whose number may differ from row to row, such as
    `choices.text`."""
    option: TemplateText = "{option}"
    """Of `options`, how each reads, such as `"{question} {option}"`."""
    truncate: Literal["longest", "text", "pair"] = "longest"
    """What is shortened if text and choice together exceed `max_length`; `pair` is the choice."""
    max_length: MaxLength = 256
    """Longest input in sub-word tokens, special tokens included, prompt not included."""

    def faults(self) -> Iterator[Fault]:
        """Choices that are the same, for every row or among themselves."""
        choices = self.choices or ()
        if bool(choices) == (self.options is not None):
            hint = "choices for a fixed number of them, options for the column with a list"
            yield Fault((), "'input' must have either 'choices' or 'options'", hint, at_key=True)
        if OPTION not in parse_template(self.option).columns:
            yield Fault(("option",), "'input.option' needs '{option}'")
        if len(set(choices)) < len(choices):
            yield Fault(("choices",), "'input.choices' has the same choice twice")
        for index, choice in enumerate(choices):
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


class WordsInput(InputBase):
    """Words that are already split."""

    words: Column
    """The column with the list of words."""
    append: AppendedWord | None = None
    """A word repeated after the sentence; it is never cut off and never scored."""
    max_length: MaxLength = 256
    """Longest input in sub-word tokens, special tokens included, prompt not included."""
    stride: NonNegativeInt = 0
    """Sub-words that two neighbouring windows of a longer sentence share; 0: a longer sentence is cut off, and the
    words behind the cut are tagged `O`, as in the official code, or with `scheme: tags` not at all."""

    def columns(self) -> list[str]:
        """The columns that are read."""
        return [self.words, *([] if self.append is None else [self.append.column, self.append.at])]

    def faults(self) -> Iterator[Fault]:
        """Windows that do not advance."""
        yield from _stride_faults(self.stride, self.max_length)


class SpansInput(InputBase):
    """A text whose words are found in it: letters and digits, every other character by itself."""

    text: Column
    """The column with the text."""
    max_length: MaxLength = 256
    """Longest input in sub-word tokens, special tokens included, prompt not included."""
    stride: NonNegativeInt | None = None
    """Sub-words that two neighbouring windows of a longer text share; null: a quarter of `max_length`; 0: a longer text
    is cut off, and no span is found behind the cut."""

    def faults(self) -> Iterator[Fault]:
        """Windows that do not advance."""
        yield from _stride_faults(self.stride or 0, self.max_length)


class QuestionInput(InputBase):
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
        yield from _stride_faults(self.stride, self.max_length)
