"""`train.cache_trunk`: the outputs of the layers below the lowest prompt, computed once for each example."""

from __future__ import annotations

import errno
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, final

import numpy as np
import torch
from torch import Tensor

from ptv2kit.data.dataset import EncodedSplit, Progress
from ptv2kit.data.kept_states import KeptStates, StatesLayout, states_layout
from ptv2kit.errors import ConfigError, OutOfMemoryError, TrainingError
from ptv2kit.files import cache_folder
from ptv2kit.machine import free_disk, free_memory
from ptv2kit.models.backbones import DTYPES, BackboneSpec
from ptv2kit.models.build import trunk_depth
from ptv2kit.models.families import dropouts
from ptv2kit.spec.recipe import Recipe
from ptv2kit.training.parts import TaskPart

_MEMORY_SHARE = 0.25
_DISK_SHARE = 0.5
"""How much of what is free `auto` takes at most."""
_ZEROS = 2**24
"""Bytes of a scratch file that are written at once."""
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.05}
"""How far the hidden states of a checked example may be off, as a share of the largest of them."""

Place = Literal["memory", "disk", "off"]


@final
@dataclass(frozen=True)
class TrunkChoice:
    """Where the outputs are kept.

    Args:
        place: memory, disk, or nowhere.
        note: what the user should know; may be empty.
    """

    place: Place
    note: str = ""


def choose_place(recipe: Recipe, spec: BackboneSpec, parts: Sequence[TaskPart], processes: int) -> TrunkChoice:
    """Where the outputs of the trunk are kept, `auto` resolved.

    Args:
        recipe: of the run, checked by `check_model` and `check_strategy`.
        spec: its backbone.
        parts: its tasks.
        processes: that train together; those on one machine share its memory.

    Raises:
        OutOfMemoryError: the recipe says `memory`, and there is less than is needed.
    """
    wanted, depth = recipe.train.cache_trunk, trunk_depth(recipe, spec)
    if wanted == "off" or depth == 0:
        return TrunkChoice("off")
    needed = _needed(spec, parts)
    which = "layer 1" if depth == 1 else f"layers 1-{depth}"
    dropout = ", ".join(f"{key} {value:g}" for key, value in dropouts(spec.config).items())
    without = f", computed without dropout (the backbone has {dropout})" if dropout else ""
    kept = f"the outputs of {which} are kept {{}}: {_size(needed)}{without}"
    folder = cache_folder()
    on_disk = TrunkChoice("disk", kept.format(f"in a scratch file in {folder}"))
    if wanted == "disk":
        return on_disk
    room = free_memory()
    if wanted == "memory":
        if room is not None and needed * processes > room:
            raise OutOfMemoryError(
                f"train.cache_trunk is memory, which needs {_size(needed * processes)}; {_size(room)} are free",
                hint="set train.cache_trunk to disk or off",
            )
        return TrunkChoice("memory", kept.format("in memory"))
    off = f"{which} are computed anew in each step" if depth > 1 else f"{which} is computed anew in each step"
    if recipe.train.epochs == 1:
        return TrunkChoice("off")
    if dropout:
        return TrunkChoice(
            "off",
            f"{off}, with the backbone's dropout ({dropout}); train.cache_trunk: memory computes them once, without it",
        )
    if room is not None and needed * processes <= _MEMORY_SHARE * room:
        return TrunkChoice("memory", kept.format("in memory"))
    disk = free_disk(folder)
    if processes == 1 and needed <= _DISK_SHARE * disk:
        return on_disk
    free = "an unknown amount of" if room is None else _size(room)
    return TrunkChoice(
        "off",
        f"{off}: their outputs need {_size(needed)}, more than {_MEMORY_SHARE:.0%} of the free memory ({free})"
        + (f" and {_DISK_SHARE:.0%} of the free disk ({_size(disk)})" if processes == 1 else ""),
    )


def keep_trunk(
    recipe: Recipe,
    spec: BackboneSpec,
    parts: Sequence[TaskPart],
    device: torch.device,
    progress: Progress,
    say: Callable[[str], None],
    *,
    strategy: str = "none",
    processes: int = 1,
) -> list[TaskPart]:
    """The tasks with the trunk's outputs for their training and validation examples, if they are to be kept.

    Args:
        recipe: of the run, checked by `check_model` and `check_strategy`.
        spec: its backbone.
        parts: the tasks; their models are on `device`.
        device: where to compute.
        strategy: how the processes share the work.
        processes: that train together; each keeps outputs of its own.

    Raises:
        ConfigError: the recipe says `memory` or `disk`, and the model's layers cannot be left out.
        OutOfMemoryError: it says `memory`, and there is less than is needed.
        TrainingError: the disk is full or the folder cannot be written.
    """
    choice = choose_place(recipe, spec, parts, processes)
    if choice.place != "off" and strategy.startswith("zero"):
        choice = TrunkChoice(
            "off", f"the lower layers are computed anew in each step, because the strategy is {strategy}"
        )
    if choice.place != "off":
        try:
            for part in parts:
                check_trunk(part, device)
        except ConfigError as error:
            if recipe.train.cache_trunk != "auto":
                raise
            choice = TrunkChoice("off", f"the lower layers are computed anew in each step: {error.problems[0].message}")
    if choice.note:
        say(choice.note)
    if choice.place == "off":
        return list(parts)
    kept: list[TaskPart] = []
    for part in parts:
        splits: list[EncodedSplit] = []
        for split in (part.train_split, part.validation_split):
            layout = states_layout(split.features, recipe.train.eval_batch_size, padding=part.model.head.reads_padding)
            room = torch.empty if choice.place == "memory" else _scratch
            rows = _filled(room, part, layout, _computed(part, split, layout, device, progress))
            splits.append(replace(split, states=KeptStates(layout, rows)))
        kept.append(replace(part, train_split=splits[0], validation_split=splits[1]))
    return kept


def check_trunk(part: TaskPart, device: torch.device) -> None:
    """Make sure with a few examples that leaving the trunk out changes nothing.

    Raises:
        ConfigError: the model's layers cannot be left out, or give each other more than hidden states.
    """
    model, split = part.model, part.train_split
    if model.trunk is not None:
        model.trunk.install()
    by_length = sorted(split.features, key=lambda feature: feature.length)
    few = tuple(by_length[index] for index in sorted({0, len(by_length) // 2, len(by_length) - 1}))
    own = replace(split, features=few)
    chosen = range(min(2, len(few)))  # without the longest, so that kept padding is cut
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            batch = own.batch(part.scheme, chosen).to(device)
            expected = model.encode(**_without_answers(batch.inputs())).hidden
            layout = states_layout(few, len(few), padding=model.head.reads_padding)
            rows = _filled(torch.empty, part, layout, _computed(part, own, layout, device, _silent))
            kept = replace(own, states=KeptStates(layout, rows)).batch(part.scheme, chosen).to(device)
            found = model.encode(**_without_answers(kept.inputs())).hidden
    finally:
        model.train(training)
    if not model.head.reads_padding:
        real = batch.attention_mask.bool()
        expected, found = expected[real], found[real]
    off = float((found - expected).abs().max() / expected.abs().max())
    if not off <= _TOLERANCE[model.backbone.dtype]:
        kind = model.backbone.config.model_type
        raise ConfigError(
            f"train.cache_trunk: models of type '{kind}' give other hidden states when the lower layers are left out "
            f"(off by {off:.1%}), so that their outputs cannot be kept",
            hint="set train.cache_trunk to off",
        )


def _computed(
    part: TaskPart, split: EncodedSplit, layout: StatesLayout, device: torch.device, progress: Progress
) -> Iterator[Tensor]:
    """The trunk's outputs, `[positions, hidden]` for each input, in the order of the layout."""
    done = 0
    # Padding is kept up to the longest input, so one such input stands in front of every batch.
    by_length = sorted(range(len(split.features)), key=lambda index: split.features[index].length)
    longest = by_length[-1:] if layout.padded_to is not None else []
    for chosen in layout.batches:
        batch = replace(split, states=None).batch(part.scheme, (*longest, *chosen)).to(device)
        output = part.model.trunk_output(**_without_answers(batch.inputs())).cpu()
        skipped = sum(len(split.features[index].inputs) for index in longest)
        counts = [count for index in chosen for count in layout.counts[index]]
        assert len(output) == skipped + len(counts)
        for states, count in zip(output[skipped:], counts, strict=True):
            yield states[:count]
        done += len(chosen)
        progress(f"running the lower layers on {split.data.name}", done, len(split.features))


def _silent(what: str, done: int, total: int) -> None:
    """Nothing to report."""


def _without_answers(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the backbone takes, without what only a verbalizer's head reads."""
    return {name: tensor for name, tensor in inputs.items() if not name.startswith("answer_")}


def _filled(room: Callable[..., Tensor], part: TaskPart, layout: StatesLayout, computed: Iterator[Tensor]) -> Tensor:
    """The outputs `[positions, hidden]`, in a tensor that `room` makes."""
    shape, dtype = _form(part)
    rows = room((layout.positions, shape), dtype=dtype)
    at = 0
    for states in computed:
        rows[at : at + len(states)] = states
        at += len(states)
    assert at == layout.positions
    return rows


def _scratch(shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """An empty tensor in a file without a name, which the system removes with its last reader, however that ends.

    Raises:
        TrainingError: the disk is full or the folder cannot be written.
    """
    folder, size = cache_folder(), max(1, math.prod(shape) * dtype.itemsize)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            for start in range(0, size, _ZEROS):  # a page that finds no room later would be a fatal signal
                file.write(bytes(min(_ZEROS, size - start)))
            file.flush()
            numbers = np.memmap(file, dtype=np.uint8, mode="r+", shape=(size,))
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise TrainingError(
            f"train.cache_trunk: the outputs of the lower layers cannot be kept: {error.strerror or error}",
            location=str(folder),
            hint=("free some space there, " if full else "")
            + "set PTV2KIT_CACHE to a folder on another disk, or train.cache_trunk to off",
        ) from error
    return torch.from_numpy(numbers)[: math.prod(shape) * dtype.itemsize].view(dtype).view(shape)


def _form(part: TaskPart) -> tuple[int, torch.dtype]:
    """Width and type of the kept hidden states: the backbone's own, so that they are those that it computes."""
    return int(part.model.backbone.config.hidden_size), part.model.backbone.dtype


def _needed(spec: BackboneSpec, parts: Sequence[TaskPart]) -> int:
    """Bytes of all that is kept."""
    positions = sum(
        states_layout(split.features, 1, padding=part.model.head.reads_padding).positions
        for part in parts
        for split in (part.train_split, part.validation_split)
    )
    return positions * int(spec.config.hidden_size) * DTYPES[spec.settings.dtype].itemsize


def _size(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
