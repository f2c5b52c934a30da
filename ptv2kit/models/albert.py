"""ALBERT: one set of weights for all layers, a prompt of its own for each.

transformers calls one module again and again. Here each call gets a module of its own over the same parameters, so that
each has its own prompt slot, also when gradient checkpointing computes the layers again in reverse order.
"""

from __future__ import annotations

import copy
from typing import Any, final

from torch import nn
from transformers import AlbertConfig, AlbertModel, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer


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


def adapt(backbone: PreTrainedModel) -> None:
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
