"""Prompts in front of a layer's own keys and values, through transformers' attention interface.

transformers calls a named function for the attention of every layer. Ours puts the layer's prompt in front of `key` and
`value`, widens the mask by as many always visible columns, and hands over to scaled dot product attention. No
modeling file is copied or patched. What a layer puts in front lies in a `PromptSlot`, a parameterless child of
the layer's attention module: recomputation under gradient checkpointing finds it there too.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from ptv2kit.errors import ConfigError

IMPLEMENTATION = "ptv2kit"  # a name with "sdpa" or "flash" in it would trigger checks of transformers' own
_PROBE = "ptv2kit_probe"
_SLOT = "prompt_slot"

LayerPrompt = tuple[Tensor, Tensor]
"""Keys and values of one layer's prompt, each `[batch or 1, kv_heads, prompt_length, head_dim]`."""


@final
@dataclass(frozen=True)
class AttentionLayer:
    """Where a prompt goes: one call of the attention function.

    Args:
        name: qualified name of the attention module within the backbone.
        kv_heads: heads of keys and values, before they are repeated for grouped queries.
        head_dim: width of a head.
    """

    name: str
    kv_heads: int
    head_dim: int


@final
class PromptSlot(nn.Module):
    """What the next forward pass of one attention module puts in front of its keys and values.

    While `recording`, the module's own keys and values are kept in `recorded`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.prompt: LayerPrompt | None = None
        self.recording = False
        self.recorded: LayerPrompt | None = None


def prompted_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention over the module's prompt and its own keys and values.

    Args:
        module: attention module with a `PromptSlot`.
        query: `[batch, heads, length, head_dim]`.
        key: `[batch, kv_heads, length, head_dim]`.
        value: as `key`.
        attention_mask: boolean `[batch, 1, length, length]`, True = visible, or None = all visible.
        dropout: on the attention weights.
        scaling: of the scores; None: `1/√head_dim`.
        kwargs: passed on.

    Returns:
        The context `[batch, length, heads, head_dim]`, and no weights.
    """
    slot = module.get_submodule(_SLOT)
    assert isinstance(slot, PromptSlot)
    assert attention_mask is not None or not module.is_causal, "a causal layer was given no mask"
    if slot.recording:
        slot.recorded = (key.detach(), value.detach())
    if slot.prompt is not None:
        prompt_key, prompt_value = slot.prompt
        batch_size = key.shape[0]
        key = torch.cat([prompt_key.to(key.dtype).expand(batch_size, -1, -1, -1), key], dim=2)
        value = torch.cat([prompt_value.to(value.dtype).expand(batch_size, -1, -1, -1), value], dim=2)
        if attention_mask is not None:
            assert attention_mask.dtype == torch.bool
            attention_mask = nn.functional.pad(attention_mask, (prompt_key.shape[2], 0), value=True)
    return sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=False, **kwargs
    )


def explicit_mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """transformers' boolean mask, never left out for a causal model.

    Without it `is_causal` would stand for the mask, and its triangle would start at the first prompt column.
    """
    kwargs["allow_is_causal_skip"] = False
    return sdpa_mask(*args, **kwargs)


def register() -> None:
    """Make the attention function known to transformers under `IMPLEMENTATION`; may be called again."""
    AttentionInterface.register(IMPLEMENTATION, prompted_attention)
    AttentionMaskInterface.register(IMPLEMENTATION, explicit_mask)


def find_layers(config: PretrainedConfig) -> tuple[AttentionLayer, ...]:
    """The attention layers of a model, in the order of their calls.

    They are found by one recorded forward pass of a copy on the meta device: no weights are read, nothing is computed.

    Raises:
        ConfigError: the model does not call the attention interface, or uses one module for several layers.
    """
    calls: list[tuple[nn.Module, AttentionLayer]] = []
    names: dict[nn.Module, str] = {}

    def record(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        calls.append((module, AttentionLayer(names[module], int(key.shape[1]), int(key.shape[3]))))
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)

    AttentionInterface.register(_PROBE, record)
    AttentionMaskInterface.register(_PROBE, explicit_mask)
    with torch.device("meta"):
        model = AutoModel.from_config(config, attn_implementation=_PROBE)
        names.update({module: name for name, module in model.named_modules()})
        model.eval()(input_ids=torch.zeros(1, 2, dtype=torch.long))
    if not calls:
        raise ConfigError(f"backbone type '{config.model_type}' does not use transformers' attention interface")
    if len({layer.name for _, layer in calls}) < len(calls):
        raise ConfigError(f"backbone type '{config.model_type}' shares one attention module between layers")
    return tuple(layer for _, layer in calls)


@final
class Injection:
    """The slots of a backbone.

    Args:
        backbone: a model loaded with `attn_implementation=IMPLEMENTATION`.
        layers: as `find_layers` returned them for its configuration.
    """

    def __init__(self, backbone: PreTrainedModel, layers: tuple[AttentionLayer, ...]) -> None:
        self._slots: list[PromptSlot] = []
        for layer in layers:
            slot = PromptSlot()
            backbone.get_submodule(layer.name).add_module(_SLOT, slot)
            self._slots.append(slot)

    def set(self, prompts: list[LayerPrompt] | None) -> None:
        """Let the coming forward passes put `prompts`, one for each layer, in front; None: nothing.

        They stay until the next call, because gradient checkpointing computes a layer again during backward.
        """
        if prompts is not None and len(prompts) != len(self._slots):
            raise ValueError(f"the backbone has {len(self._slots)} layers. Got prompts for {len(prompts)}")
        for index, slot in enumerate(self._slots):
            slot.prompt = None if prompts is None else prompts[index]

    @contextmanager
    def recording(self) -> Generator[list[LayerPrompt]]:
        """Nothing is put in front; the list holds each layer's own keys and values once the context is left."""
        recorded: list[LayerPrompt] = []
        self.set(None)
        for slot in self._slots:
            slot.recording = True
        try:
            yield recorded
        finally:
            for slot in self._slots:
                slot.recording = False
        for slot in self._slots:
            assert slot.recorded is not None, "no forward pass was made"
            recorded.append(slot.recorded)
            slot.recorded = None
