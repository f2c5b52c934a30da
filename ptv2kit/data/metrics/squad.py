"""Exact match and F1 of extracted answers, as the scorers of SQuAD 1.1 and 2.0 define them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import final

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@final
@dataclass(frozen=True, slots=True)
class Answered:
    """A question as it was answered.

    Args:
        found: the best answer that is not empty.
        golds: every right answer; none if the question has no answer.
        null_margin: how much the score of no answer exceeds that of `found`.
    """

    found: str
    golds: tuple[str, ...]
    null_margin: float


def normalize(text: str) -> str:
    """Lower case, without punctuation (ASCII) and articles, words separated by single blanks."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def exact_match(found: str, golds: Sequence[str]) -> float:
    """1 if the answer equals a right one after normalisation, else 0; without right ones, 1 for an empty answer.

    Right answers that normalise to nothing are left out, and if none is left, only an answer that normalises to nothing
    is right: so does the scorer of SQuAD 2.0. That of 1.1 keeps them; the two agree on every other right answer.
    """
    return float(normalize(found) in (_normalized(golds) or [""]))


def token_f1(found: str, golds: Sequence[str]) -> float:
    """The highest F1 (0 to 1) over the words that the answer shares with a right one; arguments as of `exact_match`."""
    words = normalize(found).split()
    return max(_f1(words, gold.split()) for gold in _normalized(golds) or [""])


def squad_scores(answers: Sequence[Answered], threshold: float | None) -> dict[str, float]:
    """The scores of a split.

    Args:
        answers: at least one.
        threshold: of `null_margin`, above which nothing is answered; None where every question has an answer (1.1).

    Returns:
        `squad_exact_match` and `squad_f1`; with a threshold also those over the questions with and without an answer,
        as far as there are any, and the best that any threshold reaches, with that threshold.
    """
    found = ["" if threshold is not None and item.null_margin > threshold else item.found for item in answers]
    exact = [exact_match(text, item.golds) for text, item in zip(found, answers, strict=True)]
    f1 = [token_f1(text, item.golds) for text, item in zip(found, answers, strict=True)]
    values = {"squad_exact_match": _mean(exact), "squad_f1": _mean(f1)}
    if threshold is None:
        return values
    # As the official scorer, by the answers as given: one that normalises to nothing still makes a question answerable.
    answerable = [bool(item.golds) for item in answers]
    if any(answerable):
        values["squad_has_answer_exact_match"] = _mean(list(compress(exact, answerable)))
        values["squad_has_answer_f1"] = _mean(list(compress(f1, answerable)))
    if not all(answerable):
        values["squad_no_answer_accuracy"] = _mean(
            [score for score, has in zip(exact, answerable, strict=True) if not has]
        )
    for name, measure in (("exact_match", exact_match), ("f1", token_f1)):
        scores = [measure(item.found, item.golds) for item in answers]
        best, at = _best_threshold(answers, scores, answerable)
        values[f"squad_best_{name}"] = 100 * best / len(answers)
        values[f"squad_best_{name}_threshold"] = at
    return values


def _best_threshold(
    answers: Sequence[Answered], scores: Sequence[float], answerable: Sequence[bool]
) -> tuple[float, float]:
    """The highest sum of scores that a threshold reaches, and the lowest such threshold.

    As the official scorer: start with no answer to any question (threshold 0), then answer one after the other by
    rising margin. Of equal margins it also looks at the sums in between, which no threshold reaches.
    """
    total = best = float(sum(not has for has in answerable))
    at = 0.0
    for index in sorted(range(len(answers)), key=lambda index: answers[index].null_margin):
        if answerable[index]:
            total += scores[index]
        elif answers[index].found:
            total -= 1.0  # it was right with no answer, and is wrong with one
        if total > best:
            best, at = total, answers[index].null_margin
    return best, at


def _normalized(golds: Sequence[str]) -> list[str]:
    return [text for text in map(normalize, golds) if text]


def _f1(found: Sequence[str], gold: Sequence[str]) -> float:
    if not found or not gold:
        return float(found == gold)
    shared = sum((Counter(found) & Counter(gold)).values())
    return 2 * shared / (len(found) + len(gold))


def _mean(scores: Sequence[float]) -> float:
    return 100 * sum(scores) / len(scores)
