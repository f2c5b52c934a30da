"""Batches without padding give what padded ones give, on every family that allows it; the others are refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ptv2kit.config.recipe import Recipe
from ptv2kit.errors import ConfigError
from ptv2kit.models.backbones import find_backbone
from ptv2kit.models.build import Unit, build_model, check_model
from ptv2kit.models.model import PromptedModel
from ptv2kit.models.packing import Packing, flash
from tests.tiny_backbones import FAMILIES, save_tiny

REFUSED = {
    "deberta": "count their tokens themselves",
    "deberta-v2": "count their tokens themselves",
    "original_glm": "count their tokens themselves",
    "gemma2": "compute attention in a way of their own",
    "gemma3_text": "see only some of the others",
    "mistral": "see only some of the others",
    "modernbert": "see only some of the others",
}
PACKED = [family for family in FAMILIES if family not in REFUSED]
LENGTHS = (7, 7, 3, 9, 1, 9)


def recipe_of(folder: Path, method: str = "p_tuning_v2", **settings: dict[str, Any]) -> Recipe:
    return Recipe.model_validate(
        {
            "recipe": "r",
            "task": "t",
            "method": method,
            "backbone": {"name": str(folder), "dropout": 0.0, "attention_dropout": 0.0, **settings.get("backbone", {})},
            "prompt": {"length": 5, "init_scale": 1.0, "dropout": 0.0, **settings.get("prompt", {})},
            "train": {"epochs": 1, "learning_rate": 0.1, "packing": True, **settings.get("train", {})},
        }
    )


def build(recipe: Recipe, unit: Unit = "token") -> PromptedModel:
    spec = find_backbone(recipe.backbone)
    check_model(recipe, spec, max_length=9)
    torch.manual_seed(1)
    model = build_model(recipe, unit, spec, 3)
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.normal_(std=0.3)
    return model.eval()


def batch(lengths: Sequence[int] = LENGTHS) -> dict[str, Tensor]:
    mask = torch.tensor([[1] * length + [0] * (max(lengths) - length) for length in lengths])
    ids = torch.randint(5, 12, mask.shape, generator=torch.Generator().manual_seed(3))
    return {"input_ids": ids * mask + (1 - mask), "attention_mask": mask}


def logits_and_gradients(model: PromptedModel, inputs: dict[str, Tensor], *, packed: bool) -> list[Tensor]:
    """Logits of the real tokens or inputs, and the gradients of all that is trained."""
    model.packing = packed
    model.zero_grad()
    logits = model(**inputs)
    if logits.shape[:2] == inputs["attention_mask"].shape:
        logits = logits[inputs["attention_mask"].bool()]
    (logits * torch.arange(logits.numel()).view_as(logits).cos()).sum().backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
    return [logits.detach(), *(gradient.clone() for gradient in gradients if gradient is not None)]


def same(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected) > 1
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, atol=float(other.abs().max()) * 1e-4 + 1e-6, rtol=0)


@pytest.mark.parametrize("unit", ["token", "sequence"])
@pytest.mark.parametrize("family", PACKED)
def test_without_padding_all_is_the_same(tmp_path: Path, family: str, unit: Unit) -> None:
    folder = save_tiny(tmp_path, family)
    cases = [
        recipe_of(folder),
        recipe_of(folder, prompt={"layers": "2-3", "reparameterization": "mlp"}),
        recipe_of(folder, train={"gradient_checkpointing": True}),
        recipe_of(folder, "prompt_tuning"),
        recipe_of(folder, "linear_probe"),
        recipe_of(folder, "fine_tuning"),
    ]
    for recipe in cases:
        model = build(recipe, unit)
        same(*(logits_and_gradients(model, batch(), packed=packed) for packed in (True, False)))


def test_a_causal_model_that_sees_both_sides(tmp_path: Path) -> None:
    model = build(recipe_of(save_tiny(tmp_path, "gpt2"), backbone={"bidirectional": True}))
    same(*(logits_and_gradients(model, batch(), packed=packed) for packed in (True, False)))


def test_each_input_has_its_own_prompt(tmp_path: Path) -> None:
    """With dropout in the prompt the rows of a batch see different ones."""
    model = build(recipe_of(save_tiny(tmp_path, "bert"), prompt={"dropout": 0.5})).train()
    found: list[list[Tensor]] = []
    for packed in (True, False):
        torch.manual_seed(5)
        found.append(logits_and_gradients(model, batch(), packed=packed))
    same(*found)


def test_only_real_tokens_are_computed(tmp_path: Path) -> None:
    model = build(recipe_of(save_tiny(tmp_path, "bert")))
    shapes: list[tuple[int, ...]] = []
    layer = next(module for module in model.backbone.modules() if isinstance(module, torch.nn.Linear))
    layer.register_forward_hook(lambda _module, arguments, _output: shapes.append(tuple(arguments[0].shape[:2])))
    model(**batch())
    model(**batch((4, 4)))
    assert shapes == [(1, sum(LENGTHS)), (2, 4)]


@pytest.mark.parametrize("family", list(REFUSED))
def test_the_others_are_refused(tmp_path: Path, family: str) -> None:
    recipe = recipe_of(save_tiny(tmp_path, family))
    with pytest.raises(ConfigError, match=REFUSED[family]):
        build(recipe)
    build(recipe.model_copy(update={"train": recipe.train.model_copy(update={"packing": False})}))


def naive(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> Tensor:
    """What flash attention of varying lengths is documented to compute, input by input."""
    pieces: list[Tensor] = []
    for index in range(len(cu_seq_q) - 1):
        own = [
            tensor[int(starts[index]) : int(starts[index + 1])].transpose(0, 1)
            for tensor, starts in ((query, cu_seq_q), (key, cu_seq_k), (value, cu_seq_k))
        ]
        length, columns = own[0].shape[1], own[1].shape[1]
        assert length <= max_q
        assert columns <= max_k
        seen = torch.ones(length, columns, dtype=torch.bool)
        if window_size == (-1, 0):
            seen = seen.tril(columns - length)
        context = scaled_dot_product_attention(*own, attn_mask=seen, scale=scale, enable_gqa=enable_gqa)
        pieces.append(context.transpose(0, 1))
    return torch.cat(pieces)


@pytest.mark.parametrize("rows", [1, len(LENGTHS)])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kv_heads", [2, 4])
def test_one_call_for_inputs_of_any_lengths(causal: bool, kv_heads: int, rows: int) -> None:
    """What flash attention is given, computed by a stand-in, is the padded attention; no GPU is asked."""
    generator = torch.Generator().manual_seed(1)
    mask = batch()["attention_mask"]
    packing = Packing.of(mask, causal=causal)
    assert packing is not None
    padded = [torch.randn(len(LENGTHS), heads, 9, 8, generator=generator) for heads in (4, kv_heads, kv_heads)]
    prompts = [torch.randn(rows, kv_heads, 5, 8, generator=generator) for _ in range(2)]
    found = flash(
        *(packing.pack(tensor.transpose(1, 2)).transpose(1, 2) for tensor in padded),
        (prompts[0], prompts[1]),
        packing,
        scaling=0.3,
        kernel=naive,
    )
    seen = mask.bool()[:, None, None, :].expand(-1, -1, 9, -1)
    seen = torch.nn.functional.pad(seen & torch.ones(9, 9).bool().tril() if causal else seen, (5, 0), value=True)
    whole = [
        torch.cat([prompt.expand(len(LENGTHS), -1, -1, -1), own], dim=2)
        for prompt, own in zip(prompts, padded[1:], strict=True)
    ]
    expected = scaled_dot_product_attention(padded[0], *whole, attn_mask=seen, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(packing.unpack(found)[mask.bool()], expected.transpose(1, 2)[mask.bool()])


def test_packing_and_back() -> None:
    packing = Packing.of(batch()["attention_mask"], causal=False)
    assert packing is not None
    assert packing.groups() == [(2, 7), (1, 3), (1, 9), (1, 1), (1, 9)]
    tensor = torch.randn(6, 9, 4)
    packed = packing.pack(tensor)
    assert packed.shape == (1, sum(LENGTHS), 4)
    assert torch.equal(packing.unpack(packed), tensor * batch()["attention_mask"].unsqueeze(2))
    assert Packing.of(torch.ones(2, 3, dtype=torch.long), causal=False) is None
