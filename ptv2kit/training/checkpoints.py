"""The trained tensors on disk: a few megabytes, whole or not there at all."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ptv2kit.errors import DataError
from ptv2kit.files import write_atomically

FORMAT = "ptv2kit-prompt"
FORMAT_VERSION = 1


def save_prompt(folder: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write `prompt.safetensors` and then `prompt.json`, which holds its checksum.

    Args:
        folder: is made if it is not there.
        tensors: the trained tensors, from `PromptedModel.trained_state`.
        facts: what else to keep in `prompt.json`.
    """
    content = save(tensors)
    description = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "sha256": hashlib.sha256(content).hexdigest(),
        **facts,
    }
    write_atomically(folder / "prompt.safetensors", content)
    write_atomically(folder / "prompt.json", (json.dumps(description, indent=2) + "\n").encode())


def load_prompt(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_prompt` wrote.

    Returns:
        The tensors, and the content of `prompt.json`.

    Raises:
        DataError: a file is missing, is not what it should be, or does not match its checksum.
    """
    tensors_path, facts_path = folder / "prompt.safetensors", folder / "prompt.json"
    try:
        content = tensors_path.read_bytes()
        facts = json.loads(facts_path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"this folder holds no whole prompt: {error}", location=str(folder)) from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT or facts.get("format_version") != FORMAT_VERSION:
        raise DataError(f"expected format {FORMAT} {FORMAT_VERSION}", location=str(facts_path))
    if hashlib.sha256(content).hexdigest() != facts.get("sha256"):
        raise DataError("the checksum in prompt.json is not that of this file", location=str(tensors_path))
    try:
        return load(content), facts
    except SafetensorError as error:
        raise DataError(f"no safetensors file: {error}", location=str(tensors_path)) from error
