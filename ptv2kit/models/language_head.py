"""The backbone's own language-model head, frozen: from hidden states to the logits of words.

transformers' own code of the head is run, on the hidden states of the needed places alone: transform, layer norm, bias
and caps are whatever the checkpoint's class has. It is read through that class with one layer instead of all, so that
names, old layouts and tied weights are transformers' matter too.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

from ptv2kit.errors import ConfigError
from ptv2kit.models import deberta
from ptv2kit.models.backbones import DTYPES, BackboneSpec, unloadable_weights
from ptv2kit.models.checkpoints import UNREADABLE
from ptv2kit.models.glm.configuration import OriginalGlmConfig

_HINT = "take a checkpoint with its pretraining head, such as roberta-large, or set head: linear in the task"


@final
class LanguageHead(nn.Module):
    """Logits over the vocabulary, or over some of its tokens.

    Args:
        model: a language model of transformers whose base model hands on its `inputs_embeds` as hidden states; or the
            word embeddings, if they alone are the head, as in the original GLM.
        dtype: that it computes in.
    """

    def __init__(self, model: PreTrainedModel | nn.Embedding, dtype: torch.dtype) -> None:
        super().__init__()
        self.model: nn.Module = model.requires_grad_(False).eval()
        self._dtype = dtype

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits in float32 `[places, tokens]` of hidden states `[places, hidden]`."""
        hidden = hidden.to(self._dtype)
        if isinstance(self.model, nn.Embedding):
            return F.linear(hidden, self.model.weight).float()
        # One place after the other, as if each were an input of one token
        return self.model(inputs_embeds=hidden.unsqueeze(1)).logits.squeeze(1).float()


def check_language_model(spec: BackboneSpec, *, several_tokens: bool) -> None:
    """Make sure, before weights are read, that a model of this type can score words.

    Args:
        several_tokens: whether answers of several tokens are scored.

    Raises:
        ConfigError: transformers has no such model, or a causal model that sees ahead would see the answer.
    """
    mapping = MODEL_FOR_CAUSAL_LM_MAPPING if spec.attention.causal else MODEL_FOR_MASKED_LM_MAPPING
    if not _is_glm(spec) and type(spec.config) not in mapping:
        kind = "continues texts" if spec.attention.causal else "fills masks"
        raise ConfigError(
            f"backbone '{spec.settings.name}' cannot take 'head: verbalizer': transformers has no model of type "
            f"'{spec.config.model_type}' that {kind}",
            hint=_HINT,
        )
    if spec.settings.bidirectional and several_tokens:
        raise ConfigError(
            "backbone.bidirectional lets a token see those after it, and so the answer whose tokens are scored",
            hint="set backbone.bidirectional: false, or use words of one token",
        )


def require_language_head(spec: BackboneSpec) -> None:
    """Make sure that the checkpoint has a language-model head; it is read, and let go.

    Raises:
        ConfigError: it has none, or it cannot be read.
    """
    _read(spec)


def language_head(spec: BackboneSpec, backbone: PreTrainedModel, tokens: Sequence[int] | None) -> LanguageHead:
    """The frozen head of the backbone's checkpoint.

    Of some tokens it keeps their rows only, in float32. Of all of them it has the backbone's precision, and shares the
    backbone's word embeddings where the checkpoint ties the two; if these are trained, or in parts, it keeps its own.

    Args:
        backbone: loaded, or without weights on the meta device: then nothing is read.
        tokens: that logits are needed of; None: all.

    Raises:
        ConfigError: the checkpoint has no such head, or it cannot be read.
    """
    embeddings: Any = backbone.get_input_embeddings().weight
    model = _empty(spec) if embeddings.is_meta else _read(spec)
    if tokens is not None:
        return LanguageHead(_with_tokens(model, tokens).float(), torch.float32)
    decoder = _decoder(model)
    tied = isinstance(decoder, nn.Embedding) or decoder.weight is _input_weight(model)
    if tied and not embeddings.requires_grad and "ds_id" not in vars(embeddings):
        decoder.weight = embeddings
    return LanguageHead(_without_base(model), DTYPES[spec.settings.dtype])


@final
class _Given(nn.Module):
    """In place of a base model: its hidden states are given.

    Args:
        word_embeddings: that some heads ask their base model for.
    """

    def __init__(self, word_embeddings: nn.Embedding | None) -> None:
        super().__init__()
        self.embeddings = nn.Module()
        if word_embeddings is not None:
            self.embeddings.word_embeddings = word_embeddings

    def forward(self, *args: Any, inputs_embeds: Any, **kwargs: Any) -> BaseModelOutputWithPoolingAndCrossAttentions:
        """`inputs_embeds`, `[batch, length, hidden]`, as hidden states."""
        return BaseModelOutputWithPoolingAndCrossAttentions(last_hidden_state=inputs_embeds)


def _is_glm(spec: BackboneSpec) -> bool:
    return spec.config.model_type == OriginalGlmConfig.model_type


def _shallow(config: PretrainedConfig) -> PretrainedConfig:
    """The configuration with one layer; the others would be read for nothing."""
    config = copy.deepcopy(config)
    config.num_hidden_layers = 1
    if config.to_dict().get("layer_types"):
        config.layer_types = config.layer_types[:1]
    return config


def _auto_class(spec: BackboneSpec) -> Any:
    if _is_glm(spec):
        return AutoModel
    return AutoModelForCausalLM if spec.attention.causal else AutoModelForMaskedLM


def _empty(spec: BackboneSpec) -> PreTrainedModel:
    """The model without weights."""
    with torch.device("meta"):
        return _auto_class(spec).from_config(
            _shallow(spec.config), attn_implementation="eager", trust_remote_code=False
        )


def _read(spec: BackboneSpec) -> PreTrainedModel:
    """The model with one layer, the weights of its head all from the checkpoint."""
    configs = [_shallow(spec.config)]
    if spec.config.model_type in deberta.MODEL_TYPES:
        # The published weights have their head by the names of this layout; transformers' default one has others.
        configs.append(_shallow(spec.config))
        configs[1].legacy = not configs[0].legacy
    missing: list[str] = []
    for config in configs:
        model, lacking = _read_as(spec, config)
        if not lacking:
            return model
        missing = missing or lacking
    raise ConfigError(
        f"backbone '{spec.settings.name}' has no language-model head, which 'head: verbalizer' needs: its weights lack "
        f"{len(missing)} of the head's tensors, first '{missing[0]}'",
        hint=_HINT,
    )


def _read_as(spec: BackboneSpec, config: PretrainedConfig) -> tuple[PreTrainedModel, list[str]]:
    try:
        model, info = _auto_class(spec).from_pretrained(
            spec.source,
            config=config,
            revision=spec.settings.revision,
            dtype=DTYPES[spec.settings.dtype],
            attn_implementation="eager",
            key_mapping=spec.renamed,
            output_loading_info=True,
            trust_remote_code=False,
        )
    except UNREADABLE as error:
        if "not enough memory" in str(error):
            raise
        raise unloadable_weights(spec, "its language-model head cannot be read", error) from error
    return model, sorted(info["missing_keys"])


def _in_new_layout(model: PreTrainedModel) -> bool:
    """Whether it is a DeBERTa whose head asks its base model for the word embeddings, and has but a bias of its own."""
    return model.config.model_type in deberta.MODEL_TYPES and not model.config.legacy


def _decoder(model: PreTrainedModel) -> nn.Linear | nn.Embedding:
    """What turns transformed hidden states into logits."""
    is_glm = model.config.model_type == OriginalGlmConfig.model_type
    found = model.get_input_embeddings() if is_glm or _in_new_layout(model) else model.get_output_embeddings()
    assert isinstance(found, nn.Linear | nn.Embedding)
    return found


def _input_weight(model: PreTrainedModel) -> Tensor:
    return cast("nn.Embedding", model.get_input_embeddings()).weight


def _without_base(model: PreTrainedModel) -> PreTrainedModel | nn.Embedding:
    """The head alone."""
    decoder = _decoder(model)
    if model.config.model_type == OriginalGlmConfig.model_type:
        assert isinstance(decoder, nn.Embedding)
        return decoder
    setattr(model, model.base_model_prefix, _Given(decoder if isinstance(decoder, nn.Embedding) else None))
    return model


def _with_tokens(model: PreTrainedModel, tokens: Sequence[int]) -> PreTrainedModel | nn.Embedding:
    """The head alone, with the decoder's rows of some tokens only."""
    decoder = _decoder(model)
    rows = torch.tensor(list(tokens), device=decoder.weight.device)
    weight = decoder.weight.detach()[rows].clone()
    if isinstance(decoder, nn.Embedding):
        small = nn.Embedding.from_pretrained(weight)
        if model.config.model_type == OriginalGlmConfig.model_type:
            return small
        head: Any = model.get_submodule("lm_predictions.lm_head")
        head.bias = nn.Parameter(head.bias.detach()[rows].clone())
        setattr(model, model.base_model_prefix, _Given(small))
        return model
    bias = dict(decoder.named_parameters()).get("bias")
    linear = nn.Linear(weight.shape[1], len(rows), bias=bias is not None, device=weight.device)
    linear.weight = nn.Parameter(weight)
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach()[rows].clone())
    model.set_output_embeddings(linear)
    setattr(model, model.base_model_prefix, _Given(None))
    return model
