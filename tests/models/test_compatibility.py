"""What a prompt does to a model, on every supported family and with every head. `docs/backbones.md` is made of this."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ptv2kit.errors import ConfigError
from ptv2kit.models.backbones import find_backbone
from ptv2kit.models.build import build_model
from ptv2kit.models.heads import SequenceHead
from ptv2kit.models.model import PromptedModel
from ptv2kit.models.prompts import EmbeddingPrompt
from ptv2kit.spec.recipe import Backbone, Recipe
from tests.tiny_backbones import CAUSAL, FAMILIES, in_turn, save_tiny

UNITS = {"sequence": 3, "choices": 2, "token": 5, "start_end": 2}
"""Each kind of head, one for each label scheme, and its size."""
LENGTHS = (9, 4, 12, 6)
Build = Callable[..., PromptedModel]


@pytest.fixture(scope="module", params=in_turn(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module", params=list(UNITS))
def unit(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp(family), family)


@pytest.fixture
def build(folder: Path, family: str, unit: Any, record_property: Callable[[str, object], None]) -> Build:
    """A model with the same random prompt and head whatever the settings; dropout is off."""
    record_property("family", family)

    def build(train: dict[str, object] | None = None, **backbone: object) -> PromptedModel:
        recipe = Recipe.model_validate(
            {
                "recipe": "r",
                "task": "t",
                "backbone": {"name": str(folder), "dropout": 0.0, "attention_dropout": 0.0, **backbone},
                "prompt": {"length": 5, "dropout": 0.0, "init_scale": 1.0},
                "train": {"epochs": 1, "learning_rate": 0.1, **(train or {})},
            }
        )
        torch.manual_seed(1)
        model = build_model(recipe, unit, find_backbone(recipe.backbone), UNITS[unit])
        with torch.no_grad():
            for parameter in model.head.parameters():
                parameter.normal_(std=0.3)
        return model.eval()

    return build


def inputs(lengths: tuple[int, ...] = LENGTHS) -> tuple[Tensor, Tensor]:
    """Random ids and their mask, padded on the right."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(5, 13, (len(lengths), max(lengths)), generator=generator)
    mask = torch.tensor([[1] * length + [0] * (max(lengths) - length) for length in lengths])
    return ids.masked_fill(mask == 0, 1), mask


def real(logits: Tensor, unit: str) -> Tensor:
    """Logits, those of padding left out."""
    return logits[inputs()[1].bool()] if unit in ("token", "start_end") else logits


def gradients(model: PromptedModel, unit: str) -> list[Tensor]:
    model.zero_grad()
    real(model(*inputs()), unit).square().sum().backward()
    return [parameter.grad.clone() for parameter in model.prompt.parameters()]


def test_what_is_known_before_weights_are_read(
    folder: Path, family: str, record_property: Callable[[str, object], None]
) -> None:
    spec = find_backbone(Backbone(name=str(folder)))
    assert spec.causal is (family in CAUSAL)
    assert {layer.head_dim for layer in spec.layers} == {12 if family == "deepseek_v3" else 8}
    heads = {"falcon": 1}.get(family, FAMILIES[family][1].get("num_key_value_heads", 4))
    assert {layer.kv_heads for layer in spec.layers} == {heads}
    recipe = Recipe.model_validate(
        {"recipe": "r", "task": "t", "backbone": {"name": str(folder)}, "train": {"epochs": 1, "learning_rate": 0.1}}
    )
    head = build_model(recipe, "sequence", spec, 3).head
    assert isinstance(head, SequenceHead)
    record_property("family", family)
    record_property(
        "facts",
        {
            "attention": "causal" if spec.causal else "both sides",
            "kv heads": str(spec.layers[0].kv_heads),
            "kernel": spec.kernel,
            "positions": spec.family.positions,
            "pooling": f"dense {head.pooling.dense}" if head.pooling.dense else head.pooling.source,
        },
    )


def test_the_page_is_of_these_families() -> None:
    page = (Path(__file__).parents[2] / "docs" / "backbones.md").read_text(encoding="utf-8")
    listed = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    assert listed == list(FAMILIES)
    assert all(f"{count}/4" not in page for count in range(4))


def test_the_prompt_of_every_layer_changes_the_logits(build: Build, unit: str) -> None:
    model = build()
    before = real(model(*inputs()), unit)
    assert isinstance(model.prompt, EmbeddingPrompt)
    assert len(model.prompt.layers) == model.backbone.config.num_hidden_layers == 3
    for parameter in model.prompt.layers:
        kept = parameter.detach().clone()
        with torch.no_grad():
            parameter.mul_(-1)
        assert (real(model(*inputs()), unit) - before).abs().max() > 1e-4
        with torch.no_grad():
            parameter.copy_(kept)


def test_gradients_reach_every_layer_and_nothing_of_the_backbone(build: Build, unit: str) -> None:
    model = build()
    for keys, values in gradients(model.train(), unit):
        assert keys.abs().sum() > 0
        assert values.abs().sum() > 0
    assert all(not p.requires_grad and p.grad is None for p in model.backbone.parameters())
    assert all(p.grad is not None for p in model.head.parameters())


def test_a_padded_batch_equals_its_rows_alone(build: Build, unit: str) -> None:
    model = build()
    ids, mask = inputs()
    together = model(ids, mask)
    size = 2 if unit == "choices" else 1
    for row in range(0, len(LENGTHS), size):
        length = max(LENGTHS[row : row + size])
        alone = model(ids[row : row + size, :length], mask[row : row + size, :length])
        if unit in ("token", "start_end"):
            torch.testing.assert_close(together[row : row + 1, :length], alone, atol=1e-5, rtol=1e-5)
        else:
            torch.testing.assert_close(together[row // size : row // size + 1], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_eager_and_sdpa_agree(build: Build, unit: str, folder: Path) -> None:
    kernels = find_backbone(Backbone(name=str(folder))).attention.kernels
    if len(kernels) < 2:
        missing = ({"sdpa", "eager"} - set(kernels)).pop()
        with pytest.raises(ConfigError, match=f"backbone.attention is {missing}, but .* only by {kernels[0]}"):
            build(attention=missing)
        pytest.skip(f"{kernels[0]} only")
    sdpa, eager = build(attention="sdpa"), build(attention="eager")
    torch.testing.assert_close(real(sdpa(*inputs()), unit), real(eager(*inputs()), unit), atol=1e-5, rtol=1e-5)
    for one, other in zip(gradients(sdpa, unit), gradients(eager, unit), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_gradient_checkpointing_changes_nothing(build: Build, unit: str, folder: Path) -> None:
    off = build().train()
    on = build(train={"gradient_checkpointing": True}).train()
    runs = {"off": 0, "on": 0}
    for name, model in (("off", off), ("on", on)):
        layer = model.backbone.get_submodule(find_backbone(Backbone(name=str(folder))).layers[1].name)
        layer.register_forward_pre_hook(lambda *_, name=name: runs.update({name: runs[name] + 1}))
    for one, other in zip(gradients(off, unit), gradients(on, unit), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)
    assert runs == {"off": 1, "on": 2}


@pytest.mark.slow
def test_bf16_weights_give_nearly_the_same(build: Build, unit: str) -> None:
    exact, rough = build(), build(dtype="bf16")
    weights = {name: p for name, p in rough.backbone.named_parameters() if p.dim() > 1}
    # transformers 5.24 keeps in fp32 what chooses DeepSeek's experts.
    assert {p.dtype for name, p in weights.items() if not name.endswith("mlp.gate.weight")} == {torch.bfloat16}
    assert {p.dtype for p in rough.parameters() if p.requires_grad} == {torch.float32}
    one, other = real(exact(*inputs()), unit), real(rough(*inputs()), unit)
    assert other.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0) > 0.98
    for exact_gradient, gradient in zip(gradients(exact, unit), gradients(rough, unit), strict=True):
        similarity = torch.nn.functional.cosine_similarity(exact_gradient.flatten(), gradient.flatten(), dim=0)
        assert similarity > 0.9


@pytest.mark.night
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # BLOOM's GELU in transformers
def test_a_compiled_model_gives_the_same(build: Build, unit: str, family: str) -> None:
    if unit != "token" and family != "bert":
        pytest.skip("heads are compiled alike for every family: one of them shows all")
    plain, compiled = build(), build()
    torch.compiler.reset()
    compiled.compile(backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(real(compiled(*inputs()), unit), real(plain(*inputs()), unit), atol=1e-5, rtol=1e-5)
    for one, other in zip(gradients(plain, unit), gradients(compiled, unit), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_a_causal_model_can_be_made_bidirectional(build: Build, unit: str, family: str, folder: Path) -> None:
    if family not in CAUSAL:
        with pytest.raises(ConfigError, match="bidirectional is for causal models"):
            build(bidirectional=True)
        pytest.skip("sees both sides anyway")
    ids, mask = inputs()
    changed = ids.clone()
    changed[:, 3] = (changed[:, 3] - 5 + 1) % 8 + 5
    for both_sides in (False, True):
        model = build(bidirectional=both_sides)
        first, other = (model.encode(each, mask).hidden[:, 0] for each in (ids, changed))
        assert torch.equal(first, other) is not both_sides
    test_a_padded_batch_equals_its_rows_alone(lambda: model, unit)
    if "eager" in find_backbone(Backbone(name=str(folder))).attention.kernels:
        eager = build(bidirectional=True, attention="eager")
        torch.testing.assert_close(real(model(ids, mask), unit), real(eager(ids, mask), unit), atol=1e-5, rtol=1e-5)
