"""What passes of a deep model cost, from two shallow ones with the same layers.

Counting runs every layer twice, which takes seconds of a model with 48. Where all layers are alike, each one after the
first adds the same: models of two and three layers then give the costs of any depth, to the byte. The first layer
differs from the others, because nothing before it has a gradient.
"""

from __future__ import annotations

import copy
from dataclasses import fields, replace

from ptv2kit.models.backbones import BackboneSpec
from ptv2kit.models.build import empty_model
from ptv2kit.plan.passes import PassCost, PassCosts, TaskShape, count_passes
from ptv2kit.spec.recipe import DEEP_METHODS, Recipe

ALIKE = frozenset({"original_glm", "bert", "roberta", "gpt2"})
"""Model types whose configuration cannot make one layer compute otherwise than another."""
_DEPTHS = (2, 3)


def layers_are_alike(recipe: Recipe, spec: BackboneSpec) -> bool:
    """Whether `passes_by_depth` counts right; not if a prompt covers some layers only."""
    covers_some = recipe.method in DEEP_METHODS and recipe.prompt.layers != "all"
    return spec.config.model_type in ALIKE and len(spec.layers) > max(_DEPTHS) and not covers_some


def passes_by_depth(recipe: Recipe, spec: BackboneSpec, shape: TaskShape) -> PassCosts:
    """What `count_passes` would count of the whole model; for recipes and backbones with `layers_are_alike`.

    Args:
        recipe: without gradient checkpointing.
        spec: from `find_backbone`.

    Raises:
        ConfigError: the model cannot be run without values.
    """
    counted = [_passes(recipe, spec, shape, depth) for depth in _DEPTHS]
    more = len(spec.layers) - _DEPTHS[0]
    return PassCosts(
        _further(counted[0].one, counted[1].one, more),
        _further(counted[0].two, counted[1].two, more),
    )


def _passes(recipe: Recipe, spec: BackboneSpec, shape: TaskShape, depth: int) -> PassCosts:
    config = copy.deepcopy(spec.config)
    config.num_hidden_layers = depth
    shallow = replace(spec, config=config, attention=replace(spec.attention, layers=spec.layers[:depth]))
    return count_passes(empty_model(recipe, shape.unit, shallow, shape.labels), recipe, shape)


def _further(first: PassCost, second: PassCost, steps: int) -> PassCost:
    """`first` and as many times as `steps` what `second` has more."""
    values: dict[str, float] = {}
    for field in fields(PassCost):
        start = getattr(first, field.name)
        values[field.name] = start + steps * (getattr(second, field.name) - start)
    return PassCost(**values)
