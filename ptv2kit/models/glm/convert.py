"""Writes a published GLM as a folder that transformers loads with `OriginalGlmModel`, without any code of the hub.

Tensors are read, joined, cast and written one at a time, and the source is opened anew for each shard. Memory is needed
for the largest tensor, and for as much of the source as goes into one shard, which the system may drop at any time.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

import torch
from huggingface_hub.errors import StrictDataclassError

from ptv2kit.errors import ConfigError, DataError
from ptv2kit.files import write_atomically
from ptv2kit.models.glm.checkpoint import Checkpoint, StoredTensor, expected_shapes
from ptv2kit.models.glm.configuration import OriginalGlmConfig
from ptv2kit.models.glm.tokenizer import build_tokenizer, check_added_tokens, find_tokenizer_files

Precision = Literal["keep", "fp32", "bf16", "fp16"]

_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Of one tensor in a safetensors file; the format's names, see https://github.com/huggingface/safetensors#format.
_FORMAT_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
_TOKENIZER_BYTES = 8_000_000


@final
@dataclass(frozen=True)
class Shard:
    """One file of weights.

    Args:
        file: its name.
        tensors: names of its tensors in the order in which they are written, with the type they are written as.
        size: bytes of the tensors.
    """

    file: str
    tensors: tuple[tuple[str, torch.dtype], ...]
    size: int


@final
@dataclass(frozen=True)
class Converted:
    """What was written.

    Args:
        dtype: type of the word embeddings; with `keep` other tensors may have another.
        parameters: their number.
        size: bytes of all tensors.
        files: names of the files with weights.
    """

    dtype: str
    parameters: int
    size: int
    files: tuple[str, ...]


def convert(
    checkpoint: Checkpoint,
    target: Path,
    *,
    tokenizer: Path,
    precision: Precision = "keep",
    shard_size: int = 4_000_000_000,
    on_bytes: Callable[[int, int], None] = lambda done, total: None,
) -> Converted:
    """Write a checkpoint as a new folder: configuration, weights as safetensors, tokenizer.

    All is written into a hidden folder beside the target, which gets its name when it is whole.

    Args:
        checkpoint: from `find_checkpoint`.
        target: folder that is not there yet.
        tokenizer: folder with `vocab.json` and `merges.txt`.
        precision: type of the weights; `keep` leaves each tensor's.
        shard_size: largest size of a file in bytes; a single tensor may exceed it.
        on_bytes: is told how many bytes of how many are written.

    Raises:
        ConfigError: the target is there already, or the tokenizer has more tokens than the embeddings.
        DataError: the configuration or the tokenizer's files are missing or malformed, the disk has not enough room, a
            file cannot be read or written, or a weight is too large for `fp16`.
    """
    if target.exists() or target.is_symlink():
        raise ConfigError(f"'{target}' is there already", hint="name a folder that does not exist, or remove this one")
    built = build_tokenizer(*find_tokenizer_files(tokenizer))
    check_added_tokens(tokenizer, built)
    vocabulary = int(checkpoint.config["vocab_size"])
    if len(built) > vocabulary:
        raise ConfigError(
            f"the tokenizer has {len(built):,} tokens, but the embeddings only {vocabulary:,}",
            location=str(tokenizer),
            hint="GLM's base and large models (BERT's word pieces) and its Chinese ones have other tokenizers, which "
            "are not supported",
        )
    shards = plan_shards(checkpoint, precision, shard_size)
    types = {name: dtype for shard in shards for name, dtype in shard.tensors}
    total = sum(shard.size for shard in shards)
    dtype = str(types["word_embeddings.weight"]).removeprefix("torch.")
    settings: dict[str, Any] = {
        **checkpoint.config,
        "pad_token_id": built.pad_token_id,
        "eos_token_id": built.eos_token_id,
        "architectures": ["OriginalGlmModel"],
        "dtype": dtype,
    }
    try:
        config = OriginalGlmConfig(**settings)
    except (ValueError, TypeError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"its configuration is malformed: {reason}", location=str(checkpoint.folder)) from error
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _check_room(target, total + _TOKENIZER_BYTES)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        temporary.mkdir()
        try:
            written = 0
            for shard in shards:
                for size in _write_shard(temporary / shard.file, shard, checkpoint):
                    written += size
                    on_bytes(written, total)
            if len(shards) > 1:
                places = {name: shard.file for shard in shards for name, _ in shard.tensors}
                index = {"metadata": {"total_size": total}, "weight_map": places}
                _write_json(temporary / "model.safetensors.index.json", index)
            built.save_pretrained(temporary)
            config.save_pretrained(temporary)
            temporary.rename(target)
        finally:
            if temporary.exists():
                shutil.rmtree(temporary)
    except OSError as error:
        raise DataError(f"it cannot be written: {error}", location=str(target)) from error
    parameters = sum(math.prod(shape) for shape in expected_shapes(checkpoint.config).values())
    return Converted(dtype, parameters, total, tuple(shard.file for shard in shards))


def plan_shards(checkpoint: Checkpoint, precision: Precision, limit: int) -> list[Shard]:
    """Which tensor goes into which file; neighbours in the source stay neighbours, so that each file is read once.

    Args:
        checkpoint: from `find_checkpoint`.
        precision: type of the weights.
        limit: largest size of a file in bytes; a single tensor may exceed it.
    """
    stored = checkpoint.open()
    order = {name: number for number, name in enumerate(expected_shapes(checkpoint.config))}
    groups: list[list[tuple[str, torch.dtype]]] = []
    sizes: list[int] = []
    for name in sorted(stored, key=lambda name: (stored[name].file.name, order[name])):
        dtype = stored[name].dtype if precision == "keep" else _DTYPES[precision]
        size = math.prod(stored[name].shape) * dtype.itemsize
        if not groups or sizes[-1] + size > limit:
            groups.append([])
            sizes.append(0)
        groups[-1].append((name, dtype))
        sizes[-1] += size
    for group in groups:
        # Wider types first: each tensor then starts at a multiple of its own type's width, which readers rely on.
        group.sort(key=lambda entry: -entry[1].itemsize)
    files = [f"model-{number:05}-of-{len(groups):05}.safetensors" for number in range(1, len(groups) + 1)]
    if len(groups) == 1:
        files = ["model.safetensors"]
    return [Shard(file, tuple(group), size) for file, group, size in zip(files, groups, sizes, strict=True)]


def _write_shard(path: Path, shard: Shard, checkpoint: Checkpoint) -> Iterator[int]:
    """Write one file, tensor by tensor; gives the bytes of each tensor that is written.

    The format needs only the sizes beforehand: length of the header, header (JSON), then the bytes of all tensors.
    """
    stored = checkpoint.open()
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, dtype in shard.tensors:
        start, end = end, end + math.prod(stored[name].shape) * dtype.itemsize
        shape = list(stored[name].shape)
        header[name] = {"dtype": _FORMAT_NAMES[dtype], "shape": shape, "data_offsets": [start, end]}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for name, dtype in shard.tensors:
            content = _bytes_of(name, stored[name], dtype)
            file.write(content)
            yield content.nbytes
        file.flush()
        os.fsync(file.fileno())


def _bytes_of(name: str, stored: StoredTensor, dtype: torch.dtype) -> memoryview:
    """A tensor's values as bytes in the given type."""
    tensor = stored.read().detach()
    assert tuple(tensor.shape) == stored.shape, name
    cast = tensor.to(dtype).contiguous()
    if dtype == torch.float16 and tensor.dtype != dtype and not torch.isfinite(cast).all():
        raise DataError(
            f"'{name}' holds {tensor.abs().max().item():g}, which fp16 cannot",
            location=str(stored.file),
            hint="--dtype bf16, or fp32",
        )
    return cast.view(-1).view(torch.uint8).numpy().data


def _check_room(target: Path, needed: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise DataError(
            f"it needs {needed / 1e9:.2f} GB, but only {free / 1e9:.2f} GB are free there", location=str(target)
        )


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())
