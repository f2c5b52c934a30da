"""The prompt: trained keys and values for every layer (P-Tuning v2, section 3.2), or vectors in the input alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from ptv2kit.models.injection import AttentionLayer, LayerPrompt
from ptv2kit.models.input_prompts import Encoder, InputPrompt


class DeepPrompt(nn.Module, ABC):
    """Keys and values of layers. They are used as they are: no layer norm, no projection, no position.

    Args:
        length: prompt vectors per layer.
        dropout: on keys and values while training; each example of a batch has its own mask, as in the official code.
        separate: whether tokens look at the prompt in a softmax of its own.
    """

    def __init__(self, length: int, dropout: float, *, separate: bool = False) -> None:
        super().__init__()
        self.length = length
        self.separate = separate
        self.dropout = nn.Dropout(dropout)

    @abstractmethod
    def keys_and_values(self) -> list[Tensor]:
        """For each layer `[2, kv_heads, length, head_dim]`, index 0 = keys."""

    def forward(self, batch_size: int) -> list[LayerPrompt]:
        """The keys and values that a batch sees.

        Returns:
            For each layer keys and values, each `[batch, kv_heads, length, head_dim]`; batch is 1 where no dropout
            tells the examples apart.
        """
        prompts: list[LayerPrompt] = []
        apart = batch_size if self.training and self.dropout.p > 0 else 1
        for layer in self.keys_and_values():
            expanded: Tensor = self.dropout(layer.unsqueeze(1).expand(-1, apart, -1, -1, -1))
            prompts.append((expanded[0], expanded[1]))
        return prompts


@final
class EmbeddingPrompt(DeepPrompt):
    """Keys and values as plain parameters (official `PrefixEncoder` without projection).

    Args:
        length: prompt vectors per layer.
        dropout: as of `DeepPrompt`.
        init_scale: standard deviation of the normal distribution of the initial values.
        separate: as of `DeepPrompt`.
    """

    def __init__(
        self,
        layers: Sequence[AttentionLayer],
        length: int,
        dropout: float,
        init_scale: float,
        *,
        separate: bool = False,
    ) -> None:
        super().__init__(length, dropout, separate=separate)
        self.layers = nn.ParameterList(
            nn.Parameter(torch.empty(2, layer.kv_heads, length, layer.head_dim)) for layer in layers
        )
        for parameter in self.layers:
            nn.init.normal_(parameter, std=init_scale)
        self.start_without_effect()

    @torch.no_grad()
    def start_without_effect(self) -> None:
        """Let the values of a prompt with a softmax of its own be 0: the backbone then computes what it did without.

        In a common softmax the prompt takes attention from the tokens whatever its values are, so nothing is changed.
        """
        for parameter in self.layers if self.separate else ():
            parameter[1].zero_()

    def keys_and_values(self) -> list[Tensor]:
        """The parameters."""
        return list(self.layers)


@final
class NetworkPrompt(DeepPrompt):
    """Keys and values made by a network from one vector per prompt position, shared by all layers.

    Official `PrefixEncoder` with projection: embedding → linear → tanh → linear. With `lstm`, a bidirectional LSTM of
    two layers, as of P-tuning, comes before that. After training only the output is needed (`EmbeddingPrompt`).

    Args:
        length: prompt vectors per layer.
        dropout: as of `DeepPrompt`.
        init_scale: standard deviation of the normal distribution of vectors and linear weights; biases start at 0.
        width: of the vectors, the backbone's hidden size in the official code.
        hidden: width between the two linear layers.
        lstm: whether the vectors go through an LSTM first; its weights start as torch starts them.
        separate: as of `DeepPrompt`; what the network makes does not start at 0.
    """

    def __init__(
        self,
        layers: Sequence[AttentionLayer],
        length: int,
        dropout: float,
        init_scale: float,
        width: int,
        hidden: int,
        lstm: bool = False,
        *,
        separate: bool = False,
    ) -> None:
        super().__init__(length, dropout, separate=separate)
        self._shapes = [(2, layer.kv_heads, layer.head_dim) for layer in layers]
        self._sizes = [kv * heads * head_dim for kv, heads, head_dim in self._shapes]
        self.embedding = nn.Parameter(torch.empty(length, width))
        nn.init.normal_(self.embedding, std=init_scale)
        self.lstm = nn.LSTM(width, width, num_layers=2, bidirectional=True, batch_first=True) if lstm else None
        first = nn.Linear(2 * width if lstm else width, hidden)
        second = nn.Linear(hidden, sum(self._sizes))
        self.mlp = nn.Sequential(first, nn.Tanh(), second)
        for linear in (first, second):
            nn.init.normal_(linear.weight, std=init_scale)
            nn.init.zeros_(linear.bias)

    @torch.no_grad()
    def start_from(self, vectors: Tensor) -> None:
        """Let the network's input start as `vectors`, `[length, width]`."""
        self.embedding.copy_(vectors)

    def keys_and_values(self) -> list[Tensor]:
        """What the network makes of its vectors."""
        # torch's LSTM takes [length, width] as one sequence without a batch.
        vectors = self.embedding if self.lstm is None else self.lstm(self.embedding)[0]
        # [length, layers · 2 · kv_heads · head_dim] → for each layer [length, 2, kv_heads, head_dim]
        pieces = self.mlp(vectors).split(self._sizes, dim=1)
        return [
            piece.view(self.length, *shape).permute(1, 2, 0, 3)
            for piece, shape in zip(pieces, self._shapes, strict=True)
        ]


@final
class ShallowPrompt(nn.Module):
    """Vectors in front of the word embeddings (Lester et al. 2021); each takes a position of the input.

    Args:
        length: number of vectors.
        dropout: as of `DeepPrompt`.
        init_scale: standard deviation of the normal distribution of the initial values.
        encoder: what the vectors go through.
    """

    def __init__(self, length: int, width: int, dropout: float, init_scale: float, encoder: Encoder = "none") -> None:
        super().__init__()
        self.length = length
        self.dropout = nn.Dropout(dropout)
        self.vectors = InputPrompt(length, width, encoder, init_scale)

    def forward(self, batch_size: int) -> Tensor:
        """The vectors that a batch sees, `[batch, length, width]`."""
        return self.dropout(self.vectors().expand(batch_size, -1, -1))

    @torch.no_grad()
    def start_from(self, vectors: Tensor) -> None:
        """Let the vectors, or what the encoder takes, start as `vectors`, `[length, width]`."""
        self.vectors.embedding.weight.copy_(vectors)
