"""The trained tensors on disk: a few megabytes, whole or not there at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from safetensors.torch import save
from torch import Tensor

from ptv2kit.errors import DataError
from ptv2kit.files import parse_json
from ptv2kit.training.tensor_files import read_tensors

FORMAT = "ptv2kit-prompt"
FORMAT_VERSION = 1


def prompt_files(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> dict[str, bytes]:
    """The content of `prompt.safetensors`, and of `prompt.json` for people to read.

    The tensor file holds the facts and a checksum in its own header, so that one atomic write makes it whole.

    Args:
        tensors: the trained tensors, from `PromptedModel.inference_state`.
        facts: what else to keep; plain values.
    """
    whole = {name: tensor.cpu() for name, tensor in tensors.items()}
    description = {"format": FORMAT, "format_version": FORMAT_VERSION, "sha256": digest(whole), **facts}
    return {
        "prompt.safetensors": save(whole, {FORMAT: json.dumps(description)}),
        "prompt.json": (json.dumps(description, indent=2) + "\n").encode(),
    }


def load_prompt(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the files of `prompt_files`.

    Returns:
        The tensors, and the facts with format and checksum.

    Raises:
        DataError: the file is missing, is not what it should be, or does not match its checksum.
    """
    path = folder / "prompt.safetensors"
    if not os.path.lexists(path):
        hint = "a run keeps it when its first epoch is evaluated; suites may keep scores only"
        raise DataError("there is no trained prompt", location=str(folder), hint=hint)
    tensors, header = read_tensors(path)
    try:
        facts: Any = parse_json(header.get(FORMAT, "{}"))
    except ValueError as error:
        raise DataError(f"the header is not JSON: {error}", location=str(path)) from error
    if not isinstance(facts, dict):
        raise DataError(f"expected format {FORMAT} {FORMAT_VERSION}", location=str(path))
    facts = cast(dict[str, Any], facts)
    if facts.get("format") != FORMAT or facts.get("format_version") != FORMAT_VERSION:
        raise DataError(f"expected format {FORMAT} {FORMAT_VERSION}", location=str(path))
    if facts.get("sha256") != digest(tensors):
        raise DataError("the tensors do not match the checksum in the file's header", location=str(path))
    return tensors, facts


def require_facts(facts: Mapping[str, Any], folder: Path) -> None:
    """Make sure that a run can be built from the facts of `load_prompt`, which no checksum covers.

    Raises:
        DataError: one of them is missing or of another kind.
    """
    path = folder / "prompt.safetensors"
    for key in ("backbone", "method"):
        if not isinstance(facts.get(key), str):
            raise DataError(f"the header's '{key}' is not text", location=str(path))
    task, names = facts.get("task"), facts.get("names")
    if isinstance(task, str):
        fits = _is_texts(names)
    else:
        fits = _is_texts(task) and isinstance(names, dict) and all(map(_is_texts, cast(dict[str, Any], names).values()))
    if not fits:
        raise DataError("the header's 'task' and 'names' are not a task with a list of labels", location=str(path))


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in cast(list[object], value))


def digest(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """SHA-256 over a text, and over names, shapes and values."""
    found = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()
