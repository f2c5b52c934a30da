"""Checkpoints of the original GLM's training code: Megatron's and DeepSpeed's pickles, one a model-parallel rank.

Layout and merge are those of THUDM/GLM (`utils.py`, `change_mp.py`). A pickle is only ever opened with torch's
`weights_only` unpickler, which builds tensors and plain data and runs no code of the file.
"""

from __future__ import annotations

import argparse
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from ptv2kit.errors import DataError

_TRACKERS = ("latest_checkpointed_iteration.txt", "latest")  # Megatron's, DeepSpeed's
_RANK_FILE = re.compile(r"mp_rank_(\d{2,})_model_states\.pt")
_GIT_LFS = b"version https://git-lfs"

# Plain data that training code saves beside the weights: its arguments, and numpy's random state (an array of uint32),
# under numpy's name of today and that before 2.0. None of them can be made to call anything else.
_RECONSTRUCT = np.zeros(0, np.uint32).__reduce__()[0]
_PLAIN_DATA: list[Any] = [
    argparse.Namespace,
    np.ndarray,
    np.dtype,
    type(np.dtype(np.uint32)),
    (_RECONSTRUCT, "numpy.core.multiarray._reconstruct"),
    (_RECONSTRUCT, "numpy._core.multiarray._reconstruct"),
]


def is_megatron_folder(folder: Path) -> bool:
    """Whether a folder looks like a checkpoint of Megatron or DeepSpeed."""
    return any((folder / name).is_file() for name in (*_TRACKERS, "mp_rank_00_model_states.pt"))


def find_rank_files(folder: Path) -> list[Path]:
    """The pickles of a checkpoint's newest state, one a model-parallel rank, in order.

    Args:
        folder: with `latest_checkpointed_iteration.txt` or `latest`, or the folder of one state itself.

    Raises:
        DataError: the state that is named is not there, or a rank is missing.
    """
    for name in _TRACKERS:
        tracker = folder / name
        if tracker.is_file():
            tag = tracker.read_text(encoding="utf-8", errors="replace").strip()
            if tag in ("", "..") or tag != Path(tag).name:
                raise DataError(f"expected the name of a folder beside it, got {tag!r}", location=str(tracker))
            folder = folder / tag
            if not folder.is_dir():
                raise DataError(f"it names the folder '{tag}', which is not there", location=str(tracker))
            break
    ranks = {int(match[1]): path for path in folder.iterdir() if (match := _RANK_FILE.fullmatch(path.name))}
    if not ranks:
        raise DataError("there is no mp_rank_00_model_states.pt", location=str(folder))
    missing = sorted(set(range(max(ranks) + 1)) - ranks.keys())
    if missing:
        raise DataError(
            f"there are files up to model-parallel rank {max(ranks)}, but none of rank {missing[0]}",
            location=str(folder),
        )
    return [ranks[rank] for rank in sorted(ranks)]


def refuse_git_lfs_pointer(path: Path) -> None:
    """Check that a file is what its name says, not the note that Git leaves in its place.

    Raises:
        DataError: it is a Git LFS pointer.
    """
    with path.open("rb") as file:
        start = file.read(len(_GIT_LFS))
    if start == _GIT_LFS:
        raise DataError(
            "this is a Git LFS pointer, not the file itself", location=str(path), hint="git lfs pull, or hf download"
        )


def load_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a file of `torch.save`; its tensors are mapped from disk and read when they are used.

    Raises:
        DataError: it is no such file, is cut off, holds objects that only running code could build, or no dictionary.
    """
    refuse_git_lfs_pointer(path)
    if not zipfile.is_zipfile(path):
        raise DataError(
            "it is cut off, or is no file of torch.save (zip format, torch 1.6 or later)",
            location=str(path),
            hint="compare its size with the published one; an older file must be written anew by torch.save",
        )
    content: object = None
    with safe_globals(_PLAIN_DATA):
        try:
            refused = sorted(get_unsafe_globals_in_checkpoint(str(path)))
            if not refused:
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        # A pickle is a program for a small machine, and one that was not made by pickling fails in any way.
        except Exception as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise DataError(f"it cannot be read: {reason}", location=str(path)) from error
    if refused:
        raise DataError(
            f"it holds objects whose code would have to run: {', '.join(refused)}",
            location=str(path),
            hint="only weights and plain data are read; where you trust the file, load it with torch and save its "
            "weights alone",
        )
    if not isinstance(content, dict):
        raise DataError(f"expected a dictionary, got {type(content).__name__}", location=str(path))
    return cast("dict[str, Any]", content)


def named_tensors(content: object, path: Path) -> dict[str, Tensor]:
    """The content of a file as tensors by name.

    Raises:
        DataError: it is no dictionary, or some value of it is no tensor.
    """
    if not isinstance(content, dict) or not content:
        raise DataError("expected tensors by name, got none", location=str(path))
    for name, value in cast("dict[Any, Any]", content).items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise DataError(f"expected tensors by name; '{name}' is a {type(value).__name__}", location=str(path))
    return cast("dict[str, Tensor]", content)


def load_rank(path: Path) -> dict[str, Tensor]:
    """The weights of one model-parallel rank.

    Raises:
        DataError: see `load_pickle`; or the file has no `module`.
    """
    content = load_pickle(path)
    if "module" not in content:
        raise DataError(
            f"there is no 'module' in it, where the weights of a checkpoint are; it has {', '.join(map(str, content))}",
            location=str(path),
        )
    return named_tensors(content["module"], path)


def merged_shape(name: str, shape: tuple[int, ...], ranks: int) -> tuple[int, ...]:
    """Shape of a tensor whose part on each of `ranks` model-parallel ranks has the given shape."""
    axis = _split_axis(name)
    if axis is None:
        return shape
    along = 0 if axis == "thirds" else axis
    return tuple(size * ranks if index == along else size for index, size in enumerate(shape))


def merge(name: str, parts: Sequence[Tensor]) -> Tensor:
    """Join the parts of one tensor, which all have the same shape.

    Args:
        name: of the tensor, without prefix.
        parts: of each model-parallel rank in order.

    Raises:
        ValueError: a tensor that every rank has as a whole is not the same on all of them.
    """
    if len(parts) == 1:
        return parts[0]
    axis = _split_axis(name)
    if axis == "thirds":
        # Each rank's rows are its heads' queries, then their keys, then their values.
        return torch.cat([part.chunk(3)[third] for third in range(3) for part in parts])
    if axis is not None:
        return torch.cat(list(parts), dim=axis)
    for rank, part in enumerate(parts):
        if not torch.equal(part, parts[0]):
            raise ValueError(f"'{name}' should be the same on all model-parallel ranks, but 0 and {rank} differ")
    return parts[0]


def _split_axis(name: str) -> Literal["thirds", 0, 1] | None:
    """Along which axis a tensor is split over ranks; None: every rank has all of it."""
    if ".query_key_value." in name:
        return "thirds"
    if name == "word_embeddings.weight" or ".dense_h_to_4h." in name:
        return 0
    if name.endswith((".attention.dense.weight", ".dense_4h_to_h.weight")):
        return 1
    return None
