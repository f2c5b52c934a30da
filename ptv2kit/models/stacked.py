"""Several prompts on one backbone in one forward pass: each row of the batch sees the prompt of its own model.

Rows of a model stand together. No row sees another, so hidden states and gradients are those of a pass for each model
alone, up to the rounding of larger matrix products; the frozen weights are read once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from ptv2kit.models.heads import BackboneOutput
from ptv2kit.models.injection import LayerPrompt
from ptv2kit.models.model import MadePrompt, PromptedModel

_OF_HEADS = ("answer_places", "answer_ids")


@final
class StackedPrompts:
    """What several models' prompts put in front of one batch.

    Args:
        made: of each model, from `PromptedModel.made_prompt`; of the same length and layers.
        rows: how many rows of the batch each model has, one model after the other.
    """

    def __init__(self, made: Sequence[MadePrompt], rows: Sequence[int]) -> None:
        assert len(made) == len(rows) > 0
        self._made = tuple(made)
        self._rows = tuple(rows)

    def joined(self) -> MadePrompt:
        """Keys and values by layer, each `[batch, kv_heads, length, head_dim]`, or vectors `[batch, length, width]`."""
        first = self._made[0]
        if first is None:
            assert all(each is None for each in self._made)
            return None
        if isinstance(first, Tensor):
            return self._join([each for each in self._made if isinstance(each, Tensor)])
        deep = [each for each in self._made if each is not None and not isinstance(each, Tensor)]
        layers: list[LayerPrompt] = []
        for of_layer in zip(*deep, strict=True):
            keys, values = zip(*of_layer, strict=True)
            layers.append((self._join(keys), self._join(values)))
        return layers

    def _join(self, tensors: Sequence[Tensor]) -> Tensor:
        """`[rows or 1, ...]` of each model as `[batch, ...]`."""
        assert len(tensors) == len(self._rows)
        return torch.cat(
            [tensor.expand(count, *tensor.shape[1:]) for tensor, count in zip(tensors, self._rows, strict=True)]
        )


def encode_stacked(
    models: Sequence[PromptedModel], inputs: Sequence[Mapping[str, Tensor]], made: Sequence[MadePrompt]
) -> list[BackboneOutput]:
    """Hidden states of each model's own inputs under its own prompt, from one pass through the backbone they share.

    Args:
        models: on one backbone, with prompts of the same length and layers.
        inputs: of each, what `PromptedModel.forward` takes, by name. Models with the same rows should be given the
            same object: it is then padded for none of them.
        made: of each, from `PromptedModel.made_prompt`.

    Returns:
        What the head of each model reads, as long as its own inputs are.
    """
    rows = [len(own["input_ids"]) for own in inputs]
    lengths = [own["input_ids"].shape[1] for own in inputs]
    batch = {name: tensor for name, tensor in _stacked(inputs).items() if name not in _OF_HEADS}
    copies = len(inputs) if all(own is inputs[0] for own in inputs) else 1
    output = models[0].encode_behind(StackedPrompts(made, rows).joined(), copies, **batch)
    hidden = output.hidden.split(rows)
    pooled = [None] * len(rows) if output.pooled is None else output.pooled.split(rows)
    return [
        BackboneOutput(
            hidden=hidden[index][:, : lengths[index]],
            pooled=pooled[index],
            attention_mask=own["attention_mask"],
            answer_places=own.get("answer_places"),
            answer_ids=own.get("answer_ids"),
        )
        for index, own in enumerate(inputs)
    ]


def _stacked(inputs: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """One batch of all rows, padded behind each row to the longest."""
    first = inputs[0]
    names = [name for name in first if name not in _OF_HEADS]
    if all(own is first for own in inputs):
        return {name: first[name].repeat(len(inputs), *[1] * (first[name].dim() - 1)) for name in names}
    longest = max(own["input_ids"].shape[1] for own in inputs)
    return {name: torch.cat([_padded(name, own[name], longest) for own in inputs]) for name in names}


def _padded(name: str, tensor: Tensor, length: int) -> Tensor:
    """An input with `length` positions; what is added is masked, so its values do not matter."""
    if name == "context_length":  # [batch]
        return tensor
    axis = 1 if name == "trunk_states" else tensor.dim() - 1  # [batch, length, hidden], else [..., length]
    missing = length - tensor.shape[axis]
    return F.pad(tensor, (0, 0, 0, missing) if name == "trunk_states" else (0, missing))
