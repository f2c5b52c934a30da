"""Kept outputs of lower layers on disk: one folder for each split, whole or not there at all.

`states.bin` holds the plain numbers, one input after the other; `states.json` their form and checksum. A folder is
written under another name and renamed at the end, so that no reader ever finds a part of it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from ptv2kit.data.dataset import EncodedSplit
from ptv2kit.data.kept_states import StatesLayout
from ptv2kit.errors import TrainingError
from ptv2kit.files import cache_folder
from ptv2kit.training.parts import TaskPart
from ptv2kit.training.trunk_room import free_disk

FORMAT_VERSION = 1
_NUMBERS, _DESCRIPTION = "states.bin", "states.json"
_BLOCK = 2**24


def trunk_folder() -> Path:
    """Where outputs are kept: `trunk` in the cache folder."""
    return cache_folder() / "trunk"


def trunk_key(part: TaskPart, split: EncodedSplit, layout: StatesLayout) -> str:
    """A name for the outputs: another one as soon as anything that decides them is another.

    The weights below the lowest prompt count with their values, and the inputs with their ids as the model gets them,
    so a new backbone, tokenizer, template or row gives another key, and a renamed folder does not.
    """
    model = part.model
    facts = hashlib.sha256()
    # Dropout does not count: the outputs are computed without it.
    config = {key: value for key, value in model.backbone.config.to_dict().items() if "drop" not in key}
    description = {
        "format": FORMAT_VERSION,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "config": {key: value for key, value in config.items() if key not in ("_name_or_path", "dtype")},
        "attention": model.attention,
        "dtype": str(model.backbone.dtype),
        "device": next(model.backbone.parameters()).device.type,
        "shift": model.shift,
        "trunk": None if model.trunk is None else model.trunk.depth,
        "padded_to": layout.padded_to,
        "batches": layout.batches,
    }
    facts.update(json.dumps(description, sort_keys=True, default=str).encode())
    for name, tensor in model.trunk_tensors():
        facts.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        facts.update(_bytes(tensor))
    for feature in split.features:
        for encoding in feature.inputs:
            cloze = None if encoding.cloze is None else (encoding.cloze.positions, encoding.cloze.context)
            facts.update(repr((encoding.ids, encoding.segments, cloze)).encode())
    return facts.hexdigest()[:32]


def kept_on_disk(
    key: str, layout: StatesLayout, form: tuple[int, torch.dtype], computed: Iterator[Tensor]
) -> tuple[Tensor, str]:
    """The outputs, mapped from their file; they are computed and written if it is not there or is damaged.

    Args:
        key: from `trunk_key`.
        layout: where each input's rows lie.
        form: width and type of the hidden states.
        computed: `[positions, hidden]` for each input, in the order of the layout; not touched if the file serves.

    Returns:
        `[positions, hidden]`, read from the disk as they are needed, and what the user should know.

    Raises:
        TrainingError: the disk is full or the folder cannot be written.
    """
    target = trunk_folder() / key
    note = ""
    if target.is_dir():
        fault = _fault(target, layout, form)
        if fault is None:
            return _mapped(target, layout, form), ""
        note = f"the kept outputs in {target} are computed again: {fault}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{key}-"))
        try:
            _write(unfinished, layout, form, computed)
            if note:
                shutil.rmtree(target)
            _rename(unfinished, target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise TrainingError(
            f"train.cache_trunk: the outputs of the lower layers cannot be kept: {error.strerror or error}",
            location=str(target.parent),
            hint=("free some space there, " if full else "")
            + "set PTV2KIT_CACHE to a folder on another disk, or train.cache_trunk to off",
        ) from error
    return _mapped(target, layout, form), note


def _write(folder: Path, layout: StatesLayout, form: tuple[int, torch.dtype], computed: Iterator[Tensor]) -> None:
    width, dtype = form
    size = layout.positions * width * dtype.itemsize
    digest = hashlib.sha256()
    if free_disk(folder) < size:  # it would show only after a long computation
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with (folder / _NUMBERS).open("wb") as file:
        for states in computed:
            raw = _bytes(states)
            digest.update(raw)
            file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    description = {**_description(layout, form), "sha256": digest.hexdigest()}
    (folder / _DESCRIPTION).write_text(json.dumps(description, indent=2), encoding="utf-8")


def _rename(unfinished: Path, target: Path) -> None:
    try:
        unfinished.rename(target)
    except OSError:
        if not (target / _DESCRIPTION).is_file():  # else another process was faster, with the same numbers
            raise


def _fault(folder: Path, layout: StatesLayout, form: tuple[int, torch.dtype]) -> str | None:
    """What is wrong with a folder; None if it is whole."""
    expected = _description(layout, form)
    try:
        description: dict[str, Any] = json.loads((folder / _DESCRIPTION).read_text(encoding="utf-8"))
        if {name: description.get(name) for name in expected} != expected:
            return "their description is another's"
        digest = hashlib.sha256()
        with (folder / _NUMBERS).open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except (OSError, ValueError) as error:
        return f"they cannot be read ({error})"
    return None if digest.hexdigest() == description.get("sha256") else "they do not match their checksum"


def _description(layout: StatesLayout, form: tuple[int, torch.dtype]) -> dict[str, Any]:
    width, dtype = form
    return {"format_version": FORMAT_VERSION, "positions": layout.positions, "hidden": width, "dtype": str(dtype)}


def _mapped(folder: Path, layout: StatesLayout, form: tuple[int, torch.dtype]) -> Tensor:
    width, dtype = form
    numbers = torch.from_file(str(folder / _NUMBERS), shared=False, size=layout.positions * width, dtype=dtype)
    return numbers.view(layout.positions, width)


def _bytes(tensor: Tensor) -> Any:
    """The plain numbers of a tensor, whatever their type, as a buffer."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
