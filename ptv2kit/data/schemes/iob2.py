"""Scheme `iob2`: spans over words, as one IOB2 tag per word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from seqeval.metrics import accuracy_score, classification_report
from seqeval.scheme import IOB2
from torch import Tensor

from ptv2kit.config.task import Iob2Task
from ptv2kit.data.rows import Row
from ptv2kit.data.schemes.base import IGNORED, Batch, Feature, LabelScheme, Prediction, Scores, TypeScore, pad_inputs
from ptv2kit.data.tokens import Subwords
from ptv2kit.errors import DataError, did_you_mean

OUTSIDE = "O"

_seqeval_report: Any = classification_report  # its annotations want zero_division to be text


@final
class Iob2Scheme(LabelScheme):
    """Labels the first sub-word of each word, as the official code does; the others are not scored.

    Args:
        task: the task.
        subwords: the backbone's tokenizer.
        train_rows: where `names: from_train` finds the span types.

    Raises:
        DataError: a training row is malformed, or no span occurs in the training split.
    """

    def __init__(self, task: Iob2Task, subwords: Subwords, train_rows: Sequence[Row]) -> None:
        self._task = task
        self._subwords = subwords
        self._types = self._find_types(train_rows)
        self._names = (OUTSIDE, *(f"{prefix}-{name}" for name in self._types for prefix in "BI"))
        self._index = {name: index for index, name in enumerate(self._names)}

    @property
    def names(self) -> tuple[str, ...]:
        """The tags: `O`, then `B-` and `I-` of each type."""
        return self._names

    def encode(self, row: Row, index: int) -> Feature:
        """The words as sub-words; see `LabelScheme.encode`."""
        words, tags = self._words_and_tags(row)
        encoding = self._subwords.encode_words(words)
        anchors = [-1] * len(words)
        labels = [IGNORED] * len(encoding.ids)
        for position, word in enumerate(encoding.words):
            if word is not None and anchors[word] < 0:
                anchors[word] = position
                labels[position] = self._index.get(tags[word], IGNORED)
        return Feature(
            row=index,
            input_ids=encoding.ids,
            token_type_ids=encoding.segments,
            labels=tuple(labels),
            reference=tuple(tags),
            anchors=tuple(anchors),
            truncated=encoding.truncated,
        )

    def collate(self, features: Sequence[Feature]) -> Batch:
        """Labels `[batch, length]`, padding ignored."""
        ids, mask, segments = pad_inputs(features, self._subwords.pad_id)
        labels = torch.full_like(ids, IGNORED)
        for index, feature in enumerate(features):
            assert isinstance(feature.labels, tuple)
            labels[index, : len(feature.labels)] = torch.tensor(feature.labels)
        return Batch(ids, mask, segments, labels)

    def decode(self, features: Sequence[Feature], logits: Tensor) -> list[Prediction]:
        """The most probable tag of each word; `O` for a word that was cut off. Logits `[batch, length, tags]`."""
        probabilities, classes = (values.tolist() for values in logits.softmax(-1).max(-1))
        predictions: list[Prediction] = []
        for index, feature in enumerate(features):
            kept = [anchor for anchor in feature.anchors if anchor >= 0]
            mean = sum(probabilities[index][anchor] for anchor in kept) / max(1, len(kept))
            tags = tuple(OUTSIDE if anchor < 0 else self._names[classes[index][anchor]] for anchor in feature.anchors)
            predictions.append(Prediction(feature.row, tags, mean, feature.reference))
        return predictions

    def score(self, predictions: Sequence[Prediction]) -> Scores:
        """Micro F1 over whole spans (seqeval, IOB2, strict mode), also by type, and accuracy over tags."""
        found = [list(prediction.label) for prediction in predictions]
        right = [list(prediction.reference) for prediction in predictions]
        values = {"span_f1": 0.0, "token_accuracy": 100 * float(accuracy_score(right, found))}
        types: list[TypeScore] = []
        if any(tag.startswith("B-") for tags in (*found, *right) for tag in tags):
            report = _seqeval_report(right, found, output_dict=True, mode="strict", scheme=IOB2, zero_division=0)
            for name, row in report.items():
                precision, recall, f1 = (100 * float(row[key]) for key in ("precision", "recall", "f1-score"))
                score = TypeScore(name, precision, recall, f1, int(row["support"]))
                if name == "micro avg":
                    values["span_f1"] = score.f1
                elif name not in ("macro avg", "weighted avg"):
                    types.append(score)
        return Scores({metric: values[metric] for metric in self._task.metrics}, tuple(types))

    def _find_types(self, train_rows: Sequence[Row]) -> tuple[str, ...]:
        names = self._task.labels.names
        if not isinstance(names, str):
            return names
        column = self._task.labels.column
        found = sorted({tag[2:] for row in train_rows for tag in row.words(column) if tag[:2] in ("B-", "I-")})
        if not found:
            raise DataError(
                f"column '{column}' of the training split holds no span",
                hint="expected tags such as B-PER and I-PER; or list the types in labels.names",
            )
        return tuple(found)

    def _words_and_tags(self, row: Row) -> tuple[list[str], list[str]]:
        words, tags = row.words(self._task.input.words), row.words(self._task.labels.column)
        if len(words) != len(tags):
            raise DataError(
                f"{len(words)} words in '{self._task.input.words}' "
                f"but {len(tags)} tags in '{self._task.labels.column}'",
                location=row.location,
            )
        previous = OUTSIDE
        for position, tag in enumerate(tags):
            prefix, name = tag[:2], tag[2:]
            if tag != OUTSIDE and (prefix not in ("B-", "I-") or not name):
                raise DataError(
                    f"tag {position + 1} of {len(tags)}, '{tag}', is not IOB2",
                    location=row.location,
                    hint="expected O, B-<type> or I-<type>",
                )
            if prefix == "I-" and previous[2:] != name:
                raise DataError(
                    f"tag {position + 1} of {len(tags)}, '{tag}', is not IOB2: it continues no {name} span, "
                    f"the tag before it is '{previous}'",
                    location=row.location,
                    hint=f"the first word of a span is tagged 'B-{name}'",
                )
            if tag != OUTSIDE and self._task.labels.names != "from_train" and name not in self._types:
                raise DataError(
                    f"span type '{name}' of tag {position + 1} is not in 'labels.names'",
                    location=row.location,
                    hint=did_you_mean(name, list(self._types)),
                )
            previous = tag
        return words, tags
