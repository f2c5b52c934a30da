"""Prompts in front of a layer's own keys and values, through transformers' attention interface.

transformers calls a named function for the attention of every layer. Ours puts the layer's prompt in front of `key` and
`value`, widens the mask by as many always visible columns, and hands over to scaled dot product attention, or to the
model's own eager attention. No modeling file is copied or patched. What a layer puts in front is in a `PromptSlot`, a
parameterless child of the layer's attention module: recomputation under gradient checkpointing finds it there too.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import (
    AttentionInterface,
    AutoModel,
    AutoModelForTextEncoding,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.initialization import no_init_weights
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, causal_mask_function, sdpa_mask

from ptv2kit.errors import ConfigError
from ptv2kit.models.families import ENCODER_ALONE
from ptv2kit.spec.layers import WITHOUT_ATTENTION

IMPLEMENTATION = "ptv2kit"  # a name with "sdpa" or "flash" in it would trigger checks of transformers' own
BIDIRECTIONAL = "ptv2kit_bidirectional"
"""The same attention under a mask that lets every token of a causal model see all others."""
_PROBE = "ptv2kit_probe"
IMPLEMENTATIONS = (IMPLEMENTATION, BIDIRECTIONAL, _PROBE)
"""Every name that a model may be made with."""
_SLOT = "prompt_slot"

LayerPrompt = tuple[Tensor, Tensor]
"""Keys and values of one layer's prompt, each `[batch or 1, kv_heads, prompt_length, head_dim]`."""

Kernel = Literal["sdpa", "eager"]
"""Scaled dot product attention of torch, or the attention that a model's own file spells out."""


@final
@dataclass(frozen=True)
class AttentionLayer:
    """Where a prompt goes: one call of the attention function.

    Args:
        name: qualified name of the attention module within the backbone.
        kv_heads: heads of keys and values, before they are repeated for grouped queries.
        head_dim: width of a head; where keys and values differ (multi-head latent attention) that of the wider ones.
    """

    name: str
    kv_heads: int
    head_dim: int


@final
@dataclass(frozen=True)
class AttentionPlan:
    """What is known of a model's attention before its weights are read.

    Args:
        layers: in the order of their calls.
        causal: whether a token sees only those before it.
        kernels: what can compute it, the best first.
        checkpoints: whether the model supports gradient checkpointing.
        without_attention: how many further layers the model has, which are recurrent, convolutions or networks alone,
            and take no prompt.
    """

    layers: tuple[AttentionLayer, ...]
    causal: bool
    kernels: tuple[Kernel, ...]
    checkpoints: bool
    without_attention: int = 0


@final
class PromptSlot(nn.Module):
    """What the next forward pass of one attention module puts in front of its keys and values.

    `visible` tells which columns of the prompt each input of the batch sees, boolean `[batch, prompt_length]`; None:
    all. With `separate`, the prompt has a softmax of its own. While `recording`, the module's own keys and values are
    kept in `recorded`.
    """

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self.kernel: Kernel = kernel
        self.prompt: LayerPrompt | None = None
        self.visible: Tensor | None = None
        self.separate = False
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
    is_causal: bool | None = None,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention over the module's prompt and its own keys and values, in one softmax or in two that are added.

    Args:
        module: attention module with a `PromptSlot`.
        query: `[batch, heads, length, head_dim]`.
        key: `[batch, kv_heads, length, head_dim]`.
        value: as `key`, which may be wider.
        attention_mask: boolean `[batch, 1, length, length]`, True = visible, or None = all visible.
        dropout: on the attention weights.
        scaling: of the scores; None: `1/√head_dim`.
        is_causal: whether a token sees only those before it, which the mask must say too; None: as the module has it.
        position_bias: added to the scores, `[batch or 1, heads, length, length]`; the prompt's columns get 0.
        kwargs: passed on.

    Returns:
        The context `[batch, length, heads, head_dim]`, and no weights.
    """
    slot = module.get_submodule(_SLOT)
    assert isinstance(slot, PromptSlot)
    of_prompt: Tensor | None = None
    causal = getattr(module, "is_causal", False) if is_causal is None else is_causal
    assert attention_mask is not None or not causal, "a causal layer was given no mask"
    assert attention_mask is None or attention_mask.dtype == torch.bool
    if slot.recording:
        # As attention sees them: rotary positions of the tokens are in the keys already.
        widest = max(key.shape[3], value.shape[3])
        of_key, of_value = (nn.functional.pad(part.detach(), (0, widest - part.shape[3])) for part in (key, value))
        slot.recorded = (of_key, of_value)
    if slot.prompt is not None:
        batch_size = key.shape[0]
        # Of multi-head latent attention values are narrower than keys; the other columns of the prompt go unused.
        prompt_key = slot.prompt[0][..., : key.shape[3]].to(key.dtype).expand(batch_size, -1, -1, -1)
        prompt_value = slot.prompt[1][..., : value.shape[3]].to(value.dtype).expand(batch_size, -1, -1, -1)
        if slot.separate:
            seen = None if slot.visible is None else slot.visible[:, None, None, :].expand(-1, -1, query.shape[2], -1)
            of_prompt = _attend(slot.kernel, module, query, prompt_key, prompt_value, seen, dropout, scaling, **kwargs)
        else:
            # [batch, kv_heads, prompt_length + length, head_dim]; grouped queries repeat the heads only behind this.
            key = torch.cat([prompt_key, key], dim=2)
            value = torch.cat([prompt_value, value], dim=2)
            if position_bias is not None:
                position_bias = nn.functional.pad(position_bias, (prompt_key.shape[2], 0))
            if slot.visible is not None:
                attention_mask = _mask_beside(slot.visible, attention_mask, query.shape[2])
            elif attention_mask is not None:
                # [batch, 1, length, prompt_length + length]: each token sees the whole prompt, in a causal model too.
                attention_mask = nn.functional.pad(attention_mask, (prompt_key.shape[2], 0), value=True)
    if position_bias is not None:
        kwargs["position_bias"] = position_bias
    context = _attend(slot.kernel, module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    return context if of_prompt is None else context + of_prompt, None


def _attend(
    kernel: Kernel,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float,
    scaling: float | None,
    **kwargs: Any,
) -> Tensor:
    """The context `[batch, length, heads, head_dim]` of queries, over columns that a boolean mask shows."""
    if kernel == "sdpa":
        dtype = query.dtype
        if dtype == torch.bfloat16 and query.device.type == "cpu" and torch.is_grad_enabled():
            # On a processor torch 2.13 needs 1.3 to 8 times as long for the backward pass in bf16 as in fp32.
            query, key, value = query.float(), key.float(), value.float()
        if kwargs.get("position_bias") is not None:
            kwargs["position_bias"] = kwargs["position_bias"].to(query.dtype)
        context, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=False, **kwargs
        )
        return context.to(dtype)
    if attention_mask is not None:
        # Eager attention adds the mask to the scores; -inf would make a row without any visible key NaN.
        hidden = torch.finfo(query.dtype).min
        attention_mask = torch.zeros_like(attention_mask, dtype=query.dtype).masked_fill(~attention_mask, hidden)
    eager = _own_eager_attention(module)
    assert eager is not None
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    context, _ = eager(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
    return context


def _mask_beside(visible: Tensor, attention_mask: Tensor | None, length: int) -> Tensor:
    """The mask of prompt and tokens `[batch, 1, length, prompt_length + length]` where inputs see prompts of their own.

    Args:
        visible: boolean `[batch, prompt_length]`.
        attention_mask: boolean `[batch or 1, 1, length, length]`, or None = all visible.
    """
    of_prompt = visible[:, None, None, :].expand(-1, -1, length, -1)
    of_tokens = visible.new_ones(1, 1, length, length) if attention_mask is None else attention_mask
    return torch.cat([of_prompt, of_tokens.expand(len(visible), -1, -1, -1)], dim=3)


def explicit_mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """transformers' boolean mask, never left out for a causal model.

    Without it `is_causal` would stand for the mask, and its triangle would start at the first prompt column.
    """
    kwargs["allow_is_causal_skip"] = False
    return sdpa_mask(*args, **kwargs)


def bidirectional_mask(*args: Any, mask_function: Callable[..., Any], **kwargs: Any) -> Tensor | None:
    """The mask of a causal model made symmetric: a pair of tokens is visible if one of them saw the other.

    Plain causal attention becomes full attention, a sliding window becomes a window to both sides.
    """

    def symmetric(batch: Any, head: Any, query: Any, key: Any) -> Any:
        return mask_function(batch, head, query, key) | mask_function(batch, head, key, query)

    return explicit_mask(*args, mask_function=symmetric, **kwargs)


def register() -> None:
    """Make the attention functions known to transformers; may be called again."""
    AttentionInterface.register(IMPLEMENTATION, prompted_attention)
    AttentionMaskInterface.register(IMPLEMENTATION, explicit_mask)
    AttentionInterface.register(BIDIRECTIONAL, prompted_attention)
    AttentionMaskInterface.register(BIDIRECTIONAL, bidirectional_mask)


def auto_class(config: PretrainedConfig) -> Any:
    """What makes the model of a configuration: `AutoModel`, or that of an encoder alone."""
    return AutoModelForTextEncoding if config.model_type in ENCODER_ALONE else AutoModel


def find_attention(config: PretrainedConfig, adapt: Callable[[PreTrainedModel], None] | None = None) -> AttentionPlan:
    """The attention of a model.

    It is found by one recorded forward pass of a copy on the meta device: no weights are read, nothing is computed.

    Args:
        adapt: what is done to the model before prompts can be put into it.

    Raises:
        ConfigError: the model does not call the attention interface for every layer, hands it no mask, or asks for
            what cannot be combined with a prompt.
    """
    kind = f"backbone type '{config.model_type}'"
    calls: list[_Call] = []
    names: dict[nn.Module, str] = {}
    sees_ahead: list[bool | None] = []

    def record(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        layer = AttentionLayer(names[module], int(key.shape[1]), int(max(key.shape[3], value.shape[3])))
        beyond_sdpa = any(kwargs.get(name) is not None for name in ("softcap", "s_aux"))
        masked = attention_mask is not None and attention_mask.dtype == torch.bool and attention_mask.dim() == 4
        calls.append(_Call(module, layer, masked, beyond_sdpa))
        # [batch, length, heads, head_dim], as every attention function returns its context
        return query.new_empty(*query.shape[:3], value.shape[3]).transpose(1, 2), None

    def mask(*args: Any, mask_function: Callable[..., Any] = causal_mask_function, **kwargs: Any) -> Tensor | None:
        sees_ahead.append(_sees(mask_function, 0, 1))
        # Without padding an encoder would get no mask, and a model that takes none could not be told from it.
        kwargs["allow_is_bidirectional_skip"] = False
        return explicit_mask(*args, mask_function=mask_function, **kwargs)

    AttentionInterface.register(_PROBE, record)
    AttentionMaskInterface.register(_PROBE, mask)
    with no_init_weights(), torch.device("meta"), _NoValues():
        # Experts of mixtures are computed on the meta device in this precision only.
        own = copy.deepcopy(config)
        model: PreTrainedModel = auto_class(own).from_config(
            own, attn_implementation=_PROBE, dtype=torch.bfloat16, trust_remote_code=False
        )
        if adapt is not None:
            adapt(model)
        names.update({module: name for name, module in model.named_modules()})
        ones = torch.ones(1, 2, dtype=torch.long)
        output = model.eval()(input_ids=ones, attention_mask=ones)
    if "last_hidden_state" not in output:
        raise ConfigError(f"{kind} gives no last hidden state")
    if not calls:
        raise ConfigError(f"{kind} does not use transformers' attention interface")
    if len({call.layer.name for call in calls}) < len(calls):
        raise ConfigError(f"{kind} shares one attention module between layers")
    without_attention = sum(each in WITHOUT_ATTENTION for each in getattr(config, "layer_types", None) or ())
    if len(calls) < config.num_hidden_layers - without_attention:
        raise ConfigError(
            f"{kind} has {config.num_hidden_layers} layers, but only {len(calls)} use transformers' attention interface"
        )
    if not all(call.masked for call in calls):
        raise ConfigError(f"{kind} masks padding in a way of its own, which a prompt cannot be added to")
    eager = all(_own_eager_attention(call.module) is not None for call in calls)
    sdpa = not any(call.beyond_sdpa for call in calls)
    kernels: tuple[Kernel, ...] = (*(("sdpa",) if sdpa else ()), *(("eager",) if eager else ()))
    if not kernels:
        raise ConfigError(f"{kind} computes scores in a way that is not supported")
    return AttentionPlan(
        layers=tuple(call.layer for call in calls),
        causal=False in sees_ahead or (None in sees_ahead and any(_is_causal(call.module) for call in calls)),
        kernels=kernels,
        checkpoints=model.supports_gradient_checkpointing,
        without_attention=max(0, config.num_hidden_layers - len(calls)),
    )


@final
class _NoValues(TorchFunctionMode):
    """Answers no where a model asks a tensor for its truth, which has none on the meta device."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.Tensor.__bool__ and args[0].is_meta:
            return False
        return func(*args, **(kwargs or {}))


@final
class Injection:
    """The slots of a backbone; several injections of one backbone share them, and the last that was set counts.

    Args:
        backbone: a model loaded with `attn_implementation=IMPLEMENTATION` or `BIDIRECTIONAL`.
        layers: as `find_attention` returned them for its configuration.
        kernel: what computes the attention.
        covered: indices of the layers that get prompts; None: all.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        layers: tuple[AttentionLayer, ...],
        kernel: Kernel = "sdpa",
        covered: Sequence[int] | None = None,
    ) -> None:
        self._all = [_slot_of(backbone.get_submodule(layer.name), kernel) for layer in layers]
        self._slots = self._all if covered is None else [self._all[index] for index in covered]

    def set(
        self,
        prompts: Sequence[LayerPrompt | None] | None,
        visible: Sequence[Tensor | None] | None = None,
        *,
        separate: bool = False,
    ) -> None:
        """Let the coming forward passes put `prompts`, one for each covered layer, in front; None: nothing.

        They stay until the next call, because gradient checkpointing computes a layer again during backward.

        Args:
            prompts: of each covered layer; None in place of one, or of all: nothing.
            visible: for each covered layer which columns of its prompt an input sees, boolean `[batch,
                prompt_length]`; None in place of one, or of all: each input sees all columns.
            separate: whether the prompts have a softmax of their own.
        """
        for slot in self._all:
            slot.prompt = slot.visible = None
            slot.separate = separate
        for slot, prompt in zip(self._slots, prompts, strict=True) if prompts is not None else ():
            slot.prompt = prompt
        for slot, columns in zip(self._slots, visible, strict=True) if visible is not None else ():
            slot.visible = columns

    @contextmanager
    def recording(self) -> Generator[list[LayerPrompt]]:
        """Nothing is put in front; the list holds each covered layer's own keys and values once the context is left."""
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


def _slot_of(module: nn.Module, kernel: Kernel) -> PromptSlot:
    """The slot of an attention module, which gets one if it has none."""
    found = dict(module.named_children()).get(_SLOT)
    if found is None:
        found = PromptSlot(kernel)
        module.add_module(_SLOT, found)
    assert isinstance(found, PromptSlot)
    assert found.kernel == kernel, "one backbone has one kernel"
    return found


@final
@dataclass(frozen=True)
class _Call:
    """One recorded call of the attention function.

    Args:
        module: that called it.
        layer: what a prompt must know of it.
        masked: whether it gave one that columns can be added to.
        beyond_sdpa: whether it asked for what scaled dot product attention cannot do.
    """

    module: nn.Module
    layer: AttentionLayer
    masked: bool
    beyond_sdpa: bool


def _sees(mask_function: Callable[..., Any], query: int, key: int) -> bool | None:
    """Whether one token sees another; None if that depends on tensors, which have no values on the meta device."""
    first, of_query, of_key = (torch.tensor(index, device="cpu") for index in (0, query, key))
    try:
        sees = mask_function(first, first, of_query, of_key)
    except RuntimeError:
        return None
    return None if isinstance(sees, Tensor) and sees.is_meta else bool(sees)


def _is_causal(module: nn.Module) -> bool:
    """As transformers' own attention functions read it: a module that says nothing is causal."""
    return bool(getattr(module, "is_causal", True))


def _own_eager_attention(module: nn.Module) -> Callable[..., tuple[Tensor, Tensor | None]] | None:
    """The attention that the file of a module spells out; transformers keeps it in no registry."""
    return getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
