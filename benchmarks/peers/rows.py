"""Real rows: the same ones, encoded once in the same way, for all methods."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.trainer_pt_utils import get_length_grouped_indices

from peers.methods import toolkit_recipe
from peers.setting import Setting
from ptv2kit.data.dataset import EncodedSplit
from ptv2kit.data.schemes.records import IGNORED, Batch
from ptv2kit.spec.load import load_task
from ptv2kit.training.prepare import Prepared, prepare

TASKS = Path(__file__).parents[2] / "tasks"
LENGTHS = {"wnut17": 256, "rte": 128, "squad": 384}
"""Sets, and the longest input of each, for all methods; for rte and squad that of the official scripts."""
FIXED = ("rte", "squad")
"""Sets whose inputs the official scripts pad to that length; those for tags pad to the batch's longest."""


def prepared_rows(setting: Setting, name: str, data_root: Path, rows: int, validation_rows: int) -> Prepared:
    """A set's rows, drawn so that their lengths are spread like those of the whole set.

    Args:
        setting: of the run.
        name: of the set.
        data_root: its folder is there.
        rows: to train on.
        validation_rows: to predict.
    """
    path = TASKS / f"{name}.yaml"
    task = load_task(path).task
    recipe = toolkit_recipe("ptv2kit", setting.folder, setting.prompt_length, max_length=LENGTHS[name])
    prepared = prepare(recipe, task, path, data_root, _unheard)
    splits = {
        "train": _spread_rows(prepared.splits["train"], rows, recipe.train.batch_size, setting.seed),
        "validation": _spread_rows(prepared.splits["validation"], validation_rows, 32, setting.seed),
    }
    return replace(prepared, splits=splits)


def _unheard(what: str, done: int, total: int) -> None:
    """Nobody is told how far the encoding is."""


def _spread_rows(split: EncodedSplit, count: int, block: int, seed: int) -> EncodedSplit:
    """`count` rows as blocks of neighbours by length, at equal distances, out of 50 times as many rows as a block has.

    The toolkit sorts so many rows at a time by length and cuts them into batches. A plain random draw of few rows would
    leave its batches wider in length than they are in a whole set, one of equal lengths narrower.
    """
    by_row: dict[int, int] = {}
    for feature in split.features:
        by_row[feature.row] = max(by_row.get(feature.row, 0), feature.length)
    rows = list(by_row)
    random.Random(seed).shuffle(rows)
    pool = sorted(rows[: 50 * block], key=lambda row: by_row[row])
    blocks = [pool[at : at + block] for at in range(0, len(pool), block)]
    wanted = max(1, min(len(blocks), round(count / block)))
    chosen = {row for number in range(wanted) for row in blocks[int((number + 0.5) * len(blocks) / wanted)]}
    return replace(split, features=tuple(feature for feature in split.features if feature.row in chosen))


def peer_batches(split: EncodedSplit, batch_size: int, seed: int, *, grouped: bool) -> list[list[int]]:
    """Rows in random order, as a plain data loader takes them; or as the Trainer's `group_by_length` does."""
    order = list(range(len(split.features)))
    if grouped:
        # As on a whole set, of which these rows are a sample: the sampler sorts pools of 50 batches there.
        chance = torch.Generator().manual_seed(seed)
        order = get_length_grouped_indices(split.lengths, batch_size, mega_batch_mult=50, generator=chance)
    else:
        random.Random(seed).shuffle(order)
    return [order[at : at + batch_size] for at in range(0, len(order), batch_size)]


def widened(batch: Batch, length: int) -> Batch:
    """The same batch, padded to `length`."""
    missing = length - batch.input_ids.shape[1]
    if missing <= 0:
        return batch

    def pad(tensor: Tensor, value: int = 0) -> Tensor:
        return F.pad(tensor, (0, missing), value=value)

    segments = None if batch.token_type_ids is None else pad(batch.token_type_ids)
    per_token = batch.labels.shape == batch.input_ids.shape
    labels = pad(batch.labels, IGNORED) if per_token else batch.labels
    return Batch(pad(batch.input_ids), pad(batch.attention_mask), segments, labels)


def padded_tokens(split: EncodedSplit, batches: Sequence[Sequence[int]], length: int | None) -> int:
    """Tokens that are computed, padding included."""
    lengths = split.lengths
    return sum(len(rows) * max(length or 0, *(lengths[row] for row in rows)) for rows in batches)
