"""Semantic roles with one predicate a line, as prepared by He et al. (2017)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ptv2kit.data.rows import Row
from ptv2kit.data.sources.lines import read_lines
from ptv2kit.data.sources.sentences import WHITESPACE
from ptv2kit.errors import DataError

_BAR = "|||"
_MOST_DIGITS = 18  # Python refuses to convert thousands of them


def read_srl_lines(path: Path) -> Iterator[Row]:
    """One row for each line `index tokens ||| tags` that is not blank: `tokens`, `predicate_index` (from 0), `tags`.

    Raises:
        DataError: the file is unreadable, or a line has no bar, no index within its tokens, or another number of tags.
    """
    for number, line in read_lines(path):
        if not line.strip():
            continue
        location = f"{path}:{number}"
        # The last bar, since a token could be one.
        left, bar, right = line.rpartition(_BAR)
        if not bar:
            raise DataError(f"expected 'index tokens {_BAR} tags'. Got no {_BAR}", location=location)
        index, *tokens = _fields(left)
        tags = _fields(right)
        if len(tokens) != len(tags):
            raise DataError(f"{len(tokens)} tokens but {len(tags)} tags", location=location)
        if not index.isdecimal() or len(index) > _MOST_DIGITS or int(index) >= len(tokens):
            raise DataError(
                f"the line must begin with the index of its predicate, below {len(tokens)}. Got '{index[:40]}'",
                location=location,
                hint="indices count from 0",
            )
        yield Row({"tokens": tokens, "predicate_index": int(index), "tags": tags}, location)


def _fields(text: str) -> list[str]:
    return WHITESPACE.split(text.strip(" \t\r\n"))
