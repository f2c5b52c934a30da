"""The original GLM: a transformer over a context that sees itself in both directions and an answer that does not.

Every token has two positions: `position_ids[:, 0]`, where it stands in the context, and for the answer where the mask
stands that it fills; `position_ids[:, 1]`, its place within the answer, 0 in the context. Attention goes through
transformers' interface, so that sdpa, flash attention and prompts in front of keys and values work as everywhere.

Source: Du et al., "GLM: General Language Model Pretraining with Autoregressive Blank Infilling", arXiv:2103.10360;
parameters have the names of the published weights (THUDM/glm-2b, THUDM/glm-10b).
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Callable
from typing import Any, TypeVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, initialization
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.generic import is_flash_attention_requested
from transformers.utils.output_capturing import capture_outputs

from ptv2kit.models.glm.configuration import OriginalGlmConfig
from ptv2kit.models.injection import AttentionLayer, AttentionPlan

_RESIDUAL = "adds_to_the_residual_stream"
_Forward = TypeVar("_Forward", bound=Callable[..., Any])
_FLAGS = frozenset({"output_hidden_states", "output_attentions", "num_items_in_batch"})


def _typed(decorator: Callable[..., Any]) -> Callable[[_Forward], _Forward]:
    """A decorator of transformers, whose own have no types, that keeps the type of what it decorates."""
    return decorator


def _implementation(config: PreTrainedConfig) -> str:
    return getattr(config, "_attn_implementation", "eager")  # transformers has no public name for it


def eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Attention spelled out.

    Args:
        module: read for whether it is training.
        query: `[batch, heads, length, head_dim]`.
        key: `[batch, heads, columns, head_dim]`.
        value: as `key`.
        attention_mask: `[batch, 1, length, columns]`, boolean, True = visible, or added to the scores; None = see all.
        dropout: on the attention weights.
        kwargs: not used.

    Returns:
        The context `[batch, length, heads, head_dim]`, and the weights `[batch, heads, length, columns]`.
    """
    scores = query @ (key.transpose(2, 3) * scaling)
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    elif attention_mask is not None:
        scores = scores + attention_mask
    weights = F.dropout(scores.softmax(dim=-1), p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def _residual_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer whose output is added to the residual stream; it starts with smaller weights.

    It is marked, and no class of its own, because quantization replaces plain linear layers only.
    """
    linear = nn.Linear(inputs, outputs)
    vars(linear)[_RESIDUAL] = True
    return linear


@final
class OriginalGlmAttention(nn.Module):
    """Self-attention. The fused projection has the rows of all queries, then all keys, then all values."""

    def __init__(self, config: OriginalGlmConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.num_key_value_groups = 1
        self.is_causal = False
        self.attention_dropout = config.attention_dropout_prob
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = _residual_linear(config.hidden_size, config.hidden_size)
        self.output_dropout = nn.Dropout(config.output_dropout_prob)

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None, **kwargs: Any) -> tuple[Tensor, Any]:
        """What attention adds, `[batch, length, hidden]` as its input, and its weights where they are computed."""
        # [batch, length, 3 · heads · head_dim] → three times [batch, heads, length, head_dim]
        fused: Tensor = self.query_key_value(hidden_states)
        query, key, value = fused.unflatten(-1, (3, -1, self.head_dim)).transpose(1, 3).unbind(2)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(_implementation(self.config), eager_attention_forward)
        context, weights = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return self.output_dropout(self.dense(context.flatten(2))), weights


@final
class OriginalGlmMLP(nn.Module):
    """Feed-forward network."""

    def __init__(self, config: OriginalGlmConfig) -> None:
        super().__init__()
        self.dense_h_to_4h = nn.Linear(config.hidden_size, 4 * config.hidden_size)
        self.dense_4h_to_h = _residual_linear(4 * config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]
        self.dropout = nn.Dropout(config.output_dropout_prob)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """What the network adds, `[batch, length, hidden]` as its input."""
        return self.dropout(self.dense_4h_to_h(self.activation(self.dense_h_to_4h(hidden_states))))


@final
class OriginalGlmLayer(GradientCheckpointingLayer):
    """Attention, then the feed-forward network, each over a layer norm of what it adds to."""

    def __init__(self, config: OriginalGlmConfig, layer_idx: int) -> None:
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.attention = OriginalGlmAttention(config, layer_idx)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.mlp = OriginalGlmMLP(config)

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None, **kwargs: Any) -> Tensor:
        """Hidden states `[batch, length, hidden]` after this layer."""
        added, _ = self.attention(self.input_layernorm(hidden_states), attention_mask, **kwargs)
        hidden_states = hidden_states + added
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))


@final
class OriginalGlmTransformer(nn.Module):
    """All but the word embeddings; a module of its own because the published names have it."""

    def __init__(self, config: OriginalGlmConfig) -> None:
        super().__init__()
        positions = config.max_sequence_length + 1
        self.position_embeddings = nn.Embedding(positions, config.hidden_size)
        self.block_position_embeddings = nn.Embedding(positions, config.hidden_size)
        self.embedding_dropout = nn.Dropout(config.embedding_dropout_prob)
        self.layers = nn.ModuleList(OriginalGlmLayer(config, index) for index in range(config.num_layers))
        self.final_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)

    def forward(
        self, inputs_embeds: Tensor, position_ids: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> Tensor:
        """Hidden states `[batch, length, hidden]`; arguments as in `OriginalGlmModel.forward`, the mask ready-made."""
        hidden_states = inputs_embeds + self.position_embeddings(position_ids[:, 0])
        hidden_states = self.embedding_dropout(hidden_states + self.block_position_embeddings(position_ids[:, 1]))
        for layer in self.layers:
            hidden_states = layer(hidden_states, attention_mask, **kwargs)
        return self.final_layernorm(hidden_states)


class OriginalGlmPreTrainedModel(PreTrainedModel, ABC):
    """What transformers must know of the model, and its initial weights."""

    config_class = OriginalGlmConfig
    base_model_prefix = "glm"
    supports_gradient_checkpointing = True
    _no_split_modules = ["OriginalGlmLayer"]  # noqa: RUF012, as all of transformers declares it
    _input_embed_layer = "word_embeddings"
    # The published 2B file holds a classifier too (public issue THUDM/GLM#178).
    _keys_to_ignore_on_load_unexpected = [r"^(glm\.)?(dense|out_proj)\.(weight|bias)$"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": OriginalGlmLayer, "attentions": OriginalGlmAttention}  # noqa: RUF012

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Linear) and _RESIDUAL in vars(module):
            initialization.normal_(
                module.weight, std=self.config.initializer_range / math.sqrt(2 * self.config.num_layers)
            )


@final
class OriginalGlmModel(OriginalGlmPreTrainedModel):
    """Hidden states; what `AutoModel` gives."""

    def __init__(self, config: OriginalGlmConfig) -> None:
        super().__init__(config)
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.transformer = OriginalGlmTransformer(config)
        self.post_init()

    @_typed(capture_outputs)
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        context_length: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """Hidden states of a batch.

        Args:
            input_ids: `[batch, length]`, or None with `inputs_embeds`.
            attention_mask: `[batch, length]`, 1 at real tokens; or boolean, True = visible, for each pair of tokens
                `[batch, 1, length, length]`.
            position_ids: `[batch, 2, length]`: positions, block positions. None: 0, 1, … and 0.
            context_length: `[batch]`, tokens that all see (official code: `sep`); a token after them sees itself and
                all before it. None: all see all.
            inputs_embeds: `[batch, length, hidden]` in place of word embeddings; positions are added to it.
            kwargs: `output_hidden_states`, `output_attentions`, `return_dict` as of every model of transformers.

        Returns:
            The last hidden state `[batch, length, hidden]`, after the final layer norm.

        Raises:
            ValueError: shapes or types do not fit, an argument is unknown, or `context_length` is given to flash
                attention, which masks nothing but padding.
        """
        for name, value in kwargs.items():
            if name not in _FLAGS and value is not None and value is not False:
                raise ValueError(f"the original GLM takes no {name}")
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("expected either input_ids or inputs_embeds")
        embeds: Tensor = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        expected = (embeds.shape[0], 2, embeds.shape[1])
        if position_ids is None:
            position = torch.arange(embeds.shape[1], device=embeds.device)
            position_ids = torch.stack([position, torch.zeros_like(position)]).expand(expected)
        if position_ids.shape != expected:
            raise ValueError(f"position_ids must have shape {expected}. Got {tuple(position_ids.shape)}")
        mask = self._mask(embeds, attention_mask, context_length)
        return BaseModelOutput(last_hidden_state=self.transformer(embeds, position_ids, mask, **kwargs))

    def _mask(self, embeds: Tensor, attention_mask: Tensor | None, context_length: Tensor | None) -> Tensor | None:
        """The mask as the attention function wants it; the arguments are those of `forward`."""
        if attention_mask is not None and attention_mask.dim() == 4:
            if attention_mask.dtype != torch.bool or context_length is not None:
                raise ValueError("an attention_mask with four dimensions must be boolean and without context_length")
            mask = attention_mask
        elif context_length is None:
            return create_bidirectional_mask(self.config, embeds, attention_mask)
        else:
            # The context is one block that sees itself; -1 is none. A mask function would not compile in one graph.
            in_context = torch.arange(embeds.shape[1], device=embeds.device) < context_length.unsqueeze(1)
            blocks = torch.where(in_context, 0, -1)
            mask = create_causal_mask(self.config, embeds, attention_mask, None, block_sequence_ids=blocks)
        if is_flash_attention_requested(self.config) or not isinstance(mask, Tensor):
            implementation = _implementation(self.config)
            raise ValueError(f"'{implementation}' masks padding only, too little for context_length: use sdpa or eager")
        return mask


def attention_plan(config: OriginalGlmConfig) -> AttentionPlan:
    """The attention of a GLM, as `find_attention` would find it by a pass through all of its layers."""
    head_dim = config.hidden_size // config.num_attention_heads
    return AttentionPlan(
        layers=tuple(
            AttentionLayer(f"transformer.layers.{index}.attention", config.num_attention_heads, head_dim)
            for index in range(config.num_layers)
        ),
        causal=False,
        kernels=("sdpa", "eager"),
        checkpoints=OriginalGlmPreTrainedModel.supports_gradient_checkpointing,
    )
