"""Vectors in front of the input alone, on every family."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ptv2kit.models.backbones import find_backbone
from ptv2kit.models.build import build_model
from ptv2kit.models.model import PromptedModel
from ptv2kit.models.prompts import ShallowPrompt
from ptv2kit.spec.recipe import Recipe
from tests.models.test_compatibility import LENGTHS, inputs
from tests.tiny_backbones import FAMILIES, save_tiny


@pytest.fixture(params=list(FAMILIES))
def model(request: pytest.FixtureRequest, tmp_path: Path) -> PromptedModel:
    recipe = Recipe.model_validate(
        {
            "recipe": "r",
            "task": "t",
            "backbone": {"name": str(save_tiny(tmp_path, request.param)), "dropout": 0.0},
            "method": "prompt_tuning",
            "prompt": {"length": 5, "init_scale": 1.0, "dropout": 0.5},
            "train": {"epochs": 1, "learning_rate": 0.1},
        }
    )
    torch.manual_seed(1)
    return build_model(recipe, "sequence", find_backbone(recipe.backbone), 3).eval()


@pytest.mark.slow
def test_it_trains_and_padding_does_not_matter(model: PromptedModel) -> None:
    assert isinstance(model.prompt, ShallowPrompt)
    ids, mask = inputs()
    together = model(ids, mask)
    for row, length in enumerate(LENGTHS):
        alone = model(ids[row : row + 1, :length], mask[row : row + 1, :length])
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-5)
    together.square().sum().backward()
    weight = model.prompt.vectors.embedding.weight
    assert weight.grad is not None
    assert (weight.grad.abs().sum(dim=1) > 0).all()
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    with torch.no_grad():
        weight.mul_(-1)
    assert (model(ids, mask) - together).abs().max() > 1e-5


def test_words_as_a_prompt_are_as_if_they_were_read_before(model: PromptedModel) -> None:
    """Vectors that are the words of a text give the hidden states that follow that text, with one segment."""
    ids, mask = inputs((10,))
    model.start_prompt_from_tokens(ids[:, :5], mask[:, :5])
    behind = model.encode(ids[:, 5:], mask[:, 5:]).hidden
    model._injection.set(None)
    whole = model.backbone(input_ids=ids, attention_mask=mask).last_hidden_state[:, 5:]
    torch.testing.assert_close(behind, whole, atol=1e-5, rtol=1e-5)


def test_what_is_kept_is_all_that_inference_needs(model: PromptedModel) -> None:
    ids, mask = inputs()
    expected, kept = model(ids, mask), model.inference_state()
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.zero_()
    model.load_trained_state(kept)
    assert torch.equal(model(ids, mask), expected)
