"""What is proposed for a task file, and how it is written there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import final

from ptv2kit.spec.yaml import quoted

MOST_LABELS = 200
"""Different values of what is taken for labels."""


@final
@dataclass(frozen=True)
class Proposal:
    """The sections of a task file.

    Args:
        scheme: that was recognised.
        why: what it was recognised by.
        sections: key to YAML text, in order, each with a comment or none.
        doubts: what a person should look at.
    """

    scheme: str
    why: str
    sections: Mapping[str, tuple[str, str]]
    doubts: tuple[str, ...]


def left_out(columns: Iterable[str], used: Iterable[str]) -> tuple[str, ...]:
    """What a person should know of columns that are not used."""
    unused = sorted(set(columns) - set(used))
    return (f"columns that the input leaves out: {', '.join(unused)}",) if unused else ()


def longest(words: Iterable[int], pieces: int) -> int:
    """A `max_length` that holds nearly all rows: a multiple of 32, at most 512."""
    ordered = sorted(words)
    most = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return min(512, max(32, -(-(most * pieces + 3) // 32) * 32))


def template(column: str) -> str:
    """A template that is a column alone, quoted."""
    return quoted(f"{{{column}}}")


def key(text: str) -> str:
    """A text in a YAML flow mapping."""
    simple = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", text) and text.lower() not in (
        "true",
        "false",
        "null",
        "yes",
        "no",
    )
    return text if simple else quoted(text)


def plain(value: bool) -> str:
    """`true` or `false`."""
    return str(value).lower()
