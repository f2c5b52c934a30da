"""The prompt: trained keys and values for every layer (P-Tuning v2, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from ptv2kit.models.injection import AttentionLayer, LayerPrompt


@final
class DeepPrompt(nn.Module):
    """Keys and values as plain parameters, one tensor `[2, kv_heads, length, head_dim]` per layer, index 0 = keys.

    They are used as they are: no layer norm, no projection, no position (official `PrefixEncoder`).

    Args:
        layers: the layers that are prompted.
        length: prompt vectors per layer.
        dropout: on the prompt while training; each example of a batch has its own mask.
        init_scale: standard deviation of the normal distribution of the initial values.
    """

    def __init__(self, layers: Sequence[AttentionLayer], length: int, dropout: float, init_scale: float) -> None:
        super().__init__()
        self.length = length
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ParameterList(
            nn.Parameter(torch.empty(2, layer.kv_heads, length, layer.head_dim).normal_(std=init_scale))
            for layer in layers
        )

    def forward(self, batch_size: int) -> list[LayerPrompt]:
        """The keys and values that a batch sees.

        Returns:
            For each layer keys and values, each `[batch, kv_heads, length, head_dim]`; batch is 1 where no dropout
            tells the examples apart.
        """
        prompts: list[LayerPrompt] = []
        apart = batch_size if self.training and self.dropout.p > 0 else 1
        for parameter in self.layers:
            expanded: Tensor = self.dropout(parameter.unsqueeze(1).expand(-1, apart, -1, -1, -1))
            prompts.append((expanded[0], expanded[1]))
        return prompts
