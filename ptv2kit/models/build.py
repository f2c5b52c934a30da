"""From a recipe to a model: which prompt, which head, and what the backbone must be able to do."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights

from ptv2kit.errors import ConfigError
from ptv2kit.models.backbones import BackboneSpec, empty_backbone, load_backbone
from ptv2kit.models.counts import ParameterCount
from ptv2kit.models.families import ENCODER_ALONE, hidden_dropout
from ptv2kit.models.heads import (
    ChoicesHead,
    Head,
    LabelsHead,
    NumberHead,
    Pooling,
    SequenceHead,
    StartEndHead,
    TokenHead,
)
from ptv2kit.models.language_head import language_head
from ptv2kit.models.lora import add_lora
from ptv2kit.models.model import PromptedModel
from ptv2kit.models.prompts import DeepPrompt, EmbeddingPrompt, NetworkPrompt, ShallowPrompt
from ptv2kit.models.sharding import Sharding
from ptv2kit.models.verbalizer import AnswersHead, WordsHead
from ptv2kit.spec.layers import covered_layers
from ptv2kit.spec.recipe import DEEP_METHODS, SHALLOW_METHODS, Recipe
from ptv2kit.spec.task_base import Unit

Words = Sequence[Sequence[Sequence[int]]]
"""A verbalizer: for each class its words, each in ids of the vocabulary."""


def shifts_positions(recipe: Recipe, spec: BackboneSpec) -> bool:
    """Whether tokens are counted from after the prompt, `auto` resolved; behind a shallow prompt they always are.

    Raises:
        ConfigError: the recipe asks for it and the model counts for itself.
    """
    if recipe.method not in DEEP_METHODS:
        return recipe.method in SHALLOW_METHODS
    if recipe.prompt.positions == "shifted" and spec.family.positions == "own":
        raise ConfigError(
            f"prompt.positions is shifted, but models of type '{spec.family.model_type}' count their tokens themselves",
            hint="set prompt.positions to auto",
        )
    if recipe.prompt.positions == "auto":
        # Nothing is in front of the tokens where the prompt has a softmax of its own.
        return spec.family.shifts and recipe.prompt.attention == "joint"
    return recipe.prompt.positions == "shifted"


def check_model(recipe: Recipe, spec: BackboneSpec, max_length: int) -> None:
    """Make sure, before weights are read, that the model can do what the recipe asks of it.

    Raises:
        ConfigError: `max_length` plus the shift by the prompt exceeds the backbone's positions, `prompt.layers` its
            layers, or the backbone does not support gradient checkpointing.
    """
    covered(recipe, spec)
    shift = recipe.prompt.length if shifts_positions(recipe, spec) else 0
    other = ", or prompt.positions: unshifted" if shift and recipe.method in DEEP_METHODS else ""
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
    if recipe.train.cache_trunk in ("memory", "disk") and trunk_depth(recipe, spec) == 0:
        raise ConfigError(
            f"train.cache_trunk is {recipe.train.cache_trunk}, but no layer is below the lowest prompt: "
            f"this trains {recipe.trained(head=True)}",
            hint=f"set prompt.layers to the upper ones, such as {len(spec.layers) // 2 + 1}.., or cache_trunk to off",
        )


def build_model(
    recipe: Recipe,
    unit: Unit,
    spec: BackboneSpec,
    size: int,
    device: torch.device | None = None,
    sharding: Sharding | None = None,
    words: Words = (),
    backbone: PreTrainedModel | None = None,
) -> PromptedModel:
    """Load the backbone and put a fresh prompt and head on it. Initial values come from torch's global generator.

    Args:
        recipe: prompt and backbone settings.
        unit: what has logits; it decides the head.
        spec: from `find_backbone`.
        size: number of logits per unit; of choices their number.
        device: where quantized weights go; the rest is made on the CPU.
        sharding: of the frozen weights; None: whole.
        words: of a verbalizer; empty where answers differ from row to row, and without a verbalizer.
        backbone: that was loaded for another prompt of the same backbone; None: load it.

    Raises:
        ConfigError: the backbone's weights do not load, `pooling: pooler` without a pooler, or a verbalizer without a
            language-model head.
    """
    loaded = load_backbone(spec, device, sharding) if backbone is None else backbone
    return _assemble(recipe, unit, spec, size, loaded, words)


def empty_model(
    recipe: Recipe, unit: Unit, spec: BackboneSpec, size: int, backbone: PreTrainedModel | None = None
) -> PromptedModel:
    """What `build_model` would build, without weights, on the meta device; arguments and errors as of `build_model`.

    Args:
        backbone: from `empty_backbone`, to be used again; None: make it.
    """
    with no_init_weights(), torch.device("meta"):
        return _assemble(recipe, unit, spec, size, backbone or empty_backbone(spec))


def count_parameters(recipe: Recipe, unit: Unit, spec: BackboneSpec, size: int) -> ParameterCount:
    """What `build_model` would build, counted without its weights; arguments and errors as of `build_model`."""
    return empty_model(recipe, unit, spec, size).parameter_count()


def _assemble(
    recipe: Recipe, unit: Unit, spec: BackboneSpec, size: int, backbone: PreTrainedModel, words: Words = ()
) -> PromptedModel:
    if recipe.method == "lora":
        add_lora(recipe.lora, backbone)
    if recipe.method == "fine_tuning":
        backbone.requires_grad_(True)
    if recipe.train.layer_norm_learning_rate is not None:
        _train_layer_norms(backbone)
    if recipe.train.gradient_checkpointing:
        # The reentrant kind would lose the gradients of prompts, which are no argument of a layer.
        backbone.activation_checkpointing_enable({"use_reentrant": False})
        # transformers then asks for gradients of the embeddings, which are of no use here and would have the backward
        # pass go through layers without a prompt.
        backbone.disable_input_require_grads()
    head = build_head(recipe, unit, spec, size, backbone, words)
    return PromptedModel(
        spec,
        backbone,
        _build_prompt(recipe, spec, backbone),
        head,
        shift_positions=shifts_positions(recipe, spec),
        covered=covered(recipe, spec),
    )


def _train_layer_norms(backbone: PreTrainedModel) -> None:
    """Let gains and shifts of LayerNorms, RMSNorms, and what families of models call their own, be trained."""
    norms = [module for module in backbone.modules() if type(module).__name__.endswith("Norm")]
    if not norms:
        kind = backbone.config.model_type
        raise ConfigError(f"train.layer_norm_learning_rate is set, but models of type '{kind}' have no LayerNorm")
    for parameter in (each for module in norms for each in module.parameters(recurse=False)):
        parameter.requires_grad_(True)


def build_head(
    recipe: Recipe, unit: Unit, spec: BackboneSpec, size: int, backbone: PreTrainedModel, words: Words = ()
) -> Head:
    """A fresh head, or a verbalizer's frozen one; arguments as of `build_model`.

    Raises:
        ConfigError: `pooling: pooler` without a pooler, or a verbalizer without a language-model head.
    """
    dropout = hidden_dropout(spec.config)
    hidden_size = int(spec.config.hidden_size)
    match unit:
        case "sequence":
            return SequenceHead(hidden_size, size, dropout, _pooling(recipe, spec, backbone))
        case "labels":
            return LabelsHead(hidden_size, size, dropout, _pooling(recipe, spec, backbone))
        case "number":
            return NumberHead(hidden_size, size, dropout, _pooling(recipe, spec, backbone))
        case "choices":
            return ChoicesHead(hidden_size, size, dropout, _pooling(recipe, spec, backbone))
        case "token":
            return TokenHead(hidden_size, size, dropout)
        case "start_end":
            return StartEndHead(hidden_size)
        case "words":
            tokens = [word[0] for of_class in words for word in of_class]
            return WordsHead(language_head(spec, backbone, tokens), [len(of_class) for of_class in words])
        case "answers":
            sizes = [len(of_class) for of_class in words] or [1] * size
            return AnswersHead(language_head(spec, backbone, None), sizes)


def covered(recipe: Recipe, spec: BackboneSpec) -> tuple[int, ...] | None:
    """Indices of the layers that a deep prompt covers, from 0; None: it covers all, or is none.

    Raises:
        ConfigError: `prompt.layers` names layers that the backbone does not have.
    """
    if recipe.method not in DEEP_METHODS or recipe.prompt.layers == "all":
        return None
    try:
        return covered_layers(recipe.prompt.layers, len(spec.layers))
    except ValueError as error:
        raise ConfigError(f"prompt.layers: {error}") from error


def trunk_depth(recipe: Recipe, spec: BackboneSpec) -> int:
    """How many attention layers are below the lowest prompt and frozen: all without a prompt.

    Raises:
        ConfigError: as `covered`.
    """
    if recipe.method == "linear_probe":
        return len(spec.layers)
    if recipe.changes_backbone:
        return 0
    return min(covered(recipe, spec) or (0,))


def _build_prompt(recipe: Recipe, spec: BackboneSpec, backbone: PreTrainedModel) -> DeepPrompt | ShallowPrompt | None:
    settings, reparameterization = recipe.prompt, recipe.reparameterization
    embeddings = backbone.get_input_embeddings()
    assert isinstance(embeddings, nn.Embedding)
    width = embeddings.embedding_dim  # narrower than the hidden states in ALBERT and ELECTRA
    if recipe.method in SHALLOW_METHODS:
        return ShallowPrompt(settings.length, width, settings.dropout, settings.init_scale, reparameterization)
    if recipe.method not in DEEP_METHODS:
        return None
    indices = covered(recipe, spec)
    layers = spec.layers if indices is None else [spec.layers[index] for index in indices]
    separate = settings.attention == "separate"
    if reparameterization == "none":
        return EmbeddingPrompt(layers, settings.length, settings.dropout, settings.init_scale, separate=separate)
    return NetworkPrompt(
        layers,
        settings.length,
        settings.dropout,
        settings.init_scale,
        width=width,
        hidden=settings.reparameterization_size,
        lstm=reparameterization == "lstm",
        separate=separate,
    )


def _pooling(recipe: Recipe, spec: BackboneSpec, backbone: PreTrainedModel) -> Pooling:
    """What a sequence head reads, `auto` resolved."""
    has_pooler = any(name == "pooler" for name, _ in backbone.named_children())
    token = "last" if spec.attention.causal else "first"
    best = "mean" if spec.family.model_type in ENCODER_ALONE else token  # T5 has no token for the whole input
    match recipe.backbone.pooling:
        case "auto" if spec.family.trained_pooling is not None:
            return Pooling("first", spec.family.trained_pooling)
        case "auto":
            return Pooling("pooler" if has_pooler else best)
        case "dense":
            return Pooling(token, spec.family.trained_pooling or "tanh")
        case "pooler" if not has_pooler:
            raise ConfigError(
                f"backbone '{recipe.backbone.name}' has no trained pooler, which backbone.pooling asks for",
                hint="set backbone.pooling to first, last, mean or dense",
            )
        case source:
            return Pooling(source)
