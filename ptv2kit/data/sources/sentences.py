"""What readers of CoNLL corpora share: sentences of lines with columns, and roles in bracket columns."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

from ptv2kit.data.rows import Row
from ptv2kit.data.sources.lines import read_lines
from ptv2kit.data.spans import SpanError, iob2_from_brackets
from ptv2kit.errors import DataError

# ASCII only: a no-break space occurs inside tokens.
WHITESPACE = re.compile(r"[ \t]+")
TAB = re.compile(r"\t")


@final
@dataclass(frozen=True, slots=True)
class Sentence:
    """Lines that follow each other, all with the same number of columns.

    Args:
        first_line: number of the first line, from 1.
        lines: the columns of each line; at least one line.
    """

    path: Path
    first_line: int
    lines: list[list[str]]

    @property
    def width(self) -> int:
        """How many columns there are."""
        return len(self.lines[0])

    def location(self, index: int = 0) -> str:
        """`path:line` of line `index`, from 0."""
        return f"{self.path}:{self.first_line + index}"

    def column(self, index: int) -> list[str]:
        """The values of a column."""
        return [fields[index] for fields in self.lines]

    def bracket_tags(self, column: int) -> list[str]:
        """IOB2 tags of a bracket column.

        Raises:
            DataError: the brackets are malformed.
        """
        try:
            return iob2_from_brackets(self.column(column))
        except SpanError as error:
            raise DataError(f"column {column + 1}: {error}", location=self.location(error.position)) from error

    def predicate_row(self, tokens: list[str], column: int, **predicate: str) -> Row:
        """A row with `tokens`, `predicate_index`, what is in `predicate`, and the roles in bracket column `column` as
        `tags`. The predicate is where the span V begins: that is not always the line with its lemma.

        Raises:
            DataError: the brackets are malformed, or there is not one span V.
        """
        tags = self.bracket_tags(column)
        if tags.count("B-V") != 1:
            raise DataError(
                f"column {column + 1} must have one span V, its predicate. Got {tags.count('B-V')}",
                location=self.location(),
            )
        index = tags.index("B-V")
        return Row({"tokens": tokens, "predicate_index": index, **predicate, "tags": tags}, self.location(index))


def read_sentences(
    path: Path, *, separator: re.Pattern[str] = WHITESPACE, boundaries: tuple[str, ...] = ()
) -> Iterator[Sentence]:
    """The sentences of a file; blank lines, and lines that begin with one of `boundaries`, part them.

    Raises:
        DataError: the file is unreadable, or a line has more or fewer columns than the first one of its sentence.
    """
    sentence: Sentence | None = None
    for number, line in read_lines(path):
        content = line.rstrip("\r\n")
        if not content.strip(" \t") or (boundaries and content.startswith(boundaries)):
            if sentence is not None:
                yield sentence
            sentence = None
            continue
        fields = separator.split(content.strip(" \t") if separator is WHITESPACE else content)
        if sentence is None:
            sentence = Sentence(path, number, [fields])
        elif len(fields) != sentence.width:
            raise DataError(
                f"expected {sentence.width} columns as in the first line of the sentence. Got {len(fields)}",
                location=f"{path}:{number}",
                hint="a blank line parts sentences",
            )
        else:
            sentence.lines.append(fields)
    if sentence is not None:
        yield sentence
