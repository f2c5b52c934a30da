"""Scheme `iob2`: spans over words, as one IOB2 tag per word."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, final

import torch
from torch import Tensor

from ptv2kit.data.metrics.srl import srl_scores
from ptv2kit.data.rows import Row
from ptv2kit.data.schemes.base import (
    IGNORED,
    Batch,
    Feature,
    Label,
    LabelScheme,
    Prediction,
    Scores,
    TypeScore,
    Unit,
    gather,
    input_error,
    listed,
    pad_inputs,
    rounded,
)
from ptv2kit.data.spans import SpanError, to_iob2, written_otherwise
from ptv2kit.data.tokens import Encoding, Subwords
from ptv2kit.data.words import spans_of, split_words, word_places
from ptv2kit.errors import DataError, did_you_mean
from ptv2kit.spec.task import Iob2Task

OUTSIDE = "O"


@final
class Scheme(LabelScheme):
    """Labels the first sub-word of each word, as the official code does; the others are not scored.

    Args:
        train_rows: where `names: from_train` finds the span types.

    Raises:
        DataError: a training row is malformed, or no span occurs in the training split.
    """

    def __init__(self, task: Iob2Task, subwords: Subwords, train_rows: Iterable[Row]) -> None:
        self._task = task
        self._subwords = subwords
        self._types = self._find_types(train_rows)
        self._names = (OUTSIDE, *(f"{prefix}-{name}" for name in self._types for prefix in "BI"))
        self._index = {name: index for index, name in enumerate(self._names)}

    @property
    def unit(self) -> Unit:
        """Each token."""
        return "token"

    @property
    def names(self) -> tuple[str, ...]:
        """The tags: `O`, then `B-` and `I-` of each type."""
        return self._names

    def encode(self, row: Row, index: int, *, labelled: bool = True) -> list[Feature]:
        """The words as sub-words, the appended word behind them; see `LabelScheme.encode`.

        Without labels the words may also be one text, which is cut into words.
        """
        if labelled:
            words, tags = self._words_and_tags(row)
        else:
            words, _ = self._spelled(row)
            tags = [OUTSIDE] * len(words)
        encoding = self._encode_words(row, words)
        anchors = [-1] * len(words)
        labels = [IGNORED] * len(encoding.ids)
        for position, word in enumerate(encoding.words):
            if word is not None and anchors[word] < 0:
                anchors[word] = position
                labels[position] = self._index.get(tags[word], IGNORED)
        return [Feature(index, (encoding,), tuple(labels), tuple(tags), encoding.truncated, tuple(anchors))]

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
            kept = [anchor for anchor in feature.notes if anchor >= 0]
            mean = sum(probabilities[index][anchor] for anchor in kept) / max(1, len(kept))
            tags = tuple(OUTSIDE if anchor < 0 else self._names[classes[index][anchor]] for anchor in feature.notes)
            of_words = tuple(0.0 if anchor < 0 else probabilities[index][anchor] for anchor in feature.notes)
            predictions.append(Prediction(feature.row, tags, mean, feature.reference, probabilities=of_words))
        return predictions

    def answer(self, row: Row, prediction: Prediction) -> dict[str, Any]:
        """The words, a tag for each, and the spans with their characters in the text; words that were given as a list
        are joined with blanks. A span's probability is that of its least certain word."""
        words, text = self._spelled(row)
        places = word_places(text, words)
        spans = [
            {
                "type": kind,
                "text": text[places[first][0] : places[last][1]],
                "start": places[first][0],
                "end": places[last][1],
                "words": [first, last + 1],
                "probability": round(min(prediction.probabilities[first : last + 1]), 6),
            }
            for kind, first, last in spans_of(listed(prediction.label))
        ]
        return {
            "label": list(listed(prediction.label)),
            "probability": rounded(prediction.probability),
            "words": words,
            "spans": spans,
        }

    def marks(self, feature: Feature) -> tuple[str | None, ...]:
        """The tag of each word's first sub-word."""
        assert isinstance(feature.labels, tuple)
        return tuple(None if label == IGNORED else self._names[label] for label in feature.labels)

    def unreachable(self, reference: Label, whole: Feature) -> int:
        """See `LabelScheme.unreachable`."""
        return sum(
            any(anchor < 0 for anchor in whole.notes[first : last + 1])
            for _, first, last in spans_of(listed(reference))
        )

    def shown(self, reference: Label) -> str:
        """Nothing: the tokens are marked."""
        return ""

    def counted(self, reference: Label) -> list[str]:
        """The type of each span."""
        return [tag[2:] for tag in listed(reference) if tag.startswith("B-")]

    def score(self, predictions: Sequence[Prediction]) -> Scores:
        """Micro F1 over whole spans (seqeval, IOB2, strict mode), also by type, and accuracy over tags; `srl_f1` counts
        arguments as the CoNLL-2005 evaluation does."""
        from seqeval import metrics  # with scikit-learn a second to import, and only scores need it
        from seqeval.scheme import IOB2

        report_of: Any = metrics.classification_report  # its annotations want zero_division to be text
        f1_of: Any = metrics.f1_score
        found = [list(listed(prediction.label)) for prediction in predictions]
        right = [list(listed(prediction.reference)) for prediction in predictions]
        values = {
            "span_f1": 0.0,
            "plain_span_f1": 0.0,
            "token_accuracy": 100 * float(metrics.accuracy_score(right, found)),
        }
        types: list[TypeScore] = []
        if any(tag.startswith("B-") for tags in (*found, *right) for tag in tags):
            report = report_of(right, found, output_dict=True, mode="strict", scheme=IOB2, zero_division=0)
            for name, row in report.items():
                precision, recall, f1 = (100 * float(row[key]) for key in ("precision", "recall", "f1-score"))
                score = TypeScore(name, precision, recall, f1, int(row["support"]))
                if name == "micro avg":
                    values |= {"span_f1": score.f1, "span_precision": precision, "span_recall": recall}
                elif name not in ("macro avg", "weighted avg"):
                    types.append(score)
            values["plain_span_f1"] = 100 * float(f1_of(right, found, zero_division=0))
        if "srl_f1" in self._task.metrics:
            roles, by_role = srl_scores(found, right)
            values["srl_f1"] = roles["srl_f1"]
            if self._task.metrics[0] == "srl_f1":
                types = [TypeScore(name, *by_role[name]) for name in sorted(by_role)]
        counts = {"token_accuracy": f"{sum(map(len, right))} words"}
        return Scores({metric: values[metric] for metric in self._task.metrics}, tuple(types), counts)

    def _spelled(self, row: Row) -> tuple[list[str], str]:
        """The words of a row without labels, and the text that they stand in."""
        column = self._task.input.words
        if isinstance(row.value(column), str) and self._task.input.append is None:
            text = row.text(column)
            words = split_words(text)
            if not words:
                raise DataError(f"column '{column}' holds no word", location=row.location)
            return words, text
        words = row.words(column)
        return words, " ".join(words)

    def _encode_words(self, row: Row, words: list[str]) -> Encoding:
        append = self._task.input.append
        if append is None:
            try:
                return self._subwords.encode_words(words)
            except ValueError as error:
                raise input_error(row, error, "") from error
        source, at = row.words(append.column), row.integer(append.at)
        if at >= len(source):
            raise DataError(
                f"column '{append.at}' holds {at}, but '{append.column}' has {len(source)} words",
                location=row.location,
                hint="indices count from 0",
            )
        try:
            return self._subwords.encode_words_and(words, source[at], append.separator)
        except ValueError as error:
            raise input_error(row, error, "raise max_length") from error

    def _find_types(self, train_rows: Iterable[Row]) -> tuple[str, ...]:
        labels = self._task.labels
        names = labels.names
        if isinstance(names, dict) and labels.numbered:
            # Each tag alone: none of them follows another here.
            alone = "io" if labels.encoding == "io" else "iob2"
            tags = [to_iob2([tag], alone, labels.form)[0] for tag in names.values()]
            return tuple(dict.fromkeys(_type_of(tag) for tag in tags if tag != OUTSIDE))
        if isinstance(names, dict):
            return tuple(dict.fromkeys(names.values()))
        if isinstance(names, tuple):
            return names

        def types(row: Row) -> list[str]:
            tags = self._rewritten(row, self._written_tags(row))
            return [_type_of(tag) for tag in tags if tag[1:2] == "-" and tag[2:]]

        found, file = gather(train_rows, types)
        if not found:
            raise DataError(
                f"column '{labels.column}' of the training split holds no span",
                location=file,
                hint="expected tags such as B-PER and I-PER; or list the types in labels.names",
            )
        return tuple(found)

    def _written_tags(self, row: Row) -> list[str]:
        """The tags of a row as the data writes them, numbers by their names.

        Raises:
            DataError: the column is missing, empty or of the wrong kind, or a number has no name.
        """
        labels = self._task.labels
        values = row.items(labels.column)
        if not any(isinstance(value, int) for value in values) and not labels.numbered:
            return row.words(labels.column)
        names = labels.names if isinstance(labels.names, dict) and labels.numbered else {}
        hint = 'name the tag of each number in labels.names: {"0": O, "1": B-PER, "2": I-PER}'
        for value in values:
            if str(value) not in names:
                message = f"column '{labels.column}' holds {value!r}, and 'labels.names' names no tag for it"
                raise DataError(message, location=row.location, hint=hint)
        return [names[str(value)] for value in values]

    def _rewritten(self, row: Row, tags: list[str]) -> list[str]:
        """The tags of a row as IOB2.

        Raises:
            DataError: they are not of the encoding or form that the task says.
        """
        labels = self._task.labels
        if labels.encoding == "iob2" and labels.form == "B-PER":
            return tags
        try:
            return to_iob2(tags, labels.encoding, labels.form)
        except SpanError as error:
            hint = _other_style(tags)
            raise DataError(f"the tags are not {labels.encoding}: {error}", location=row.location, hint=hint) from error

    def _words_and_tags(self, row: Row) -> tuple[list[str], list[str]]:
        words, written = row.words(self._task.input.words), self._written_tags(row)
        if len(words) != len(written):
            raise DataError(
                f"{len(words)} words in '{self._task.input.words}' "
                f"but {len(written)} tags in '{self._task.labels.column}'",
                location=row.location,
            )
        labels = self._task.labels
        tags = self._rewritten(row, written)
        previous = OUTSIDE
        for position, tag in enumerate(tags):
            self._check_tag(row, tag, previous, f"tag {position + 1} of {len(tags)}", written)
            previous = tag
        names = labels.names
        if isinstance(names, dict) and not labels.numbered:
            tags = [tag if tag == OUTSIDE else f"{tag[:2]}{names[tag[2:]]}" for tag in tags]
        return words, tags

    def _check_tag(self, row: Row, tag: str, previous: str, where: str, written: list[str]) -> None:
        """Raise unless a tag is IOB2 after the previous one, and of a known type."""
        if tag == OUTSIDE:
            return
        prefix, name = tag[:2], tag[2:]
        if prefix not in ("B-", "I-") or not name:
            hint = _other_style(written) or "expected O, B-<type> or I-<type>"
            raise DataError(f"{where}, '{tag}', is not IOB2", location=row.location, hint=hint)
        if prefix == "I-" and previous[2:] != name:
            raise DataError(
                f"{where}, '{tag}', is not IOB2: it continues no {name} span, the tag before it is '{previous}'",
                location=row.location,
                hint=f"the first word of a span is tagged 'B-{name}'; if the data is IOB1, set labels.encoding: iob1",
            )
        names = self._task.labels.names
        if not isinstance(names, str) and not self._task.labels.numbered and name not in names:
            raise DataError(
                f"span type '{name}' of {where.split(' of ')[0]} is not in 'labels.names'",
                location=row.location,
                hint=did_you_mean(name, list(names)),
            )


def _type_of(tag: str) -> str:
    return tag[2:]


def _other_style(tags: list[str]) -> str:
    """A hint at the keys that fit how tags are written, with the tags that were seen."""
    keys = written_otherwise(tags)
    seen = ", ".join(list(dict.fromkeys(tag for tag in tags if tag != OUTSIDE))[:6])
    return f"the tags {seen} look like labels: {{{keys}}}" if keys else ""
