"""Inputs of several tasks in one forward pass, each under the prompt of its own task.

The backbone is frozen and the same for all. What a prompt adds to it belongs to a row of the batch: keys and values of
each layer, or vectors in front of the row's word embeddings. Rows with a shorter prompt, or with none in a layer, do
not see the columns that others have there. Every row comes out as it would in a batch of its own task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from ptv2kit.models.backbones import BackboneSpec
from ptv2kit.models.heads import BackboneOutput
from ptv2kit.models.injection import Injection, LayerPrompt
from ptv2kit.models.model import PromptedModel
from ptv2kit.models.prompts import DeepPrompt, ShallowPrompt


@final
@dataclass(frozen=True)
class MixedPart:
    """What one task has in a mixed batch.

    Args:
        model: of the task, on the shared backbone, in evaluation mode.
        inputs: what its `forward` would take.
    """

    model: PromptedModel
    inputs: Mapping[str, Tensor]

    @property
    def rows(self) -> int:
        """Inputs."""
        return len(self.inputs["input_ids"])

    @property
    def length(self) -> int:
        """Tokens of the longest input."""
        return self.inputs["input_ids"].shape[1]

    @property
    def vectors(self) -> int:
        """Vectors in front of each input."""
        return self.model.prompt.length if isinstance(self.model.prompt, ShallowPrompt) else 0

    @property
    def width(self) -> int:
        """Columns that the backbone reads: vectors and tokens."""
        return self.vectors + self.length


@final
class MixedModel:
    """One backbone that serves several prompts at the same time; for inference.

    Args:
        backbone: that the models of all parts share.
    """

    def __init__(self, spec: BackboneSpec, backbone: PreTrainedModel) -> None:
        self._spec = spec
        self._backbone = backbone
        self._injection = Injection(backbone, spec.layers, spec.kernel)

    @torch.inference_mode()
    def __call__(self, parts: Sequence[MixedPart]) -> list[Tensor]:
        """The logits of each part, as its own model's `forward` gives them; at least one part."""
        assert all(part.model.backbone is self._backbone and not part.model.training for part in parts)
        joint = [part for part in parts if not part.model.separate]
        separate = [part for part in parts if part.model.separate]
        if joint and separate:  # one pass has one kind of attention
            first, second = iter(self(joint)), iter(self(separate))
            return [next(second if part.model.separate else first) for part in parts]
        width = max(part.width for part in parts)
        mask = torch.cat([_mask(part, width) for part in parts])
        self._injection.set(*self._prompts(parts), separate=bool(separate))
        output = self._backbone(
            **self._inputs(parts, width), attention_mask=mask, **self._positions(parts, mask), **_segments(parts, width)
        )
        hidden = output.last_hidden_state.split([part.rows for part in parts])
        return [self._logits(part, own) for part, own in zip(parts, hidden, strict=True)]

    def _inputs(self, parts: Sequence[MixedPart], width: int) -> dict[str, Tensor]:
        """Ids `[batch, width]`, or with a shallow prompt embeddings `[batch, width, hidden]`."""
        ids = [F.pad(part.inputs["input_ids"], (0, width - part.width)) for part in parts]
        if not any(part.vectors for part in parts):
            return {"input_ids": torch.cat(ids)}
        embed = self._backbone.get_input_embeddings()
        pieces: list[Tensor] = []
        for part, own in zip(parts, ids, strict=True):
            words: Tensor = embed(own)
            if isinstance(part.model.prompt, ShallowPrompt):
                words = torch.cat([part.model.prompt(part.rows).to(words.dtype), words], dim=1)
            pieces.append(words)
        return {"inputs_embeds": torch.cat(pieces)}

    def _positions(self, parts: Sequence[MixedPart], mask: Tensor) -> dict[str, Tensor]:
        """Positions of the columns as each part's own model counts them; nothing where the backbone counts."""
        masks = mask.split([part.rows for part in parts])
        if any("context_length" in part.inputs for part in parts):
            clozes = [_cloze(part, own) for part, own in zip(parts, masks, strict=True)]
            positions, contexts = zip(*clozes, strict=True)
            return {"position_ids": torch.cat(positions), "context_length": torch.cat(contexts)}
        found = [self._spec.family.position_ids(own, part.model.shift) for part, own in zip(parts, masks, strict=True)]
        counted = [own for own in found if own is not None]
        return {"position_ids": torch.cat(counted)} if counted else {}

    def _prompts(self, parts: Sequence[MixedPart]) -> tuple[list[LayerPrompt | None], list[Tensor | None]]:
        """For each layer of the backbone the rows' prompts, the shorter ones filled up, and who sees which column."""
        deep: list[dict[int, Tensor]] = []
        for part in parts:
            own = part.model.prompt.keys_and_values() if isinstance(part.model.prompt, DeepPrompt) else []
            deep.append(dict(zip(part.model.covered, own, strict=True)) if own else {})
        prompts: list[LayerPrompt | None] = []
        visible: list[Tensor | None] = []
        for layer in range(len(self._spec.layers)):
            made, columns = _side_by_side([(part.rows, own.get(layer)) for part, own in zip(parts, deep, strict=True)])
            prompts.append(made)
            visible.append(columns)
        return prompts, visible

    def _logits(self, part: MixedPart, hidden: Tensor) -> Tensor:
        """What a part's head makes of its rows `[rows, width, hidden]`, cut to their own tokens."""
        hidden = hidden[:, part.vectors : part.width]
        pooled = self._spec.family.pool(self._backbone, hidden)
        return part.model.head(
            BackboneOutput(
                hidden.float(),
                None if pooled is None else pooled.float(),
                part.inputs["attention_mask"],
                part.inputs.get("answer_places"),
                part.inputs.get("answer_ids"),
                part.inputs.get("choice_rows"),
            )
        )


def _side_by_side(parts: Sequence[tuple[int, Tensor | None]]) -> tuple[LayerPrompt | None, Tensor | None]:
    """One layer's prompts of all rows.

    Args:
        parts: rows, and what they have in this layer, `[2, kv_heads, length, head_dim]`.

    Returns:
        Keys and values `[batch, kv_heads, longest, head_dim]`, and boolean `[batch, longest]`, which of them a row
        sees, None if each sees all; nothing if no part has a prompt here.
    """
    own = [prompt for _, prompt in parts if prompt is not None]
    if not own:
        return None, None
    longest = max(prompt.shape[2] for prompt in own)
    if len(parts) == 1:
        return (own[0][0].unsqueeze(0), own[0][1].unsqueeze(0)), None
    pieces: list[Tensor] = []
    columns: list[Tensor] = []
    count = torch.arange(longest, device=own[0].device)
    for rows, prompt in parts:
        length = 0 if prompt is None else prompt.shape[2]
        whole = torch.zeros_like(own[0][:, :, :1]) if prompt is None else prompt
        # [2, kv_heads, length, head_dim] → [2, rows, kv_heads, longest, head_dim]
        pieces.append(F.pad(whole, (0, 0, 0, longest - whole.shape[2])).unsqueeze(1).expand(-1, rows, -1, -1, -1))
        columns.append((count < length).expand(rows, -1))
    keys, values = torch.cat(pieces, dim=1)
    visible = torch.cat(columns)
    return (keys, values), None if bool(visible.all()) else visible


def _mask(part: MixedPart, width: int) -> Tensor:
    """`[rows, width]`, 1 at vectors and real tokens."""
    mask = F.pad(part.inputs["attention_mask"], (part.vectors, 0), value=1)
    return F.pad(mask, (0, width - part.width))


def _segments(parts: Sequence[MixedPart], width: int) -> dict[str, Tensor]:
    """Segments `[batch, width]`, 0 at vectors and padding; nothing for a backbone without."""
    given = [part.inputs.get("token_type_ids") for part in parts]
    if all(own is None for own in given):
        return {}
    whole = [
        torch.zeros_like(part.inputs["input_ids"]) if own is None else own
        for part, own in zip(parts, given, strict=True)
    ]
    padded = [F.pad(own, (part.vectors, width - part.width)) for part, own in zip(parts, whole, strict=True)]
    return {"token_type_ids": torch.cat(padded)}


def _cloze(part: MixedPart, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Positions `[rows, 2, width]` and lengths of the context `[rows]` of the original GLM, vectors counted in.

    Without a mask to fill, all real tokens are context, counted from 0.
    """
    rows, width = mask.shape
    first = torch.arange(width, device=mask.device).expand(rows, -1)
    if "context_length" not in part.inputs:
        return torch.stack([first, torch.zeros_like(first)], dim=1), mask.sum(1)
    vectors = torch.stack([first, torch.zeros_like(first)], dim=1)[:, :, : part.vectors]
    shifted = part.inputs["position_ids"] + torch.tensor([[part.vectors], [0]], device=mask.device)
    positions = F.pad(torch.cat([vectors, shifted], dim=2), (0, width - part.width))
    return positions, part.inputs["context_length"] + part.vectors
