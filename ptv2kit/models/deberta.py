"""DeBERTa v1, v2 and v3: prompts in front of disentangled attention.

transformers spells this attention out in the attention module, not behind its attention interface. Here each attention
module of a backbone, the instance and not its class, gets a `forward` that looks for a prompt in the module's slot.
With none it is the module's own. With one it takes the module's own projections and relative bias and writes out what
is between them, because no hook reaches the scores:

- queries and keys of tokens have a relative bias, the prompt has none (its columns get exactly 0);
- all scores are divided by `√(head_dim · (1 + relative terms))`, those of the prompt too;
- every real token sees the prompt; a padded query sees nothing at all, and its context is 0.

The last is what the official P-Tuning v2 code does. transformers itself lets a padded query see all tokens evenly,
which moves a loss whose softmax runs over padding.

Source: He et al., "DeBERTa: Decoding-enhanced BERT with Disentangled Attention", arXiv:2006.03654, section 3.1.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from types import MethodType

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, PretrainedConfig, PreTrainedModel
from transformers.models.deberta.modeling_deberta import DisentangledSelfAttention as AttentionV1
from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention as AttentionV2

from ptv2kit.errors import ConfigError
from ptv2kit.models.injection import AttentionLayer, Injection, PromptSlot

MODEL_TYPES = frozenset({"deberta", "deberta-v2"})
"""Model types that `adapt` takes; DeBERTa v3 is of the second."""

_Attention = AttentionV1 | AttentionV2

_FORWARD = ("hidden_states", "attention_mask", "output_attentions", "query_states", "relative_pos", "rel_embeddings")
_BIAS = ("query_layer", "key_layer", "relative_pos", "rel_embeddings", "scale_factor")
_SIZES = ("num_attention_heads", "attention_head_size")
_COMMON = (*_SIZES, "transpose_for_scores", "pos_att_type", "relative_attention", "dropout")
_TALKING = ("talking_head", "head_logits_proj", "head_weights_proj")
_V1 = (*_COMMON, *_TALKING, "in_proj", "q_bias", "v_bias", "disentangled_att_bias")
_V2 = (*_COMMON, "query_proj", "key_proj", "value_proj", "disentangled_attention_bias")


def find_layers(config: PretrainedConfig) -> tuple[AttentionLayer, ...]:
    """The attention layers of a DeBERTa, in order.

    One forward pass with a prompt is made of a copy on the meta device: no weights are read, nothing is computed.

    Args:
        config: of a model whose type is in `MODEL_TYPES`.

    Raises:
        ConfigError: the configuration cannot be computed, or the installed transformers is not the one known here.
    """
    try:
        with torch.device("meta"):
            backbone: PreTrainedModel = AutoModel.from_config(config, attn_implementation="eager")
        adapt(backbone)
        layers = tuple(
            AttentionLayer(name, module.num_attention_heads, module.attention_head_size)
            for name, module in _attention_modules(backbone).items()
        )
        parts = [torch.empty(1, layer.kv_heads, 1, layer.head_dim, device="meta") for layer in layers]
        Injection(backbone, layers).set([(part, part) for part in parts])
        ones = torch.ones(1, 2, dtype=torch.long, device="meta")
        backbone.eval()(input_ids=ones, attention_mask=ones)
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise ConfigError(f"this configuration of a '{config.model_type}' cannot be computed: {reason}") from error
    return layers


def adapt(backbone: PreTrainedModel) -> None:
    """Let each attention module put the prompt of its child `prompt_slot` in front of its own keys and values.

    Without a prompt the output is that of the untouched module, bit for bit. May be called again.

    Args:
        backbone: a DeBERTa; only its instances of attention are changed.

    Raises:
        ConfigError: the installed transformers computes DeBERTa otherwise than is known here.
    """
    modules = _attention_modules(backbone)
    if len(modules) != backbone.config.num_hidden_layers:
        raise _unknown_transformers(f"{len(modules)} attention modules in {backbone.config.num_hidden_layers} layers")
    for module in modules.values():
        _check_internals(module)
        module.forward = MethodType(_forward, module)
        if isinstance(module, AttentionV1):
            # transformers makes these in fp32 whatever the precision of the weights beside them.
            for bias in (module.q_bias, module.v_bias):
                bias.data = bias.data.to(module.in_proj.weight.dtype)


def _attention_modules(backbone: PreTrainedModel) -> dict[str, _Attention]:
    """By qualified name, in the order of the layers."""
    return {name: module for name, module in backbone.named_modules() if isinstance(module, _Attention)}


def _check_internals(module: _Attention) -> None:
    """Nothing that `_forward` relies on may have another name or other arguments."""
    needed = set(_V1 if isinstance(module, AttentionV1) else _V2)
    if missing := sorted(needed - set(dir(module))):
        raise _unknown_transformers(f"the attention module has no {', '.join(missing)}")
    if module.relative_attention and "pos_dropout" not in dir(module):
        raise _unknown_transformers("the attention module has no pos_dropout")
    bias = module.disentangled_att_bias if isinstance(module, AttentionV1) else module.disentangled_attention_bias
    for function, expected in ((type(module).forward, ("self", *_FORWARD)), (bias, _BIAS)):
        found = tuple(inspect.signature(function).parameters)
        if found != expected:
            raise _unknown_transformers(f"{function.__name__} takes ({', '.join(found)}), not ({', '.join(expected)})")


def _unknown_transformers(what: str) -> ConfigError:
    return ConfigError(
        f"the installed transformers computes DeBERTa in a way that is not known: {what}",
        hint="install the release of transformers that constraints.txt names",
    )


def _forward(
    self: _Attention,
    hidden_states: Tensor,
    attention_mask: Tensor,
    output_attentions: bool = False,
    query_states: Tensor | None = None,
    relative_pos: Tensor | None = None,
    rel_embeddings: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """What stands in for the `forward` of an attention module; arguments and result are those of transformers.

    Args:
        self: attention module with a `PromptSlot`.
        hidden_states: `[batch, length, hidden]`.
        attention_mask: `[batch, 1, length, length]`, not 0 = visible.
        output_attentions: whether to return the weights.
        query_states: None if a prompt is set; transformers uses it only in pre-training.
        relative_pos: `[1, length, length]`, distances or their buckets.
        rel_embeddings: `[2 · span, hidden]`, of the distances.

    Returns:
        The context `[batch, length, hidden]`; weights `[batch, heads, length, prompt_length + length]` or None.
    """
    slot = self.get_submodule("prompt_slot")
    assert isinstance(slot, PromptSlot)
    if slot.recording:
        _, key, value = _project(self, hidden_states)
        slot.recorded = (key.detach(), value.detach())
    if slot.prompt is None:
        own: Callable[..., tuple[Tensor, Tensor | None]] = type(self).forward
        return own(self, hidden_states, attention_mask, output_attentions, query_states, relative_pos, rel_embeddings)
    assert query_states is None
    query, key, value = _project(self, hidden_states)
    bias = None
    if self.relative_attention:
        assert relative_pos is not None
        assert rel_embeddings is not None
        bias = _relative_bias(self, query, key, relative_pos, rel_embeddings)
    weights, value = _weights(self, slot, query, key, value, bias, attention_mask.bool())
    context = (weights @ value).transpose(1, 2).flatten(2)
    return context, weights if output_attentions else None


def _project(module: _Attention, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value of the tokens, each `[batch, heads, length, head_dim]`."""
    heads = module.num_attention_heads
    if isinstance(module, AttentionV1):
        query, key, value = module.transpose_for_scores(module.in_proj(hidden_states)).chunk(3, dim=-1)
        query = query + module.transpose_for_scores(module.q_bias[None, None])
        return query, key, value + module.transpose_for_scores(module.v_bias[None, None])
    split = (len(hidden_states), heads)
    return (
        module.transpose_for_scores(module.query_proj(hidden_states), heads).unflatten(0, split),
        module.transpose_for_scores(module.key_proj(hidden_states), heads).unflatten(0, split),
        module.transpose_for_scores(module.value_proj(hidden_states), heads).unflatten(0, split),
    )


def _terms(module: _Attention) -> int:
    """How many terms a score is the sum of, counted as transformers does: content alone, and the relative ones."""
    if isinstance(module, AttentionV1):
        return 1 + len(module.pos_att_type)
    return 1 + sum(term in module.pos_att_type for term in ("c2p", "p2c"))


def _scale(module: _Attention) -> float:
    return math.sqrt(module.attention_head_size * _terms(module))


def _relative_bias(
    module: _Attention, query: Tensor, key: Tensor, relative_pos: Tensor, rel_embeddings: Tensor
) -> Tensor | None:
    """The module's own bias of token pairs, scaled, `[batch, heads, length, length]`; None without relative terms."""
    embeddings = module.pos_dropout(rel_embeddings)
    if isinstance(module, AttentionV1):
        # v1 scales the query beforehand, v2 the bias itself.
        bias = module.disentangled_att_bias(query / _scale(module), key, relative_pos, embeddings, _terms(module))
        return bias if isinstance(bias, Tensor) else None
    bias = module.disentangled_attention_bias(
        query.flatten(0, 1), key.flatten(0, 1), relative_pos, embeddings, _terms(module)
    )
    return bias.unflatten(0, query.shape[:2]) if isinstance(bias, Tensor) else None


def _weights(
    module: _Attention,
    slot: PromptSlot,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    visible: Tensor,
) -> tuple[Tensor, Tensor]:
    """Attention weights over prompt and tokens, and the values that they weigh.

    Args:
        module: with the talking heads and the dropout.
        slot: with a prompt.
        query: `[batch, heads, length, head_dim]`, as are `key` and `value`.
        bias: `[batch, heads, length, length]`.
        visible: boolean `[batch, 1, length, length]`.

    Returns:
        `[batch, heads, length, prompt_length + length]` and `[batch, heads, prompt_length + length, head_dim]`.
    """
    assert slot.prompt is not None
    prompt_key, prompt_value = (part.to(key.dtype).expand(len(key), -1, -1, -1) for part in slot.prompt)
    prompt_length = prompt_key.shape[2]
    scores = (query / _scale(module)) @ torch.cat([prompt_key, key], dim=2).transpose(-1, -2)
    if bias is not None:
        scores = scores + F.pad(bias, (prompt_length, 0))
    talking = isinstance(module, AttentionV1) and module.talking_head
    if talking:
        scores = _mix_heads(module.get_submodule("head_logits_proj"), scores)
    real_query = visible.any(dim=-1, keepdim=True)
    of_prompt = real_query.expand(-1, -1, -1, prompt_length)
    if slot.visible is not None:
        of_prompt = of_prompt & slot.visible[:, None, None, :]
    visible = torch.cat([of_prompt, visible], dim=-1)
    scores = scores.masked_fill(~visible, torch.finfo(scores.dtype).min)
    widths = [prompt_length, key.shape[2]] if slot.separate else [prompt_length + key.shape[2]]
    weights = torch.cat([part.softmax(dim=-1) for part in scores.split(widths, dim=-1)], dim=-1)
    # A row that sees nothing has even weights here.
    weights = module.dropout(weights.masked_fill(~visible, 0))
    if talking:
        weights = _mix_heads(module.get_submodule("head_weights_proj"), weights)
    return weights, torch.cat([prompt_value, value], dim=2)


def _mix_heads(linear: nn.Module, scores: Tensor) -> Tensor:
    """Talking heads: a linear map over the heads of `[batch, heads, length, columns]`."""
    return linear(scores.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
