"""Frozen backbones: which are supported, and their weights."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from ptv2kit.errors import ConfigError, DataError
from ptv2kit.files import weights_fault
from ptv2kit.models import adapters, deberta, decoder_adapters, glm, injection, quantization
from ptv2kit.models.checkpoints import UNREADABLE, Checkpoint, failed, find_checkpoint
from ptv2kit.models.glm.configuration import OriginalGlmConfig
from ptv2kit.models.glm.modeling import attention_plan
from ptv2kit.models.sharding import Sharding
from ptv2kit.spec.recipe import Backbone

_ADAPTERS: dict[str, Callable[[PreTrainedModel], None]] = {
    "albert": adapters.adapt_albert,
    "bloom": decoder_adapters.adapt_bloom,
    "codegen": decoder_adapters.adapt_gptj_like,
    "deberta": deberta.adapt,
    "deberta-v2": deberta.adapt,
    "falcon": decoder_adapters.adapt_falcon,
    "gpt_neo": decoder_adapters.adapt_gpt_neo,
    "gptj": decoder_adapters.adapt_gptj_like,
    "megatron-bert": adapters.adapt_bert_like,
    "mpnet": adapters.adapt_mpnet,
    "mpt": decoder_adapters.adapt_mpt,
    "rembert": adapters.adapt_bert_like,
    "roformer": adapters.adapt_roformer,
    "xglm": decoder_adapters.adapt_xglm,
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""Precision of frozen weights by the recipe's name of it."""


@final
@dataclass(frozen=True)
class BackboneSpec(Checkpoint):
    """A backbone that is supported.

    Args:
        attention: its attention layers, and what can compute them.
    """

    attention: injection.AttentionPlan

    @property
    def layers(self) -> tuple[injection.AttentionLayer, ...]:
        """The attention layers in order."""
        return self.attention.layers

    @property
    def depth(self) -> int:
        """How many layers there are, those without attention too."""
        return len(self.layers) + self.attention.without_attention

    @property
    def layers_note(self) -> str:
        """How many of a hybrid's layers take a prompt; empty for other models, where all do."""
        if not self.attention.without_attention:
            return ""
        return (
            f"{len(self.layers)} of {self.depth} layers of '{self.family.model_type}' have attention and take a "
            "prompt; the others are recurrent, convolutions or networks alone"
        )

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
    def causal(self) -> bool:
        """Whether a token sees only those before it."""
        return self.attention.causal and not self.settings.bidirectional


def find_backbone(settings: Backbone, *, planning: bool = False) -> BackboneSpec:
    """Read a backbone's configuration and check that it is supported; arguments and errors as of `find_checkpoint`.

    Raises:
        ConfigError: also if the model type is not supported.
    """
    glm.register()
    found = find_checkpoint(settings, planning=planning)
    decoder_adapters.register(found.config.model_type)
    attention = _find_attention(found.config, settings)
    if attention.causal:
        found.config.use_cache = False
    return BackboneSpec(
        found.source,
        found.settings,
        found.config,
        found.family,
        found.commit,
        found.at_hand,
        found.renamed,
        attention=attention,
    )


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
    if settings.bidirectional and plan.without_attention:
        raise ConfigError(
            f"backbone.bidirectional is on, but models of type '{config.model_type}' have layers without attention, "
            "which read from left to right"
        )
    if settings.bidirectional and not plan.causal:
        raise ConfigError(f"backbone.bidirectional is for causal models; '{config.model_type}' sees all tokens anyway")
    return plan


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
        # Some models draw initial values that the weights then replace, but only where they are made in parts: the
        # prompt's must not depend on it.
        with torch.random.fork_rng(devices=[]), nullcontext() if sharding is None else sharding.loading():
            backbone, info = injection.auto_class(spec.config).from_pretrained(
                spec.source,
                config=spec.config,
                revision=spec.settings.revision,
                dtype=dtype,
                attn_implementation=implementation,
                key_mapping=spec.renamed,
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
    with no_init_weights(), torch.device("meta"):
        backbone: PreTrainedModel = injection.auto_class(spec.config).from_config(
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
    return failed(spec.settings.name, spec.source, what, error)
