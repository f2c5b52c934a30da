"""What a text or words become: sub-word ids, and what has to be known of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that is scored within an input.

    Args:
        number: which one of its row's answers it is.
        places: indices of the input whose hidden states predict its tokens.
        ids: its tokens; empty if the words of all classes are compared at the one place.
    """

    number: int
    places: tuple[int, ...]
    ids: tuple[int, ...] = ()


@final
@dataclass(frozen=True, slots=True)
class Cloze:
    """What an input with a missing word has besides its ids.

    Args:
        answers: that are scored in it.
        positions: of the original GLM: positions and block positions.
        context: of the original GLM: how many ids all others see.
    """

    answers: tuple[Answer, ...]
    positions: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    context: int = 0


@final
@dataclass(frozen=True, slots=True)
class Whole:
    """A text, or a pair, that is not shortened.

    Args:
        ids: sub-word ids with special tokens.
        segments: segment of each id, or None where the backbone has none.
        sides: for each id 0 or 1, the text that it is of; None for special tokens.
        spans: for each id its first character in its text and its end there, without white space around it.
    """

    ids: tuple[int, ...]
    segments: tuple[int, ...] | None
    sides: tuple[int | None, ...]
    spans: tuple[tuple[int, int], ...]


@final
@dataclass(frozen=True, slots=True)
class Encoding:
    """One input.

    Args:
        ids: sub-word ids with special tokens.
        segments: segment of each id, or None where the backbone has none.
        words: of an input of words, for each id the index of its word, None for special tokens and for an appended
            word; empty of a text.
        truncated: whether something was cut off.
        cloze: what it has if a word is missing in it.
    """

    ids: tuple[int, ...]
    segments: tuple[int, ...] | None
    words: tuple[int | None, ...]
    truncated: bool
    cloze: Cloze | None = None


@final
@dataclass(frozen=True, slots=True)
class Window:
    """A question with a piece of a passage.

    Args:
        spans: for each id of the passage its first character and its end there; None for all other ids.
    """

    encoding: Encoding
    spans: tuple[tuple[int, int] | None, ...]
