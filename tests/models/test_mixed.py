"""Inputs of several tasks in one pass come out as each task's alone, on every family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ptv2kit.models.backbones import BackboneSpec, find_backbone
from ptv2kit.models.build import Unit, build_model
from ptv2kit.models.mixed import MixedModel, MixedPart
from ptv2kit.models.model import PromptedModel
from ptv2kit.spec.recipe import Recipe
from tests.tiny_backbones import FAMILIES, in_turn, save_tiny

SIZES: dict[Unit, int] = {"sequence": 3, "choices": 2, "token": 5, "start_end": 2}


def build(
    folder: Path, unit: Unit, beside: PreTrainedModel | None, seed: int, **settings: Any
) -> tuple[BackboneSpec, PromptedModel]:
    settings = {"method": "p_tuning_v2", "prompt": {}, **settings}
    backbone = {"name": str(folder), "dropout": 0.0, "attention_dropout": 0.0}
    recipe = Recipe.model_validate(
        {"recipe": "r", "task": "t", "backbone": backbone, "train": {"epochs": 1, "learning_rate": 0.1}}
        | {"method": settings["method"], "prompt": {"init_scale": 1.0, "dropout": 0.3, **settings["prompt"]}}
    )
    spec = find_backbone(recipe.backbone)
    torch.manual_seed(seed)
    model = build_model(recipe, unit, spec, SIZES[unit], backbone=beside)
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.normal_(std=0.3)
    return spec, model.eval()


def batch(lengths: tuple[int, ...], seed: int) -> dict[str, Tensor]:
    """Random ids and their mask, padded on the right."""
    mask = torch.tensor([[1] * length + [0] * (max(lengths) - length) for length in lengths])
    ids = torch.randint(5, 12, mask.shape, generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids * mask + (1 - mask), "attention_mask": mask}


def same(part: MixedPart, found: Tensor, alone: Tensor) -> None:
    """Equal wherever a token is real; the hidden states of padding are nobody's."""
    assert found.shape == alone.shape
    if found.shape[:2] == part.inputs["attention_mask"].shape:
        real = part.inputs["attention_mask"].bool()
        found, alone = found[real], alone[real]
    torch.testing.assert_close(found, alone, atol=2e-5, rtol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", in_turn(FAMILIES))
def test_rows_of_several_tasks_are_as_each_alone(tmp_path: Path, family: str) -> None:
    folder = save_tiny(tmp_path, family)
    spec, first = build(folder, "token", None, 1, prompt={"length": 5})
    backbone = first.backbone
    models = [
        first,
        build(folder, "sequence", backbone, 2, prompt={"length": 3, "layers": "2-3", "reparameterization": "mlp"})[1],
        build(folder, "start_end", backbone, 3, prompt={"length": 4}, method="prompt_tuning")[1],
        build(folder, "choices", backbone, 4, method="linear_probe")[1],
        build(folder, "sequence", backbone, 5, prompt={"length": 5, "layers": [1, 3]})[1],
    ]
    lengths = [(7, 3), (11,), (9, 12, 4), (5, 6), (8, 2)]
    parts = [MixedPart(model, batch(own, seed)) for seed, (model, own) in enumerate(zip(models, lengths, strict=True))]
    with torch.no_grad():
        alone = [part.model(**part.inputs) for part in parts]
    mixed = MixedModel(spec, backbone)
    # The shallow one has embeddings given to all others; both ways must be right.
    for chosen in ([0, 1, 2, 3, 4], [0, 1, 3, 4], [1], [2], [3], [0, 4]):
        found = mixed([parts[index] for index in chosen])
        for index, logits in zip(chosen, found, strict=True):
            same(parts[index], logits, alone[index])
    with torch.no_grad():  # what the mixed passes left in the layers is gone
        for part, before in zip(parts, alone, strict=True):
            assert torch.equal(part.model(**part.inputs), before)


def test_prompts_of_equal_length_need_no_columns_hidden(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "bert")
    spec, first = build(folder, "sequence", None, 1, prompt={"length": 5})
    _, second = build(folder, "token", first.backbone, 2, prompt={"length": 5})
    parts = [MixedPart(first, batch((6, 6), 1)), MixedPart(second, batch((6,), 2))]
    with torch.no_grad():
        alone = [part.model(**part.inputs) for part in parts]
    for part, found, before in zip(parts, MixedModel(spec, first.backbone)(parts), alone, strict=True):
        same(part, found, before)


def test_segments_of_one_task_are_zeros_of_the_other(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "bert")
    spec, first = build(folder, "sequence", None, 1, prompt={"length": 5})
    _, second = build(folder, "sequence", first.backbone, 2, prompt={"length": 2}, method="prompt_tuning")
    segments = {"token_type_ids": torch.tensor([[0, 0, 1, 1, 1, 1], [0, 1, 1, 0, 0, 0]])}
    parts = [MixedPart(first, batch((6, 3), 1) | segments), MixedPart(second, batch((8,), 2))]
    with torch.no_grad():
        alone = [part.model(**part.inputs) for part in parts]
    for part, found, before in zip(parts, MixedModel(spec, first.backbone)(parts), alone, strict=True):
        same(part, found, before)


def test_blanks_of_the_original_glm_stand_beside_inputs_without(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "original_glm")
    spec, first = build(folder, "token", None, 1, prompt={"length": 5})
    _, second = build(folder, "token", first.backbone, 2, prompt={"length": 3}, method="prompt_tuning")
    _, third = build(folder, "token", first.backbone, 3, prompt={"length": 2})
    cloze = {
        "position_ids": torch.tensor([[[0, 1, 2, 3, 1, 1], [0, 0, 0, 0, 1, 2]]]),
        "context_length": torch.tensor([4]),
    }
    parts = [
        MixedPart(first, batch((6,), 1) | cloze),
        MixedPart(second, batch((6,), 2) | cloze),
        MixedPart(third, batch((9, 5), 3)),
    ]
    with torch.no_grad():
        alone = [part.model(**part.inputs) for part in parts]
    for part, found, before in zip(parts, MixedModel(spec, first.backbone)(parts), alone, strict=True):
        same(part, found, before)
