"""Frozen backbones: where they are found, which are supported, how their tokens are counted."""

from __future__ import annotations

import importlib.util
import logging
import os
import pickle
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

import torch
from huggingface_hub.errors import StrictDataclassError
from huggingface_hub.utils import logging as hub_logging
from safetensors import SafetensorError
from tokenizers import normalizers, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_file, extract_commit_hash

from ptv2kit.errors import ConfigError, DataError, did_you_mean
from ptv2kit.files import is_folder, weights_fault
from ptv2kit.machine import reach_hub
from ptv2kit.models import albert, deberta, glm, injection, quantization
from ptv2kit.models.families import Family, family_of, set_dropout
from ptv2kit.models.glm import tiny as glm_tiny
from ptv2kit.models.glm import tokenizer as glm_tokenizer
from ptv2kit.models.glm.configuration import OriginalGlmConfig, Size, published_config
from ptv2kit.models.glm.modeling import attention_plan
from ptv2kit.models.sharding import Sharding
from ptv2kit.spec.layers import MINI_PACKAGE
from ptv2kit.spec.recipe import Backbone

_ADAPTERS: dict[str, Callable[[PreTrainedModel], None]] = {
    "albert": albert.adapt,
    "deberta": deberta.adapt,
    "deberta-v2": deberta.adapt,
}
_LOGGER = logging.getLogger(__name__)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""Precision of frozen weights by the recipe's name of it."""
_PUBLISHED: dict[str, Size] = {"THUDM/glm-2b": "2B", "THUDM/glm-10b": "10B"}
"""Backbones whose configuration is known without the hub, enough for planning."""

# Libraries take the descriptions and weights of a model for what they should be, and stumble over what they are.
UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    RuntimeError,
    EOFError,
    SafetensorError,
    StrictDataclassError,
    pickle.UnpicklingError,
)
"""What reading a model that is damaged, or none, can raise."""


@final
@dataclass(frozen=True)
class BackboneSpec:
    """A backbone that was found and is supported; nothing but its configuration has been read.

    Args:
        source: local folder, or hub id.
        config: the model's own configuration, with the recipe's dropout.
        family: facts of its model type.
        attention: its attention layers, and what can compute them.
        commit: the hub's commit that it was read from, None for a local folder.
        at_hand: False if only the published sizes are known: enough for planning, too little for loading.
    """

    source: str
    settings: Backbone
    config: PretrainedConfig
    family: Family
    attention: injection.AttentionPlan
    commit: str | None
    at_hand: bool = True

    @property
    def layers(self) -> tuple[injection.AttentionLayer, ...]:
        """The attention layers in order."""
        return self.attention.layers

    @property
    def kernel(self) -> injection.Kernel:
        """What computes the attention: as the recipe says, else the best that the model allows."""
        return self.attention.kernels[0] if self.settings.attention == "auto" else self.settings.attention

    @property
    def filling(self) -> Literal["masks", "continuation", "blank"]:
        """How the model is asked for a missing word: it fills masks, continues a text, or fills a blank (GLM)."""
        if self.config.model_type == OriginalGlmConfig.model_type:
            return "blank"
        return "continuation" if self.attention.causal else "masks"

    @property
    def vocabulary(self) -> int:
        """Embeddings of the backbone."""
        return int(self.config.vocab_size)

    @property
    def causal(self) -> bool:
        """Whether a token sees only those before it."""
        return self.attention.causal and not self.settings.bidirectional


def find_backbone(settings: Backbone, *, planning: bool = False) -> BackboneSpec:
    """Read a backbone's configuration and check that it is supported.

    Args:
        planning: whether the published sizes of the original GLM serve where it is not on this machine, so that the
            hub is not asked; such a spec is not `at_hand`.

    Raises:
        ConfigError: there is no such folder, `mini` is not installed, or the model type is not supported.
        DataError: the hub has no such model or cannot be reached.
    """
    source = _source(settings.name)
    glm.register()
    published = _PUBLISHED.get(source) if planning else None
    if published is None and not is_folder(Path(source)):
        reach_hub()
    local, at_hand = published is not None, True
    try:
        config = _read_config(source, settings.revision, local)
    except UNREADABLE as error:
        if published is None:
            raise _failed(settings.name, source, "its configuration cannot be read", error) from error
        config, at_hand = OriginalGlmConfig.of_size(published), False
    if config.is_encoder_decoder:
        raise ConfigError(f"backbone '{settings.name}' is an encoder-decoder ('{config.model_type}'): not supported")
    family = family_of(config, settings.name)
    set_dropout(config, settings.name, settings.dropout, settings.attention_dropout)
    attention = _find_attention(config, settings)
    if attention.causal:
        config.use_cache = False
    commit = None
    if at_hand:
        read = cached_file(source, "config.json", revision=settings.revision, local_files_only=local)
        commit = extract_commit_hash(str(read), None)
    return BackboneSpec(source, settings, config, family, attention, commit, at_hand)


def _read_config(source: str, revision: str | None, local: bool) -> PretrainedConfig:
    """The configuration; the original GLM's as published is told from GLM-4's, which transformers would take it for.

    Args:
        source: local folder, or hub id.
        revision: on the hub.
        local: whether only this machine is searched, which includes the hub's cache.
    """
    published, _ = PretrainedConfig.get_config_dict(source, revision=revision, local_files_only=local)
    original = published_config(published)
    if original is not None:
        return OriginalGlmConfig(**original)
    if "auto_map" in published and published.get("model_type") not in CONFIG_MAPPING:
        raise ConfigError(
            f"backbone '{source}' (model type '{published.get('model_type')}') needs code of its own, "
            "which is not supported",
            hint="code from a model repository is never run; take a model type that transformers has itself",
        )
    return AutoConfig.from_pretrained(source, revision=revision, local_files_only=local, trust_remote_code=False)


def _find_attention(config: PretrainedConfig, settings: Backbone) -> injection.AttentionPlan:
    """The plan of the model's attention, checked against what the recipe asks of it."""
    try:
        if config.model_type in deberta.MODEL_TYPES:
            plan = injection.AttentionPlan(
                deberta.find_layers(config), causal=False, kernels=("eager",), checkpoints=True
            )
        elif isinstance(config, OriginalGlmConfig):
            plan = attention_plan(config)
        else:
            plan = injection.find_attention(config, _ADAPTERS.get(config.model_type))
    except ConfigError:
        raise
    except Exception as error:  # whatever a model that was not made for this may raise
        reason = str(error).strip().split("\n", 1)[0]
        raise ConfigError(
            f"backbone '{settings.name}': no supported model of type '{config.model_type}' can be made of its "
            f"configuration: {type(error).__name__}: {reason}"
        ) from error
    if settings.attention != "auto" and settings.attention not in plan.kernels:
        raise ConfigError(
            f"backbone.attention is {settings.attention}, but models of type '{config.model_type}' "
            f"can be computed only by {' or '.join(plan.kernels)}"
        )
    if settings.bidirectional and not plan.causal:
        raise ConfigError(f"backbone.bidirectional is for causal models; '{config.model_type}' sees all tokens anyway")
    return plan


def load_tokenizer(spec: BackboneSpec, *, words: bool) -> PreTrainedTokenizerBase:
    """The backbone's tokenizer.

    Args:
        spec: from `find_backbone`.
        words: whether inputs are words that are already split.

    Raises:
        ConfigError: the backbone comes without a fast tokenizer, or with one that does not fit it.
        DataError: the hub cannot be reached.
    """
    try:
        tokenizer = _read_tokenizer(spec)
    except UNREADABLE as error:
        raise _failed(spec.settings.name, spec.source, "it has no usable tokenizer", error) from error
    if not tokenizer.is_fast:
        raise ConfigError(f"backbone '{spec.source}' has no fast tokenizer, which aligns sub-words with words")
    if tokenizer.pad_token_id is None:
        # Padding is on the right and never seen, so that any token serves.
        if tokenizer.eos_token_id is None:
            raise ConfigError(f"the tokenizer of backbone '{spec.source}' has neither a padding nor an end token")
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    size, vocabulary = len(tokenizer), spec.vocabulary
    if size <= len(tokenizer.all_special_ids):
        raise ConfigError(
            f"backbone '{spec.source}' has no vocabulary: its tokenizer knows {size} special tokens and nothing else",
            hint="expected a tokenizer.json or a vocabulary file beside its config.json",
        )
    if size > vocabulary:
        _LOGGER.warning(
            "warning: the tokenizer of backbone '%s' has %s tokens, but there are only %s embeddings; "
            "a row that uses one of the others is an error",
            spec.settings.name,
            f"{size:,}",
            f"{vocabulary:,}",
        )
    if words:
        _read_words_as_in_sentences(tokenizer, spec.source)
    return tokenizer


def load_backbone(
    spec: BackboneSpec, device: torch.device | None = None, sharding: Sharding | None = None
) -> PreTrainedModel:
    """The frozen weights, ready for injection. A pooler that the weights do not have is taken out.

    Args:
        spec: from `find_backbone`.
        device: where quantized weights are rounded and stay; all others are loaded to the CPU.
        sharding: each process keeps only its part of the weights; None: all of them.

    Raises:
        ConfigError: weights are missing or do not fit the configuration.
        DataError: the hub cannot be reached.
    """
    implementation = _implementation(spec)
    dtype = DTYPES[spec.settings.dtype]
    options: dict[str, Any] = {}
    if spec.settings.quantization is not None:
        where = str(device or "cpu")
        options = quantization.quantization_arguments(spec.settings.quantization, spec.config, dtype, where)
    try:
        with nullcontext() if sharding is None else sharding.loading():
            backbone, info = AutoModel.from_pretrained(
                spec.source,
                config=spec.config,
                revision=spec.settings.revision,
                dtype=dtype,
                attn_implementation=implementation,
                output_loading_info=True,
                trust_remote_code=False,
                **options,
            )
    except UNREADABLE as error:
        if "not enough memory" in str(error):
            raise
        raise unloadable_weights(spec, "its weights cannot be loaded", error) from error
    missing = sorted(info["missing_keys"])
    unexpected = sorted(info["unexpected_keys"]) if spec.config.model_type == OriginalGlmConfig.model_type else []
    if unexpected:
        raise ConfigError(f"backbone '{spec.source}': '{unexpected[0]}' among its weights is not a tensor of a GLM")
    if any(not name.startswith("pooler.") for name in missing):
        raise ConfigError(f"backbone '{spec.source}': its weights lack {len(missing)} tensors, first '{missing[0]}'")
    if missing:
        backbone.pooler = None
    if spec.settings.quantization is not None:
        quantization.take_over(backbone, dtype)
    if spec.config.model_type in _ADAPTERS:
        _ADAPTERS[spec.config.model_type](backbone)
    backbone.requires_grad_(False)
    if sharding is not None:
        sharding.shard(backbone)
    return backbone


def empty_backbone(spec: BackboneSpec) -> PreTrainedModel:
    """The backbone without weights, on the meta device: its shapes, for counting; in a second, whatever its size.

    Args:
        spec: from `find_backbone`; a pooler is there if the architecture has one, whether or not the weights do.
    """
    with torch.device("meta"):
        backbone: PreTrainedModel = AutoModel.from_config(
            spec.config, attn_implementation=_implementation(spec), trust_remote_code=False
        )
    if spec.config.model_type in _ADAPTERS:
        _ADAPTERS[spec.config.model_type](backbone)
    return backbone.requires_grad_(False)


def _implementation(spec: BackboneSpec) -> str:
    """The attention implementation that takes the prompt in."""
    injection.register()
    if spec.config.model_type in deberta.MODEL_TYPES:
        return "eager"
    return injection.BIDIRECTIONAL if spec.settings.bidirectional else injection.IMPLEMENTATION


def _read_tokenizer(spec: BackboneSpec) -> PreTrainedTokenizerBase:
    """What the backbone comes with; the original GLM as published has only the files of GPT-2's vocabulary."""
    revision = spec.settings.revision
    if spec.config.model_type == OriginalGlmConfig.model_type:
        own = cached_file(spec.source, "tokenizer.json", revision=revision, _raise_exceptions_for_missing_entries=False)
        if own is None:
            names = (glm_tokenizer.VOCABULARY_FILE, glm_tokenizer.MERGES_FILE)
            vocabulary, merges = (Path(str(cached_file(spec.source, name, revision=revision))) for name in names)
            return glm_tokenizer.build_tokenizer(vocabulary, merges)
    return AutoTokenizer.from_pretrained(spec.source, revision=revision, trust_remote_code=False)


def _read_words_as_in_sentences(tokenizer: PreTrainedTokenizerBase, source: str) -> None:
    """Let a word that stands alone be cut up as it is after a space.

    Raises:
        ConfigError: that could not be loaded of this tokenizer.
    """
    if _cuts_words_as_sentences(tokenizer):
        return
    backend: Any = tokenizer.backend_tokenizer
    if isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel):
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    else:
        # Behind a regular expression, as in Qwen and Llama 3, it would put the space in front of every piece.
        before = [] if backend.normalizer is None else [backend.normalizer]
        backend.normalizer = normalizers.Sequence([*before, normalizers.Prepend(" ")])
    if not _cuts_words_as_sentences(tokenizer):
        raise ConfigError(
            f"the tokenizer of backbone '{source}' cuts up words that are already split otherwise than sentences",
            hint="tasks whose input is 'words' need a tokenizer that does not",
        )


def _cuts_words_as_sentences(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether words that are already split get the ids that they have within a sentence, the first one aside."""
    words = ["The", "rain", "in", "Spain", "(isn't", "it?)", "fell", "12.5", "cm"]
    apart = tokenizer(words, is_split_into_words=True, add_special_tokens=False)
    joined = tokenizer(" ".join(words), add_special_tokens=False)
    after_first = len(apart["input_ids"]) - sum(word == 0 for word in apart.word_ids())
    return list(apart["input_ids"])[-after_first:] == list(joined["input_ids"])[-after_first:]


def _source(name: str) -> str:
    """The folder or hub id behind a recipe's `backbone.name`."""
    if name == "mini":
        package = importlib.util.find_spec(MINI_PACKAGE)
        if package is None or package.origin is None:
            raise ConfigError("backbone 'mini' is not installed", hint="pip install 'ptv2kit[mini]'")
        return str(Path(package.origin).parent / "model")
    if name == glm_tiny.NAME:
        return str(glm_tiny.tiny_folder())
    path = Path(name).expanduser()
    if is_folder(path):
        return str(path)
    if path.is_absolute() or name.startswith((".", "~")):
        raise ConfigError(f"backbone folder '{name}' does not exist")
    return name


def unloadable_weights(spec: BackboneSpec, what: str, error: Exception) -> ConfigError | DataError:
    """The error for weights that a library could not read: what is wrong with the files, if that can be seen."""
    folder = Path(spec.source)
    for path in sorted(folder.glob("*")) if folder.is_dir() else ():
        if path.suffix in (".safetensors", ".bin", ".pt", ".pth") and path.is_file():
            fault = weights_fault(path)
            if fault is not None:
                return ConfigError(
                    f"backbone '{spec.settings.name}': {what}: '{path}' {fault.message}", hint=fault.hint
                )
    return _failed(spec.settings.name, spec.source, what, error)


def _failed(name: str, source: str, what: str, error: Exception) -> ConfigError | DataError:
    """A folder that is wrong is a matter of configuration; a hub that does not answer is one of the network."""
    reason = next(iter(str(error).strip().splitlines()), "")
    if not isinstance(error, OSError | ValueError) or not reason:
        reason = f"{type(error).__name__}: {reason}"
    if "trust_remote_code" in str(error):
        return ConfigError(
            f"backbone '{name}': {what}: it needs code of its own, which is not supported",
            hint="code from a model repository is never run",
        )
    if "weights_only" in str(error):
        reason = "a weights file is damaged, or is a pickle that holds more than tensors"
    if Path(source).is_dir():
        return ConfigError(f"backbone '{name}': {what}: {reason}")
    close = did_you_mean(name, ["mini", glm_tiny.NAME])
    return DataError(
        f"backbone '{name}' is not a local folder and could not be loaded from the hub: {what}: {reason}",
        hint=close
        if close.startswith("did")
        else "check the name and the network; without a network give a local folder, or 'mini'",
    )


def silence_libraries() -> None:
    """Keep other libraries' progress bars and notes off the terminal; their errors still raise."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not torch.cuda.is_available():
        # Else DeepSpeed, which transformers imports where it is installed, says on stdout that it looked for a GPU.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    hub_logging.set_verbosity_error()
