"""Several prompts in one forward pass: each row sees its own, on every family and with every kind of head."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ptv2kit.config.recipe import Recipe
from ptv2kit.models.backbones import find_backbone
from ptv2kit.models.build import build_beside, build_model
from ptv2kit.models.glm.tiny import tiny_folder
from ptv2kit.models.model import PromptedModel
from ptv2kit.models.stacked import StackedPrompts, encode_stacked
from ptv2kit.training.prepare import prepare
from tests.models.test_compatibility import inputs
from tests.tiny_backbones import FAMILIES, save_tiny
from tests.training.test_verbalizer_training import CLASSES, ROWS, SEVERAL, recipe_of, task_of

METHODS: dict[str, dict[str, Any]] = {
    "p_tuning_v2": {},
    "prefix_tuning": {"prompt": {"reparameterization_size": 8}},
    "prompt_tuning": {},
}


def three_models(folder: Path, method: str, **settings: Any) -> list[PromptedModel]:
    """On one backbone, with large prompts, so that it shows which row sees which."""
    recipe = Recipe.model_validate(
        {
            "recipe": "r",
            "task": "t",
            "backbone": {"name": str(folder), "dropout": 0.0},
            "method": method,
            "prompt": {"length": 5, "init_scale": 1.0, "dropout": 0.0, **settings.get("prompt", {})},
            "train": {"epochs": 1, "learning_rate": 0.1},
        }
    )
    spec = find_backbone(recipe.backbone)
    torch.manual_seed(1)
    first = build_model(recipe, "token", spec, 3)
    return [first, *(build_beside(first, recipe, "token", spec, 3) for _ in range(2))]


def gradients(models: list[PromptedModel]) -> list[Tensor]:
    found: list[Tensor] = []
    for model in models:
        assert model.prompt is not None
        for parameter in (*model.prompt.parameters(), *model.head.parameters()):
            assert parameter.grad is not None
            found.append(parameter.grad)
            parameter.grad = None
    return found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("same_rows", [True, False], ids=["same rows", "other rows"])
def test_each_row_sees_its_own_prompt(tmp_path: Path, family: str, same_rows: bool) -> None:
    for method, settings in METHODS.items():
        models = three_models(save_tiny(tmp_path, family), method, **settings)
        batches: list[dict[str, Tensor]] = []
        for lengths in ((7, 3), (12, 6, 4), (2,)):
            ids, mask = inputs(lengths)
            batches.append({"input_ids": ids, "attention_mask": mask})
        if same_rows:
            batches = [batches[0]] * 3
        made = [model.made_prompt(len(batch["input_ids"])) for model, batch in zip(models, batches, strict=True)]
        outputs = encode_stacked(models, batches, made)
        logits = [model.head(output) for model, output in zip(models, outputs, strict=True)]
        alone = [model(**batch) for model, batch in zip(models, batches, strict=True)]
        real = [batch["attention_mask"].bool() for batch in batches]
        for own, lone, tokens in zip(logits, alone, real, strict=True):
            torch.testing.assert_close(own[tokens], lone[tokens], atol=1e-5, rtol=1e-4)
        assert not torch.allclose(logits[0][0, 0], logits[1][0, 0], atol=1e-3), "prompts differ"
        torch.stack([own[tokens].square().sum() for own, tokens in zip(logits, real, strict=True)]).sum().backward()
        together = gradients(models)
        # The slots of the backbone hold one prompt at a time: each pass is made anew.
        for model, batch, tokens in zip(models, batches, real, strict=True):
            model(**batch)[tokens].square().sum().backward()
        for own, lone in zip(together, gradients(models), strict=True):
            torch.testing.assert_close(own, lone, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", [CLASSES, SEVERAL], ids=["one token", "several tokens"])
@pytest.mark.parametrize("method", ["p_tuning_v2", "prompt_tuning"])
def test_verbalizers_of_the_original_glm(tmp_path: Path, kind: dict[str, Any], method: str) -> None:
    """Its positions have two lines, its context a length, and answers lie at places of a batch of their own width."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    words = {"no": "n", "yes": "y"} if kind is CLASSES else {"no": " no", "yes": [" yes", "y"]}
    task = task_of(**{**kind, "verbalizer": words}, input={"text": "{text}? {mask}.", "max_length": 60})
    recipe = recipe_of(tiny_folder(), method=method, prompt={"length": 6, "dropout": 0.0, "init_scale": 1.0})
    prepared = prepare(recipe, task, tmp_path / "t.yaml", None, lambda *_: None)
    torch.manual_seed(1)
    first = prepared.build_model()
    models = [first, prepared.build_model(beside=first)]
    assert models[1].head is first.head, "it is frozen"
    split = prepared.splits["train"]
    shortest = min(range(len(ROWS)), key=lambda row: split.lengths[row])
    batches = [split.batch(prepared.scheme, rows).inputs() for rows in ([0, 1, 2], [shortest])]
    assert batches[0]["input_ids"].shape[1] > batches[1]["input_ids"].shape[1]
    made = [model.made_prompt(len(batch["input_ids"])) for model, batch in zip(models, batches, strict=True)]
    for model, batch, output in zip(models, batches, encode_stacked(models, batches, made), strict=True):
        torch.testing.assert_close(model.head(output), model(**batch), atol=1e-4, rtol=1e-4)


def test_prompts_of_one_form_only() -> None:
    keys = torch.ones(1, 2, 3, 4)
    stacked = StackedPrompts([[(keys, keys)], [(2 * keys, 3 * keys)]], [2, 1]).joined()
    assert isinstance(stacked, list)
    [(joined_keys, joined_values)] = stacked
    assert joined_keys[:, 0, 0, 0].tolist() == [1, 1, 2]
    assert joined_values[:, 0, 0, 0].tolist() == [1, 1, 3]
    assert StackedPrompts([None, None], [2, 1]).joined() is None
    with pytest.raises(AssertionError):
        StackedPrompts([None, [(keys, keys)]], [1, 1]).joined()
    with pytest.raises(ValueError, match="zip"):
        StackedPrompts([[(keys, keys)], [(keys, keys), (keys, keys)]], [1, 1]).joined()
