"""`init_from`: a run starts from what another run has trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from ptv2kit.errors import ConfigError
from ptv2kit.files import is_file, is_folder
from ptv2kit.models.backbones import BackboneSpec
from ptv2kit.models.build import covered
from ptv2kit.models.model import PromptedModel
from ptv2kit.spec.recipe import DEEP_METHODS, Recipe
from ptv2kit.training.parts import BACKBONE, HEADS
from ptv2kit.training.prompt_file import load_prompt, require_facts


@final
@dataclass(frozen=True)
class InitialTensors:
    """What a run starts from.

    Args:
        source: the folder that they were read from.
        shared: the prompt, plain, and LayerNorms if they are trained, by parameter name.
        heads: by task, each by parameter name.
        names: label names of each of these tasks.
        sha256: checksum of all tensors.
    """

    source: Path
    shared: Mapping[str, Tensor]
    heads: Mapping[str, Mapping[str, Tensor]]
    names: Mapping[str, list[str]]
    sha256: str

    def put_into(self, model: PromptedModel, task: str, names: tuple[str, ...]) -> bool:
        """Let a model start from these tensors.

        Args:
            model: fresh.

        Returns:
            Whether a head was there for this very task with the same labels; else the head stays fresh.

        Raises:
            ConfigError: the prompt's tensors are not those of the model.
        """
        own = {name: value for name, value in model.named_parameters() if value.requires_grad}
        given = dict(self.shared)
        wanted = {name: value for name, value in own.items() if not name.startswith("head.")}
        _require_equal_shapes(given, {name: tuple(value.shape) for name, value in wanted.items()}, self.source)
        head = {f"head.{name}": value for name, value in self.heads.get(task, {}).items()}
        fitting = self.names.get(task) == list(names) and all(
            name in own and own[name].shape == value.shape for name, value in head.items()
        )
        with torch.no_grad():
            for name, value in {**given, **(head if fitting else {})}.items():
                own[name].copy_(value)
        return bool(head) and fitting


def read_initial(recipe: Recipe, spec: BackboneSpec) -> InitialTensors | None:
    """What `init_from` names, checked against the recipe before weights are read; None if it names nothing.

    Raises:
        ConfigError: there is no run, or its prompt is of another method, length or shape.
        DataError: its file is torn.
    """
    if recipe.init_from is None:
        return None
    folder = Path(recipe.init_from).expanduser()
    if not is_file(folder / "prompt" / "prompt.safetensors"):
        raise ConfigError(
            f"init_from: '{folder}' is not the folder of a run, which has 'prompt/prompt.safetensors'",
            hint="it is relative to the working folder; 'ptv2kit run' prints a run's folder",
        )
    tensors, facts = load_prompt(folder / "prompt")
    require_facts(facts, folder / "prompt")
    prompt = {name: tensor for name, tensor in tensors.items() if name.startswith("prompt.")}
    norms = {name: tensor for name, tensor in tensors.items() if name.startswith(BACKBONE)}
    if _backbone(facts["backbone"]) != _backbone(recipe.backbone.name):
        raise ConfigError(
            f"init_from: the prompt in '{folder}' was trained on the backbone '{facts['backbone']}', "
            f"but backbone.name is '{recipe.backbone.name}'"
        )
    if (facts["method"] in DEEP_METHODS) != (recipe.method in DEEP_METHODS):
        raise ConfigError(
            f"init_from: the prompt in '{folder}' is one of {facts['method']}, but method is {recipe.method}",
            hint="vectors in front of the input and prompts in front of every layer cannot start from each other",
        )
    if facts.get("prompt_length") != recipe.prompt_length:
        raise ConfigError(
            f"init_from: the prompt in '{folder}' has length {facts.get('prompt_length')}, "
            f"but prompt.length is {recipe.prompt_length}"
        )
    attention = facts.get("prompt_attention", "joint")  # of runs before there was a choice
    if recipe.method in DEEP_METHODS and attention != recipe.prompt.attention:
        raise ConfigError(
            f"init_from: the prompt in '{folder}' was trained with prompt.attention: {attention}, "
            f"but it is {recipe.prompt.attention}"
        )
    if bool(norms) != (recipe.train.layer_norm_learning_rate is not None):
        raise ConfigError(
            f"init_from: the run '{folder}' {'trained' if norms else 'did not train'} the LayerNorms of the backbone",
            hint="set train.layer_norm_learning_rate in both runs or in neither",
        )
    if recipe.method in DEEP_METHODS:
        indices = covered(recipe, spec)
        layers = spec.layers if indices is None else [spec.layers[index] for index in indices]
        shapes = {
            f"prompt.layers.{index}": (2, layer.kv_heads, recipe.prompt.length, layer.head_dim)
            for index, layer in enumerate(layers)
        }
        _require_equal_shapes(prompt, shapes, folder)
    heads, names = _heads(tensors, facts)
    return InitialTensors(folder, prompt | norms, heads, names, str(facts["sha256"]))


def _backbone(name: str) -> str:
    return str(Path(name).resolve()) if is_folder(Path(name)) else name


def _heads(
    tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> tuple[dict[str, dict[str, Tensor]], dict[str, list[str]]]:
    """The heads and label names of each task, from a run of one task or of several."""
    if isinstance(facts["task"], str):
        head = {name.removeprefix("head."): tensor for name, tensor in tensors.items() if name.startswith("head.")}
        return {facts["task"]: head}, {facts["task"]: facts["names"]}
    heads = {
        task: {
            name.removeprefix(f"{HEADS}{task}."): tensor
            for name, tensor in tensors.items()
            if name.startswith(f"{HEADS}{task}.")
        }
        for task in facts["task"]
    }
    return heads, {task: names for task, names in facts["names"].items() if task in heads}


def _require_equal_shapes(given: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], source: Path) -> None:
    """Raise unless both have the same names and shapes."""
    for name in sorted(given.keys() | wanted.keys()):
        found = tuple(given[name].shape) if name in given else None
        expected = wanted.get(name)
        if found != expected:
            raise ConfigError(
                f"init_from: the prompt in '{source}' does not fit the recipe: '{name}' has shape "
                f"{found or 'nothing'}. Expected {expected or 'nothing'}",
                hint="method, backbone, prompt.length and prompt.layers must be those of the run",
            )
