"""Recognise what data is for: schemes are tried in an order, on columns as they are and on made ones."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from ptv2kit.data.proposals.columns import (
    Columns,
    Made,
    columns_of,
    with_annotations,
    with_fields,
    with_joined,
    with_marks,
    with_parsed,
    with_split,
    with_turn_before,
)
from ptv2kit.data.proposals.proposal import Proposal, key
from ptv2kit.data.proposals.questions import find_answers, find_choices, find_options
from ptv2kit.data.proposals.texts import (
    find_classes,
    find_flags,
    find_labels,
    find_named_number,
    find_number,
    find_separated_labels,
)
from ptv2kit.data.proposals.words import find_character_spans, find_spans, find_tags
from ptv2kit.data.rows import Row
from ptv2kit.errors import DataError

_VERDICT, _VERDICTS = "answer", {"accept", "reject", "ignore"}
"""The column in which Prodigy keeps what a person said of a row, and what it can be."""


def propose(rows: Sequence[Row]) -> Proposal:
    """Recognise the label scheme by names, kinds and values of the columns, or of columns that can be made of them.

    Args:
        rows: some of the training rows, at least one.

    Raises:
        DataError: no scheme fits.
    """
    columns = columns_of(rows)
    for make, attempts in _ATTEMPTS:
        made = make(columns)
        found = None if made is None else _first(made, attempts)
        if found is not None:
            return _accepted_only(found, columns)
    names = ", ".join(columns)
    raise DataError(
        f"no label scheme is recognised in the columns {names}",
        location=rows[0].location.rpartition(":")[0],
        hint="'ptv2kit schema task --markdown' lists the schemes; 'ptv2kit ls tasks' and 'ptv2kit cp' give examples",
    )


def _accepted_only(proposal: Proposal, columns: Columns) -> Proposal:
    """Without rows that a person has rejected or passed over in Prodigy, unless that is what is learned."""
    verdicts = set(map(str, columns.get(_VERDICT, [])))
    learned = re.search(rf"\b{_VERDICT}\b", proposal.sections["labels"][0]) or "where" in proposal.sections
    if learned or "accept" not in verdicts or not {"reject", "ignore"} & verdicts or verdicts - _VERDICTS:
        return proposal
    where = {"where": (f"{{{_VERDICT}: [accept]}}", "not what was rejected or passed over")}
    doubt = f"rows whose '{_VERDICT}' is not accept are left out"
    return replace(proposal, sections={**where, **proposal.sections}, doubts=(doubt, *proposal.doubts))


def _first(made: Made, attempts: Iterable[Callable[[Columns], Proposal | None]]) -> Proposal | None:
    """The first attempt that fits, with what it needs of `derive`."""
    found = next((proposal for proposal in (attempt(made.columns) for attempt in attempts) if proposal), None)
    if found is None or not made.derive:
        return found
    read = f"{found.sections['input'][0]} {found.sections['labels'][0]}"
    used = {name: step for name, step in made.derive.items() if re.search(rf"\b{re.escape(name)}\b", read)}
    if not used:
        return None
    steps = {name: step.model_dump(exclude_defaults=True) for name, step in used.items()}
    lines = (f"{key(name)}: {json.dumps(step, ensure_ascii=False)}" for name, step in steps.items())
    derive = f"{{{', '.join(lines)}}}"
    return replace(found, sections={"derive": (derive, "a column that is made of others"), **found.sections})


def _as_they_are(columns: Columns) -> Made:
    return Made(columns, {})


_ANY = (find_labels, find_flags, find_separated_labels, find_named_number, find_classes, find_number)
_ATTEMPTS: tuple[tuple[Callable[[Columns], Made | None], tuple[Callable[[Columns], Proposal | None], ...]], ...] = (
    (with_annotations, (find_character_spans, find_labels, find_classes)),
    (_as_they_are, (find_answers, find_character_spans, find_spans, find_tags, find_options, find_choices)),
    (with_marks, (find_classes,)),
    (with_joined, (find_answers,)),
    (with_turn_before, (find_classes,)),
    (with_parsed, (find_answers, find_character_spans, find_spans, find_tags, find_options, find_labels)),
    (with_split, (find_spans, find_tags)),
    (_as_they_are, _ANY),
    (with_joined, (find_labels, find_named_number, find_classes, find_number)),
    (with_fields, (find_answers, find_character_spans, find_spans, find_tags, find_options, *_ANY)),
)
"""What is tried, in order: columns as they are or with a made one, and schemes."""
