"""What is done to decoders that write their attention out: each attention module calls the interface instead.

Only the instances of a backbone are changed. BLOOM, MPT and some Falcons add a slope times the key's place to each
score, which means a distance only because softmax does not see what all keys of a query have in common (ALiBi,
arXiv:2108.12409). A prompt has no place, so that here each score gets the distance itself, and the prompt's 0.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ptv2kit.models.adapters import attention_of, modules_named, replace
from ptv2kit.models.injection import IMPLEMENTATIONS

if TYPE_CHECKING:
    from transformers.models.bloom.modeling_bloom import BloomAttention
    from transformers.models.codegen.modeling_codegen import CodeGenAttention
    from transformers.models.falcon.modeling_falcon import FalconAttention
    from transformers.models.gpt_neo.modeling_gpt_neo import GPTNeoSelfAttention
    from transformers.models.gptj.modeling_gptj import GPTJAttention
    from transformers.models.mpt.modeling_mpt import MptAttention
    from transformers.models.xglm.modeling_xglm import XGLMAttention

_BY_NAME = {
    "falcon": "FALCON_ATTENTION_CLASSES",
    "gpt_neo": "GPT_NEO_ATTENTION_CLASSES",
    "gptj": "GPTJ_ATTENTION_CLASSES",
}
"""Where attention classes are looked up by the name of the implementation."""


def register(model_type: str) -> None:
    """Let a model that looks its attention class up by the implementation's name be made with ours.

    It gets the class that writes attention out, which is adapted then; may be called again.
    """
    table = _BY_NAME.get(model_type)
    classes = None if table is None else vars(_modeling(model_type)).get(table)
    if classes is not None:  # GPT-J has none since transformers 5.24, where it calls the interface itself
        classes.update(dict.fromkeys(IMPLEMENTATIONS, classes["eager"]))


def adapt_gptj_like(backbone: PreTrainedModel) -> None:
    """Let GPT-J and CodeGen compute scores and context through the attention interface.

    Since transformers 5.24 they do so themselves, and nothing calls `_attn`.
    """
    attend = attention_of(backbone)

    def _attn(
        self: GPTJAttention | CodeGenAttention,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """As transformers' own; context `[batch, heads, length, head_dim]`."""
        dropout = self.attn_dropout.p if self.training else 0.0
        # CodeGen's rotary angles are in fp32 also where its weights are in bf16.
        query, key = query.to(value.dtype), key.to(value.dtype)
        context, _ = attend(self, query, key, value, attention_mask, dropout=dropout)
        return context.transpose(1, 2), None

    replace(backbone, {"GPTJAttention", "CodeGenAttention"}, _attn)


def adapt_gpt_neo(backbone: PreTrainedModel) -> None:
    """Let GPT-Neo compute scores and context through the attention interface."""
    attend = attention_of(backbone)

    def _attn(
        self: GPTNeoSelfAttention, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor
    ) -> tuple[Tensor, None]:
        """As transformers' own, whose scores are not scaled; context `[batch, heads, length, head_dim]`."""
        if self.attention_type == "local":
            places = torch.arange(query.shape[2], device=query.device)
            attention_mask = attention_mask & ((places[:, None] - places).abs() < self.config.window_size)
        dropout = self.attn_dropout.p if self.training else 0.0
        context, _ = attend(self, query, key, value, attention_mask, dropout=dropout, scaling=1.0)
        return context.transpose(1, 2), None

    replace(backbone, {"GPTNeoSelfAttention"}, _attn)


def adapt_xglm(backbone: PreTrainedModel) -> None:
    """Let each attention module of an XGLM call the attention interface."""
    attend = attention_of(backbone)

    def forward(
        self: XGLMAttention, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor, None]:
        """As transformers' own of self-attention, for `[batch, length, hidden]`."""
        apart = (*hidden_states.shape[:-1], self.num_heads, self.head_dim)
        projections = self.q_proj, self.k_proj, self.v_proj
        query, key, value = (project(hidden_states).view(apart).transpose(1, 2) for project in projections)
        dropout = self.dropout if self.training else 0.0
        context, _ = attend(self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling)
        return self.out_proj(context.flatten(2)), None

    replace(backbone, {"XGLMAttention"}, forward)


def adapt_bloom(backbone: PreTrainedModel) -> None:
    """Let each attention module of a BLOOM call the attention interface."""
    attend = attention_of(backbone)

    def forward(
        self: BloomAttention,
        hidden_states: Tensor,
        residual: Tensor,
        alibi: Tensor,
        attention_mask: Tensor | None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        """As transformers' own, for `[batch, length, hidden]` and places times slopes `[batch · heads, 1, length]`."""
        query, key, value = self._reshape(self.query_key_value(hidden_states))  # pyright: ignore[reportPrivateUsage]
        bias = _distances(alibi.float().view(len(hidden_states), self.num_heads, 1, -1))
        dropout, scaling = self.attention_dropout.p if self.training else 0.0, self.inv_norm_factor
        context, _ = attend(
            self, query, key, value, attention_mask, dropout=dropout, scaling=scaling, position_bias=bias
        )
        output = nn.functional.dropout(self.dense(context.flatten(2)), self.hidden_dropout, self.training)
        return output + residual, None

    replace(backbone, {"BloomAttention"}, forward)


def adapt_mpt(backbone: PreTrainedModel) -> None:
    """Let each attention module of an MPT call the attention interface."""
    attend = attention_of(backbone)

    def forward(
        self: MptAttention,
        hidden_states: Tensor,
        position_bias: Tensor,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        """As transformers' own, for `[batch, length, hidden]` and places times slopes `[heads, 1, longest input]`."""
        mixed = self.Wqkv(hidden_states)
        if self.clip_qkv:
            mixed = mixed.clamp(-self.clip_qkv, self.clip_qkv)
        apart = (*hidden_states.shape[:-1], self.n_heads, self.head_dim)
        query, key, value = (part.reshape(apart).transpose(1, 2) for part in mixed.chunk(3, dim=2))
        bias = _distances(position_bias[None, :, :, -hidden_states.shape[1] :])
        dropout, scaling = self.attn_dropout_p if self.training else 0.0, self.softmax_scale
        context, _ = attend(
            self, query, key, value, attention_mask, dropout=dropout, scaling=scaling, position_bias=bias
        )
        return self.out_proj(context.flatten(2)), None

    replace(backbone, {"MptAttention"}, forward)


def adapt_falcon(backbone: PreTrainedModel) -> None:
    """Let each attention module of a Falcon call the attention interface."""
    attend, rotate = attention_of(backbone), _modeling("falcon").apply_rotary_pos_emb

    def forward(
        self: FalconAttention,
        hidden_states: Tensor,
        alibi: Tensor | None,
        attention_mask: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        """As transformers' own, for `[batch, length, hidden]`, and places times slopes `[batch, heads, 1, length]` or
        cosines and sines of rotary angles."""
        fused = self.query_key_value(hidden_states)
        query, key, value = self._split_heads(fused)  # pyright: ignore[reportPrivateUsage]
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        position_bias, dropout = None, 0.0
        if alibi is None:
            query, key = rotate(query, key, *position_embeddings)
        else:
            position_bias = _distances(alibi.float() * self.inv_norm_factor)
            dropout = self.attention_dropout.p if self.training else 0.0
            # The model has merged mask and places; what it hides has the lowest number of its type, for every head.
            attention_mask = attention_mask[:, :1] > torch.finfo(attention_mask.dtype).min
        context, _ = attend(self, query, key, value, attention_mask, dropout=dropout, position_bias=position_bias)
        return self.dense(context.flatten(2)), None

    replace(backbone, {"FalconAttention"}, forward)
    for attention in modules_named(backbone, {"FalconAttention"}):
        if not attention.new_decoder_architecture:
            # The first Falcons have one head of keys and values for all heads of queries; torch's fused kernels on GPUs
            # want it repeated, as the later Falcons do by themselves.
            attention.num_key_value_groups = attention.num_heads // attention.num_kv_heads


def _modeling(model_type: str) -> Any:
    """transformers' module of a model type."""
    return importlib.import_module(f"transformers.models.{model_type}.modeling_{model_type}")


def _distances(places: Tensor) -> Tensor:
    """Slope times distance of each query and key, at most 0, from slope times place `[batch, heads, 1, length]`."""
    # The same to both sides, for a model that is made to see both; of causal ones only the past is visible.
    return -(places - places.transpose(2, 3)).abs()
