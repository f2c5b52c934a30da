"""The model that is trained: frozen backbone, prompt, head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ptv2kit.config.recipe import Recipe
from ptv2kit.errors import ConfigError
from ptv2kit.models.backbones import BackboneSpec, load_backbone
from ptv2kit.models.families import hidden_dropout
from ptv2kit.models.heads import BackboneOutput, ChoicesHead, Head, Pooling, SequenceHead, StartEndHead, TokenHead
from ptv2kit.models.injection import Injection
from ptv2kit.models.prompts import DeepPrompt, EmbeddingPrompt, MlpPrompt, ShallowPrompt


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
        prompt: keys and values of each layer, or vectors in front of the input.
        head: from hidden states to logits.
        shift_positions: whether tokens are counted from after the prompt.
    """

    def __init__(
        self,
        spec: BackboneSpec,
        backbone: PreTrainedModel,
        prompt: DeepPrompt | ShallowPrompt,
        head: Head,
        *,
        shift_positions: bool,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.prompt = prompt
        self.head = head
        self._injection = Injection(backbone, spec.layers, spec.kernel)
        self._family = spec.family
        self._layers = spec.layers
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
        if isinstance(self.prompt, ShallowPrompt):
            return self._encode_behind_vectors(self.prompt, input_ids, attention_mask, token_type_ids)
        self._injection.set(self.prompt(input_ids.shape[0]))
        output = self._run_backbone(input_ids, attention_mask, token_type_ids, self._shift)
        pooled: Tensor | None = output.get("pooler_output")
        return BackboneOutput(
            output.last_hidden_state.float(), None if pooled is None else pooled.float(), attention_mask
        )

    def _encode_behind_vectors(
        self, prompt: ShallowPrompt, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None
    ) -> BackboneOutput:
        """Hidden states of the tokens alone; a pooler reads the first of them, not the first vector."""
        words: Tensor = self.backbone.get_input_embeddings()(input_ids)
        vectors = prompt(len(input_ids)).to(words.dtype)
        segments = {}
        if token_type_ids is not None:
            segments = {"token_type_ids": nn.functional.pad(token_type_ids, (prompt.length, 0))}
        output = self.backbone(
            inputs_embeds=torch.cat([vectors, words], dim=1),
            attention_mask=nn.functional.pad(attention_mask, (prompt.length, 0), value=1),
            **segments,
        )
        hidden = output.last_hidden_state[:, prompt.length :]
        pooled = self._family.pool(self.backbone, hidden)
        return BackboneOutput(hidden.float(), None if pooled is None else pooled.float(), attention_mask)

    @torch.no_grad()
    def start_prompt_from_tokens(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> None:
        """Let the prompt start as the keys and values that the backbone computes for real tokens, or as their words.

        Tokens are taken row after row, padding left out, and over again if there are fewer than the prompt is long.

        Args:
            input_ids: `[batch, length]`.
            attention_mask: `[batch, length]`, 1 at real tokens.
            token_type_ids: `[batch, length]`, or None where the backbone has no segments.
        """
        real = attention_mask.bool()
        repeats = -(-self.prompt.length // int(real.sum()))
        if isinstance(self.prompt, ShallowPrompt):
            words: Tensor = self.backbone.get_input_embeddings()(input_ids[real])
            self.prompt.vectors.embedding.weight.copy_(words.repeat(repeats, 1)[: self.prompt.length])
            return
        assert isinstance(self.prompt, EmbeddingPrompt), "a prompt that a network makes cannot be set"
        training = self.training
        self.eval()
        with self._injection.recording() as recorded:
            self._run_backbone(input_ids, attention_mask, token_type_ids, shift=0)
        self.train(training)
        for parameter, layer in zip(self.prompt.layers, recorded, strict=True):
            # [batch, kv_heads, length, head_dim] → [tokens, kv_heads, head_dim]
            tokens = torch.stack([part.transpose(1, 2)[real] for part in layer])
            parameter.copy_(tokens.repeat(1, repeats, 1, 1)[:, : self.prompt.length].transpose(1, 2))

    def _run_backbone(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None, shift: int
    ) -> Any:
        """The backbone's output, with only those optional inputs that it needs."""
        optional = {
            "token_type_ids": token_type_ids,
            "position_ids": self._family.position_ids(attention_mask, shift),
        }
        given = {name: tensor for name, tensor in optional.items() if tensor is not None}
        return self.backbone(input_ids=input_ids, attention_mask=attention_mask, **given)

    def inference_state(self) -> dict[str, Tensor]:
        """Copies of what inference needs: the head's and the prompt's tensors, folded if a network made the prompt.

        `head.*` with `prompt.layers.<i>`, or with `prompt.vectors.embedding.weight` of a shallow prompt.
        """
        head = {name: tensor for name, tensor in self.trained_state().items() if name.startswith("head.")}
        with torch.no_grad():
            if isinstance(self.prompt, ShallowPrompt):
                return {"prompt.vectors.embedding.weight": self.prompt.vectors().clone()} | head
            layers = self.prompt.keys_and_values()
            return {f"prompt.layers.{i}": layer.clone().contiguous() for i, layer in enumerate(layers)} | head

    def fold_prompt(self) -> None:
        """Put plain keys and values in place of a prompt that a network makes; they can be trained on or replaced."""
        if isinstance(self.prompt, EmbeddingPrompt | ShallowPrompt):
            return
        device = self.prompt.keys_and_values()[0].device
        plain = EmbeddingPrompt(self._layers, self.prompt.length, self.prompt.dropout.p, init_scale=0.02).to(device)
        with torch.no_grad():
            for parameter, layer in zip(plain.layers, self.prompt.keys_and_values(), strict=True):
                parameter.copy_(layer)
        self.prompt = plain.train(self.training)

    def trained_state(self) -> dict[str, Tensor]:
        """Copies of everything that is trained, under its parameter's name."""
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


def shifts_positions(recipe: Recipe, spec: BackboneSpec) -> bool:
    """Whether tokens are counted from after the prompt, `auto` resolved; behind a shallow prompt they always are.

    Raises:
        ConfigError: the recipe asks for it and the model counts for itself.
    """
    if recipe.prompt.positions == "shifted" and spec.family.positions == "own":
        raise ConfigError(
            f"prompt.positions is shifted, but models of type '{spec.family.model_type}' count their tokens themselves",
            hint="set prompt.positions to auto",
        )
    if recipe.method == "prompt_tuning":
        return True
    return spec.family.shifts if recipe.prompt.positions == "auto" else recipe.prompt.positions == "shifted"


def check_model(recipe: Recipe, spec: BackboneSpec, max_length: int) -> None:
    """Make sure, before weights are read, that the model can do what the recipe asks of it.

    Raises:
        ConfigError: `max_length` plus the shift by the prompt exceeds the backbone's positions, or the backbone does
            not support gradient checkpointing.
    """
    shift = recipe.prompt.length if shifts_positions(recipe, spec) else 0
    other = ", or prompt.positions: unshifted" if shift and recipe.method == "p_tuning_v2" else ""
    limit = spec.family.longest_input
    if limit is not None and max_length + shift > limit:
        room = limit - shift
        raise ConfigError(
            f"max_length {max_length} + prompt length {shift} exceed the {limit} positions "
            f"of backbone '{recipe.backbone.name}'",
            hint=f"set train.max_length to {room} or less{other}" if room > 0 else "set a shorter prompt",
        )
    if recipe.train.gradient_checkpointing and not spec.attention.checkpoints:
        raise ConfigError(f"models of type '{spec.family.model_type}' do not support train.gradient_checkpointing")


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
    if recipe.train.gradient_checkpointing:
        # The reentrant kind would lose the gradients of prompts, which are no argument of a layer.
        backbone.activation_checkpointing_enable({"use_reentrant": False})
    dropout = hidden_dropout(spec.config)
    hidden_size = int(spec.config.hidden_size)
    match unit:
        case "sequence":
            head = SequenceHead(hidden_size, size, dropout, _pooling(recipe, spec, backbone))
        case "choices":
            head = ChoicesHead(hidden_size, size, dropout, _pooling(recipe, spec, backbone))
        case "token":
            head = TokenHead(hidden_size, size, dropout)
        case "start_end":
            head = StartEndHead(hidden_size)
    return PromptedModel(
        spec, backbone, _build_prompt(recipe, spec, backbone), head, shift_positions=shifts_positions(recipe, spec)
    )


def _build_prompt(recipe: Recipe, spec: BackboneSpec, backbone: PreTrainedModel) -> DeepPrompt | ShallowPrompt:
    settings = recipe.prompt
    if recipe.method == "prompt_tuning":
        # Narrower than the hidden states in ALBERT and ELECTRA
        embeddings = backbone.get_input_embeddings()
        assert isinstance(embeddings, nn.Embedding)
        width = embeddings.embedding_dim
        return ShallowPrompt(settings.length, width, settings.dropout, settings.init_scale)
    if settings.reparameterization == "none":
        return EmbeddingPrompt(spec.layers, settings.length, settings.dropout, settings.init_scale)
    return MlpPrompt(
        spec.layers,
        settings.length,
        settings.dropout,
        settings.init_scale,
        width=int(spec.config.hidden_size),
        hidden=settings.reparameterization_size,
    )


def _pooling(recipe: Recipe, spec: BackboneSpec, backbone: PreTrainedModel) -> Pooling:
    """What a sequence head reads, `auto` resolved."""
    has_pooler = any(name == "pooler" for name, _ in backbone.named_children())
    token = "last" if spec.attention.causal else "first"
    match recipe.backbone.pooling:
        case "auto" if spec.family.trained_pooling is not None:
            return Pooling("first", spec.family.trained_pooling)
        case "auto":
            return Pooling("pooler" if has_pooler else token)
        case "dense":
            return Pooling(token, spec.family.trained_pooling or "tanh")
        case "pooler" if not has_pooler:
            raise ConfigError(
                f"backbone '{recipe.backbone.name}' has no trained pooler, which backbone.pooling asks for",
                hint="set backbone.pooling to first, last, mean or dense",
            )
        case source:
            return Pooling(source)
