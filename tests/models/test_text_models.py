"""Text models within multimodal ones, and hybrids, some of whose layers have no attention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedModel,
)

from ptv2kit.errors import ConfigError
from ptv2kit.exchange.peft import require_peft
from ptv2kit.models.backbones import BackboneSpec, find_backbone, load_backbone
from ptv2kit.models.build import build_model
from ptv2kit.models.checkpoints import find_checkpoint, load_tokenizer
from ptv2kit.models.language_head import language_head
from ptv2kit.models.model import PromptedModel
from ptv2kit.spec.layers import layers_on_disk
from ptv2kit.spec.recipe import Backbone, Recipe
from tests.projects import Project, project
from tests.tiny_backbones import DECODER, save_random, save_tokenizer

__all__ = ["project"]

SIZES = {**DECODER, "vocab_size": 64, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
LINEAR = {
    "num_hidden_layers": 4,
    "layer_types": ["linear_attention", "full_attention"] * 2,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
CONVOLUTIONS = {"num_hidden_layers": 4, "layer_types": ["conv", "full_attention"] * 2}
MAMBA = {"mamba_d_state": 4, "mamba_n_heads": 4, "mamba_n_groups": 1}
SECTIONS = {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e4}}

MULTIMODAL: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma3": ("gemma3_text", {"sliding_window": 8}),
    "qwen3_5": ("qwen3_5_text", LINEAR),
    "mistral3": ("mistral", {}),
    "qwen2_5_vl": ("qwen2_5_vl_text", SECTIONS),
    "qwen3_vl": ("qwen3_vl_text", SECTIONS),
    "smolvlm": ("llama", {}),
    "llava": ("llama", {}),
    "lfm2_vl": ("lfm2", {**CONVOLUTIONS, "block_ff_dim": 48}),
}
"""Each with the type of its text model, and that model's sizes."""
HYBRIDS: dict[str, dict[str, Any]] = {
    "qwen3_5_text": LINEAR,
    "lfm2": {**CONVOLUTIONS, "block_ff_dim": 48},
    "qwen3_next": LINEAR,
    "olmo_hybrid": LINEAR,
    "granitemoehybrid": {
        **MAMBA,
        "num_hidden_layers": 4,
        "layer_types": ["mamba", "attention"] * 2,
        "mamba_d_head": 16,
        "num_local_experts": 2,
        "num_experts_per_tok": 1,
        "shared_intermediate_size": 48,
    },
    "jamba": {
        "num_hidden_layers": 4,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "num_experts": 2,
        "use_mamba_kernels": False,
        "mamba_d_state": 4,
    },
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
    "depth": 1,
    "num_heads": 4,
    "out_hidden_size": 32,
    "deepstack_visual_indexes": [0],
}
CORE = ("gemma3", "qwen3_5", "qwen3_5_text", "lfm2")
LENGTHS = (9, 4, 6)


def in_turn(kinds: dict[str, Any]) -> list[Any]:
    """The others at night."""
    return [each if each in CORE else pytest.param(each, marks=pytest.mark.night) for each in kinds]


def save(folder: Path, kind: str, *, head: bool = False, **settings: Any) -> PreTrainedModel:
    """A tiny random model and a tokenizer in `folder`."""
    save_tokenizer("bare", folder)
    if kind in MULTIMODAL:
        text_type, sizes = MULTIMODAL[kind]
        text = {"model_type": text_type, **SIZES, **sizes}
        config = AutoConfig.for_model(kind, text_config=text, **settings)
        for key, value in VISION.items():
            if key in config.vision_config.to_dict():
                setattr(config.vision_config, key, value)
        auto: Any = AutoModelForImageTextToText if head else AutoModel
    else:
        config = AutoConfig.for_model(kind, **{**SIZES, **HYBRIDS[kind], **settings})
        auto = AutoModelForCausalLM if head else AutoModel
    return save_random(auto, config, folder)


def recipe_of(folder: Path, **keys: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "recipe": "r",
            "task": "t",
            "backbone": {"name": str(folder), "dtype": "fp32"},
            "prompt": {"length": 5, "dropout": 0.0, "init_scale": 1.0, **keys},
            "train": {"epochs": 1, "learning_rate": 0.1},
        }
    )


def prompted(folder: Path, **keys: Any) -> tuple[PromptedModel, BackboneSpec]:
    recipe = recipe_of(folder, **keys)
    spec = find_backbone(recipe.backbone_settings)
    torch.manual_seed(1)
    return build_model(recipe, "token", spec, 5).eval(), spec


def inputs() -> tuple[Tensor, Tensor]:
    ids = torch.randint(5, 60, (len(LENGTHS), max(LENGTHS)), generator=torch.Generator().manual_seed(3))
    mask = torch.tensor([[1] * length + [0] * (max(LENGTHS) - length) for length in LENGTHS])
    return ids.masked_fill(mask == 0, 1), mask


@pytest.mark.parametrize("head", [False, True], ids=["base", "with head"])
@pytest.mark.parametrize("kind", in_turn(MULTIMODAL))
def test_the_text_model_of_a_multimodal_one_gives_its_hidden_states(kind: str, head: bool, tmp_path: Path) -> None:
    whole = save(tmp_path, kind, head=head)
    model, spec = prompted(tmp_path)
    assert spec.config.model_type == MULTIMODAL[kind][0]
    model.prompt = None
    ids, mask = inputs()
    with torch.no_grad():
        expected = (whole.base_model if head else whole)(input_ids=ids, attention_mask=mask).last_hidden_state
        found = model.encode(ids, mask).hidden
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        ("qwen2_5_vl", "model."),
        ("qwen2_5_vl", "language_model.model."),
        ("smolvlm", "model.text_model."),
        ("qwen3_5", "model.language_model."),
    ],
)
def test_the_layouts_of_published_checkpoints(kind: str, written: str, tmp_path: Path) -> None:
    save(tmp_path, kind)
    spec = find_backbone(Backbone(name=str(tmp_path), dtype="fp32"))
    expected = load_backbone(spec).state_dict()
    others = {f"visual.{name}": torch.zeros(2) for name in ("a", "b")}
    save_file({**{written + name: value for name, value in expected.items()}, **others}, tmp_path / "model.safetensors")
    found = load_backbone(spec).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("kind", ["gemma3", "qwen3_5"])
def test_its_language_model_head_gives_the_whole_models_logits(kind: str, tmp_path: Path) -> None:
    whole = save(tmp_path, kind, head=True)
    model, spec = prompted(tmp_path)
    model.prompt = None
    ids, mask = inputs()
    tokens = [7, 11, 13]
    with torch.no_grad():
        hidden = model.encode(ids, mask).hidden[mask.bool()]
        expected = whole(input_ids=ids, attention_mask=mask).logits[mask.bool()]
        few = language_head(spec, model.backbone, tokens)(hidden)
        every = language_head(spec, model.backbone, None)(hidden)
    torch.testing.assert_close(every, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(few, expected[:, tokens], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", in_turn(HYBRIDS))
def test_layers_with_attention_take_the_prompt_of_a_hybrid(kind: str, tmp_path: Path) -> None:
    save(tmp_path, kind)
    model, spec = prompted(tmp_path)
    assert spec.causal
    assert len(spec.layers) == 2
    assert spec.layers_note.startswith(f"2 of 4 layers of '{kind}' have attention and take a prompt")
    ids, mask = inputs()
    together = model(ids, mask)
    for row, length in enumerate(LENGTHS):
        alone = model(ids[row : row + 1, :length], mask[row : row + 1, :length])
        torch.testing.assert_close(together[row : row + 1, :length], alone, atol=3e-5, rtol=1e-5)
    together[mask.bool()].square().sum().backward()
    assert model.prompt is not None
    gradients = [parameter.grad for parameter in model.prompt.parameters()]
    assert len(gradients) == 2
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)
    assert all(parameter.grad is None for parameter in model.backbone.parameters())


def test_loading_draws_no_random_numbers(tmp_path: Path) -> None:
    save(tmp_path, "qwen3_5_text")  # draws initial values of its recurrent layers
    spec = find_backbone(Backbone(name=str(tmp_path)))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_backbone(spec)
    assert torch.equal(torch.rand(3), expected)


def test_kept_lower_layers_of_a_hybrid_change_nothing(tmp_path: Path) -> None:
    save(tmp_path, "qwen3_5_text")
    model, _ = prompted(tmp_path, layers="2..")
    ids, mask = inputs()
    expected = model(ids, mask)
    assert model.trunk is not None
    model.trunk.install()
    model(ids, mask)
    states = model.trunk_output(ids, mask)
    torch.testing.assert_close(model(ids, mask, trunk_states=states), expected)


def test_layers_of_a_hybrid_are_counted_by_their_attention(tmp_path: Path) -> None:
    for kind, count in (("qwen3_5", 2), ("qwen3_5_text", 2), ("gemma3", 3)):
        (tmp_path / kind).mkdir()
        save(tmp_path / kind, kind)
        assert layers_on_disk(str(tmp_path / kind), tmp_path) == count


def test_a_hybrid_cannot_be_made_to_see_ahead(tmp_path: Path) -> None:
    save(tmp_path, "qwen3_5_text")
    with pytest.raises(ConfigError, match="layers without attention, which read from left to right"):
        find_backbone(Backbone(name=str(tmp_path), bidirectional=True))


def test_layers_that_attend_without_the_interface_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A model that says that all of its layers have attention, of which some then do not ask for a prompt.
    save(tmp_path, "qwen3_5_text")
    monkeypatch.setattr("ptv2kit.models.injection.WITHOUT_ATTENTION", frozenset[str]())
    with pytest.raises(ConfigError, match="has 4 layers, but only 2 use transformers' attention interface"):
        find_backbone(Backbone(name=str(tmp_path)))


def test_a_text_model_that_is_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    AutoConfig.for_model("blip-2", text_config={"model_type": "t5"}).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"is an encoder-decoder \('t5'\)"):
        find_backbone(Backbone(name=str(tmp_path)))


def test_a_run_on_the_text_model_of_a_hybrid(project: Project, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    save(tmp_path / "model", "qwen3_5", head=True)
    code, _, err = project.run(f"backbone.name={tmp_path / 'model'}", "train.epochs=1")
    assert code == 0, err
    assert "2 of 4 layers of 'qwen3_5_text' have attention and take a prompt" in err
    code, out, err = project.command("plan", "recipe.yaml", f"backbone.name={tmp_path / 'model'}")
    assert code == 0, err
    assert "warning: 2 of 4 layers of 'qwen3_5_text' have attention" in " ".join(out.split())
    [run] = project.runs
    (tmp_path / "input.txt").write_text("Ada met Alan\n")
    code, out, err = project.command("predict", str(run), str(tmp_path / "input.txt"))
    assert code == 0, err
    assert out


def test_what_peft_would_take_whole_is_not_exported(tmp_path: Path) -> None:
    save(tmp_path, "gemma3")
    recipe = recipe_of(tmp_path)
    with pytest.raises(ConfigError, match="of which PEFT would take the whole"):
        require_peft(recipe, find_backbone(recipe.backbone_settings))


def test_weights_that_are_quantized_already_are_known_to_the_text_model(tmp_path: Path) -> None:
    method = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    save(tmp_path, "gemma3", quantization_config=method)
    assert find_checkpoint(Backbone(name=str(tmp_path))).config.quantization_config == method


def test_a_padding_token_without_an_embedding_is_not_used(tmp_path: Path) -> None:
    save(tmp_path, "qwen3_5_text", vocab_size=60)
    spec = find_backbone(Backbone(name=str(tmp_path)))
    tokenizer = load_tokenizer(spec, words=False)
    tokenizer.add_special_tokens({"pad_token": "<|padding|>"})
    assert int(str(tokenizer.pad_token_id)) >= 60
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(spec, words=False).pad_token_id == tokenizer.eos_token_id == 2
