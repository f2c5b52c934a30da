"""`ptv2kit import`: a prompt that PEFT or the official code has trained, as a run's folder."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from ptv2kit.cli.export import require_new, write_folder
from ptv2kit.cli.output import show
from ptv2kit.data.schemes import build_scheme
from ptv2kit.data.tokens import Subwords
from ptv2kit.errors import ConfigError
from ptv2kit.exchange.foreign import ForeignPrompt, read_foreign
from ptv2kit.exchange.peft import from_flat
from ptv2kit.models.backbones import BackboneSpec, find_backbone
from ptv2kit.models.checkpoints import load_tokenizer, silence_libraries
from ptv2kit.spec.load import ResolvedRecipe, load_recipe, resolved_yaml
from ptv2kit.spec.recipe import DEEP_METHODS
from ptv2kit.training.prompt_file import prompt_files

if TYPE_CHECKING:
    from torch import Tensor


def run(args: argparse.Namespace) -> int:
    """Import a prompt.

    Raises:
        ConfigError: the recipe is wrong or does not fit what was found, or the target is there already.
        DataError: the source holds no such prompt, or cannot be read.
    """
    require_new(args.to)
    silence_libraries()
    resolved = load_recipe(args.recipe, args.overrides)
    _require_deep(resolved)
    spec = find_backbone(resolved.recipe.backbone_settings)
    found = read_foreign(args.source)
    length = resolved.recipe.prompt.length
    if found.flat.dim() == 2 and found.flat.shape[0] != length:
        raise ConfigError(
            f"the prompt in '{found.path}' has length {found.flat.shape[0]}, but prompt.length is {length}"
        )
    try:
        layers = from_flat(found.flat, spec.layers)
    except ConfigError as error:
        raise ConfigError(f"'{found.path}' does not fit the backbone: {error.problems[0].message}") from error
    tensors = {f"prompt.layers.{index}": layer for index, layer in enumerate(layers)}
    names = _names(resolved, found, spec)
    if names:
        tensors |= {f"head.{name}": tensor for name, tensor in found.head.items()}
    write_folder(args.to, _files(resolved, found, tensors, names))
    facts = {"to": str(args.to), "from": found.kind, "prompt_length": length, "layers": len(layers), "labels": names}
    if args.json:
        show(json.dumps(facts, indent=2, ensure_ascii=False))
        return 0
    head = f"head for {', '.join(names)}, in this order" if names else "no head"
    show(f"{args.to}: {found.kind}, prompt of length {length} in front of {len(layers)} layers, {head}")
    return 0


def _require_deep(resolved: ResolvedRecipe) -> None:
    recipe = resolved.recipe
    if len(resolved.tasks) > 1:
        raise ConfigError("an imported prompt belongs to one task, and the recipe has several")
    if recipe.method not in DEEP_METHODS:
        raise ConfigError(f"an imported prompt is one in every layer, but method is {recipe.method}")
    if recipe.prompt.attention != "joint":
        raise ConfigError("an imported prompt was trained in one softmax, but prompt.attention is separate")
    if recipe.prompt.layers != "all":
        raise ConfigError(f"an imported prompt covers all layers, but prompt.layers is {recipe.prompt.layers}")


def _names(resolved: ResolvedRecipe, found: ForeignPrompt, spec: BackboneSpec) -> list[str]:
    """What each logit of the head stands for; empty without a head.

    Raises:
        ConfigError: the task does not say which labels there are, or how many there are does not fit the head.
    """
    task = resolved.task.task
    own_head = task.head == "verbalizer"
    if own_head and found.head:
        raise ConfigError(f"'{found.path}' has a head, but task '{task.task}' has the backbone's own: head: verbalizer")
    if not found.head and not own_head:
        return []
    if task.names_from_train:
        raise ConfigError(
            f"'{found.path}' has a head, but task '{task.task}' takes its labels from the training rows",
            hint="list them in labels.names, in the order of the head's rows",
        )
    tokenizer = load_tokenizer(spec, words=task.reads_words)
    subwords = Subwords(tokenizer, task.input.max_length, spec.filling, spec.vocabulary)
    scheme = build_scheme(task, subwords, ())
    names = scheme.names
    rows = 1 if scheme.unit == "choices" else len(names)
    if found.head:
        _require_rows(found, rows, f"task '{task.task}' needs {rows}: {', '.join(names)}")
    return list(names)


def _require_rows(found: ForeignPrompt, rows: int, needed: str) -> None:
    """Raise unless the head has as many rows as there are logits."""
    shape, bias = tuple(found.head["linear.weight"].shape), tuple(found.head["linear.bias"].shape)
    if len(shape) != 2 or bias != shape[:1]:
        raise ConfigError(
            f"the head in '{found.path}' has shapes {shape} and {bias}, which are not those of a linear layer"
        )
    if shape[0] != rows:
        raise ConfigError(f"the head in '{found.path}' has {shape[0]} rows, but {needed}")


def _files(
    resolved: ResolvedRecipe, found: ForeignPrompt, tensors: dict[str, Tensor], names: list[str]
) -> dict[str, bytes]:
    """The content of the run's folder."""
    recipe = resolved.recipe
    plain = recipe.prompt.model_copy(update={"reparameterization": "none"})
    facts = {
        "recipe": recipe.recipe,
        "backbone": recipe.backbone.name,
        "method": recipe.method,
        "prompt_length": recipe.prompt.length,
        "epoch": 0,
        "validation": {},
        "task": resolved.task.task.task,
        "names": names,
        "imported_from": str(found.path),
    }
    own = recipe.model_copy(update={"task": "task.resolved.yaml", "prompt": plain, "init_from": None})
    readme = [
        f"# {recipe.recipe}",
        "",
        f"Imported by ptv2kit from a {found.kind}: `{found.path.name}`.",
        f"Prompt of length {recipe.prompt.length} for `{recipe.backbone.name}`; "
        + (f"head for {', '.join(names)}." if names else "no head: start from it with `init_from`."),
        "",
    ]
    files = {
        "recipe.resolved.yaml": resolved_yaml(own).encode(),
        "task.resolved.yaml": resolved_yaml(resolved.task.task).encode(),
        "README.md": "\n".join(readme).encode(),
    }
    return files | {f"prompt/{name}": content for name, content in prompt_files(tensors, facts).items()}
