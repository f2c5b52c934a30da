"""Tensors of safetensors files that may come from anyone."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ptv2kit.errors import DataError
from ptv2kit.files import require_plain_file

# What is trained, and the states of generators. Their checksum is one over NumPy's bytes, which has no other of these.
_DTYPES = (torch.float32, torch.float16, torch.float64, torch.int64, torch.int32, torch.uint8)


def read_tensors(path: Path, *, checked: bool = True) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a file, and the texts in its header.

    Args:
        checked: whether only types of number are allowed over which `digest` can be taken.

    Raises:
        DataError: the file is missing, is not a safetensors file, or holds another type of number.
    """
    try:
        require_plain_file(path)
        with safe_open(path, framework="pt") as file:
            header: dict[str, str] = file.metadata() or {}
            # Copies: what is mapped from a file keeps Windows from deleting it.
            tensors: dict[str, Tensor] = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    # The library tells types that torch does not have, and sizes that it cannot make, in several ways.
    except (OSError, SafetensorError, RuntimeError, TypeError, ValueError, KeyError, AttributeError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise DataError(f"this file holds no whole tensors: {reason}", location=str(path)) from error
    for name, tensor in tensors.items():
        if checked and tensor.dtype not in _DTYPES:
            raise DataError(f"tensor '{name}' is of type {tensor.dtype}, which none here is", location=str(path))
    return tensors, header
