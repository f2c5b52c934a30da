"""A document in each file, and fastText's lines."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from ptv2kit.data.rows import Fault, Row, raise_fault
from ptv2kit.data.sources.lines import LONGEST_ROW, read_lines
from ptv2kit.errors import DataError
from ptv2kit.spec.sources import BratSource, FastTextSource, TextsSource


def read_fasttext(path: Path, source: FastTextSource, *, on_fault: Fault = raise_fault) -> Iterator[Row]:
    """One row for each line that is not blank: `text`, `labels`, and `label`, the first of them.

    Raises:
        DataError: the file is unreadable.
    """
    for number, line in read_lines(path, encoding=source.encoding):
        words = line.split()
        labels = [word.removeprefix(source.prefix) for word in words if word.startswith(source.prefix)]
        text = " ".join(word for word in words if not word.startswith(source.prefix))
        location = f"{path}:{number}"
        if labels:
            yield Row({"text": text, "label": labels[0], "labels": labels}, location)
        elif words:
            hint = "labels begin with what 'data.prefix' says"
            on_fault(DataError(f"no word begins with '{source.prefix}'", location=location, hint=hint))


def read_text(path: Path, source: TextsSource, *, on_fault: Fault = raise_fault) -> Iterator[Row]:
    """The file as one row: `text`, `label`, the name of its folder, and `file`, its own name."""
    try:
        yield Row({"text": _whole(path, source.encoding), "label": path.parent.name, "file": path.name}, str(path))
    except DataError as error:
        on_fault(error)


def read_brat(path: Path, source: BratSource, *, on_fault: Fault = raise_fault) -> Iterator[Row]:
    """A document as one row: `text`, and `spans`, each `[start, end, type]`.

    Args:
        path: of the `.ann` file; the text is in the `.txt` file beside it.
        on_fault: receives a document whose files cannot be read, or with an entity that is malformed or whose words
            are not those of the text.
    """
    spans: list[list[Any]] = []
    try:
        text = _whole(path.with_suffix(".txt"), source.encoding)
        for number, line in read_lines(path, encoding=source.encoding):
            if line.startswith("T"):
                spans += _entity(line.rstrip("\r\n"), f"{path}:{number}", source, text)
    except DataError as error:
        on_fault(error)
    else:
        yield Row({"text": text, "spans": spans, "file": path.name}, str(path))


def _entity(line: str, location: str, source: BratSource, text: str) -> list[list[Any]]:
    """The span of a line such as `T1<tab>PER 0 4;9 12<tab>Anna Bell`; none if it is dropped."""
    fields = line.split("\t")
    name, _, places = fields[1].partition(" ") if len(fields) > 2 else ("", "", "")
    numbers = [piece.split() for piece in places.split(";")]
    if not name or not all(len(piece) == 2 and all(map(str.isdecimal, piece)) for piece in numbers):
        shown = "'T1', type, start and end, and the words, separated by tabs"
        raise DataError(f"expected {shown}. Got {line[:80]!r}", location=location)
    pieces = [(int(start), int(end)) for start, end in numbers]
    found = " ".join(" ".join(text[start:end].split()) for start, end in pieces)
    if found != " ".join(fields[2].split()):
        message = f"characters {places} of the text are {found[:80]!r}, not {fields[2][:80]!r}"
        raise DataError(message, location=location, hint="the text was changed, or is read with another data.encoding")
    gaps = [text[end:start] for (_, end), (start, _) in pairwise(pieces)]
    if not any(gap.strip() for gap in gaps):  # brat itself ends a piece at the end of a line
        return [[pieces[0][0], pieces[-1][1], name]]
    if source.discontinuous == "error":
        hint = "set data.discontinuous to widen or drop"
        raise DataError(f"the entity '{fields[2][:80]}' is in {len(pieces)} pieces", location=location, hint=hint)
    return [] if source.discontinuous == "drop" else [[pieces[0][0], pieces[-1][1], name]]


def _whole(path: Path, encoding: str) -> str:
    return "".join(line for _, line in read_lines(path, LONGEST_ROW, encoding))
