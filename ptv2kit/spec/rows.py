"""The task file's `expand` and `derive`: how rows and columns are made from those of the data. No code, only these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from ptv2kit.spec.base import Section
from ptv2kit.spec.template import TemplateText

Column = Annotated[str, Field(min_length=1)]
"""A column of the data; `a.b` is field `b` of column `a`, `a.0` its first item, `a.*.b` field `b` of each item."""


def _with_word(mark: str) -> str:
    if "{word}" not in mark:
        raise ValueError("needs '{word}' where the word stands")
    return mark


def _with_span(mark: str) -> str:
    if "{span}" not in mark:
        raise ValueError("needs '{span}' where the span stands")
    return mark


class Expansion(Section):
    """One row for each item of a list, with all other columns repeated."""

    column: Column
    """The column with the list; a row whose list is empty vanishes."""
    item: Annotated[str, Field(min_length=1)]
    """The new column that holds the item."""


class Lookup(Section):
    """The value of another column, looked up in a table."""

    column: Column
    """The column whose value is looked up."""
    map: dict[str, str] = Field(min_length=1)
    """Value to result; a value that is missing here is an error."""


class Replacement(Section):
    """A text in which pieces are replaced."""

    text: TemplateText
    """The text."""
    replace: dict[str, TemplateText] = Field(min_length=1)
    """Piece to what stands in its place, one after the other; what a piece becomes may name columns."""


class Membership(Section):
    """Whether a column's text is one of a list's: true or false."""

    column: Column
    """The column with the text."""
    among: Column
    """The column with the list of texts."""


class Marking(Section):
    """A text whose word at an index is marked. Words are what blanks part; they are joined with single blanks."""

    column: Column
    """The column with the text."""
    word: Column
    """The column with the word's index, from 0."""
    mark: Annotated[str, AfterValidator(_with_word)]
    """What the word becomes, such as `*{word}*`."""


class Slice(Section):
    """A piece of a text."""

    column: Column
    """The column with the text."""
    start: Column
    """The column with the first character's index, from 0."""
    end: Column
    """The column with the end's index."""
    inclusive: bool = False
    """Whether the character at `end` belongs to the piece."""


class Splitting(Section):
    """A text as a list of words."""

    column: Column
    """The column with the text."""
    split: Annotated[str, Field(min_length=1)]
    """What parts the words, such as a blank."""


class Parsing(Section):
    """What a text writes, as tables keep lists: a list, a mapping, a number."""

    column: Column
    """The column with the text."""
    parse: Literal["json", "python"]
    """How it is written: `["Ada", "left"]` in JSON, `['Ada', 'left']` by Python, as pandas does."""


class Flags(Section):
    """The names of those columns that hold yes, such as the labels of a table with a column for each."""

    flags: Annotated[tuple[Column, ...], Field(strict=False, min_length=2)]
    """The columns. Yes is 1, true or yes; no is 0, false, no, an empty text or null."""


class Mark(Section):
    """How a span is marked."""

    start: Column
    """The column with the first character's, or word's, index, from 0."""
    end: Column
    """The column with the end's index."""
    mark: Annotated[str, AfterValidator(_with_span)]
    """What the span becomes, such as `[{span}]`."""


class SpanMarking(Section):
    """A text whose spans are marked, such as the two entities of a relation."""

    column: Column
    """The column with the text, or with the list of words, which are joined with blanks."""
    marks: Annotated[tuple[Mark, ...], Field(strict=False, min_length=1)]
    """The spans; they must not overlap. Of a text they count characters, of a list words."""
    inclusive: bool = False
    """Whether what is at `end` belongs to the span."""


class Joining(Section):
    """A list as one text."""

    column: Column
    """The column with the list of texts, or of lists of texts, such as paragraphs of sentences."""
    join: str
    """What stands between two of its items."""
    within: str = " "
    """What stands between the texts of an inner list."""


class Previous(Section):
    """What a column held in the rows before, such as the last turns of a dialogue."""

    column: Column
    """The column with the text."""
    previous: Column
    """The column that is the same in rows that belong together, such as the dialogue's id; nothing is taken from rows
    of another group. The rows of a group follow each other in the data."""
    count: Annotated[int, Field(ge=1, le=64)] = 1
    """How many rows back."""
    join: str = " "
    """What stands between them; the oldest is first."""


_KINDS: Mapping[str, type[Section]] = {
    "map": Lookup,
    "replace": Replacement,
    "among": Membership,
    "mark": Marking,
    "marks": SpanMarking,
    "start": Slice,
    "split": Splitting,
    "parse": Parsing,
    "flags": Flags,
    "previous": Previous,
    "join": Joining,
}

DERIVATION_KEYS = tuple(_KINDS)
"""The keys that tell the kinds of `derive` apart."""


def derivation_kind(value: Any) -> str | None:
    """The key by which a derivation is told from the others; None if it has none of them."""
    if isinstance(value, dict):
        return next((key for key in _KINDS if key in value), None)
    return next((key for key, kind in _KINDS.items() if isinstance(value, kind)), None)


Derivation = Annotated[
    Annotated[Lookup, Tag("map")]
    | Annotated[Replacement, Tag("replace")]
    | Annotated[Membership, Tag("among")]
    | Annotated[Marking, Tag("mark")]
    | Annotated[SpanMarking, Tag("marks")]
    | Annotated[Slice, Tag("start")]
    | Annotated[Splitting, Tag("split")]
    | Annotated[Parsing, Tag("parse")]
    | Annotated[Flags, Tag("flags")]
    | Annotated[Previous, Tag("previous")]
    | Annotated[Joining, Tag("join")],
    Discriminator(derivation_kind),
]
"""A new column; the key that it has says of which kind."""
