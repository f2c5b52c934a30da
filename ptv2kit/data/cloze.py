"""Cloze inputs of the original GLM: ids, positions and targets of a context with a mask and an answer to it.

    input      [CLS] The  sky  is  [MASK] .  eos   sop  a1  a2
    position       0   1    2   3      4  5    6     4   4   4
    block          0   0    0   0      0  0    0     1   2   3
    target                                          a1  a2 eop

The context sees itself in both directions, the answer sees the context and itself up to each token. Layout, positions
and shortening are those of the official code (THUDM/GLM, `tasks/data_utils.py` and `tasks/superglue/pvp.py`).
Everything here is a function of ids: no tokenizer and no tensors. The official code cuts each part of a pattern into
ids on its own; so must a caller, because `."` at a border would otherwise become one token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final


@final
@dataclass(frozen=True, slots=True)
class ClozeIds:
    """Ids of the special tokens of a cloze input.

    Args:
        cls: `[CLS]`, begins the context.
        eos: `<|endoftext|>`, ends the context.
        sop: `<|startofpiece|>`, begins the answer.
        masks: ids that mark the place of the answer: `[MASK]`, and where they are used `[gMASK]` and `[sMASK]`.
    """

    cls: int
    eos: int
    sop: int
    masks: frozenset[int]


@final
@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a pattern.

    Args:
        shortenable: whether tokens may be cut off at its end if the input is too long.
    """

    ids: tuple[int, ...]
    shortenable: bool = False


@final
@dataclass(frozen=True, slots=True)
class ClozeRow:
    """One input of the model, without padding.

    Args:
        input_ids: context, `sop`, and the answer without its last token.
        position_ids: two rows of the same length: positions, block positions.
        context_length: tokens of the context, which every token sees; the official code calls it `sep`. It is also the
            index of `sop`, whose logits predict the first token of the answer.
    """

    input_ids: tuple[int, ...]
    position_ids: tuple[tuple[int, ...], tuple[int, ...]]
    context_length: int


def shorten(
    first: Sequence[Part], second: Sequence[Part], answer_length: int, max_length: int
) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Cut tokens off a pattern until its input fits, one at a time as the official code does.

    Each token is taken from the side with more shortenable tokens, from `second` if both have the same number, and
    there from the end of the last shortenable part that has any left.

    Args:
        first: parts of the pattern's first side.
        second: parts of its second side; empty if it has one side only.
        answer_length: tokens of the answer, with `eop` if that is scored; 1 for a verbalizer.
        max_length: of the whole input: `[CLS]`, context, eos, `sop` and the answer without its last token.

    Returns:
        Both sides.

    Raises:
        ValueError: nothing shortenable is left and the input is still too long.
    """
    excess = 2 + answer_length + sum(len(part.ids) for part in (*first, *second)) - max_length
    return cut_off(first, second, excess, max_length)


def cut_off(
    first: Sequence[Part], second: Sequence[Part], excess: int, max_length: int
) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Cut `excess` tokens off a pattern; arguments, order and errors as of `shorten`."""
    sides = (first, second)
    kept = [[len(part.ids) for part in side] for side in sides]
    counts = [sum(len(part.ids) for part in side if part.shortenable) for side in sides]
    for cut in range(max(0, excess)):
        if not any(counts):
            raise ValueError(
                f"the input is {excess - cut} tokens longer than the {max_length} allowed, "
                "and nothing of it may be cut off"
            )
        longer = 0 if counts[0] > counts[1] else 1
        last = max(index for index, part in enumerate(sides[longer]) if part.shortenable and kept[longer][index])
        kept[longer][last] -= 1
        counts[longer] -= 1
    first, second = (
        tuple(replace(part, ids=part.ids[:count]) for part, count in zip(side, counts_of, strict=True))
        for side, counts_of in zip(sides, kept, strict=True)
    )
    return first, second


def context_of(first: Sequence[Part], second: Sequence[Part], special: ClozeIds) -> tuple[int, ...]:
    """The context: `[CLS]`, all parts, eos."""
    return (special.cls, *(number for part in (*first, *second) for number in part.ids), special.eos)


def lay_out(context: Sequence[int], answer: Sequence[int], special: ClozeIds) -> ClozeRow:
    """Put an answer behind its context, at the position of the last mask.

    Args:
        context: from `[CLS]` to eos, with at least one mask.
        answer: tokens to predict; one for a verbalizer, several with `eop` last for a text, none for a prediction that
            starts at `sop`.
        special: ids of the special tokens.

    Raises:
        ValueError: the context has no mask.
    """
    masked = [index for index, number in enumerate(context) if number in special.masks]
    if not masked:
        raise ValueError("a cloze input needs a mask where its answer belongs")
    inputs = (special.sop, *answer[:-1])
    length = len(context)
    return ClozeRow(
        input_ids=(*context, *inputs),
        position_ids=((*range(length), *[masked[-1]] * len(inputs)), (*[0] * length, *range(1, len(inputs) + 1))),
        context_length=length,
    )
