"""Rows as the model will see them: tokens, targets, what is cut off and what is not scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, final

from ptv2kit.data.encodings import Encoding
from ptv2kit.data.rows import Row
from ptv2kit.data.schemes.base import LabelScheme
from ptv2kit.data.schemes.records import Feature
from ptv2kit.data.tokens import Subwords


@final
@dataclass(frozen=True)
class TokenView:
    """A sub-word.

    Args:
        text: as the vocabulary writes it.
        label: its target; empty where it is scored as outside or where only the whole input has a target.
        scored: whether the loss looks at it.
        cut: whether it is cut off at `max_length`, so that the model never sees it.
    """

    text: str
    label: str
    scored: bool
    cut: bool


@final
@dataclass(frozen=True)
class InputView:
    """One input of the model.

    Args:
        title: which window or choice it is, empty if there is only one.
        right: whether it is the right choice; None if it is not a choice.
        tokens: in order, with those that are cut off where they would stand.
    """

    title: str
    right: bool | None
    tokens: tuple[TokenView, ...]

    @property
    def cut(self) -> int:
        """Sub-words that are cut off."""
        return sum(token.cut for token in self.tokens)


@final
@dataclass(frozen=True)
class RowView:
    """One row.

    Args:
        location: where it stands in the data.
        target: what is right for the row as a whole.
        inputs: one, or one for each choice or window.
    """

    location: str
    target: str
    inputs: tuple[InputView, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON object with the fields' names."""
        inputs = [
            {
                "title": view.title,
                "right": view.right,
                "tokens": [
                    {"text": token.text, "label": token.label, "scored": token.scored, "cut": token.cut}
                    for token in view.tokens
                ],
            }
            for view in self.inputs
        ]
        return {"location": self.location, "target": self.target, "inputs": inputs}


def preview_row(scheme: LabelScheme, untruncated: LabelScheme, subwords: Subwords, row: Row) -> RowView:
    """A row as the model will see it.

    Args:
        scheme: of the task, cutting off at `max_length`.
        untruncated: the same without a limit.
        subwords: names the ids.

    Raises:
        DataError: the row is malformed.
    """
    features = scheme.encode(row, 0)
    names = _answers(scheme)
    inputs: list[InputView] = []
    for number, feature in enumerate(features, start=1):
        for index, encoding in enumerate(feature.inputs):
            title, right = "", None
            if encoding.cloze is not None:
                answers = [names[answer.number] for answer in encoding.cloze.answers]
                if len(feature.inputs) > 1:
                    title = f"{'class' if scheme.words else 'choice'} {' or '.join(dict.fromkeys(answers))}"
                    right = answers == [feature.reference] if len(answers) == 1 else None
            elif len(features) > 1:
                title = f"window {number} of {len(features)}"
            elif len(feature.inputs) > 1:
                title, right = f"choice {feature.notes[index]}", index == feature.labels
            whole = encoding if len(features) > 1 else untruncated.encode(row, 0, labelled=False)[0].inputs[index]
            inputs.append(InputView(title, right, tuple(_tokens(scheme, subwords, feature, encoding, whole))))
    return RowView(row.location, scheme.shown(features[0].reference), tuple(inputs))


def words_shown(scheme: LabelScheme, subwords: Subwords) -> dict[str, list[list[str]]]:
    """The words of each class as the vocabulary writes their sub-words; empty without a verbalizer."""
    return {
        name: [subwords.tokens(word) for word in words] for name, words in zip(scheme.names, scheme.words, strict=False)
    }


def _answers(scheme: LabelScheme) -> list[str]:
    """Which class, or choice, each answer stands for."""
    if not scheme.words:
        return list(scheme.names)
    return [name for name, words in zip(scheme.names, scheme.words, strict=True) for _ in words]


def _predicted(scheme: LabelScheme, subwords: Subwords, feature: Feature, encoding: Encoding) -> list[str]:
    """What a language model should predict at each id: the right words, or the tokens of the answers; else nothing."""
    labels: list[list[str]] = [[] for _ in encoding.ids]
    assert encoding.cloze is not None
    for answer in encoding.cloze.answers:
        if answer.ids:
            for place, token in zip(answer.places, subwords.tokens(answer.ids), strict=True):
                labels[place].append(token)
        else:
            right = words_shown(scheme, subwords).get(str(feature.reference), [])
            labels[answer.places[0]] += [token for word in right for token in word]
    return ["|".join(dict.fromkeys(tokens)) for tokens in labels]


def _tokens(
    scheme: LabelScheme, subwords: Subwords, feature: Feature, encoding: Encoding, whole: Encoding
) -> list[TokenView]:
    labels: Sequence[str | None] = scheme.marks(feature) or [""] * len(encoding.ids)
    if encoding.cloze is not None:
        labels = _predicted(scheme, subwords, feature, encoding)
    kept = [
        TokenView(text, "" if label == "O" else label or "", label is not None, False)
        for text, label in zip(subwords.tokens(encoding.ids), labels, strict=True)
    ]
    if whole.ids == encoding.ids:
        return kept
    views: list[TokenView] = []
    for kind, start, end, from_whole, to_whole in SequenceMatcher(
        None, encoding.ids, whole.ids, autojunk=False
    ).get_opcodes():
        views += kept[start:end]
        if kind in ("insert", "replace"):
            lost = subwords.tokens(whole.ids[from_whole:to_whole])
            views += [TokenView(text, "", False, True) for text in lost]
    return views
