"""Disentangled attention behind a prompt, written out from its formula: what the tests of DeBERTa compare with."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.deberta.modeling_deberta import DisentangledSelfAttention as AttentionV1
from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention as AttentionV2

from ptv2kit.models.injection import LayerPrompt


def split_heads(tensor: Tensor) -> Tensor:
    """`[..., length, heads · head_dim]` to `[..., heads, length, head_dim]`."""
    return tensor.unflatten(-1, (2, 8)).transpose(-2, -3)


def project(module: nn.Module, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value, each `[batch, heads, length, head_dim]`."""
    if isinstance(module, AttentionV2):
        linears = (module.query_proj, module.key_proj, module.value_proj)
        return tuple(split_heads(hidden @ linear.weight.T + linear.bias) for linear in linears)
    # Rows of the weight: head, then query, key or value, then width
    query, key, value = torch.einsum("hpdw,blw->pbhld", module.in_proj.weight.view(2, 3, 8, 16), hidden)
    return query + module.q_bias.view(2, 1, 8), key, value + module.v_bias.view(2, 1, 8)


def bucket(distance: int, buckets: int, farthest: int) -> int:
    """Near distances are themselves, those beyond half of the buckets share buckets of growing width."""
    half = buckets // 2
    if buckets < 1 or abs(distance) <= half:
        return distance
    index = half + math.ceil(math.log(abs(distance) / half) / math.log((farthest - 1) / half) * (half - 1))
    return int(math.copysign(index, distance))


def relative_tables(module: nn.Module, rel_embeddings: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Keys and queries of distances, each `[heads, 2 · span, head_dim]`; None for a term that scores do not have."""

    def table(linear: nn.Linear) -> Tensor:
        bias = 0 if linear.bias is None else linear.bias
        return split_heads(rel_embeddings @ linear.weight.T + bias)

    if isinstance(module, AttentionV1):
        names = ("pos_proj", "pos_q_proj")
    elif module.share_att_key:
        names = ("key_proj", "query_proj")
    else:
        names = ("pos_key_proj", "pos_query_proj")
    terms = module.pos_att_type
    key = table(getattr(module, names[0])) if "c2p" in terms else None
    return key, table(getattr(module, names[1])) if "p2c" in terms else None


def context_by_formula(
    backbone: PreTrainedModel,
    prompt: LayerPrompt,
    hidden: Tensor,
    rel_embeddings: Tensor,
    lengths: list[int],
    broken: Literal["", "prompt_biased", "prompt_unscaled"] = "",
) -> Tensor:
    """Disentangled attention of the first layer behind a prompt, pair by pair.

    Score of query i and key j, with r = the row of distance i - j: (q_i·k_j + q_i·kr_r + k_j·qr_r) / √(d · terms). The
    prompt has the first term only.

    Args:
        backbone: a DeBERTa with two heads of width 8.
        prompt: keys and values, each `[1, 2, prompt_length, 8]`.
        hidden: `[batch, length, 16]`.
        rel_embeddings: as the encoder gives them to its layers.
        lengths: real tokens of each row; the context of the others is 0.
        broken: a rule to break.
    """
    config, module = backbone.config, backbone.encoder.layer[0].attention.self
    query, key, value = project(module, hidden)
    farthest = config.max_relative_positions if config.max_relative_positions > 0 else config.max_position_embeddings
    buckets = config.to_dict().get("position_buckets", -1)
    size = buckets if buckets > 0 else farthest
    span = min(hidden.shape[1], size) if config.model_type == "deberta" else size
    kr = qr = None
    if config.relative_attention:
        kr, qr = relative_tables(module, rel_embeddings[size - span : size + span])
    scale = math.sqrt(8 * (1 + len(config.pos_att_type or [])))

    def bias(row: int, head: int, i: int, j: int) -> Tensor:
        distance = min(max(bucket(i - j, buckets, farthest) + span, 0), 2 * span - 1)
        content_to_position = 0 if kr is None else query[row, head, i] @ kr[head, distance]
        position_to_content = 0 if qr is None else key[row, head, j] @ qr[head, distance]
        return content_to_position + position_to_content

    context = torch.zeros(*hidden.shape[:2], 2, 8, dtype=hidden.dtype)
    for row, length in enumerate(lengths):
        for i in range(length):
            scores = []
            for head in range(2):
                own = query[row, head, i]
                of_prompt = prompt[0][0, head] @ own / (1 if broken == "prompt_unscaled" else scale)
                if broken == "prompt_biased":
                    of_prompt = of_prompt + bias(row, head, i, 0) / scale
                of_tokens = [(own @ key[row, head, j] + bias(row, head, i, j)) / scale for j in range(length)]
                scores.append(torch.cat([of_prompt, torch.stack(of_tokens)]))
            mixed = torch.stack(scores)
            if config.to_dict().get("talking_head"):
                mixed = module.head_weights_proj.weight @ (module.head_logits_proj.weight @ mixed).softmax(dim=-1)
            else:
                mixed = mixed.softmax(dim=-1)
            for head in range(2):
                context[row, i, head] = mixed[head] @ torch.cat([prompt[1][0, head], value[row, head, :length]])
    return context.flatten(2)
