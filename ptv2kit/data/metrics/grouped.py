"""Metrics over groups of rows: the answers of a MultiRC question, the candidates of a ReCoRD query."""

from __future__ import annotations

from collections.abc import Sequence

from ptv2kit.data.metrics.squad import exact_match, token_f1


def multirc_scores(groups: Sequence[str], right: Sequence[bool], found: Sequence[bool]) -> dict[str, float]:
    """MultiRC's metrics.

    Args:
        groups: the question of each answer; answers of a question need not be adjacent.
        right: whether each answer is right.
        found: whether it was taken for right.

    Returns:
        `multirc_f1a`: F1 over all answers; `multirc_exact_match`: questions with every answer judged right.

    Precision without an answer found, and recall without a right one, are 1, as in MultiRC's own script: F1 is 1 where
    nothing is right and nothing was found, and 0 where only one of them is so.
    """
    questions: dict[str, list[tuple[bool, bool]]] = {}
    for group, is_right, is_found in zip(groups, right, found, strict=True):
        questions.setdefault(group, []).append((is_right, is_found))
    judged = list(questions.values())
    return {
        "multirc_f1a": 100 * _f1([pair for pairs in judged for pair in pairs]),
        "multirc_exact_match": 100 * sum(all(a == b for a, b in pairs) for pairs in judged) / len(judged),
    }


def record_scores(
    groups: Sequence[str], candidates: Sequence[str], scores: Sequence[float], golds: Sequence[Sequence[str]]
) -> dict[str, float]:
    """ReCoRD's metrics: each query is answered by its candidate with the highest score.

    Equal scores are decided by the candidate's text, the last in order wins, as in the official P-Tuning v2 code. (That
    scores as SQuAD 1.1; see `exact_match` for the one difference.)

    Args:
        groups: the query of each candidate; candidates of a query need not be adjacent.
        candidates: entities.
        scores: how much the model takes each for right.
        golds: the right answers of the candidate's query.

    Returns:
        `record_f1` and `record_exact_match`, normalised as SQuAD's, the best over the right answers.
    """
    best: dict[str, tuple[float, str, Sequence[str]]] = {}
    for group, candidate, score, right in zip(groups, candidates, scores, golds, strict=True):
        if group not in best or (score, candidate) > best[group][:2]:
            best[group] = (score, candidate, right)
    answers = list(best.values())
    return {
        "record_f1": 100 * sum(token_f1(text, right) for _, text, right in answers) / len(answers),
        "record_exact_match": 100 * sum(exact_match(text, right) for _, text, right in answers) / len(answers),
    }


def _f1(pairs: Sequence[tuple[bool, bool]]) -> float:
    """F1 of `(right, found)` pairs; 1 where nothing is right and nothing was found."""
    both, either = sum(right and found for right, found in pairs), sum(right + found for right, found in pairs)
    return 2 * both / either if either else 1.0
