"""Words of a plain text, and spans over words as places in it."""

from __future__ import annotations

import re
from collections.abc import Sequence

_WORD = re.compile(r"\w+(?:[-'\u2019.&]\w+)*|[^\w\s]")
_FINE = re.compile(r"\w+|[^\w\s]")


def split_words(text: str) -> list[str]:
    """The words of a text: letters and digits, with hyphens, apostrophes, dots and `&` between them; every other
    character that is not a blank is a word of its own."""
    return _WORD.findall(text)


def fine_places(text: str) -> list[tuple[int, int]]:
    """First character and end of each run of letters and digits, and of every other character that is not a blank."""
    return [match.span() for match in _FINE.finditer(text)]


def word_places(text: str, words: Sequence[str]) -> list[tuple[int, int]]:
    """First character and end of each word, which stand in the text in this order."""
    places: list[tuple[int, int]] = []
    end = 0
    for word in words:
        start = text.index(word, end)
        end = start + len(word)
        places.append((start, end))
    return places


def spans_of(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Type, first word and last word of each IOB2 span. An `I-` that continues no span of its type is outside, as in
    seqeval's strict mode."""
    spans: list[tuple[str, int, int]] = []
    for position, tag in enumerate(tags):
        kind = tag[2:]
        if tag.startswith("B-"):
            spans.append((kind, position, position))
        elif tag.startswith("I-") and spans and spans[-1][0] == kind and spans[-1][2] == position - 1:
            spans[-1] = (kind, spans[-1][1], position)
    return spans
