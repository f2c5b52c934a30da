"""The task file's `input`: how a row becomes what the model reads. One class for each shape of input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt

from ptv2kit.spec.base import Fault, Section
from ptv2kit.spec.rows import Column
from ptv2kit.spec.template import TemplateText, no_column

MaxLength = Annotated[int, Field(ge=8)]


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
