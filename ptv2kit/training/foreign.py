"""Prompts that others have trained: PEFT's prefix adapters, and checkpoints of the official P-Tuning v2 code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from ptv2kit.errors import DataError
from ptv2kit.files import is_file, is_folder, read_json
from ptv2kit.training.tensor_files import read_tensors

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
    matrices = [tuple(tensor.shape) for tensor in (embedding, first, second)]
    fits = (
        all(len(shape) == 2 for shape in matrices)
        and matrices[0][1] == matrices[1][1]
        and matrices[1][0] == matrices[2][1]
        and tuple(first_bias.shape) == matrices[1][:1]
        and tuple(second_bias.shape) == matrices[2][:1]
    )
    if not fits:
        shown = ", ".join(map(str, matrices))
        raise DataError(f"the network that makes the prompt has matrices that do not fit: {shown}", location=str(path))
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
    if path.suffix == ".safetensors":
        content: Any = read_tensors(path, checked=False)[0]
    else:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        # A pickle is a program for a small machine, and one that was not made by pickling fails in any way.
        except Exception as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise DataError(f"its tensors cannot be read: {reason}", location=str(path)) from error
    if not isinstance(content, dict) or not all(_is_plain(value) for value in content.values()):
        raise DataError("expected a mapping of names to dense tensors of real numbers", location=str(path))
    return {str(name): value for name, value in content.items()}


def _is_plain(value: object) -> bool:
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_complex()
        and not value.is_quantized
    )


def _require_prefix_tuning(path: Path) -> None:
    config: Any = read_json(path)
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "PREFIX_TUNING":
        raise DataError(f"peft_type is {kind}, and only PREFIX_TUNING has a prompt in every layer", location=str(path))
