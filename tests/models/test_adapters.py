"""Models that write their attention out, scores with a bias by distance, and keys that are wider than values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    DynamicCache,
)

from ptv2kit.errors import ConfigError
from ptv2kit.models.backbones import find_backbone, load_backbone
from ptv2kit.models.build import build_model, check_model
from ptv2kit.models.heads import SequenceHead
from ptv2kit.models.injection import Injection
from ptv2kit.models.language_head import language_head
from ptv2kit.spec.recipe import Backbone, Recipe
from tests.projects import Project, project
from tests.tiny_backbones import FAMILIES, save_random, save_tiny, save_tokenizer

__all__ = ["project"]
LENGTHS = (9, 4, 6)


def batch(vocabulary: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()
    return torch.randint(3, vocabulary, mask.shape, generator=generator) * mask + (1 - mask), mask


@pytest.mark.parametrize("kind", ["t5", "mt5", "umt5"])
def test_the_encoder_is_that_of_the_whole_model(kind: str, tmp_path: Path) -> None:
    tokenizer = save_tokenizer("ending", tmp_path)
    config = AutoConfig.for_model(kind, **FAMILIES["t5"][1], vocab_size=len(tokenizer), decoder_start_token_id=1)
    whole = save_random(AutoModelForSeq2SeqLM, config, tmp_path)
    spec = find_backbone(Backbone(name=str(tmp_path)))
    assert spec.attention.kernels == ("sdpa", "eager")
    assert not spec.causal
    assert [layer.name for layer in spec.layers] == [f"encoder.block.{n}.layer.0.SelfAttention" for n in range(3)]
    backbone = load_backbone(spec)
    assert not any(name.startswith("decoder") for name, _ in backbone.named_parameters())
    Injection(backbone, spec.layers, spec.kernel).set(None)
    ids, mask = batch()
    expected = whole.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
    found = backbone.eval()(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()])


@pytest.mark.parametrize("family", ["mpnet", "megatron-bert", "rembert"])
@pytest.mark.parametrize("pooler", [True, False])
def test_an_encoder_is_that_of_transformers(family: str, pooler: bool, tmp_path: Path) -> None:
    save_tiny(tmp_path, family)
    whole = AutoModel.from_pretrained(tmp_path).eval()
    if not pooler:
        whole.pooler = None
        whole.save_pretrained(tmp_path)
    spec = find_backbone(Backbone(name=str(tmp_path)))
    backbone = load_backbone(spec).eval()
    assert (backbone.pooler is not None) is pooler
    assert list(backbone.state_dict()) == list(whole.state_dict())
    Injection(backbone, spec.layers, spec.kernel).set(None)
    ids, mask = batch(spec.config.vocab_size)
    expected, found = (model(input_ids=ids, attention_mask=mask).last_hidden_state for model in (whole, backbone))
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=1e-5)
    assert spec.family.positions == ("after_padding" if family == "mpnet" else "index")
    positions = spec.family.position_ids(mask, 0)
    found = backbone(input_ids=ids, attention_mask=mask, position_ids=positions).last_hidden_state
    torch.testing.assert_close(
        found[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=1e-5, msg="counted as it does"
    )


@pytest.mark.parametrize("settings", [{}, {"rotary_value": True}])
def test_a_roformer_is_that_of_transformers(settings: dict[str, Any], tmp_path: Path) -> None:
    save_tiny(tmp_path, "roformer", **settings)
    whole = AutoModel.from_pretrained(tmp_path).eval()
    spec = find_backbone(Backbone(name=str(tmp_path)))
    assert (spec.causal, spec.family.positions) == (False, "own")
    backbone = load_backbone(spec).eval()
    Injection(backbone, spec.layers, spec.kernel).set(None)
    ids, mask = batch(spec.config.vocab_size)
    expected, found = (model(input_ids=ids, attention_mask=mask).last_hidden_state for model in (whole, backbone))
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("bloom", {}),
        ("bloom", {"n_head": 6, "hidden_size": 48}),
        ("codegen", {"n_embd": 64, "n_head": 8}),
        ("falcon", {}),
        ("falcon", {"multi_query": False, "parallel_attn": False, "bias": True}),
        ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
        ("falcon", {"alibi": True, "multi_query": False, "parallel_attn": False, "bias": True}),
        ("gpt_neo", {"window_size": 3}),
        ("gptj", {}),
        ("mpt", {}),
        ("mpt", {"n_heads": 6, "d_model": 48, "attn_config": {"clip_qkv": 0.5, "softmax_scale": 0.2}}),
        ("xglm", {}),
    ],
)
def test_a_decoder_is_that_of_transformers(family: str, settings: dict[str, Any], tmp_path: Path) -> None:
    save_tiny(tmp_path, family, **settings)
    whole = save_random(AutoModelForCausalLM, AutoConfig.from_pretrained(tmp_path), tmp_path)
    spec = find_backbone(Backbone(name=str(tmp_path)))
    assert spec.causal
    assert spec.kernel == "sdpa"
    counted = {"bloom": "own", "mpt": "own", "gpt_neo": "index", "xglm": "index"}
    assert spec.family.positions == counted.get(family, "rotary")
    backbone = load_backbone(spec).eval()
    Injection(backbone, spec.layers, spec.kernel).set(None)
    ids, mask = batch()
    assert list(backbone.state_dict()) == list(whole.base_model.state_dict())
    if family == "falcon" and not settings:
        assert backbone.get_submodule(spec.layers[0].name).num_key_value_groups == 4
    hidden = backbone(input_ids=ids, attention_mask=mask).last_hidden_state
    expected = whole.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(hidden[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=1e-5)
    logits = language_head(spec, backbone, None)(hidden[mask.bool()])
    torch.testing.assert_close(
        logits, whole(input_ids=ids, attention_mask=mask).logits[mask.bool()], atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("codegen", {}),
        ("falcon", {}),
        ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
        ("gpt_neo", {"attention_types": [[["global"], 3]]}),
        ("gptj", {}),
        ("xglm", {}),
    ],
)
def test_a_prompt_is_what_transformers_keeps_of_past_tokens(
    family: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    """As keys and values of transformers' cache, where they do not depend on the distance."""
    whole = AutoModel.from_pretrained(save_tiny(tmp_path, family, **settings)).eval()
    spec = find_backbone(Backbone(name=str(tmp_path)))
    backbone = load_backbone(spec).eval()
    generator = torch.Generator().manual_seed(4)
    prompts = [torch.randn(2, 1, layer.kv_heads, 5, layer.head_dim, generator=generator) for layer in spec.layers]
    Injection(backbone, spec.layers, spec.kernel).set([(prompt[0], prompt[1]) for prompt in prompts])
    ids, mask = batch()
    positions = torch.arange(9).expand_as(ids)
    found = backbone(input_ids=ids, attention_mask=mask, position_ids=positions).last_hidden_state

    cache = DynamicCache()
    for layer, prompt in enumerate(prompts):
        cache.update(*prompt.expand(-1, len(ids), -1, -1, -1), layer)
    seen = torch.cat([torch.ones(len(ids), 5, dtype=torch.long), mask], dim=1)
    expected = whole(input_ids=ids, attention_mask=seen, position_ids=positions, past_key_values=cache, use_cache=True)
    torch.testing.assert_close(found[mask.bool()], expected.last_hidden_state[mask.bool()], atol=1e-5, rtol=1e-5)


def test_no_input_is_longer_than_mpts_biases(tmp_path: Path) -> None:
    spec = find_backbone(Backbone(name=str(save_tiny(tmp_path, "mpt", max_seq_len=48))))
    assert spec.family.longest_input == 48
    recipe = {
        "recipe": "r",
        "task": "t",
        "backbone": {"name": str(tmp_path)},
        "train": {"epochs": 1, "learning_rate": 1},
    }
    with pytest.raises(ConfigError, match=r"max_length 49 \+ prompt length 0 exceed the 48 positions"):
        check_model(Recipe.model_validate(recipe), spec, 49)


def test_a_local_layer_sees_the_whole_prompt(tmp_path: Path) -> None:
    """GPT-Neo's window of 3 is one of tokens: by the formula of a layer, the last token sees two others, and all of
    the prompt."""
    spec = find_backbone(Backbone(name=str(save_tiny(tmp_path, "gpt_neo", window_size=3))))
    backbone = load_backbone(spec).eval()
    attention = backbone.get_submodule(spec.layers[1].name)
    generator = torch.Generator().manual_seed(5)
    prompt_key, prompt_value = torch.randn(2, 1, 4, 2, 8, generator=generator)
    Injection(backbone, spec.layers, spec.kernel).set([None, (prompt_key, prompt_value), None])
    hidden = torch.randn(1, 6, 32, generator=generator)
    found = attention(hidden, attention_mask=torch.ones(6, 6).tril().bool()[None, None])[0]

    names = ("q_proj", "k_proj", "v_proj")
    query, key, value = (attention.get_submodule(name)(hidden).view(1, 6, 4, 8).transpose(1, 2) for name in names)
    keys, values = torch.cat([prompt_key, key[:, :, 3:]], dim=2), torch.cat([prompt_value, value[:, :, 3:]], dim=2)
    context = (query[:, :, -1:] @ keys.transpose(2, 3)).softmax(dim=3) @ values
    expected = attention.get_submodule("out_proj")(context.transpose(1, 2).flatten(2))
    torch.testing.assert_close(found[:, -1:], expected)


@pytest.mark.parametrize("both_sides", [False, True])
@pytest.mark.parametrize("family", ["bloom", "mpt", "falcon"])
def test_a_prompt_has_no_distance(family: str, both_sides: bool, tmp_path: Path) -> None:
    """The weights of the prompt's columns do not fall from query to query, as they do behind a cache of keys."""
    save_tiny(tmp_path, family, **({"alibi": True, "multi_query": False} if family == "falcon" else {}))
    spec = find_backbone(Backbone(name=str(tmp_path), bidirectional=both_sides))
    backbone = load_backbone(spec).eval()
    attention = backbone.get_submodule(spec.layers[0].name)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.zero_()
        attention.get_submodule("out_proj" if family == "mpt" else "dense").weight.copy_(torch.eye(32))
    key, value = torch.zeros(1, 4, 2, 8), torch.ones(1, 4, 2, 8)  # scores are the biases alone
    Injection(backbone, spec.layers, spec.kernel).set([(key, value), None, None])
    slopes = torch.tensor([2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8])
    alibi = (slopes[:, None, None] * torch.arange(5.0)).contiguous()
    visible = torch.ones(5, 5, dtype=torch.bool)
    visible = (visible if both_sides else visible.tril())[None, None]
    hidden = torch.zeros(1, 5, 32)
    match family:
        case "bloom":
            found = attention(hidden, hidden, alibi, visible)[0]
        case "mpt":  # its bias is as long as the longest input
            found = attention(hidden, nn.functional.pad(alibi, (3, 0)), visible)[0]
        case _:  # its model has merged places and mask, and scales both
            hides = torch.where(visible, 0.0, torch.finfo(torch.float32).min)
            found = attention(hidden, alibi[None] * 8**0.5, hides.expand(1, 4, 5, 5), (hidden, hidden))[0]
    found = found.view(5, 4, 8)[..., 0]
    for query in range(5):
        seen = torch.arange(5 if both_sides else query + 1)
        of_tokens = torch.exp(-slopes[:, None] * (seen - query).abs()).sum(dim=1)
        torch.testing.assert_close(found[query], 2 / (2 + of_tokens))


@pytest.mark.parametrize("family", ["mpnet", "megatron-bert", "rembert", "roformer"])
def test_the_head_of_an_encoder_fills_masks(family: str, tmp_path: Path) -> None:
    save_tiny(tmp_path, family)
    whole = save_random(AutoModelForMaskedLM, AutoConfig.from_pretrained(tmp_path), tmp_path)
    spec = find_backbone(Backbone(name=str(tmp_path)))
    backbone = load_backbone(spec).eval()
    Injection(backbone, spec.layers, spec.kernel).set(None)
    ids, mask = batch(spec.config.vocab_size)
    head = language_head(spec, backbone, None)
    hidden = backbone(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(
        head(hidden[mask.bool()]), whole(input_ids=ids, attention_mask=mask).logits[mask.bool()], atol=1e-4, rtol=1e-4
    )


def test_the_bias_of_prompt_columns_is_zero(tmp_path: Path) -> None:
    """A layer of T5 by its formula: softmax of `q·k`, the tokens' with their bias, no division by a width."""
    spec = find_backbone(Backbone(name=str(save_tiny(tmp_path, "t5"))))
    backbone = load_backbone(spec).eval()
    attention = backbone.get_submodule(spec.layers[0].name)
    generator = torch.Generator().manual_seed(2)
    prompt_key, prompt_value = torch.randn(2, 1, 4, 5, 8, generator=generator)
    Injection(backbone, spec.layers, spec.kernel).set([(prompt_key, prompt_value), None, None])
    hidden = torch.randn(1, 7, 32, generator=generator)
    visible = torch.ones(1, 1, 7, 7, dtype=torch.bool)
    found = attention(hidden, mask=visible)[0]

    query, key, value = (
        attention.get_submodule(name)(hidden).view(1, 7, 4, 8).transpose(1, 2) for name in ("q", "k", "v")
    )
    of_tokens = query @ key.transpose(2, 3) + attention.compute_bias(7, 7)
    scores = torch.cat([query @ prompt_key.transpose(2, 3), of_tokens], dim=3)
    context = scores.softmax(dim=3) @ torch.cat([prompt_value, value], dim=2)
    torch.testing.assert_close(found, attention.get_submodule("o")(context.transpose(1, 2).flatten(2)))


def test_values_may_be_narrower_than_keys(tmp_path: Path) -> None:
    spec = find_backbone(Backbone(name=str(save_tiny(tmp_path, "deepseek_v3"))))
    assert {(layer.kv_heads, layer.head_dim) for layer in spec.layers} == {(4, 12)}
    backbone = load_backbone(spec).eval()
    injection = Injection(backbone, spec.layers, spec.kernel)
    ids, mask = batch()
    with injection.recording() as recorded:
        backbone(input_ids=ids, attention_mask=mask)
    assert all(part.shape == (3, 4, 9, 12) for pair in recorded for part in pair)
    assert all(value[..., 8:].abs().sum() == 0 and key[..., 8:].abs().sum() > 0 for key, value in recorded)

    generator = torch.Generator().manual_seed(3)
    prompts = [torch.randn(2, 1, 4, 5, 12, generator=generator).requires_grad_() for _ in spec.layers]
    injection.set([(prompt[0], prompt[1]) for prompt in prompts])
    backbone(input_ids=ids, attention_mask=mask).last_hidden_state.square().sum().backward()
    for prompt in prompts:
        assert prompt.grad is not None
        assert prompt.grad[0].abs().amin(dim=(0, 1, 2)).max() > 0
        assert prompt.grad[1, ..., :8].abs().sum() > 0
        assert prompt.grad[1, ..., 8:].abs().sum() == 0, "there are no such columns of values"


@pytest.mark.parametrize(
    "family", ["t5", "mpnet", "bloom", "deepseek_v3", "roformer", "mpt", "falcon", "gpt_neo", "gptj", "codegen", "xglm"]
)
def test_a_run(family: str, project: Project, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    save_tiny(tmp_path / "model", family)
    name = f"backbone.name={tmp_path / 'model'}"
    code, _, err = project.run(name, "train.epochs=1", "prompt.init=tokens")
    assert code == 0, err
    code, out, err = project.command("plan", "recipe.yaml", name, "backbone.dtype=bf16")
    assert code == 0, err
    assert "frozen" in out


def test_what_an_encoder_alone_cannot_do(tmp_path: Path) -> None:
    save_tiny(tmp_path, "t5")
    with pytest.raises(ConfigError, match=r"backbone\.attention_dropout is 0.1, but models of type 't5' have none"):
        find_backbone(Backbone(name=str(tmp_path), attention_dropout=0.1))
    spec = find_backbone(Backbone(name=str(tmp_path), dropout=0.3))
    assert spec.config.dropout_rate == 0.3
    settings = {"backbone": {"name": str(tmp_path)}, "train": {"epochs": 1, "learning_rate": 0.1}}
    head = build_model(Recipe.model_validate({"recipe": "r", "task": "t", **settings}), "sequence", spec, 3).head
    assert isinstance(head, SequenceHead)
    assert head.pooling.source == "mean"
    with pytest.raises(ConfigError, match="'t5' sees all tokens anyway"):
        find_backbone(Backbone(name=str(tmp_path), bidirectional=True))
