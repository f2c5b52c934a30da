"""Weights of the original GLM as they are published: where they lie, and whether they are all there.

Read are the folders on the hub (`config.json` with weights as safetensors or pickles) and the checkpoints of the
training code (see `megatron`). Finding a checkpoint reads names, shapes and types; `convert` reads the values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast, final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ptv2kit.errors import ConfigError, DataError, Problem
from ptv2kit.files import read_json as read_file
from ptv2kit.models.glm import megatron

HEADS = {(12, 768): 12, (24, 1024): 16, (36, 2048): 32, (48, 4096): 64}
"""Attention heads of the published sizes by layers and hidden size; weights alone do not tell them."""

_SIZES = ("num_layers", "hidden_size", "num_attention_heads", "vocab_size", "max_sequence_length")
_OPTIONS = (
    "block_position_encoding",
    "attention_scale",
    "embedding_dropout_prob",
    "attention_dropout_prob",
    "output_dropout_prob",
    "layernorm_epsilon",
    "initializer_range",
)
_PREFIX = "glm."
_IGNORED = frozenset({"dense.weight", "dense.bias", "out_proj.weight", "out_proj.bias"})
_LAYER = re.compile(r"transformer\.layers\.(\d+)\.")
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_SHOWN = 8

Stored = TypeVar("Stored")


@final
@dataclass(frozen=True)
class StoredTensor:
    """A tensor that lies on disk.

    Args:
        file: that holds it, or its first part.
        shape: of the whole.
        dtype: as stored.
        read: reads it, and joins it if it is in parts.
    """

    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]


@final
@dataclass(frozen=True)
class Checkpoint:
    """Weights that were found and fit their configuration; no value has been read yet.

    Args:
        folder: as the user named it.
        config: arguments of `OriginalGlmConfig`.
        open: opens the files and gives their tensors by the names of `OriginalGlmModel`; what was read is let go with
            the dictionary.
    """

    folder: Path
    config: dict[str, Any]
    open: Callable[[], dict[str, StoredTensor]]


def published_config(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Arguments of `OriginalGlmConfig` from the `config.json` of the original GLM.

    Its `model_type` is `glm`, which transformers gives to GLM-4: `AutoConfig` reads it as such without a word. They
    differ in their keys.

    Args:
        settings: a parsed `config.json`.

    Returns:
        The arguments, or None if it is another model's, GLM-4's for example.

    Raises:
        DataError: it is the original GLM's, but a size is missing or is no positive whole number, or its positions are
            of another kind.
    """
    if settings.get("model_type") != "glm" or not {"block_position_encoding", "max_sequence_length"} & settings.keys():
        return None
    for name in _SIZES:
        value = settings.get(name)
        if type(value) is not int or value < 1:
            raise DataError(f"'{name}' should be a positive whole number, but is {value!r}")
    if settings.get("relative_encoding"):
        raise DataError("'relative_encoding' is on: relative positions (Transformer-XL) are not supported")
    if not settings.get("block_position_encoding", True):
        raise DataError("'block_position_encoding' is off: a GLM without block positions is not supported")
    return {name: settings[name] for name in (*_SIZES, *_OPTIONS) if name in settings}


def expected_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of a GLM by the names of `OriginalGlmModel`, in the order of its layers.

    Args:
        config: with at least the sizes.
    """
    hidden = int(config["hidden_size"])
    positions = int(config["max_sequence_length"]) + 1
    shapes: dict[str, tuple[int, ...]] = {
        "word_embeddings.weight": (int(config["vocab_size"]), hidden),
        "transformer.position_embeddings.weight": (positions, hidden),
        "transformer.block_position_embeddings.weight": (positions, hidden),
    }
    of_layer = {
        "input_layernorm.weight": (hidden,),
        "input_layernorm.bias": (hidden,),
        "attention.query_key_value.weight": (3 * hidden, hidden),
        "attention.query_key_value.bias": (3 * hidden,),
        "attention.dense.weight": (hidden, hidden),
        "attention.dense.bias": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
        "post_attention_layernorm.bias": (hidden,),
        "mlp.dense_h_to_4h.weight": (4 * hidden, hidden),
        "mlp.dense_h_to_4h.bias": (4 * hidden,),
        "mlp.dense_4h_to_h.weight": (hidden, 4 * hidden),
        "mlp.dense_4h_to_h.bias": (hidden,),
    }
    for layer in range(int(config["num_layers"])):
        shapes |= {f"transformer.layers.{layer}.{name}": shape for name, shape in of_layer.items()}
    return shapes | {f"transformer.final_layernorm.{name}": (hidden,) for name in ("weight", "bias")}


def find_checkpoint(folder: Path, heads: int | None = None) -> Checkpoint:
    """Find a GLM's weights and check the names, shapes and types of all of them.

    Args:
        folder: as published on the hub, or a checkpoint of Megatron or DeepSpeed.
        heads: attention heads, for checkpoints of another size than the published ones, whose files do not say it.

    Raises:
        ConfigError: the folder is not there or is another model's, or the heads are unknown or contradict it.
        DataError: a file is missing or cannot be read, or tensors are missing, unexpected or of the wrong shape.
    """
    if not folder.is_dir():
        raise ConfigError(f"the folder '{folder}' does not exist")
    described = folder / "config.json"
    # First: training code keeps a config.json of its own beside its checkpoints, the hub has none of theirs.
    if megatron.is_megatron_folder(folder):
        opener = partial(_open_ranks, megatron.find_rank_files(folder))
        tensors = opener()
        config = _config_of(tensors, heads, folder)
    elif described.is_file():
        config = _read_config(described)
        if heads is not None and heads != config["num_attention_heads"]:
            raise ConfigError(
                f"--heads is {heads}, but 'num_attention_heads' is {config['num_attention_heads']}",
                location=str(described),
            )
        opener = partial(_open_published, folder)
        tensors = opener()
    else:
        raise ConfigError(
            f"the folder '{folder}' holds no GLM: there is no config.json, no latest_checkpointed_iteration.txt, no "
            "latest and no mp_rank_00_model_states.pt"
        )
    if config["hidden_size"] % config["num_attention_heads"]:
        raise ConfigError(
            f"{config['num_attention_heads']} heads do not divide the hidden size {config['hidden_size']}"
        )
    _check_tensors(tensors, expected_shapes(config), folder)
    return Checkpoint(folder, config, opener)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file with one object.

    Raises:
        DataError: it is something else.
    """
    content = read_file(path)
    if not isinstance(content, dict):
        raise DataError("expected one JSON object", location=str(path))
    return cast("dict[str, Any]", content)


def _read_config(path: Path) -> dict[str, Any]:
    settings = read_json(path)
    if settings.get("model_type") == "original_glm":
        raise ConfigError("this is a converted GLM already; use it as backbone.name", location=str(path))
    try:
        config = published_config(settings)
    except DataError as error:
        raise DataError(Problem(problem.message, location=str(path)) for problem in error.problems) from error
    if config is None:
        kind = settings.get("model_type")
        raise ConfigError(
            "this is GLM-4, not the original GLM" if kind == "glm" else f"its model type is {kind!r}, not GLM's",
            location=str(path),
            hint="transformers loads it as it is: name the folder in backbone.name",
        )
    return config


def _config_of(tensors: Mapping[str, StoredTensor], heads: int | None, folder: Path) -> dict[str, Any]:
    """What the shapes tell; the checks that follow find what does not fit it."""
    words, positions = "word_embeddings.weight", "transformer.position_embeddings.weight"
    for name in (words, positions):
        if name not in tensors or len(tensors[name].shape) != 2:
            raise DataError(f"there is no tensor '{name}' with two dimensions", location=str(folder))
    vocabulary, hidden = tensors[words].shape
    layers = 1 + max((int(match[1]) for name in tensors if (match := _LAYER.match(name))), default=-1)
    if heads is None:
        heads = HEADS.get((layers, hidden))
    if heads is None:
        raise ConfigError(
            f"a GLM with {layers} layers and hidden size {hidden} is none of the published ones, and its checkpoint "
            "does not tell how many attention heads it has",
            location=str(folder),
            hint="--heads N",
        )
    return {
        "num_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "vocab_size": vocabulary,
        "max_sequence_length": tensors[positions].shape[0] - 1,
    }


def _open_published(folder: Path) -> dict[str, StoredTensor]:
    """Tensors of a folder of the hub: safetensors if there are any, else pickles; whole or in shards."""
    for whole, index in (
        ("model.safetensors", "model.safetensors.index.json"),
        ("pytorch_model.bin", "pytorch_model.bin.index.json"),
    ):
        if (folder / index).is_file():
            return _open_shards(folder / index)
        if (folder / whole).is_file():
            return _without_prefix(_open_file(folder / whole), folder / whole)
    raise DataError(
        "there are no weights: no model.safetensors, no pytorch_model.bin and no index of either", location=str(folder)
    )


def _open_shards(index: Path) -> dict[str, StoredTensor]:
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise DataError("expected 'weight_map', names of tensors to files", location=str(index))
    place = cast("dict[str, Any]", listed)
    files = sorted(set(map(str, place.values())))
    for name in files:
        if name != Path(name).name:
            raise DataError(f"expected files beside it, got '{name}'", location=str(index))
        if not (index.parent / name).is_file():
            raise DataError(f"it names '{name}', which is not there", location=str(index))
    tensors: dict[str, StoredTensor] = {}
    for name in files:
        for tensor, stored in _open_file(index.parent / name).items():
            if place.get(tensor) != name:
                raise DataError(f"'{tensor}' is in it, but not by {index.name}", location=str(index.parent / name))
            tensors[tensor] = stored
    for tensor, name in place.items():
        if tensor not in tensors:
            raise DataError(f"'{tensor}' should be in it by {index.name}", location=str(index.parent / str(name)))
    return _without_prefix(tensors, index)


def _open_file(path: Path) -> dict[str, StoredTensor]:
    if path.suffix != ".safetensors":
        return {
            name: StoredTensor(path, tuple(tensor.shape), tensor.dtype, partial(_itself, tensor))
            for name, tensor in megatron.named_tensors(megatron.load_pickle(path), path).items()
        }
    megatron.refuse_git_lfs_pointer(path)
    try:
        file: Any = safe_open(path, framework="pt")
        tensors: dict[str, StoredTensor] = {}
        for name in sorted(file.keys()):
            part = file.get_slice(name)
            dtype = _DTYPES.get(part.get_dtype())
            if dtype is None:
                raise DataError(
                    f"'{name}' is of type {part.get_dtype()}, expected {', '.join(_DTYPES)}", location=str(path)
                )
            tensors[name] = StoredTensor(path, tuple(part.get_shape()), dtype, partial(file.get_tensor, name))
    except (SafetensorError, OSError) as error:
        raise DataError(f"it cannot be read: {error}", location=str(path)) from error
    return tensors


def _open_ranks(paths: list[Path]) -> dict[str, StoredTensor]:
    """Tensors of all model-parallel ranks, joined when they are read."""
    ranks = [_without_prefix(megatron.load_rank(path), path) for path in paths]
    first = ranks[0]
    for path, rank in zip(paths, ranks, strict=True):
        for name in sorted(rank.keys() ^ first.keys()):
            raise DataError(f"'{name}' is not on all model-parallel ranks", location=str(path))
        for name, part in rank.items():
            here, there = _form(part.shape, part.dtype), _form(first[name].shape, first[name].dtype)
            if here != there:
                raise DataError(f"'{name}' is {here}, but {there} on rank 0", location=str(path))
    return {
        name: StoredTensor(
            paths[0],
            megatron.merged_shape(name, tuple(part.shape), len(ranks)),
            part.dtype,
            partial(_join, name, [rank[name] for rank in ranks], paths[0].parent),
        )
        for name, part in first.items()
    }


def _join(name: str, parts: list[Tensor], folder: Path) -> Tensor:
    try:
        return megatron.merge(name, parts)
    except ValueError as error:
        raise DataError(str(error), location=str(folder)) from error


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def _without_prefix(tensors: Mapping[str, Stored], path: Path) -> dict[str, Stored]:
    """Tensors by the names of `OriginalGlmModel`, without the classification heads that published files also hold."""
    found: dict[str, Stored] = {}
    for name, tensor in tensors.items():
        plain = name.removeprefix(_PREFIX)
        if plain in found:
            raise DataError(f"'{plain}' is in it twice, with and without '{_PREFIX}'", location=str(path))
        if name not in _IGNORED:
            found[plain] = tensor
    return found


def _check_tensors(tensors: Mapping[str, StoredTensor], expected: Mapping[str, tuple[int, ...]], folder: Path) -> None:
    """Name every tensor that is missing, not expected, or of another shape or type."""
    missing = [
        Problem(f"there is no tensor '{name}'", location=str(folder)) for name in expected if name not in tensors
    ]
    unexpected = [
        Problem(f"the tensor '{name}' belongs to no GLM", location=str(stored.file))
        for name, stored in tensors.items()
        if name not in expected
    ]
    wrong = [
        Problem(
            f"the tensor '{name}' is {_form(stored.shape, stored.dtype)}, expected {list(expected[name])} of "
            f"{', '.join(_DTYPES)}",
            location=str(stored.file),
        )
        for name, stored in tensors.items()
        if name in expected and (stored.shape != expected[name] or stored.dtype not in _DTYPES.values())
    ]
    problems: list[Problem] = []
    for found in (missing, unexpected, wrong):
        problems += found[:_SHOWN]
        if len(found) > _SHOWN:
            problems.append(Problem(f"and {len(found) - _SHOWN} more like it", location=found[_SHOWN].location))
    if problems:
        raise DataError(problems)


def _form(shape: Iterable[int], dtype: torch.dtype) -> str:
    return f"{list(shape)} of {str(dtype).removeprefix('torch.')}"
