"""The model that is trained: frozen backbone, prompt, head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ptv2kit.config.recipe import Recipe
from ptv2kit.errors import ConfigError
from ptv2kit.models.backbones import BackboneSpec, load_backbone, position_ids
from ptv2kit.models.heads import BackboneOutput, ChoicesHead, Head, SequenceHead, StartEndHead, TokenHead
from ptv2kit.models.injection import Injection
from ptv2kit.models.prompts import DeepPrompt


@final
@dataclass(frozen=True)
class ParameterCount:
    """Parameters of a model.

    Args:
        frozen: of the backbone.
        prompt: trained, of the prompt.
        head: trained, of the head.
    """

    frozen: int
    prompt: int
    head: int

    @property
    def trained(self) -> int:
        """Prompt and head together."""
        return self.prompt + self.head

    @property
    def share(self) -> float:
        """Trained parameters as a share of the backbone's, between 0 and 1."""
        return self.trained / self.frozen


@final
class PromptedModel(nn.Module):
    """A frozen backbone with a prompt in front of every layer, and a head.

    Args:
        spec: the backbone's facts.
        backbone: from `load_backbone`.
        prompt: keys and values of each layer.
        head: from hidden states to logits.
        shift_positions: whether tokens are counted from after the prompt.
    """

    def __init__(
        self, spec: BackboneSpec, backbone: PreTrainedModel, prompt: DeepPrompt, head: Head, *, shift_positions: bool
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.prompt = prompt
        self.head = head
        self._injection = Injection(backbone, spec.layers)
        self._family = spec.family
        self._pad_token_id = int(spec.config.pad_token_id or 0)
        self._shift = prompt.length if shift_positions else 0

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Logits of a batch.

        Args:
            input_ids: `[batch, length]`.
            attention_mask: `[batch, length]`, 1 at real tokens.
            token_type_ids: `[batch, length]`, or None where the backbone has no segments.

        Returns:
            The head's logits.
        """
        return self.head(self.encode(input_ids, attention_mask, token_type_ids))

    def encode(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> BackboneOutput:
        """Hidden states of a batch under the prompt; arguments as in `forward`."""
        segments = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        self._injection.set(self.prompt(input_ids.shape[0]))
        output = self.backbone(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids(self._family, attention_mask, self._shift, self._pad_token_id),
            **segments,
        )
        pooled: Tensor | None = output.get("pooler_output")
        return BackboneOutput(
            output.last_hidden_state.float(), None if pooled is None else pooled.float(), attention_mask
        )

    @torch.no_grad()
    def start_prompt_from_tokens(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> None:
        """Let the prompt start as the keys and values that the backbone computes for real tokens.

        Tokens are taken row after row, padding left out, and over again if there are fewer than the prompt is long.

        Args:
            input_ids: `[batch, length]`.
            attention_mask: `[batch, length]`, 1 at real tokens.
            token_type_ids: `[batch, length]`, or None where the backbone has no segments.
        """
        training = self.training
        self.eval()
        segments = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        positions = position_ids(self._family, attention_mask, 0, self._pad_token_id)
        with self._injection.recording() as recorded:
            self.backbone(input_ids=input_ids, attention_mask=attention_mask, position_ids=positions, **segments)
        self.train(training)
        real = attention_mask.bool()
        repeats = -(-self.prompt.length // int(real.sum()))
        for parameter, layer in zip(self.prompt.layers, recorded, strict=True):
            # [batch, kv_heads, length, head_dim] → [tokens, kv_heads, head_dim]
            tokens = torch.stack([part.transpose(1, 2)[real] for part in layer])
            parameter.copy_(tokens.repeat(1, repeats, 1, 1)[:, : self.prompt.length].transpose(1, 2))

    def trained_state(self) -> dict[str, Tensor]:
        """Copies of everything that is trained, where it is: `prompt.layers.<i>` and `head.*`."""
        return {
            name: parameter.detach().clone() for name, parameter in self.named_parameters() if parameter.requires_grad
        }

    def load_trained_state(self, tensors: dict[str, Tensor]) -> None:
        """Put trained tensors back.

        Raises:
            ConfigError: names or shapes are not those of this model.
        """
        own = {name: value for name, value in self.named_parameters() if value.requires_grad}
        if own.keys() != tensors.keys():
            odd = sorted(own.keys() ^ tensors.keys())
            raise ConfigError(f"the saved prompt does not fit the recipe: '{odd[0]}' is in only one of them")
        for name, value in tensors.items():
            if value.shape != own[name].shape:
                raise ConfigError(
                    f"the saved prompt does not fit the recipe: '{name}' has shape {tuple(value.shape)}. "
                    f"Expected {tuple(own[name].shape)}"
                )
        with torch.no_grad():
            for name, value in tensors.items():
                own[name].copy_(value)

    def parameter_count(self) -> ParameterCount:
        """Frozen and trained parameters."""
        return ParameterCount(
            frozen=sum(parameter.numel() for parameter in self.backbone.parameters()),
            prompt=sum(parameter.numel() for parameter in self.prompt.parameters()),
            head=sum(parameter.numel() for parameter in self.head.parameters()),
        )


def check_length(recipe: Recipe, spec: BackboneSpec, max_length: int) -> None:
    """Make sure that the longest input has positions in the backbone.

    Raises:
        ConfigError: `max_length` plus the shift by the prompt exceeds them.
    """
    shift = recipe.prompt.length if recipe.prompt.positions == "shifted" else 0
    if max_length + shift > spec.longest_input:
        room = spec.longest_input - shift
        raise ConfigError(
            f"max_length {max_length} + prompt length {shift} exceed the {spec.longest_input} positions "
            f"of backbone '{recipe.backbone.name}'",
            hint=f"set train.max_length to {room} or less, or prompt.positions: unshifted"
            if room > 0
            else "set prompt.positions: unshifted, or a shorter prompt",
        )


def build_model(
    recipe: Recipe, unit: Literal["sequence", "choices", "token", "start_end"], spec: BackboneSpec, size: int
) -> PromptedModel:
    """Load the backbone and put a fresh prompt and head on it. Initial values come from torch's global generator.

    Args:
        recipe: prompt and backbone settings.
        unit: what has logits; it decides the head.
        spec: from `find_backbone`.
        size: number of logits per unit; of choices their number.

    Raises:
        ConfigError: the backbone's weights do not load, or `pooling: pooler` without a pooler.
    """
    backbone = load_backbone(spec)
    dropout = float(spec.config.hidden_dropout_prob)
    hidden_size = int(spec.config.hidden_size)
    match unit:
        case "sequence":
            head = SequenceHead(hidden_size, size, dropout, _pooling(recipe, backbone))
        case "choices":
            head = ChoicesHead(hidden_size, size, dropout, _pooling(recipe, backbone))
        case "token":
            head = TokenHead(hidden_size, size, dropout)
        case "start_end":
            head = StartEndHead(hidden_size)
    prompt = DeepPrompt(spec.layers, recipe.prompt.length, recipe.prompt.dropout, recipe.prompt.init_scale)
    return PromptedModel(spec, backbone, prompt, head, shift_positions=recipe.prompt.positions == "shifted")


def _pooling(recipe: Recipe, backbone: PreTrainedModel) -> Literal["pooler", "first", "mean"]:
    """What a sequence head reads, `auto` resolved."""
    has_pooler = any(name == "pooler" for name, _ in backbone.named_children())
    match recipe.backbone.pooling:
        case "auto":
            return "pooler" if has_pooler else "first"
        case "pooler" if not has_pooler:
            raise ConfigError(
                f"backbone '{recipe.backbone.name}' has no trained pooler, which backbone.pooling asks for",
                hint="set backbone.pooling to first or mean",
            )
        case pooling:
            return pooling
