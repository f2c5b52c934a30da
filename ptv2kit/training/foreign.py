"""Prompts that others have trained: PEFT's prefix adapters, and checkpoints of the official P-Tuning v2 code."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ptv2kit.errors import DataError
from ptv2kit.files import is_file, is_folder

_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin", "model.safetensors", "pytorch_model.bin")
_HEADS = ("classifier", "score", "qa_outputs")


@final
@dataclass(frozen=True)
class ForeignPrompt:
    """What was found.

    Args:
        path: of the file.
        kind: whose it is, for people.
        flat: `[length, layers · 2 · kv_heads · head_dim]`; what a network made is made already.
        head: `linear.weight`, `linear.bias` and, if there is a layer before it, `dense.weight`, `dense.bias`; empty if
            there is none.
    """

    path: Path
    kind: str
    flat: Tensor
    head: Mapping[str, Tensor]


def read_foreign(source: Path) -> ForeignPrompt:
    """Read a prompt that PEFT or the official code has saved. No pickle is run: only tensors are read.

    Args:
        source: a file, or a folder with one.

    Raises:
        DataError: there is none, it cannot be read, or it holds no prompt in front of every layer.
    """
    path = _weights_file(source)
    tensors = _read(path)
    if "prompt_embeddings" in tensors:
        _require_prefix_tuning(path.parent / "adapter_config.json")
        return ForeignPrompt(path, "PEFT prefix adapter", tensors["prompt_embeddings"].float(), _head(tensors))
    marker = "prefix_encoder."
    found = {name.partition(marker)[2]: tensor for name, tensor in tensors.items() if marker in name}
    if "embedding.weight" not in found:
        raise DataError(
            "this file holds no prompt in front of every layer: expected 'prompt_embeddings' of a PEFT prefix adapter, "
            "or 'prefix_encoder.embedding.weight' of the official P-Tuning v2 code",
            location=str(path),
        )
    return ForeignPrompt(path, "checkpoint of the official P-Tuning v2 code", _official(found, path), _head(tensors))


def _official(found: Mapping[str, Tensor], path: Path) -> Tensor:
    """The prompt of `model/prefix_encoder.py`: an embedding, or one that goes through linear, tanh, linear."""
    embedding = found["embedding.weight"].float()
    names = [f"trans.{number}.{part}" for number in (0, 2) for part in ("weight", "bias")]
    there = [name for name in names if name in found]
    if not there:
        return embedding
    if len(there) < len(names):
        lacking = next(name for name in names if name not in found)
        raise DataError(f"the network that makes the prompt lacks 'prefix_encoder.{lacking}'", location=str(path))
    first, first_bias, second, second_bias = (found[name].float() for name in names)
    return torch.tanh(embedding @ first.T + first_bias) @ second.T + second_bias


def _head(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The trained head, whatever the class calls it."""
    by_end = {name.removeprefix("base_model.").removeprefix("model."): tensor for name, tensor in tensors.items()}
    for name in _HEADS:
        if f"{name}.weight" in by_end and f"{name}.bias" in by_end:
            head = {f"linear.{part}": by_end[f"{name}.{part}"].float() for part in ("weight", "bias")}
            if "pooler.dense.weight" in by_end:  # DeBERTa's, which is trained; BERT's belongs to the backbone
                head |= {f"dense.{part}": by_end[f"pooler.dense.{part}"].float() for part in ("weight", "bias")}
            return head
    return {}


def _weights_file(source: Path) -> Path:
    if is_file(source):
        return source
    if not is_folder(source):
        raise DataError(f"'{source}' does not exist")
    for name in _WEIGHTS:
        if is_file(source / name):
            return source / name
    raise DataError(f"'{source}' has none of the files {', '.join(_WEIGHTS)}")


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise DataError(f"its tensors cannot be read: {reason}", location=str(path)) from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise DataError("expected a mapping of names to tensors", location=str(path))
    return {str(name): value for name, value in content.items()}


def _require_prefix_tuning(path: Path) -> None:
    try:
        config: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"the adapter's configuration cannot be read: {error}", location=str(path)) from error
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "PREFIX_TUNING":
        raise DataError(f"peft_type is {kind}, and only PREFIX_TUNING has a prompt in every layer", location=str(path))
