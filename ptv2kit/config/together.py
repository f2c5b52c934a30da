"""Which trials of a search can be trained side by side: those whose forward passes through the backbone are alike."""

from __future__ import annotations

import json
from typing import Any

from ptv2kit.config.load import ResolvedRecipe

OWN_TO_A_TRIAL: Any = {
    "train": {
        "epochs",
        "learning_rate",
        "head_learning_rate",
        "schedule",
        "decay",
        "warmup_ratio",
        "weight_decay",
        "max_gradient_norm",
        "patience",
        "seed",
        "checkpoint_steps",
        "keep_checkpoints",
    },
    "prompt": {"dropout", "init", "words", "init_scale", "reparameterization", "reparameterization_size"},
}
"""Keys of the recipe in which trials of one forward pass may differ; in all others they may not."""


def shared_settings(resolved: ResolvedRecipe) -> str:
    """What must be the same for trials to be trained side by side, as text that can be compared.

    The seed is part of it where it also draws the rows (`limit`).
    """
    recipe = resolved.recipe
    shared = recipe.model_dump(mode="json", exclude=OWN_TO_A_TRIAL)
    if any(limit is not None for limit in recipe.limit.model_dump().values()):
        shared["seed"] = recipe.train.seed
    tasks = [task.task.model_dump(mode="json") for task in resolved.tasks]
    return json.dumps([shared, tasks], sort_keys=True)
