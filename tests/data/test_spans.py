"""Span encodings become IOB2."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptv2kit.data.spans import SpanError, iob2_from_brackets, iob2_from_iob1, iob2_from_iobes

Span = tuple[int, int, str]


@st.composite
def sentences(draw: st.DrawFn) -> tuple[int, list[Span]]:
    """A length, and spans `(first, last, type)` that do not overlap but may touch."""
    spans: list[Span] = []
    length = 0
    for gap, size, name in draw(
        st.lists(
            st.tuples(st.integers(0, 2), st.integers(1, 4), st.sampled_from(["PER", "A0", "C-ARG1", "AM-TMP"])),
            max_size=6,
        )
    ):
        spans.append((length + gap, length + gap + size - 1, name))
        length += gap + size
    return length + draw(st.integers(0, 2)), spans


def iob2(length: int, spans: list[Span]) -> list[str]:
    tags = ["O"] * length
    for first, last, name in spans:
        tags[first : last + 1] = [f"{'B' if place == first else 'I'}-{name}" for place in range(first, last + 1)]
    return tags


@given(sentences(), st.booleans())
def test_brackets_return_what_was_written(sentence: tuple[int, list[Span]], short: bool) -> None:
    length, spans = sentence
    opening = {first: f"({name}" for first, _, name in spans}
    closing = {last for _, last, _ in spans}
    cells = [f"{opening.get(place, '')}*{')' if place in closing else ''}" for place in range(length)]
    if short:
        # CoNLL-2012 writes an entity of one word without the star.
        cells = [cell.replace("*", "") if cell[0] == "(" and cell[-1] == ")" else cell for cell in cells]
    assert iob2_from_brackets(cells) == iob2(length, spans)


@given(sentences())
def test_iob1_returns_what_was_written(sentence: tuple[int, list[Span]]) -> None:
    length, spans = sentence
    tags = ["O"] * length
    touched = {(last + 1, name) for _, last, name in spans}
    for first, last, name in spans:
        tags[first : last + 1] = [f"I-{name}"] * (last + 1 - first)
        if (first, name) in touched:
            tags[first] = f"B-{name}"
    assert iob2_from_iob1(tags) == iob2(length, spans)


@given(sentences())
def test_iob2_stays_as_it_is(sentence: tuple[int, list[Span]]) -> None:
    tags = iob2(*sentence)
    assert iob2_from_iob1(tags) == tags


@given(sentences(), st.sampled_from(["SBIE", "UBIL"]))
def test_iobes_returns_what_was_written(sentence: tuple[int, list[Span]], letters: str) -> None:
    single, begin, inner, end = letters
    length, spans = sentence
    tags = ["O"] * length
    for first, last, name in spans:
        inside = last - first - 1
        shape = [single] if first == last else [begin, *[inner] * inside, end]
        tags[first : last + 1] = [f"{letter}-{name}" for letter in shape]
    assert iob2_from_iobes(tags) == iob2(length, spans)


@pytest.mark.parametrize(
    ("read", "items", "position", "message"),
    [
        (iob2_from_iob1, ["O", "PER"], 1, "tag 2 of 2, 'PER', is none of O, B-<type>, I-<type>"),
        (iob2_from_iob1, ["I-"], 0, "tag 1 of 1, 'I-', is none of"),
        (iob2_from_iob1, ["S-PER"], 0, "tag 1 of 1, 'S-PER', is none of"),
        (iob2_from_iob1, ["BI-PER"], 0, "tag 1 of 1, 'BI-PER', is none of"),
        (iob2_from_iob1, ["-PER"], 0, "tag 1 of 1, '-PER', is none of"),
        (iob2_from_iob1, [""], 0, "tag 1 of 1, '', is none of"),
        (iob2_from_iobes, ["X-PER"], 0, "tag 1 of 1, 'X-PER', is none of O, B-<type>, I-<type>, E-<type>"),
        (iob2_from_iobes, ["O", "I-PER"], 1, "tag 2 of 2, 'I-PER', continues no PER span"),
        (iob2_from_iobes, ["B-PER", "E-LOC"], 1, "tag 2 of 2, 'E-LOC', continues no LOC span"),
        (iob2_from_iobes, ["S-PER", "L-PER"], 1, "tag 2 of 2, 'L-PER', continues no PER span"),
        (iob2_from_iobes, ["B-PER", "E-PER", "I-PER"], 2, "tag 3 of 3, 'I-PER', continues no PER span"),
        (iob2_from_iobes, ["B-PER", "O"], 1, "tag 2 of 2, 'O', follows a PER span that has no end"),
        (iob2_from_iobes, ["B-PER", "I-PER", "S-PER"], 2, "tag 3 of 3, 'S-PER', follows a PER span that has no end"),
        (iob2_from_iobes, ["O", "B-PER"], 1, "tag 2 of 2, 'B-PER', leaves the PER span without an end"),
        (iob2_from_brackets, ["*", "(A0"], 1, "cell 2 of 2, '(A0', is not like (A0*, *, *) or (A0*)"),
        (iob2_from_brackets, ["(A0(A1*", "*))"], 0, "cell 1 of 2, '(A0(A1*', is not like"),
        (iob2_from_brackets, ["(A0*", "*))"], 1, "cell 2 of 2, '*))', is not like"),
        (iob2_from_brackets, ["(A0*", ")"], 1, "cell 2 of 2, ')', is not like"),
        (iob2_from_brackets, ["(*)"], 0, "cell 1 of 1, '(*)', is not like"),
        (iob2_from_brackets, ["-"], 0, "cell 1 of 1, '-', is not like"),
        (iob2_from_brackets, [""], 0, "cell 1 of 1, '', is not like"),
        (iob2_from_brackets, ["(A0*", "(A1*)"], 1, "cell 2 of 2, '(A1*)', opens a span within a span A0"),
        (iob2_from_brackets, ["(A0*)", "*)"], 1, "cell 2 of 2, '*)', closes a span that is not open"),
        (iob2_from_brackets, ["*", "(A0*", "*"], 1, "cell 2 of 3, '(A0*', opens a span that is never closed"),
    ],
)
def test_malformed(read: Callable[[Sequence[str]], list[str]], items: list[str], position: int, message: str) -> None:
    with pytest.raises(SpanError) as info:
        read(items)
    assert message in str(info.value)
    assert info.value.position == position


@pytest.mark.parametrize("read", [iob2_from_iob1, iob2_from_iobes, iob2_from_brackets])
def test_nothing_stays_nothing(read: Callable[[Sequence[str]], list[str]]) -> None:
    assert read([]) == []
