"""What is done to models that do not call transformers' attention interface once for each layer.

ALBERT calls one module again and again. Here each call gets a module of its own over the same parameters, so that each
has its own prompt slot, also when gradient checkpointing computes the layers again in reverse order. MPNet writes its
attention out; here each attention module calls the interface instead.
"""

from __future__ import annotations

import copy
from types import MethodType
from typing import Any, final

from torch import Tensor, nn
from transformers import AlbertConfig, AlbertModel, AttentionInterface, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.mpnet.modeling_mpnet import MPNetLayer, MPNetSelfAttention


@final
class SharedLayerGroup(GradientCheckpointingLayer):
    """One call of a layer group.

    Args:
        group: with parameters that other calls have too.
    """

    def __init__(self, group: nn.Module) -> None:
        super().__init__()
        self.group = group

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the group makes of its input."""
        return self.group(*args, **kwargs)


def adapt_albert(backbone: PreTrainedModel) -> None:
    """Give each call of a layer group its own module; parameters stay as many as they are."""
    assert isinstance(backbone, AlbertModel)
    transformer, config = backbone.encoder, backbone.config
    layers, groups = config.num_hidden_layers, config.num_hidden_groups
    shared: dict[int, Any] = {id(value): value for value in (*backbone.parameters(), *backbone.buffers(), config)}
    # The same arithmetic as in transformers' own loop over layers
    of_layer = [transformer.albert_layer_groups[int(index / (layers / groups))] for index in range(layers)]
    transformer.albert_layer_groups = nn.ModuleList(
        SharedLayerGroup(copy.deepcopy(group, dict(shared))) for group in of_layer
    )
    own: AlbertConfig = copy.copy(config)
    own.num_hidden_groups = layers
    transformer.config = own
    backbone.supports_gradient_checkpointing = True


@final
class CheckpointedMPNetLayer(GradientCheckpointingLayer, MPNetLayer):
    """A layer that gradient checkpointing knows."""


def adapt_mpnet(backbone: PreTrainedModel) -> None:
    """Let each attention module of an MPNet call the attention interface; only its instances are changed."""
    attend = AttentionInterface()[backbone.config._attn_implementation]  # pyright: ignore[reportPrivateUsage]

    def forward(
        self: MPNetSelfAttention,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_bias: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor]:
        """As transformers' own, for `[batch, length, hidden]` and a bias `[batch, heads, length, length]`."""
        apart = (*hidden_states.shape[:-1], self.num_attention_heads, self.attention_head_size)
        query, key, value = (project(hidden_states).view(apart).transpose(1, 2) for project in (self.q, self.k, self.v))
        context, _ = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.dropout.p if self.training else 0.0,
            scaling=self.attention_head_size**-0.5,
            is_causal=False,
            position_bias=position_bias,
        )
        return (self.o(context.flatten(2)),)

    for module in backbone.modules():
        if isinstance(module, MPNetSelfAttention):
            module.forward = MethodType(forward, module)
        elif isinstance(module, MPNetLayer):
            module.__class__ = CheckpointedMPNetLayer  # a layer around it would change the names of its weights
    backbone.supports_gradient_checkpointing = True
