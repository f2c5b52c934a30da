"""What is done to encoders that do not call transformers' attention interface once for each layer.

ALBERT calls one module again and again. Here each call gets a module of its own over the same parameters, so that each
has its own prompt slot, also when gradient checkpointing computes the layers again in reverse order. Megatron-BERT,
RemBERT, MPNet and RoFormer write their attention out; here each attention module calls the interface instead.

Classes of transformers' modules are found by their names: nothing is imported for families that are not used, and a
release that renames something affects one family alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import MethodType
from typing import TYPE_CHECKING, Any, final

from torch import Tensor, nn
from transformers import AlbertConfig, AlbertModel, AttentionInterface, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

if TYPE_CHECKING:
    from transformers.models.megatron_bert.modeling_megatron_bert import MegatronBertSelfAttention
    from transformers.models.mpnet.modeling_mpnet import MPNetSelfAttention
    from transformers.models.rembert.modeling_rembert import RemBertSelfAttention
    from transformers.models.roformer.modeling_roformer import RoFormerSelfAttention


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


def adapt_bert_like(backbone: PreTrainedModel) -> None:
    """Let each attention module of a Megatron-BERT or RemBERT call the attention interface; only its instances are
    changed."""
    attend = attention_of(backbone)

    def forward(
        self: MegatronBertSelfAttention | RemBertSelfAttention,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        """As transformers' own of an encoder, for `[batch, length, hidden]`."""
        projections = self.query, self.key, self.value
        return _context(attend, self, projections, hidden_states, attention_mask), None

    replace(backbone, {"MegatronBertSelfAttention", "RemBertSelfAttention"}, forward)


def adapt_roformer(backbone: PreTrainedModel) -> None:
    """Let each attention module of a RoFormer call the attention interface; only its instances are changed."""
    attend = attention_of(backbone)

    def forward(
        self: RoFormerSelfAttention,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        sinusoidal_pos: Tensor,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        """As transformers' own of an encoder, for `[batch, length, hidden]` and angles `[1, 1, length, head_dim]`."""

        def rotate(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            query, key = self.apply_rotary_position_embeddings(sinusoidal_pos, query, key)[:2]
            if self.rotary_value:
                value = self.apply_rotary_position_embeddings(sinusoidal_pos, value, value)[0]
            return query, key, value

        projections = self.query, self.key, self.value
        return _context(attend, self, projections, hidden_states, attention_mask, rotate=rotate), None

    replace(backbone, {"RoFormerSelfAttention"}, forward)


def adapt_mpnet(backbone: PreTrainedModel) -> None:
    """Let each attention module of an MPNet call the attention interface; only its instances are changed."""
    attend = attention_of(backbone)

    def forward(
        self: MPNetSelfAttention,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_bias: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor]:
        """As transformers' own, for `[batch, length, hidden]` and a bias `[batch, heads, length, length]`."""
        projections = self.q, self.k, self.v
        return (self.o(_context(attend, self, projections, hidden_states, attention_mask, position_bias)),)

    replace(backbone, {"MPNetSelfAttention"}, forward)
    # A layer around each, which gradient checkpointing knows, would change the names of its weights.
    for layer in modules_named(backbone, {"MPNetLayer"}):
        layer.__class__ = type("CheckpointedMPNetLayer", (GradientCheckpointingLayer, type(layer)), {})
    backbone.supports_gradient_checkpointing = True


def _context(
    attend: Any,
    module: Any,
    projections: tuple[nn.Linear, nn.Linear, nn.Linear],
    hidden_states: Tensor,
    attention_mask: Tensor | None,
    position_bias: Tensor | None = None,
    rotate: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]] | None = None,
) -> Tensor:
    """What the attention `module` of an encoder makes of `[batch, length, hidden]`, of the same shape."""
    apart = (*hidden_states.shape[:-1], module.num_attention_heads, module.attention_head_size)
    # Each [batch, heads, length, head_dim]
    query, key, value = (project(hidden_states).view(apart).transpose(1, 2) for project in projections)
    if rotate is not None:
        query, key, value = rotate(query, key, value)
    context, _ = attend(
        module,
        query,
        key,
        value,
        attention_mask,
        dropout=module.dropout.p if module.training else 0.0,
        scaling=module.attention_head_size**-0.5,
        is_causal=False,
        position_bias=position_bias,
    )
    return context.flatten(2)


def attention_of(backbone: PreTrainedModel) -> Any:
    """The attention function that a backbone was made with."""
    return AttentionInterface()[backbone.config._attn_implementation]  # pyright: ignore[reportPrivateUsage]


def modules_named(backbone: PreTrainedModel, names: set[str]) -> list[Any]:
    """The modules whose class, or one that it extends, has one of the names."""
    return [module for module in backbone.modules() if names & {kind.__name__ for kind in type(module).__mro__}]


def replace(backbone: PreTrainedModel, names: set[str], method: Callable[..., Any]) -> None:
    """Give each module of these classes, but not the class, another method of that name."""
    for module in modules_named(backbone, names):
        setattr(module, method.__name__, MethodType(method, module))
