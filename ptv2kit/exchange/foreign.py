"""Prompts that others have trained: PEFT's prefix adapters, and checkpoints of the official P-Tuning v2 code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from ptv2kit.errors import DataError
from ptv2kit.files import is_file, is_folder, read_json, weights_fault
from ptv2kit.training.tensor_files import read_tensors

_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin", "model.safetensors", "pytorch_model.bin")
_HEADS = ("classifier", "score", "qa_outputs")
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
"""Keys under which Lightning, training loops and DeepSpeed keep a model's tensors."""
_PREFIXES = ("module.", "_orig_mod.", "base_model.", "model.")
"""What DataParallel, torch.compile, PEFT and Lightning put in front of a model's names."""


@final
@dataclass(frozen=True)
class ForeignPrompt:
    """What was found.

    Args:
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
        return ForeignPrompt(path, "PEFT prefix adapter", tensors["prompt_embeddings"].float(), _head(tensors, path))
    marker = "prefix_encoder."
    found = {name.partition(marker)[2]: tensor for name, tensor in tensors.items() if marker in name}
    if "embedding.weight" not in found:
        raise DataError(
            "this file holds no prompt in front of every layer: expected 'prompt_embeddings' of a PEFT prefix adapter, "
            f"or 'prefix_encoder.embedding.weight' of the official P-Tuning v2 code. Found {_listed(tensors)}",
            location=str(path),
        )
    head = _head(tensors, path)
    return ForeignPrompt(path, "checkpoint of the official P-Tuning v2 code", _official(found, path), head)


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


def _head(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Find the trained head, whatever the class calls it; empty if the file has none.

    Raises:
        DataError: the file has a layer beside the backbone that is not a known head.
    """
    for name in _HEADS:
        if f"{name}.weight" in tensors and f"{name}.bias" in tensors:
            head = {f"linear.{part}": tensors[f"{name}.{part}"].float() for part in ("weight", "bias")}
            if "pooler.dense.weight" in tensors:  # DeBERTa's, which is trained; BERT's belongs to the backbone
                head |= {f"dense.{part}": tensors[f"pooler.dense.{part}"].float() for part in ("weight", "bias")}
            return head
    # A linear layer at the top of the model is a head by another name. Dropping it would leave half a run.
    unknown = [name for name in tensors if name.count(".") == 1 and name.endswith((".weight", ".bias"))]
    if unknown:
        raise DataError(
            f"this file has a prompt and {_listed(unknown)}, which is not a head that can be imported",
            location=str(path),
            hint=f"a head is called {', '.join(_HEADS[:-1])} or {_HEADS[-1]}, with a weight and a bias",
        )
    return {}


def _plain_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names that the model itself gives them, without what wrappers add."""
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        bare = name
        while bare.startswith(_PREFIXES):
            bare = bare.partition(".")[2]
        plain[bare.replace(".modules_to_save.default.", ".")] = tensor
    return plain


def _listed(names: Iterable[str]) -> str:
    """The first names of a list, for a message."""
    found = list(names)
    more = f" and {len(found) - 4} more" if len(found) > 4 else ""
    return ", ".join(f"'{name}'" for name in found[:4]) + more if found else "nothing"


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
    """Read the tensors of a file, out of the wrapper that a training loop may have put around them."""
    fault = weights_fault(path)
    if fault is not None:
        raise DataError(f"this file {fault.message}", location=str(path), hint=fault.hint)
    if path.suffix == ".safetensors":
        content: Any = read_tensors(path, checked=False)[0]
    else:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        # A pickle is a program for a small machine, and one that was not made by pickling fails in any way.
        except Exception as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            if "weights_only" in str(error):  # torch's own advice, to run the file's code, is not ours
                reason = "it is damaged, or is a pickle that holds more than tensors"
            raise DataError(f"its tensors cannot be read: {reason}", location=str(path)) from error
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(_is_plain(value) for value in content.values()):
        found = f"the keys {_listed(map(str, content))}" if isinstance(content, dict) else type(content).__name__
        raise DataError(
            f"expected a mapping of names to dense tensors of real numbers. Found {found}", location=str(path)
        )
    return _plain_names({str(name): value for name, value in content.items()})


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
