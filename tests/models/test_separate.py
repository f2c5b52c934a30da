"""Prompts with a softmax of their own (`prompt.attention: separate`), on every family."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ptv2kit.models.backbones import find_backbone
from ptv2kit.models.build import build_model, shifts_positions
from ptv2kit.models.deberta import _project  # pyright: ignore[reportPrivateUsage]
from ptv2kit.models.injection import Kernel, PromptSlot, prompted_attention
from ptv2kit.models.mixed import MixedModel, MixedPart
from ptv2kit.models.model import PromptedModel
from ptv2kit.models.prompts import EmbeddingPrompt
from ptv2kit.spec.recipe import Backbone, Recipe
from tests.models.test_compatibility import inputs, real
from tests.models.test_mixed import batch, build, same
from tests.tiny_backbones import FAMILIES, in_turn, save_tiny


@pytest.fixture(scope="module", params=in_turn(FAMILIES))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp(request.param), request.param)


def made(folder: Path, attention: str = "separate", method: str = "p_tuning_v2", kernel: str = "auto") -> PromptedModel:
    """A model with random values, too, and without dropout."""
    recipe = Recipe.model_validate(
        {
            "recipe": "r",
            "task": "t",
            "method": method,
            "backbone": {"name": str(folder), "dropout": 0.0, "attention_dropout": 0.0, "attention": kernel},
            "prompt": {"length": 5, "dropout": 0.0, "init_scale": 1.0, "attention": attention},
            "train": {"epochs": 1, "learning_rate": 0.1},
        }
    )
    torch.manual_seed(1)
    model = build_model(recipe, "token", find_backbone(recipe.backbone), 5).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        nn.init.normal_(model.head.get_parameter("linear.weight"), std=0.3, generator=generator)
    return model


def with_values(model: PromptedModel) -> PromptedModel:
    assert isinstance(model.prompt, EmbeddingPrompt)
    with torch.no_grad():
        for layer in model.prompt.layers:
            layer[1].normal_(generator=torch.Generator().manual_seed(3))
    return model


@torch.no_grad()
def test_a_fresh_prompt_leaves_the_backbone_as_it_is(folder: Path) -> None:
    model, without = made(folder), made(folder, method="linear_probe")
    assert isinstance(model.prompt, EmbeddingPrompt)
    before = model(*inputs())
    torch.testing.assert_close(real(before, "token"), real(without(*inputs()), "token"), atol=1e-6, rtol=1e-5)
    assert (real(made(folder, "joint")(*inputs()), "token") - real(before, "token")).abs().max() > 1e-4
    model.start_prompt_from_tokens(*inputs())
    assert all(layer[0].abs().sum() > 0 and not layer[1].any() for layer in model.prompt.layers)
    assert torch.equal(model(*inputs()), before)


@torch.no_grad()
def test_a_padded_batch_equals_its_rows_alone(folder: Path) -> None:
    model = with_values(made(folder))
    ids, mask = inputs()
    together = model(ids, mask)
    for row, (of_row, length) in enumerate(zip(ids, mask.sum(1), strict=True)):
        alone = model(of_row[None, :length], mask[row : row + 1, :length])
        torch.testing.assert_close(together[row : row + 1, :length], alone, atol=1e-5, rtol=1e-5)


def test_each_layer_learns(folder: Path) -> None:
    """Values at the first step, and keys as soon as values are not 0; also where layers are computed again."""
    model = made(folder).train()
    real(model(*inputs()), "token").square().sum().backward()
    assert all(layer.grad[1].any() and not layer.grad[0].any() for layer in model.prompt.parameters())
    model.zero_grad()
    real(with_values(model)(*inputs()), "token").square().sum().backward()
    assert all(layer.grad.flatten(1).any(1).all() for layer in model.prompt.parameters())


@torch.no_grad()
def test_eager_and_sdpa_agree(folder: Path) -> None:
    kernels = find_backbone(Backbone(name=str(folder))).attention.kernels
    if len(kernels) < 2:
        pytest.skip(f"{kernels[0]} only")
    eager, sdpa = (with_values(made(folder, kernel=kernel)) for kernel in ("eager", "sdpa"))
    torch.testing.assert_close(real(eager(*inputs()), "token"), real(sdpa(*inputs()), "token"), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", in_turn(FAMILIES))
def test_rows_of_several_tasks_are_as_each_alone(tmp_path: Path, family: str) -> None:
    folder = save_tiny(tmp_path, family)
    apart = {"attention": "separate"}
    spec, first = build(folder, "token", None, 1, prompt={"length": 5, **apart})
    models = [
        first,
        build(folder, "sequence", first.backbone, 2, prompt={"length": 5})[1],
        build(folder, "sequence", first.backbone, 3, prompt={"length": 3, "layers": "2-3", **apart})[1],
        build(folder, "choices", first.backbone, 4, method="linear_probe")[1],
        build(folder, "sequence", first.backbone, 5, prompt={"length": 2, "reparameterization": "mlp", **apart})[1],
    ]
    for model in models:
        if isinstance(model.prompt, EmbeddingPrompt):
            with_values(model)
    lengths = [(7, 3), (11,), (9, 12), (5, 6), (8, 2)]
    parts = [MixedPart(model, batch(own, seed)) for seed, (model, own) in enumerate(zip(models, lengths, strict=True))]
    with torch.no_grad():
        alone = [part.model(**part.inputs) for part in parts]
    for chosen in ([0, 1, 2, 3, 4], [1, 0], [0, 2, 3], [3, 2], [4], [1, 3]):
        found = MixedModel(spec, first.backbone)([parts[index] for index in chosen])
        for index, logits in zip(chosen, found, strict=True):
            same(parts[index], logits, alone[index])


@pytest.mark.parametrize("seen", [None, [[True, True, True], [False, True, False]]])
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_it_is_the_sum_of_two_softmaxes(kernel: Kernel, seen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written out: 4 heads of queries share 2 of keys, a token sees those before it, the first row is padded."""
    generator = torch.Generator().manual_seed(1)
    random = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    query, key, value = random(2, 4, 6, 8), random(2, 2, 6, 8), random(2, 2, 6, 8)
    prompt_key, prompt_value = random(1, 2, 3, 8), random(1, 2, 3, 8)
    mask = torch.ones(6, 6).tril().bool().expand(2, 1, 6, 6).clone()
    mask[0, :, :, 4:] = False
    module = nn.Module()
    module.num_key_value_groups = 2
    module.is_causal = True
    slot = PromptSlot(kernel)
    slot.prompt, slot.separate = (prompt_key, prompt_value), True
    slot.visible = None if seen is None else torch.tensor(seen)
    module.add_module("prompt_slot", slot)
    monkeypatch.setattr("ptv2kit.models.injection._own_eager_attention", lambda _: written_out)
    found, weights = prompted_attention(module, query, key, value, mask, scaling=0.3)
    columns = torch.ones(2, 3).bool() if slot.visible is None else slot.visible
    expected = softmax_of(query, key, value, mask) + softmax_of(
        query, prompt_key.expand(2, -1, -1, -1), prompt_value.expand(2, -1, -1, -1), columns[:, None, None]
    )
    assert weights is None
    torch.testing.assert_close(found, expected.transpose(1, 2))


def softmax_of(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    key, value = key.repeat_interleave(2, 1), value.repeat_interleave(2, 1)
    scores = 0.3 * torch.einsum("bhqd,bhkd->bhqk", query, key)
    weights = scores.exp() * mask
    return torch.einsum("bhqk,bhkd->bhqd", weights / weights.sum(-1, keepdim=True), value)


def written_out(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, dropout: float
) -> tuple[Tensor, None]:
    """As the eager attention of a model's file."""
    assert module.num_key_value_groups == 2
    assert dropout == 0
    scores = scaling * query @ key.repeat_interleave(2, 1).transpose(2, 3)
    weights = (scores if mask is None else scores + mask).softmax(-1)
    return (weights @ value.repeat_interleave(2, 1)).transpose(1, 2), None


@pytest.mark.parametrize("family", ["deberta", "deberta-v2"])
@torch.no_grad()
def test_deberta_adds_what_the_queries_find_in_the_prompt(tmp_path: Path, family: str) -> None:
    folder = save_tiny(tmp_path, family)
    model, without = with_values(made(folder)), made(folder, method="linear_probe")
    assert isinstance(model.prompt, EmbeddingPrompt)
    outputs: list[SimpleNamespace] = []
    for each in (model, without):
        module = next(m for name, m in each.backbone.named_modules() if name.endswith("layer.0.attention.self"))
        module.register_forward_hook(
            lambda module, given, kwargs, output: outputs.append(
                SimpleNamespace(module=module, hidden=given[0] if given else kwargs["hidden_states"], context=output[0])
            ),
            with_kwargs=True,
        )
        each(*inputs())
    behind, before = outputs
    query = _project(behind.module, behind.hidden)[0]
    key, value = model.prompt.layers[0]
    terms = 1 + sum(term in behind.module.pos_att_type for term in ("c2p", "p2c"))
    weights = (query @ key.transpose(-1, -2) / math.sqrt(8 * terms)).softmax(-1)
    added = (weights @ value).transpose(1, 2).flatten(2)
    is_real = inputs()[1].bool()
    torch.testing.assert_close((behind.context - before.context)[is_real], added[is_real], atol=1e-5, rtol=1e-5)


def test_tokens_keep_their_positions(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "bert")
    spec = find_backbone(Backbone(name=str(folder)))
    for settings, shifted in (
        ({}, True),
        ({"attention": "separate"}, False),
        ({"attention": "separate", "positions": "shifted"}, True),
    ):
        recipe = Recipe.model_validate(
            {"recipe": "r", "task": "t", "backbone": {"name": str(folder)}, "prompt": settings}
            | {"train": {"epochs": 1, "learning_rate": 0.1}}
        )
        assert shifts_positions(recipe, spec) is shifted
