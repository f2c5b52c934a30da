"""Which rows share a batch."""

from __future__ import annotations

import random
from collections.abc import Sequence

_POOL = 50


def grouped_batches(lengths: Sequence[int], batch_size: int, seed: int) -> list[list[int]]:
    """Shuffled batches of rows of similar length, so that little of a batch is padding.

    Rows are shuffled, cut into pools of 50 batches, sorted by length within a pool, cut into batches, and the
    batches are shuffled.

    Args:
        lengths: tokens of each row.
        batch_size: rows per batch; the last one of all may be smaller.
        seed: of both shuffles; the same seed gives the same batches.

    Returns:
        Indices of rows, each exactly once, longest row of a batch first.
    """
    generator = random.Random(seed)
    order = list(range(len(lengths)))
    generator.shuffle(order)
    batches: list[list[int]] = []
    for start in range(0, len(order), _POOL * batch_size):
        pool = sorted(order[start : start + _POOL * batch_size], key=lambda row: -lengths[row])
        batches += [pool[at : at + batch_size] for at in range(0, len(pool), batch_size)]
    generator.shuffle(batches)
    return batches


def token_batches(lengths: Sequence[int], inputs: Sequence[int], batch_tokens: int, seed: int) -> list[list[int]]:
    """Shuffled batches of rows of similar length, each of at most `batch_tokens` tokens once it is padded.

    As `grouped_batches`, with pools of 50 batches' tokens. How many batches there are depends a little on the seed.

    Args:
        lengths: tokens of each row's longest input.
        inputs: how many inputs each row has; all of a batch are padded to the same length.
        batch_tokens: tokens per batch, padding included; a row with more has a batch of its own.
        seed: of both shuffles; the same seed gives the same batches.

    Returns:
        Indices of rows, each exactly once, longest row of a batch first.
    """
    generator = random.Random(seed)
    order = list(range(len(lengths)))
    generator.shuffle(order)
    batches: list[list[int]] = []
    pool: list[int] = []
    room = _POOL * batch_tokens
    for row in order:
        pool.append(row)
        room -= lengths[row] * inputs[row]
        if room <= 0:
            batches += sorted_token_batches(pool, lengths, inputs, batch_tokens)
            pool, room = [], _POOL * batch_tokens
    batches += sorted_token_batches(pool, lengths, inputs, batch_tokens)
    generator.shuffle(batches)
    return batches


def sorted_token_batches(
    rows: Sequence[int],
    lengths: Sequence[int],
    inputs: Sequence[int],
    batch_tokens: int,
    spare_tokens: int | None = None,
) -> list[list[int]]:
    """Some rows, longest first, cut wherever the next row would be too much; other arguments as of `token_batches`.

    Args:
        spare_tokens: of a batch also its padding alone may not be more; None: it may.
    """
    batches: list[list[int]] = []
    held = padding = 0
    for row in sorted(rows, key=lambda row: -lengths[row]):
        more = (lengths[batches[-1][0]] - lengths[row]) * inputs[row] if batches else 0
        wasteful = spare_tokens is not None and padding + more > spare_tokens
        if not batches or wasteful or lengths[batches[-1][0]] * (held + inputs[row]) > batch_tokens:
            batches.append([])
            held = padding = more = 0
        batches[-1].append(row)
        held += inputs[row]
        padding += more
    return batches


def sorted_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Batches for evaluation: longest rows first, each row exactly once."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
