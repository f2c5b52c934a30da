"""A row's texts: templates filled with its columns; and the rows and columns that a task makes: `expand`, `derive`."""

from __future__ import annotations

import ast
import io
import json
import tokenize
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, cast, final

from ptv2kit.data.rows import Fault, Row, raise_fault
from ptv2kit.errors import DataError, did_you_mean
from ptv2kit.spec.rows import (
    Derivation,
    Expansion,
    Flags,
    Joining,
    Lookup,
    Marking,
    Membership,
    Parsing,
    Previous,
    Replacement,
    Slice,
    SpanMarking,
    Splitting,
)
from ptv2kit.spec.task_base import TaskBase
from ptv2kit.spec.template import MASK, Template, parse_template

Before = dict[tuple[str, str], list[str]]
"""What `previous` has seen: by the new column and the group, the texts of the rows so far."""


@final
@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text in which a verbalizer's word is missing.

    Args:
        kind: written in the template, from a column of the row, or the place of the word.
        text: empty for the mask.
    """

    kind: Literal["literal", "column", "mask"]
    text: str


def pieces(template: Template, row: Row) -> list[Piece]:
    """The template with the row's texts and the mask in place of the columns.

    Raises:
        DataError: a column is missing or holds no text.
    """
    found: list[Piece] = []
    for is_column, part in template.parts:
        if is_column and part == MASK:
            found.append(Piece("mask", ""))
        elif is_column:
            found.append(Piece("column", row.text(part)))
        else:
            found.append(Piece("literal", part))
    return found


def render(template: Template, row: Row) -> str:
    """The template with the row's texts in place of the columns. Braces in the row's texts mean nothing.

    Raises:
        DataError: a column is missing or holds no text.
    """
    return "".join(row.text(part) if is_column else part for is_column, part in template.parts)


def task_rows(task: TaskBase, rows: Iterable[Row], on_fault: Fault = raise_fault) -> Iterator[Row]:
    """The rows of a task from those of its data: `defaults`, `expand`, then `derive`, `where` and `distinct`.

    `on_fault` receives a row with a missing or wrong column; unless it raises, the rows after it are made.
    """
    distinct = None if task.distinct is None else parse_template(task.distinct)
    seen: set[str] = set()
    before: Before = {}
    for plain in rows:
        try:
            whole = with_defaults(plain, task.defaults)
            made = [with_derived(expanded, task.derive, before) for expanded in expanded_rows(whole, task.expand)]
            kept = [row for row in made if all(row.text(name) in texts for name, texts in task.where.items())]
            keys = [None if distinct is None else render(distinct, row) for row in kept]
        except DataError as error:
            on_fault(error)
            continue
        for row, key in zip(kept, keys, strict=True):
            if key is None or key not in seen:
                yield row
            if key is not None:
                seen.add(key)


def with_defaults(row: Row, defaults: Mapping[str, Any]) -> Row:
    """The row with the default of each column that is missing or null."""
    lacking = {name: value for name, value in defaults.items() if row.values.get(name) is None}
    if not lacking:
        return row
    return Row({**row.values, **{name: _plain(value) for name, value in lacking.items()}}, row.location)


def with_derived(row: Row, derivations: Mapping[str, Derivation], before: Before) -> Row:
    """The row with the columns of `derive`; each may read those above it.

    Args:
        before: what `previous` has seen in earlier rows; this row is added.

    Raises:
        DataError: a column is missing or of the wrong kind, or the new column already exists.
    """
    for name, derivation in derivations.items():
        row = _with_column(row, name, derived_value(name, derivation, row, before), "derive")
    return row


def expanded_rows(row: Row, steps: Sequence[Expansion]) -> Iterator[Row]:
    """One row for each item of the lists that `expand` names.

    Raises:
        DataError: a column is missing or holds no list, or a new column already exists.
    """
    if not steps:
        yield row
        return
    step = steps[0]
    for number, item in enumerate(row.items(step.column)):
        location = f"{row.location}: {step.column}[{number}]"
        yield from expanded_rows(_with_column(Row(row.values, location), step.item, item, "expand"), steps[1:])


def _with_column(row: Row, name: str, value: Any, section: str) -> Row:
    if name in row.values:
        raise DataError(
            f"column '{name}' of '{section}' is already a column of the data",
            location=row.location,
            hint="give the new column another name",
        )
    return Row({**row.values, name: value}, row.location)


def derived_value(name: str, derivation: Derivation, row: Row, before: Before) -> Any:
    """The value of a column of `derive`.

    Args:
        name: of the column.
        before: what `previous` has seen in earlier rows; this row is added.

    Raises:
        DataError: a column is missing or of the wrong kind.
    """
    match derivation:
        case Lookup():
            return _look_up(name, derivation, row)
        case Replacement():
            text = render(parse_template(derivation.text), row)
            for piece, template in derivation.replace.items():
                text = text.replace(piece, render(parse_template(template), row))
            return text
        case Membership():
            return row.text(derivation.column) in row.texts(derivation.among)
        case Marking():
            return _mark(derivation, row)
        case Slice():
            return _cut(derivation, row)
        case Splitting():
            return [word for word in row.text(derivation.column).split(derivation.split) if word]
        case Parsing():
            return _parse(derivation, row)
        case Flags():
            return [column for column in derivation.flags if _is_set(column, row)]
        case SpanMarking():
            return _mark_spans(derivation, row)
        case Joining():
            items = row.items(derivation.column)
            rows = [Row({derivation.column: item}, row.location) for item in items]
            texts = [
                derivation.within.join(each.texts(derivation.column))
                if isinstance(item, list)
                else each.text(derivation.column)
                for each, item in zip(rows, items, strict=True)
            ]
            return derivation.join.join(texts)
        case Previous():
            texts = before.setdefault((name, row.text(derivation.previous)), [])
            text = derivation.join.join(texts[-derivation.count :])
            texts.append(row.text(derivation.column))
            return text


def _look_up(name: str, lookup: Lookup, row: Row) -> str:
    """Booleans read `true` and `false`."""
    value = row.value(lookup.column)
    key = str(value).lower() if isinstance(value, bool) else row.text(lookup.column)
    if key not in lookup.map:
        raise DataError(
            f"value '{key}' of column '{lookup.column}' is not in 'derive.{name}.map', "
            f"which has {', '.join(repr(known) for known in lookup.map)}",
            location=row.location,
            hint=did_you_mean(key, list(lookup.map)),
        )
    return lookup.map[key]


def _parse(parsing: Parsing, row: Row) -> Any:
    text = row.text(parsing.column)
    try:
        return json.loads(text) if parsing.parse == "json" else _python_value(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError) as error:
        reason = error.msg if isinstance(error, SyntaxError | json.JSONDecodeError) else str(error)
        shown = text if len(text) <= 40 else f"{text[:37]}..."
        kind = {"json": "JSON", "python": "a value as Python writes it"}[parsing.parse]
        message = f"column '{parsing.column}' must hold {kind} ({reason}). Got {shown!r}"
        raise DataError(message, location=row.location) from error


def _python_value(text: str) -> Any:
    """A literal. `['a' 'b']`, as numpy writes a list, would be read as one text and is refused."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    kinds = [token.type for token in tokens if token.type not in (tokenize.NL, tokenize.NEWLINE)]
    if any(one == other == tokenize.STRING for one, other in pairwise(kinds)):
        raise ValueError("two texts without a comma between them, as numpy writes arrays")
    return _as_json(ast.literal_eval(text.strip()))


def _as_json(value: Any) -> Any:
    """Tuples become lists, as everywhere in rows."""
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in cast("Sequence[Any]", value)]
    if isinstance(value, dict):
        return {str(key): _as_json(item) for key, item in cast("dict[Any, Any]", value).items()}
    return value


_YES, _NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no", "", "none")


def _is_set(column: str, row: Row) -> bool:
    value = str(row.value(column)).strip().lower()
    if value not in (*_YES, *_NO):
        message = f"column '{column}' must hold yes or no, such as 1 or 0. Got {value!r}"
        raise DataError(message, location=row.location)
    return value in _YES


def _mark(marking: Marking, row: Row) -> str:
    words, index = row.text(marking.column).split(), row.integer(marking.word)
    if index >= len(words):
        raise DataError(
            f"column '{marking.word}' holds {index}, but '{marking.column}' has {len(words)} words",
            location=row.location,
        )
    words[index] = marking.mark.replace("{word}", words[index])
    return " ".join(words)


def _mark_spans(marking: SpanMarking, row: Row) -> str:
    """Marks are set from the last span to the first, so that the places of the others stay."""
    words = isinstance(row.value(marking.column), list)
    parts = list(row.words(marking.column)) if words else list(row.text(marking.column))
    spans = sorted(
        (row.integer(each.start), row.integer(each.end) + marking.inclusive, number)
        for number, each in enumerate(marking.marks)
    )
    unit = "words" if words else "characters"
    end = 0
    for start, stop, number in spans:
        columns = f"(columns '{marking.marks[number].start}', '{marking.marks[number].end}')"
        if not start < stop <= len(parts):
            message = f"span {start} to {stop} {columns} is outside '{marking.column}', which has {len(parts)} {unit}"
            raise DataError(message, location=row.location)
        if start < end:
            raise DataError(f"span {start} to {stop} {columns} overlaps another one", location=row.location)
        end = stop
    join = " " if words else ""
    for start, stop, number in reversed(spans):
        parts[start:stop] = [marking.marks[number].mark.replace("{span}", join.join(parts[start:stop]))]
    return join.join(parts)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _cut(section: Slice, row: Row) -> str:
    text, start = row.text(section.column), row.integer(section.start)
    end = row.integer(section.end) + section.inclusive
    if not start < end <= len(text):
        raise DataError(
            f"span {start} to {end - section.inclusive} (columns '{section.start}', '{section.end}') is outside "
            f"'{section.column}', which has {len(text)} characters",
            location=row.location,
        )
    return text[start:end]
