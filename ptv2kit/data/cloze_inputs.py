"""Rows as inputs in which a word is missing: where its tokens are predicted, for each kind of language model.

    masks          [CLS] is it so? [MASK] [MASK] . [SEP]          as many masks as the answer has tokens
    continuation   is it so? Answer: ▁of                           the answer without its last token, behind the text
    blank          [CLS] is it so? [MASK] . eos   sop ▁of          the original GLM (`cloze.py`)

Only texts from the data's columns are shortened, never the template's own words and never the mask: one token at a time
off the end of the last column of the side with more of them, as the official GLM code does.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Literal, final

import torch
from torch import Tensor

from ptv2kit.data.cloze import ClozeIds, Part, context_of, cut_off, lay_out, shorten
from ptv2kit.data.encodings import Answer, Cloze, Encoding, Whole
from ptv2kit.data.rows import Row
from ptv2kit.data.templates import Piece, pieces
from ptv2kit.data.tokens import Subwords
from ptv2kit.spec.template import Template

END_OF_TEXT, START_OF_PIECE, END_OF_PIECE = "<|endoftext|>", "<|startofpiece|>", "<|endofpiece|>"
_GLM_MASKS = ("[MASK]", "[gMASK]", "[sMASK]")
_NO_ID = -100

Ids = tuple[int, ...]
Side = Literal["longest", "text", "pair"]


@final
class ClozeInputs:
    """Encodes the rows of a task whose template has a mask.

    Args:
        text: the first text, or the only one.
        shorten: which of the two is shortened.
    """

    def __init__(self, subwords: Subwords, text: Template, pair: Template | None, shorten: Side) -> None:
        self._subwords = subwords
        self._templates = [text] if pair is None else [text, pair]
        self._shortened = [shorten in ("longest", side) for side in ("text", "pair")] if pair else [True]
        if subwords.filling == "blank":
            self._special = ClozeIds(
                cls=subwords.special_id("[CLS]"),
                eos=subwords.special_id(END_OF_TEXT),
                sop=subwords.special_id(START_OF_PIECE),
                masks=frozenset(map(subwords.special_id, _GLM_MASKS)),
            )
            self._mask, self._end = subwords.special_id("[MASK]"), subwords.special_id(END_OF_PIECE)

    def encode(self, row: Row, answers: Sequence[Ids] | None) -> tuple[Encoding, ...]:
        """The inputs that a row needs for its answers.

        Args:
            answers: tokens of each; None: answers of one token, all compared at one place of one input.

        Raises:
            DataError: a column is missing or holds no text.
            ValueError: the template's own words and the longest answer alone exceed the longest input.
        """
        sides = [pieces(template, row) for template in self._templates]
        match self._subwords.filling:
            case "masks":
                return self._with_masks(sides, answers)
            case "continuation":
                return self._continued(sides, answers)
            case "blank":
                return self._with_blank(sides, answers)

    def _with_masks(self, sides: list[list[Piece]], answers: Sequence[Ids] | None) -> tuple[Encoding, ...]:
        """One input for each number of tokens that answers have."""
        mask = self._subwords.mask
        assert mask is not None, "masks need a mask token"
        whole, place = self._read(sides, mask)
        assert place is not None, "a mask was cut into pieces"
        longest = max((len(answer) for answer in answers or ()), default=1)
        kept = self._fitting(whole, sides, mask, longest - 1)
        before = kept.index(place)
        truncated = len(kept) < len(whole.ids)
        if answers is None:
            return (_encoding(whole, kept, Cloze((Answer(0, (before,)),)), truncated),)
        inputs: list[Encoding] = []
        for length in dict.fromkeys(map(len, answers)):
            places = tuple(range(before, before + length))
            of_length = [Answer(n, places, answer) for n, answer in enumerate(answers) if len(answer) == length]
            repeated = [*kept[:before], *[place] * length, *kept[before + 1 :]]
            inputs.append(_encoding(whole, repeated, Cloze(tuple(of_length)), truncated))
        return tuple(inputs)

    def _continued(self, sides: list[list[Piece]], answers: Sequence[Ids] | None) -> tuple[Encoding, ...]:
        """One input for each answer, without its last token, which predicts nothing."""
        # The blank in front of a word is the word's own.
        last = sides[-1][: [piece.kind for piece in sides[-1]].index("mask")]
        while last and not last[-1].text.rstrip(" "):
            last.pop()
        if last:
            last[-1] = Piece(last[-1].kind, last[-1].text.rstrip(" "))
        sides = [*sides[:-1], last]
        whole, _ = self._read(sides, "")
        longest = max((len(answer) for answer in answers or ()), default=1)
        end = max((index for index, side in enumerate(whole.sides) if side is not None), default=-1)
        fitting = self._fitting(whole, sides, "", longest - 1)
        truncated = len(fitting) < len(whole.ids)
        kept = [index for index in fitting if index <= end]
        if not kept:
            raise ValueError("nothing stands in front of the mask")
        place = len(kept) - 1
        if answers is None:
            return (_encoding(whole, kept, Cloze((Answer(0, (place,)),)), truncated),)
        inputs: list[Encoding] = []
        for number, ids in enumerate(answers):
            cloze = Cloze((Answer(number, tuple(range(place, place + len(ids))), ids),))
            inputs.append(_encoding(whole, kept, cloze, truncated, ids[:-1]))
        return tuple(inputs)

    def _with_blank(self, sides: list[list[Piece]], answers: Sequence[Ids] | None) -> tuple[Encoding, ...]:
        """One input for each answer; of several tokens it ends with the end-of-piece token, as in the official code."""
        parts = [self._parts(side, number) for number, side in enumerate(sides)]
        first, second = parts[0], parts[1] if len(parts) > 1 else []
        ended = [(*answer, self._end) for answer in answers or ()]
        longest = max(map(len, ended), default=1)
        fitting = shorten(first, second, longest, self._subwords.max_length)
        truncated = fitting != (tuple(first), tuple(second))
        context = context_of(*fitting, self._special)
        inputs: list[Encoding] = []
        for number, ids in enumerate(ended if answers is not None else [()]):
            row = lay_out(context, ids, self._special)
            places = tuple(range(row.context_length, len(row.input_ids)))
            cloze = Cloze((Answer(number, places, ids),), row.position_ids, row.context_length)
            inputs.append(Encoding(row.input_ids, None, (None,) * len(row.input_ids), truncated, cloze))
        return tuple(inputs)

    def _parts(self, side: list[Piece], number: int) -> list[Part]:
        """Each piece cut into ids on its own, as the official code does. A literal's last blank is the next one's."""
        parts: list[Part] = []
        blank = ""
        for piece in side:
            if piece.kind == "mask":
                parts.append(Part((self._mask,)))
                blank = ""
                continue
            text = blank + piece.text
            kept = text.rstrip(" ") if piece.kind == "literal" else text
            blank = text[len(kept) :]
            if kept:
                shortenable = piece.kind == "column" and self._shortened[number]
                parts.append(Part(self._subwords.plain(kept), shortenable))
        return parts

    def _read(self, sides: list[list[Piece]], mask: str) -> tuple[Whole, int | None]:
        """Both texts as the tokenizer reads them, and the index of the mask in its ids."""
        texts = ["".join(mask if piece.kind == "mask" else piece.text for piece in side) for side in sides]
        whole = self._subwords.whole(texts[0], texts[1] if len(texts) > 1 else None)
        for number, side in enumerate(sides):
            end = 0
            for piece in side:
                end += len(mask) if piece.kind == "mask" else len(piece.text)
                if piece.kind == "mask":
                    place = next(
                        index
                        for index, (of, span) in enumerate(zip(whole.sides, whole.spans, strict=True))
                        if of == number and span[0] < end <= span[1]
                    )
                    return whole, place
        return whole, None

    def _fitting(self, whole: Whole, sides: list[list[Piece]], mask: str, more: int) -> list[int]:
        """Indices of the ids that are kept so that `more` others still fit."""
        excess = len(whole.ids) + more - self._subwords.max_length
        if excess <= 0:
            return list(range(len(whole.ids)))
        columns = [self._columns(side, mask, number) for number, side in enumerate(sides)]

        def column_of(index: int) -> int | None:
            """Which column an id is wholly of; None for what is not shortened."""
            side, (start, end) = whole.sides[index], whole.spans[index]
            if side is None:
                return None
            return next((n for n, (first, last) in enumerate(columns[side]) if first <= start < end <= last), None)

        parts: list[list[Part]] = [[], []]
        for number in range(len(sides)):
            own = [index for index, side in enumerate(whole.sides) if side == number]
            for column, run in groupby(own, column_of):
                parts[number].append(Part(tuple(run), shortenable=column is not None))
        left = cut_off(parts[0], parts[1], excess, self._subwords.max_length)
        kept = {index for side in left for part in side for index in part.ids}
        return [index for index, side in enumerate(whole.sides) if side is None or index in kept]

    def _columns(self, side: list[Piece], mask: str, number: int) -> list[tuple[int, int]]:
        """First character and end of each column's text that may be shortened."""
        spans: list[tuple[int, int]] = []
        end = 0
        for piece in side:
            start, end = end, end + len(mask if piece.kind == "mask" else piece.text)
            if piece.kind == "column" and self._shortened[number]:
                spans.append((start, end))
        return spans


def cloze_tensors(inputs: Sequence[Encoding]) -> dict[str, Tensor]:
    """What the model's forward takes besides ids, mask and segments.

    Args:
        inputs: of a batch, those of a row one after the other; all rows have equally many answers.

    Returns:
        `answer_places` `[answers, tokens]`: where a token is predicted, as input · length + index, 0 where an answer
        has no token; `answer_ids` `[answers, tokens]`: which token, -100 where there is none; left out where all words
        are compared at one place. Of the original GLM also `position_ids` `[inputs, 2, length]` and `context_length`
        `[inputs]`.
    """
    length = max(len(encoding.ids) for encoding in inputs)
    found: list[tuple[tuple[int, int], list[int], Ids]] = []
    row = -1
    clozes: list[Cloze] = []
    for index, encoding in enumerate(inputs):
        assert encoding.cloze is not None
        clozes.append(encoding.cloze)
        for answer in encoding.cloze.answers:
            row += answer.number == 0
            found.append(((row, answer.number), [index * length + place for place in answer.places], answer.ids))
    found.sort()
    width = max(len(places) for _, places, _ in found)
    tensors = {"answer_places": torch.tensor([[*places, *[0] * (width - len(places))] for _, places, _ in found])}
    if found[0][2]:
        tensors["answer_ids"] = torch.tensor([[*ids, *[_NO_ID] * (width - len(ids))] for _, _, ids in found])
    if clozes[0].positions is not None:
        rows = [cloze.positions for cloze in clozes if cloze.positions is not None]
        tensors["position_ids"] = torch.tensor(
            [[[*line, *[0] * (length - len(line))] for line in positions] for positions in rows]
        )
        tensors["context_length"] = torch.tensor([cloze.context for cloze in clozes])
    return tensors


def _encoding(whole: Whole, indices: Sequence[int], cloze: Cloze, truncated: bool, more: Ids = ()) -> Encoding:
    """The ids at `indices`, and `more` behind them in the last one's segment."""
    ids = (*(whole.ids[index] for index in indices), *more)
    segments = None
    if whole.segments is not None:
        own = [whole.segments[index] for index in indices]
        segments = (*own, *own[-1:] * len(more))
    return Encoding(ids, segments, (None,) * len(ids), truncated, cloze)
