"""Semantic roles as the CoNLL-2005 evaluation (srl-eval.pl) counts them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from seqeval.scheme import IOB2, Entities

Argument = tuple[str, tuple[tuple[int, int], ...]]
"""Role, and first word and end of each of its pieces."""

_VERB = "V"
_CONTINUES = "C-"


def conll05_spans(tags: Sequence[str]) -> frozenset[Argument]:
    """The arguments of one predicate.

    Spans are read as seqeval does in IOB2's strict mode: an `I-` that continues nothing belongs to no span. The verb is
    not counted. `C-X` continues the nearest `X` before it, and is an argument `X` of its own if there is none, which
    the next `C-X` then continues; `R-X` is an argument of its own. `C-V` is a piece of the verb, or the verb.
    """
    found: list[tuple[str, list[tuple[int, int]]]] = []
    for start, end, name in sorted(_spans(tags)):
        role = name.removeprefix(_CONTINUES)
        before = next((pieces for other, pieces in reversed(found) if other == role), None)
        if name.startswith(_CONTINUES) and before is not None:
            before.append((start, end))
        else:
            found.append((role, [(start, end)]))
    return frozenset((role, tuple(pieces)) for role, pieces in found if role != _VERB)


def srl_scores(
    found: Sequence[Sequence[str]], right: Sequence[Sequence[str]]
) -> tuple[dict[str, float], dict[str, tuple[float, float, float, int]]]:
    """The scores of a split; an argument is right if its role and all its pieces are.

    Args:
        found: a tag for each word of each predicate's sentence.
        right: likewise.

    Returns:
        `srl_f1`, `srl_precision` and `srl_recall` over all arguments, and precision, recall, F1 and number of right
        arguments for each role that is right or was found somewhere.
    """
    right_of, found_of, both_of = Counter[str](), Counter[str](), Counter[str]()
    for tags, reference in zip(found, right, strict=True):
        ours, theirs = conll05_spans(tags), conll05_spans(reference)
        found_of.update(role for role, _ in ours)
        right_of.update(role for role, _ in theirs)
        both_of.update(role for role, _ in ours & theirs)
    precision, recall, f1 = _rates(both_of.total(), found_of.total(), right_of.total())
    roles = sorted({*right_of, *found_of})
    by_role = {role: (*_rates(both_of[role], found_of[role], right_of[role]), right_of[role]) for role in roles}
    return {"srl_f1": f1, "srl_precision": precision, "srl_recall": recall}, by_role


def _spans(tags: Sequence[str]) -> list[tuple[int, int, str]]:
    return [(entity.start, entity.end, entity.tag) for entity in Entities([list(tags)], IOB2).entities[0]]


def _rates(both: int, found: int, right: int) -> tuple[float, float, float]:
    """Precision, recall and F1, 0 where they are undefined."""
    precision, recall = (100 * both / total if total else 0.0 for total in (found, right))
    return precision, recall, 2 * precision * recall / (precision + recall) if both else 0.0
