"""What the schemes with a tag per word have in common: words and windows; and of spans their scores."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from ptv2kit.data.encodings import Encoding
from ptv2kit.data.metrics.srl import srl_scores
from ptv2kit.data.rows import Row
from ptv2kit.data.schemes.base import LabelScheme, Unit, input_error, listed, pad_inputs
from ptv2kit.data.schemes.records import IGNORED, Batch, Feature, Label, Prediction, Scores, TypeScore, rounded
from ptv2kit.data.tokens import Subwords
from ptv2kit.data.words import spans_of, split_words, word_places
from ptv2kit.errors import DataError
from ptv2kit.spec.inputs import WordsInput

OUTSIDE = "O"


class TaggingScheme(LabelScheme):
    """Labels the first sub-word of each word, as the official code does; the others are not scored.

    Args:
        names: of the tags, in order.
        missing: the tag of a word that was cut off.
        stride: sub-words that neighbouring windows of a long sentence share; 0: it is cut off.
    """

    def __init__(self, subwords: Subwords, names: Sequence[str], missing: str, stride: int) -> None:
        self._subwords = subwords
        self._missing = missing
        self._stride = stride
        self._names = tuple(names)
        self._index = {name: index for index, name in enumerate(self._names)}

    @property
    def unit(self) -> Unit:
        """Each token."""
        return "token"

    @property
    def names(self) -> tuple[str, ...]:
        """The tags."""
        return self._names

    @abstractmethod
    def spelled(self, row: Row) -> tuple[list[str], list[tuple[int, int]], str]:
        """The words of a row, the first character and end of each, and the text that they are in.

        Raises:
            DataError: a column is missing or of the wrong kind, or there is no word.
        """

    @abstractmethod
    def tagged(self, row: Row) -> tuple[list[str], list[str]]:
        """The words of a row, and the right tag of each; errors as of `spelled`, and of malformed labels."""

    @abstractmethod
    def encode_words(self, row: Row, words: list[str]) -> Encoding:
        """Some neighbouring words of a row as an input of the model."""

    def encode(self, row: Row, index: int, *, labelled: bool = True) -> list[Feature]:
        """The words as sub-words, in windows if there is a stride and they are too long; see `LabelScheme.encode`.

        A word is scored in one window, the one in which it is farthest from an edge.
        """
        if labelled:
            words, tags = self.tagged(row)
        else:
            words = self.spelled(row)[0]
            tags = [self._missing] * len(words)
        whole = self.encode_words(row, words)
        if not whole.truncated or not self._stride:
            return [self._feature(index, whole, tags, range(len(words)), 0)]
        # Windows begin at words, not at sub-words: each is an input of its own with special tokens.
        starts = [0]
        windows: list[tuple[Encoding, int, int]] = []  # with the first word, and the one behind the last
        while True:
            start = starts[-1]
            piece = words[start : start + 2 * self._subwords.max_length]  # what a window can hold, and more
            encoding = self.encode_words(row, piece)
            pieces = Counter(word for word in encoding.words if word is not None)
            last = not encoding.truncated and start + len(piece) == len(words)
            count = len(piece) if last else max(pieces, default=-1) + 1
            if encoding.truncated and count > 1:
                count -= 1  # the last word may have lost sub-words
                encoding = self.encode_words(row, piece[:count])
            windows.append((encoding, start, start + count))
            if last or not count:
                break
            shared, back = 0, 0  # sub-words, and words, that the next window begins before this one's end
            while back < count - 1 and shared + pieces[count - 1 - back] <= self._stride:
                shared += pieces[count - 1 - back]
                back += 1
            starts.append(start + count - back)
        # Of each word: how far it is from the nearer edge of the window that owns it.
        depth, owner = [-1] * len(words), [0] * len(words)
        for number, (_, start, end) in enumerate(windows):
            for word in range(start, end):
                if min(word - start, end - 1 - word) > depth[word]:
                    depth[word], owner[word] = min(word - start, end - 1 - word), number
        scored: list[set[int]] = [set() for _ in windows]
        for word, number in enumerate(owner):
            scored[number].add(word)
        return [
            self._feature(index, encoding, tags, scored[number], start)
            for number, (encoding, start, _) in enumerate(windows)
        ]

    def _feature(
        self, index: int, encoding: Encoding, tags: Sequence[str], scored: Collection[int], start: int
    ) -> Feature:
        """A window of a row: its words begin with the row's word `start`, and those of `scored` are scored in it."""
        anchors = [-1] * len(tags)
        labels = [IGNORED] * len(encoding.ids)
        for position, inner in enumerate(encoding.words):
            word = None if inner is None else inner + start
            if word is not None and word in scored and anchors[word] < 0:
                anchors[word] = position
                labels[position] = self._index.get(tags[word], IGNORED)
        return Feature(index, (encoding,), tuple(labels), tuple(tags), encoding.truncated, tuple(anchors))

    def said(self, row: Row) -> dict[str, Any]:
        """What the model reads of a row, by column; of the first one the words that are tagged."""
        return {**super().said(row), self.input_columns[0]: self.spelled(row)[0]}

    def encode_ahead(self, rows: Sequence[Row]) -> None:
        """Do nothing: `Subwords` cuts each word once and remembers it."""

    def collate(self, features: Sequence[Feature]) -> Batch:
        """Labels `[batch, length]`, padding ignored."""
        ids, mask, segments = pad_inputs(features, self._subwords.pad_id)
        labels = torch.full_like(ids, IGNORED)
        for index, feature in enumerate(features):
            assert isinstance(feature.labels, tuple)
            labels[index, : len(feature.labels)] = torch.tensor(feature.labels)
        return Batch(ids, mask, segments, labels)

    def decode(self, features: Sequence[Feature], logits: Tensor) -> list[Prediction]:
        """The most probable tag of each word. Logits `[batch, length, tags]`."""
        probabilities, classes = (values.tolist() for values in logits.softmax(-1).max(-1))
        predictions: list[Prediction] = []
        for index, feature in enumerate(features):
            kept = [anchor for anchor in feature.notes if anchor >= 0]
            mean = sum(probabilities[index][anchor] for anchor in kept) / max(1, len(kept))
            tags = tuple(
                self._missing if anchor < 0 else self._names[classes[index][anchor]] for anchor in feature.notes
            )
            of_words = tuple(0.0 if anchor < 0 else probabilities[index][anchor] for anchor in feature.notes)
            predictions.append(
                Prediction(feature.row, tags, mean, feature.reference, notes=feature.notes, probabilities=of_words)
            )
        return predictions

    def join(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        """Each word's tag from the window in which it is scored."""
        joined: list[Prediction] = []
        for row, group in groupby(sorted(predictions, key=lambda window: window.row), key=lambda window: window.row):
            windows = list(group)
            if len(windows) == 1:
                joined += windows
                continue
            tags, of_words = [self._missing] * len(windows[0].notes), [0.0] * len(windows[0].notes)
            scored: list[int] = []
            for window in windows:
                for word, anchor in enumerate(window.notes):
                    if anchor >= 0:
                        tags[word], of_words[word] = listed(window.label)[word], window.probabilities[word]
                        scored.append(word)
            mean = sum(of_words[word] for word in scored) / max(1, len(scored))
            joined.append(Prediction(row, tuple(tags), mean, windows[0].reference, probabilities=tuple(of_words)))
        return joined

    def answer(self, row: Row, prediction: Prediction) -> dict[str, Any]:
        """The words, and a tag for each."""
        return {
            "label": list(listed(prediction.label)),
            "probability": rounded(prediction.probability),
            "words": self.spelled(row)[0],
        }

    def marks(self, feature: Feature) -> tuple[str | None, ...]:
        """The tag of each word's first sub-word."""
        assert isinstance(feature.labels, tuple)
        return tuple(None if label == IGNORED else self._names[label] for label in feature.labels)

    def shown(self, reference: Label) -> str:
        """Nothing: the tokens are marked."""
        return ""


class SpanScheme(TaggingScheme):
    """Spans over words, in IOB2; the words behind a cut are outside, as in the official code.

    Args:
        types: of spans, in order.
        metrics: of the task; the first one decides what the scores by type are.
    """

    def __init__(self, subwords: Subwords, types: Sequence[str], metrics: Sequence[str], stride: int) -> None:
        self._types = tuple(types)
        self._metrics = metrics
        super().__init__(subwords, (OUTSIDE, *(f"{at}-{name}" for name in types for at in "BI")), OUTSIDE, stride)

    def answer(self, row: Row, prediction: Prediction) -> dict[str, Any]:
        """The words, a tag for each, and the spans with their characters in the text; words that were given as a list
        are joined with blanks. A span's probability is that of its least certain word."""
        _, places, text = self.spelled(row)
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
        return {**super().answer(row, prediction), "spans": spans}

    def unreachable(self, reference: Label, whole: Feature) -> int:
        """See `LabelScheme.unreachable`."""
        return sum(
            any(anchor < 0 for anchor in whole.notes[first : last + 1])
            for _, first, last in spans_of(listed(reference))
        )

    @property
    def kinds(self) -> tuple[str, ...]:
        """The types of spans."""
        return self._types

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
        if "srl_f1" in self._metrics:
            roles, by_role = srl_scores(found, right)
            values["srl_f1"] = roles["srl_f1"]
            if self._metrics[0] == "srl_f1":
                types = [TypeScore(name, *by_role[name]) for name in sorted(by_role)]
        counts = {"token_accuracy": f"{sum(map(len, right))} words"}
        return Scores({metric: values[metric] for metric in self._metrics}, tuple(types), counts)


def spelled_words(settings: WordsInput, row: Row) -> tuple[list[str], list[tuple[int, int]], str]:
    """See `TaggingScheme.spelled`. Where no word is appended, the words may also be one text, which is cut."""
    if isinstance(row.value(settings.words), str) and settings.append is None:
        text = row.text(settings.words)
        words = split_words(text)
        if not words:
            raise DataError(f"column '{settings.words}' holds no word", location=row.location)
        return words, word_places(text, words), text
    words = row.words(settings.words)
    text = " ".join(words)
    return words, word_places(text, words), text


def encode_some_words(settings: WordsInput, subwords: Subwords, row: Row, words: Sequence[str]) -> Encoding:
    """See `TaggingScheme.encode_words`; the appended word is behind them in every window."""
    append = settings.append
    if append is None:
        try:
            return subwords.encode_words(words)
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
        return subwords.encode_words_and(words, source[at], append.separator)
    except ValueError as error:
        raise input_error(row, error, "raise max_length") from error


def words_and_tags(
    settings: WordsInput, column: str, row: Row, read: Callable[[Row], list[str]]
) -> tuple[list[str], list[str]]:
    """The words of a row, and what `read` finds in `column`: a tag for each.

    Raises:
        DataError: a column is missing or of the wrong kind, or there are more of the one than of the other.
    """
    words, tags = row.words(settings.words), read(row)
    if len(words) != len(tags):
        message = f"{len(words)} words in '{settings.words}' but {len(tags)} tags in '{column}'"
        raise DataError(message, location=row.location)
    return words, tags
