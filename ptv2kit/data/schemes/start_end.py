"""Scheme `start_end`: the answer as a piece of a passage, which may be longer than the model can read at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, final

import torch
from torch import Tensor

from ptv2kit.data.metrics.squad import Answered, squad_scores
from ptv2kit.data.rows import Row
from ptv2kit.data.schemes.base import LabelScheme, Unit, input_error, listed, pad_inputs, without_faults
from ptv2kit.data.schemes.records import Batch, Candidate, Feature, Label, Prediction, Scores, rounded
from ptv2kit.data.templates import render
from ptv2kit.data.tokens import Subwords
from ptv2kit.errors import DataError
from ptv2kit.spec.task import StartEndTask
from ptv2kit.spec.template import parse_template

_NO_ANSWER = 0  # position of the first special token, which stands for no answer, as in the official code


@final
@dataclass(frozen=True, slots=True)
class _Passage:
    """What a window was cut from, and where its sub-words stand there."""

    text: str
    spans: tuple[tuple[int, int] | None, ...]


@final
@dataclass(frozen=True, slots=True)
class _Gold:
    """A right answer: its text as the data gives it, and its first character in the passage."""

    text: str
    start: int

    @property
    def bare(self) -> tuple[int, int]:
        """First character and end without the blanks around it, which are not part of what is trained."""
        start = self.start + len(self.text) - len(self.text.lstrip())
        return start, start + len(self.text.strip())


@final
class Scheme(LabelScheme):
    """Reads a long passage in windows and takes the best answer over all of them.

    Windows, targets and the score of no answer are as in the official code. The official search pairs the `n_best`
    starts with the `n_best` ends of each window; this one looks at every pair, so it finds the best one always.
    """

    def __init__(self, task: StartEndTask, subwords: Subwords, _: object = ()) -> None:
        self._task = task
        self._subwords = subwords
        self._question = parse_template(task.input.question)
        self._context = parse_template(task.input.context)

    @property
    def unit(self) -> Unit:
        """Each token, as start and as end."""
        return "start_end"

    @property
    def names(self) -> tuple[str, ...]:
        """The two logits of a token."""
        return ("start", "end")

    def encode(self, row: Row, index: int, *, labelled: bool = True) -> list[Feature]:
        """A feature for each window; the target of a window without the whole answer is its first token."""
        question, context = self._texts(row)
        answers = self._answers(row, context) if labelled else []
        try:
            windows = self._subwords.encode_windows(question, context, self._task.input.stride)
        except ValueError as error:
            hint = "lower input.stride, or raise max_length"
            raise input_error(row, error, hint) from error
        targets = [_target(window.spans, answers[0].bare if answers else None) for window in windows]
        lost = bool(answers) and all(target == (_NO_ANSWER, _NO_ANSWER) for target in targets)
        golds = tuple(answer.text for answer in answers)
        return [
            Feature(index, (window.encoding,), target, golds, lost, _Passage(context, window.spans))
            for window, target in zip(windows, targets, strict=True)
        ]

    def encode_ahead(self, rows: Sequence[Row]) -> None:
        """See `LabelScheme.encode_ahead`."""
        self._subwords.encode_windows_ahead(without_faults(rows, self._texts), self._task.input.stride)

    def _texts(self, row: Row) -> tuple[str, str]:
        """The question and the passage."""
        return render(self._question, row).lstrip(), render(self._context, row)

    def collate(self, features: Sequence[Feature]) -> Batch:
        """Labels `[batch, 2]`: positions of start and end."""
        labels = torch.tensor([feature.labels for feature in features])
        return Batch(*pad_inputs(features, self._subwords.pad_id), labels)

    def decode(self, features: Sequence[Feature], logits: Tensor) -> list[Prediction]:
        """The best answers within each window; `score` is the window's score of no answer. Logits `[batch, length, 2]`.

        Every pair of a start and an end in the passage is looked at, at most `max_answer_tokens` long.
        """
        longest = self._task.labels.max_answer_tokens
        predictions: list[Prediction] = []
        for feature, scores in zip(features, logits, strict=True):
            passage: _Passage = feature.notes
            null = float(scores[_NO_ANSWER].sum())
            inside = [position for position, span in enumerate(passage.spans) if span is not None]
            candidates: tuple[Candidate, ...] = ()
            if inside:
                first, last = inside[0], inside[-1] + 1
                # Some tokenizers have sub-words for blanks alone, which are no answer.
                blank = torch.tensor([_is_blank(passage, position) for position in range(first, last)])
                starts, ends = scores[first:last].masked_fill(blank.unsqueeze(1), -math.inf).unbind(1)
                ends = torch.nn.functional.pad(ends, (0, longest - 1), value=-math.inf)
                # [passage, max_answer_tokens]: a pair starts at its row's token and ends its column's index later
                pairs = (starts.unsqueeze(1) + ends.unfold(0, longest, 1)).flatten()
                best = pairs.topk(min(self._task.labels.n_best, len(pairs)))
                candidates = tuple(
                    _candidate(passage, first + pair // longest, first + pair // longest + pair % longest, score)
                    for pair, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)
                    if score > -math.inf
                )
            label = candidates[0].text if candidates else ""
            predictions.append(Prediction(feature.row, label, 0.0, feature.reference, null, candidates))
        return predictions

    def answer(self, row: Row, prediction: Prediction) -> dict[str, Any]:
        """The answer, empty for none, its characters in the passage, and the best ones with their scores."""
        label = str(prediction.label)
        place = next((item.start for item in prediction.candidates if label and item.text == label), None)
        return {
            "label": label,
            "probability": rounded(prediction.probability),
            "start": place,
            "end": None if place is None else place + len(label),
            "null_margin": round(prediction.score, 6),
            "n_best": [
                {"text": item.text, "score": round(item.score, 6), "start": item.start if item.text else None}
                for item in prediction.candidates
            ],
        }

    def join(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        """The best answers over all windows of a row; `score` is how much the lowest score of no answer exceeds the
        best answer's, and the label is empty if that is more than `null_threshold`."""
        labels = self._task.labels
        joined: list[Prediction] = []
        for _, group in groupby(sorted(predictions, key=lambda window: window.row), key=lambda window: window.row):
            windows = list(group)
            null = min(window.score for window in windows)
            found = sorted((item for window in windows for item in window.candidates), key=lambda item: -item.score)
            best = found[: labels.n_best]
            margin = null - best[0].score if best else 0.0
            empty = not best or (labels.unanswerable and margin > labels.null_threshold)
            if labels.unanswerable:
                best = sorted([*best, Candidate("", null, 0)], key=lambda item: -item.score)
            chosen = "" if empty else next(item.text for item in best if item.text)
            joined.append(
                replace(
                    windows[0],
                    label=chosen,
                    probability=_probability(best, chosen),
                    score=margin,
                    candidates=tuple(best),
                )
            )
        return joined

    def marks(self, feature: Feature) -> tuple[str | None, ...]:
        """The answer's sub-words; every sub-word of the passage is scored."""
        assert isinstance(feature.labels, tuple)
        passage: _Passage = feature.notes
        first, last = feature.labels
        name = "no answer" if (first, last) == (_NO_ANSWER, _NO_ANSWER) else "answer"
        return tuple(
            name if first <= position <= last else ("" if span is not None else None)
            for position, span in enumerate(passage.spans)
        )

    def shown(self, reference: Label) -> str:
        """The right answers."""
        return " | ".join(dict.fromkeys(listed(reference))) or "no answer"

    def counted(self, reference: Label) -> list[str]:
        """Whether there is an answer."""
        return ["answer" if reference else "no answer"]

    def score(self, predictions: Sequence[Prediction]) -> Scores:
        """Exact match and F1 as SQuAD 1.1, or 2.0 with `unanswerable`; what is undefined on the split is left out."""
        labels = self._task.labels
        answered = [
            Answered(
                found=next((item.text for item in prediction.candidates if item.text), ""),
                golds=listed(prediction.reference),
                null_margin=prediction.score,
            )
            for prediction in predictions
        ]
        values = squad_scores(answered, labels.null_threshold if labels.unanswerable else None)
        return Scores({metric: values[metric] for metric in self._task.metrics if metric in values})

    def _answers(self, row: Row, context: str) -> list[_Gold]:
        """Each right answer of the row and its place in the passage."""
        labels = self._task.labels
        text_column = f"{labels.column}.text" if labels.text is None else labels.text
        start_column = f"{labels.column}.answer_start" if labels.text is None else labels.start
        texts = _listed(row.value(text_column))
        starts = [None] * len(texts) if start_column is None or not texts else _listed(row.value(start_column))
        if len(starts) != len(texts):
            raise DataError(
                f"{len(texts)} texts in '{text_column}' but {len(starts)} starts in '{start_column}'",
                location=row.location,
            )
        if not texts and not labels.unanswerable:
            hint = "set labels.unanswerable: true if questions may have no answer"
            raise DataError(f"column '{text_column}' holds no answer", location=row.location, hint=hint)
        if starts != [None] * len(starts):
            return [self._place(row, context, text, start) for text, start in zip(texts, starts, strict=True)]
        # Texts alone: aliases that the passage does not have are right answers too; one of them must be there.
        found = [text for text in texts if isinstance(text, str) and text.strip() and text in context]
        others = [_Gold(text, -1) for text in texts if isinstance(text, str) and text.strip() and text not in found]
        if not found and self._task.labels.unanswerable:
            return []
        placed = [self._place(row, context, text, None) for text in (found if others and found else texts)]
        return [*placed, *others]

    def _place(self, row: Row, context: str, text: Any, start: Any) -> _Gold:
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"an answer must be text. Got {text!r}", location=row.location)
        if start is None:
            start = context.find(text)
            if start < 0:
                hint = "set labels.unanswerable: true to learn from it that there is no answer, or data.on_fault: skip"
                raise DataError(f"the answer '{text}' does not occur in the passage", location=row.location, hint=hint)
        if isinstance(start, str) and start.strip().isdecimal():  # a table holds texts only
            start = int(start)
        if not isinstance(start, int) or isinstance(start, bool):
            raise DataError(f"an answer's start must be a whole number. Got {start!r}", location=row.location)
        found = context[max(0, start) : start + len(text)]
        if start < 0 or found != text:
            raise DataError(
                f"the answer '{text}' is not at character {start} of the passage, where '{found}' stands",
                location=row.location,
                hint="starts count from 0 and belong to input.context as it is rendered",
            )
        return _Gold(text, start)


def _listed(value: Any) -> list[Any]:
    """A list as it is, nothing (in a table, an empty text) as an empty one, a single value as a list of one."""
    if isinstance(value, list):
        return list(value)
    return [] if value is None or value == "" else [value]


def _target(spans: Sequence[tuple[int, int] | None], answer: tuple[int, int] | None) -> tuple[int, int]:
    """The positions whose sub-words enclose the answer, or those of no answer."""
    inside = [(position, *span) for position, span in enumerate(spans) if span is not None]
    if answer is None or not inside or inside[0][1] > answer[0] or inside[-1][2] < answer[1]:
        return _NO_ANSWER, _NO_ANSWER
    first = max(position for position, start, _ in inside if start <= answer[0])
    last = min(position for position, _, end in inside if end >= answer[1])
    return first, max(first, last)


def _is_blank(passage: _Passage, position: int) -> bool:
    """Whether a sub-word holds nothing but blanks."""
    span = passage.spans[position]
    return span is None or not passage.text[span[0] : span[1]].strip()


def _candidate(passage: _Passage, first: int, last: int, score: float) -> Candidate:
    opening, closing = passage.spans[first], passage.spans[last]
    assert opening is not None
    assert closing is not None
    return Candidate(passage.text[opening[0] : closing[1]], score, opening[0])


def _probability(candidates: Sequence[Candidate], chosen: str) -> float:
    """Of the first candidate with the chosen text, among all candidates."""
    if not candidates:
        return 1.0
    scores = torch.tensor([candidate.score for candidate in candidates])
    index = next(index for index, candidate in enumerate(candidates) if candidate.text == chosen)
    return float(scores.softmax(0)[index])
