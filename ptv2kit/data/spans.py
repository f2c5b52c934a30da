"""From other ways to write spans over words to IOB2 tags."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal, final

Form = Literal["B-PER", "B_PER", "PER-B", "PER_B"]
"""How a tag joins the letter of its place in the span and the span's type, by the example of a person's first word."""

Encoding = Literal["iob2", "iob1", "iobes", "bilou", "bmes", "io"]
"""Which letters a data set uses for the places of words in spans."""

_OUTSIDE = "O"
_FORMS: dict[Form, re.Pattern[str]] = {
    "B-PER": re.compile(r"(?P<letter>[A-Z])-(?P<type>.+)"),
    "B_PER": re.compile(r"(?P<letter>[A-Z])_(?P<type>.+)"),
    "PER-B": re.compile(r"(?P<type>.+)-(?P<letter>[A-Z])"),
    "PER_B": re.compile(r"(?P<type>.+)_(?P<letter>[A-Z])"),
}
_LETTERS: dict[Encoding, set[str]] = {
    "iob2": set("BI"),
    "iobes": set("BIES"),
    "bmes": set("BMES"),
    "bilou": set("BILU"),
}
_CELL = re.compile(r"(?:\((?P<long>[^\s()*]+))?\*\)?|\((?P<short>[^\s()*]+)\)")


@final
class SpanError(ValueError):
    """A sequence that does not write spans.

    Args:
        position: index of the tag or cell at fault, from 0.
    """

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position


def to_iob2(tags: Sequence[str], encoding: Encoding, form: Form) -> list[str]:
    """Rewrite tags as IOB2 with the letter in front, `B-PER`.

    Tags of `iob2` are only brought into that form; whether they follow each other rightly is not checked.

    Raises:
        SpanError: a tag is not of the encoding or the form.
    """
    if encoding == "io":
        return _iob2_from_io(tags, form)
    plain = [tag if tag == _OUTSIDE else _in_front(tags, position, form) for position, tag in enumerate(tags)]
    match encoding:
        case "iob2":
            return plain
        case "iob1":
            return iob2_from_iob1(plain)
        case "bmes":
            return iob2_from_iobes([f"I{tag[1:]}" if tag.startswith("M-") else tag for tag in plain])
        case "iobes" | "bilou":
            return iob2_from_iobes(plain)


def style_of(tags: Iterable[str]) -> tuple[Encoding, Form] | None:
    """How tags are written, by the letters in them; None if they are not tags or only `O`. IOB1 counts as IOB2."""
    marked = [tag for tag in tags if tag != _OUTSIDE]
    form = _form_of(marked)
    if form is None:
        return None
    letters = {_letter(tag, form) for tag in marked}
    return next(((encoding, form) for encoding, known in _LETTERS.items() if letters <= known), None)


def written_otherwise(tags: Sequence[str]) -> str:
    """Which encoding and form tags seem to have, as the keys of a task; empty if they look like plain IOB2."""
    marked = [tag for tag in tags if tag != _OUTSIDE]
    form, style = _form_of(marked), style_of(marked)
    if form is None:
        return "encoding: io" if marked and not any("-" in tag or "_" in tag for tag in marked) else ""
    keys = [] if form == "B-PER" else [f'form: "{form}"']
    keys += [f"encoding: {style[0]}"] if style is not None and style[0] != "iob2" else []
    return ", ".join(keys)


def _form_of(marked: Sequence[str]) -> Form | None:
    """The form that all tags but `O` have, None without any."""
    return next((form for form in _FORMS if marked and all(map(_FORMS[form].fullmatch, marked))), None)


def _letter(tag: str, form: Form) -> str:
    match = _FORMS[form].fullmatch(tag)
    assert match is not None, "the form fits all tags"
    return match["letter"]


def _in_front(tags: Sequence[str], position: int, form: Form) -> str:
    """A tag in the form `B-PER`."""
    match = _FORMS[form].fullmatch(tags[position])
    if match is None:
        raise SpanError(f"{_nth('tag', tags, position)}, is not of the form {form}", position)
    return f"{match['letter']}-{match['type']}"


def _iob2_from_io(tags: Sequence[str], form: Form) -> list[str]:
    """`io`: words with the same type that follow each other are one span, with or without an `I` at each word."""
    types = list(tags)
    for position, tag in enumerate(tags):
        match = _FORMS[form].fullmatch(tag)
        if match is not None and match["letter"] == "I":
            types[position] = match["type"]
    before = [_OUTSIDE, *types]
    return [
        name if name == _OUTSIDE else f"{'I' if name == previous else 'B'}-{name}"
        for previous, name in zip(before, types, strict=False)
    ]


def iob2_from_iob1(tags: Sequence[str]) -> list[str]:
    """IOB1 has `B-` only where a span touches one of its own type before it. IOB2 tags stay as they are.

    Raises:
        SpanError: a tag is not `O`, `B-<type>` or `I-<type>`.
    """
    found: list[str] = []
    previous = ""
    for position, tag in enumerate(tags):
        prefix, name = _split(tags, position, "BI")
        found.append(f"B-{name}" if prefix == "I" and name != previous else tag)
        previous = name
    return found


def iob2_from_iobes(tags: Sequence[str]) -> list[str]:
    """IOBES and BILOU: `S-` or `U-` is a span of one word, `E-` or `L-` ends a longer one.

    Raises:
        SpanError: a tag has another form, or does not fit to the one before it, or the last span has no end.
    """
    found: list[str] = []
    inside = ""
    for position in range(len(tags)):
        prefix, name = _split(tags, position, "BIESLU")
        continues = prefix in ("I", "E", "L")
        if continues and name != inside:
            raise SpanError(f"{_nth('tag', tags, position)}, continues no {name} span", position)
        if inside and not continues:
            raise SpanError(f"{_nth('tag', tags, position)}, follows a {inside} span that has no end", position)
        inside = name if prefix in ("B", "I") else ""
        found.append(f"{'I' if continues else 'B'}-{name}" if name else _OUTSIDE)
    if inside:
        raise SpanError(f"{_nth('tag', tags, len(tags) - 1)}, leaves the {inside} span without an end", len(tags) - 1)
    return found


def iob2_from_brackets(cells: Sequence[str]) -> list[str]:
    """One bracket column of a CoNLL file: `(A0*` opens, `*)` closes, `(V*)` and `(V)` do both, `*` does neither.

    Raises:
        SpanError: a cell has another form, or spans are nested, or a bracket lacks its partner.
    """
    found: list[str] = []
    inside = ""
    opened = 0
    for position, cell in enumerate(cells):
        match = _CELL.fullmatch(cell)
        if match is None:
            raise SpanError(f"{_nth('cell', cells, position)}, is not like (A0*, *, *) or (A0*)", position)
        opens = match["long"] or match["short"]
        if opens and inside:
            raise SpanError(f"{_nth('cell', cells, position)}, opens a span within a span {inside}", position)
        if opens:
            inside, opened = opens, position
        found.append(f"{'B' if opens else 'I'}-{inside}" if inside else _OUTSIDE)
        if cell.endswith(")"):
            if not inside:
                raise SpanError(f"{_nth('cell', cells, position)}, closes a span that is not open", position)
            inside = ""
    if inside:
        raise SpanError(f"{_nth('cell', cells, opened)}, opens a span that is never closed", opened)
    return found


def _split(tags: Sequence[str], position: int, prefixes: str) -> tuple[str, str]:
    """Prefix and type of a tag; both are empty for `O`."""
    prefix, _, name = tags[position].partition("-")
    if tags[position] == _OUTSIDE:
        return "", ""
    if len(prefix) != 1 or prefix not in prefixes or not name:
        forms = ", ".join(f"{letter}-<type>" for letter in prefixes)
        raise SpanError(f"{_nth('tag', tags, position)}, is none of O, {forms}", position)
    return prefix, name


def _nth(noun: str, items: Sequence[str], position: int) -> str:
    return f"{noun} {position + 1} of {len(items)}, '{items[position]}'"
