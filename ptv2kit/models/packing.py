"""Batches without padding: the real tokens of all inputs in one row, each input's attention within itself.

Everything but attention looks at each token alone, so that it may be given the tokens of several inputs as one long
input, if each keeps its own position. Attention is computed input by input, equally long neighbours together; on a GPU
in half precision by one call of flash attention for inputs of any lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any, Protocol, final

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

Prompts = tuple[Tensor, Tensor] | None
"""Keys and values in front of each input, each `[batch or 1, kv_heads, prompt_length, head_dim]`."""


@final
@dataclass(frozen=True, eq=False)
class Packing:
    """Where the real tokens of a batch lie.

    Args:
        real: boolean `[batch, length]`, True at real tokens, which stand before all padding.
        lengths: real tokens of each input.
        causal: whether a token sees only those before it, and the prompt.
    """

    real: Tensor
    lengths: tuple[int, ...]
    causal: bool

    @classmethod
    def of(cls, attention_mask: Tensor, *, causal: bool) -> Packing | None:
        """The packing of a batch with this mask `[batch, length]`; None if there is no padding to leave out."""
        real = attention_mask.bool()
        lengths = tuple(int(length) for length in real.sum(1).tolist())
        return None if min(lengths) == real.shape[1] else cls(real, lengths, causal)

    def pack(self, tensor: Tensor) -> Tensor:
        """The real tokens' part `[1, tokens, …]` of `[batch, length, …]`."""
        return tensor[self.real].unsqueeze(0)

    def unpack(self, tensor: Tensor) -> Tensor:
        """The inverse of `pack`, with zeros at padding."""
        whole = tensor.new_zeros(*self.real.shape, *tensor.shape[2:])
        whole[self.real] = tensor[0]
        return whole

    def groups(self) -> list[tuple[int, int]]:
        """Neighbours of equal length: how many inputs, and their length; one after the other they are the batch."""
        return [(len(list(equal)), length) for length, equal in groupby(self.lengths)]


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    prompts: Prompts,
    packing: Packing,
    *,
    dropout: float,
    scaling: float | None,
    **kwargs: Any,
) -> Tensor:
    """Attention of each input over its prompt and its own tokens.

    Args:
        module: attention module.
        query: `[1, heads, tokens, head_dim]`.
        key: `[1, kv_heads, tokens, head_dim]`.
        value: as `key`.
        prompts: in front of each input's keys and values; None: nothing.
        packing: of the tokens.
        dropout: on the attention weights.
        scaling: of the scores; None: `1/√head_dim`.
        kwargs: passed on where torch's scaled dot product attention computes it.

    Returns:
        The context `[1, tokens, heads, head_dim]`.
    """
    if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16) and dropout == 0:
        return flash(query, key, value, prompts, packing, scaling=scaling)
    contexts: list[Tensor] = []
    input_ = token = 0
    for inputs, length in packing.groups():
        end = token + inputs * length
        own = [_apart(tensor[:, :, token:end], inputs) for tensor in (query, key, value)]
        if prompts is not None:
            own[1:] = [
                torch.cat([_of_inputs(prompt, input_, inputs).to(mine.dtype), mine], dim=2)
                for prompt, mine in zip(prompts, own[1:], strict=True)
            ]
        mask = _causal_mask(length, own[1].shape[2], query.device) if packing.causal else None
        # [inputs, length, heads, head_dim]
        context, _ = sdpa_attention_forward(
            module, *own, mask, dropout=dropout, scaling=scaling, is_causal=False, **kwargs
        )
        contexts.append(context.reshape(1, inputs * length, *context.shape[2:]))
        input_, token = input_ + inputs, end
    return torch.cat(contexts, dim=1)


class VariableLength(Protocol):
    """Attention over inputs of any lengths, one after the other; `torch.nn.attention.varlen.varlen_attn`."""

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cu_seq_q: Tensor,
        cu_seq_k: Tensor,
        max_q: int,
        max_k: int,
        *,
        scale: float | None,
        window_size: tuple[int, int],
        enable_gqa: bool,
    ) -> Any:
        """Context `[tokens, heads, head_dim]`."""


def flash(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    prompts: Prompts,
    packing: Packing,
    *,
    scaling: float | None,
    kernel: VariableLength = varlen_attn,
) -> Tensor:
    """`packed_attention` in one call of flash attention; arguments as there.

    Args:
        kernel: what computes it. Under a causal mask the last token of an input sees all of its keys.
    """
    starts = _starts(packing.lengths, query.device)
    columns = 0
    if prompts is not None:
        columns = prompts[0].shape[2]
        key, value = (
            _behind(prompt.to(own.dtype), own, packing.lengths)
            for prompt, own in zip(prompts, (key, value), strict=True)
        )
    seen = [columns + length for length in packing.lengths]
    context: Tensor = kernel(
        # [1, heads, tokens, head_dim] → [tokens, heads, head_dim]
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        starts,
        _starts(seen, query.device),
        max(packing.lengths),
        max(seen),
        scale=scaling,
        window_size=(-1, 0 if packing.causal else -1),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return context.unsqueeze(0)


def _apart(packed: Tensor, inputs: int) -> Tensor:
    """Equally long inputs `[inputs, heads, length, head_dim]` of `[1, heads, inputs * length, head_dim]`."""
    return packed[0].unflatten(1, (inputs, -1)).transpose(0, 1)


def _of_inputs(prompt: Tensor, first: int, inputs: int) -> Tensor:
    """The prompts of some inputs; what is one for all is not copied before it must be."""
    own = prompt if len(prompt) == 1 else prompt[first : first + inputs]
    return own.expand(inputs, -1, -1, -1)


def _causal_mask(length: int, columns: int, device: torch.device) -> Tensor:
    """Boolean `[1, 1, length, columns]`: the last token sees all columns, each one before it one less."""
    return torch.ones(1, 1, length, columns, dtype=torch.bool, device=device).tril(columns - length)


def _starts(lengths: Sequence[int], device: torch.device) -> Tensor:
    """Where each input begins, and where the last one ends, `[batch + 1]`."""
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)


def _behind(prompt: Tensor, packed: Tensor, lengths: Sequence[int]) -> Tensor:
    """`[1, kv_heads, batch * prompt_length + tokens, head_dim]`: in front of each input's part its prompt."""
    prompts = prompt.expand(len(lengths), -1, -1, -1)
    parts = packed[0].split(list(lengths), dim=1)
    return torch.cat([part for pair in zip(prompts, parts, strict=True) for part in pair], dim=1).unsqueeze(0)
