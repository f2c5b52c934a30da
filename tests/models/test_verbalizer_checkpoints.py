"""Which checkpoints have a language-model head, and the original GLM's, against the official numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForMaskedLM

from ptv2kit.errors import ConfigError
from ptv2kit.models.backbones import find_backbone
from ptv2kit.models.build import build_model, count_parameters
from ptv2kit.models.glm.configuration import OriginalGlmConfig
from ptv2kit.models.glm.modeling import OriginalGlmModel
from ptv2kit.models.language_head import check_language_model, language_head, require_language_head
from ptv2kit.models.model import PromptedModel
from ptv2kit.spec.recipe import Recipe
from tests.tiny_backbones import FAMILIES, save_tiny
from tests.tiny_language_models import save_language_model

Saver = Callable[..., Path]


def recipe_for(folder: Path | str, **backbone: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "recipe": "r",
            "task": "t",
            "backbone": {"name": str(folder), "dropout": 0.0, **backbone},
            "prompt": {"length": 5, "dropout": 0.0},
            "train": {"epochs": 1, "learning_rate": 0.01},
        }
    )


@pytest.fixture(scope="module")
def glm(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden weights as a backbone."""
    parity, folder = shared / "parity" / "glm", tmp_path_factory.mktemp("glm")
    manifest = json.loads((parity / "manifest.json").read_text())
    names = ("num_layers", "hidden_size", "num_attention_heads", "vocab_size", "max_sequence_length")
    ids = {"pad_token_id": manifest["special_ids"]["pad"], "eos_token_id": manifest["special_ids"]["eos"]}
    model = OriginalGlmModel(OriginalGlmConfig(**{name: manifest["config"][name] for name in names}, **ids))
    model.load_state_dict(load_file(parity / "weights.safetensors"))
    model.save_pretrained(folder)
    return folder


def with_prefix(model: PromptedModel, prefix: torch.Tensor | None) -> PromptedModel:
    """With the golden keys and values as its prompt, or none."""
    if prefix is None:
        model.prompt = None
        return model
    with torch.no_grad():
        for parameter, layer in zip(model.prompt.layers, prefix, strict=True):
            parameter.copy_(layer)
    return model


@pytest.mark.parametrize("method", ["plain", "prefix_kv"])
@pytest.mark.parametrize("name", ["single_token", "multi_token", "multi_token_eop"])
def test_glms_scores_are_the_official_ones(glm: Path, shared: Path, method: str, name: str) -> None:
    parity = shared / "parity" / "glm"
    inputs, golden = load_file(parity / "inputs.safetensors"), load_file(parity / "outputs_tanh.safetensors")
    prefix = None if method == "plain" else load_file(parity / "prefix.safetensors")["prefix_kv"]
    recipe = recipe_for(glm)
    spec = find_backbone(recipe.backbone)
    ids = inputs[f"{name}.input_ids"]
    positions, sep = inputs[f"{name}.position_ids"].flatten(0, -3), inputs[f"{name}.sep"].flatten()
    flat = ids.flatten(0, -2)
    rows = torch.arange(len(flat))
    cloze = {"position_ids": positions, "context_length": sep}
    if name == "single_token":
        words = [[[number]] for number in range(spec.config.vocab_size)]  # each row has other verbalizers
        model = with_prefix(build_model(recipe, "words", spec, len(words), words=words), prefix)
        cloze |= {"answer_places": (rows * flat.shape[1] + sep).unsqueeze(1)}
    else:
        targets, scored = inputs[f"{name}.target_ids"].flatten(0, -2), inputs[f"{name}.loss_mask"].flatten(0, -2).bool()
        model = with_prefix(build_model(recipe, "answers", spec, ids.shape[1]), prefix)
        places = rows.unsqueeze(1) * flat.shape[1] + torch.arange(flat.shape[1])
        cloze |= {"answer_places": places, "answer_ids": targets.masked_fill(~scored, -100)}
    logits = model.eval()(flat, torch.ones_like(flat), **cloze)
    if name == "single_token":
        logits = logits.gather(1, inputs["single_token.verbalizer_ids"])
    expected = golden[f"{method}.{name}_logits"]
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    loss = model.head.loss_sum(logits, inputs["labels"]) / len(inputs["labels"])
    torch.testing.assert_close(loss, golden[f"{method}.{name}_loss"], atol=1e-4, rtol=1e-4)


def test_glm_behind_vectors_has_their_positions_in_front(glm: Path) -> None:
    """A shallow prompt is part of the context: the same as words with these embeddings."""
    recipe = recipe_for(glm).model_copy(update={"method": "prompt_tuning"})
    spec = find_backbone(recipe.backbone)
    model = build_model(recipe, "words", spec, 2, words=[[[5]], [[6]]]).eval()
    words = torch.tensor([[7, 8, 9, 10, 11]])
    with torch.no_grad():
        model.prompt.start_from(model.backbone.get_input_embeddings()(words[0]))
        context, answer = torch.tensor([[122, 20, 21, 123, 119]]), torch.tensor([[120]])
        ids = torch.cat([context, answer], 1)
        positions = torch.tensor([[[0, 1, 2, 3, 4, 3], [0, 0, 0, 0, 0, 1]]])
        found = model(
            ids,
            torch.ones_like(ids),
            answer_places=torch.tensor([[5]]),
            position_ids=positions,
            context_length=torch.tensor([5]),
        )
        whole = torch.cat([words, ids], 1)
        behind = torch.tensor([[[*range(5), *(5 + number for number in (0, 1, 2, 3, 4, 3))], [*[0] * 10, 1]]])
        hidden = model.backbone(whole, position_ids=behind, context_length=torch.tensor([10])).last_hidden_state
        weight = model.backbone.get_input_embeddings().weight[[5, 6]]
    torch.testing.assert_close(found, hidden[:, -1] @ weight.T, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta-v2", "albert", "electra", "llama"])
def test_weights_without_the_head_are_refused_by_name(family: str, tmp_path: Path) -> None:
    recipe = recipe_for(save_tiny(tmp_path, family))
    with pytest.raises(ConfigError) as caught:
        require_language_head(find_backbone(recipe.backbone))
    message = str(caught.value)
    assert f"error: backbone '{tmp_path}' has no language-model head, which 'head: verbalizer' needs" in message
    assert "first '" in message
    assert "hint: take a checkpoint with its pretraining head, such as roberta-large, or set head: linear" in message


def test_the_embedded_sentence_encoder_has_none() -> None:
    recipe = recipe_for("mini")
    with pytest.raises(ConfigError, match="backbone 'mini' has no language-model head"):
        require_language_head(find_backbone(recipe.backbone))


@pytest.mark.parametrize("family", ["gpt2", "gemma"])
def test_tied_weights_need_no_decoder_of_their_own(family: str, tmp_path: Path) -> None:
    recipe = recipe_for(save_tiny(tmp_path, family))
    require_language_head(find_backbone(recipe.backbone))


@pytest.mark.parametrize("family", ["deberta", "deberta-v2"])
@pytest.mark.parametrize("tokens", [None, [5, 9]])
def test_the_published_layout_of_debertas_head(family: str, tokens: list[int] | None, tmp_path: Path) -> None:
    """Their weights call it `lm_predictions`; transformers reads that only if its configuration says so."""
    config = AutoConfig.for_model(family, **{**FAMILIES[family][1], "vocab_size": 50, "pad_token_id": 1})
    config.legacy = False
    lm = AutoModelForMaskedLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    lm.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    del settings["legacy"]
    (tmp_path / "config.json").write_text(json.dumps(settings))
    spec = find_backbone(recipe_for(tmp_path).backbone)
    assert spec.config.legacy
    backbone = build_model(recipe_for(tmp_path), "token", spec, 2).backbone
    head = language_head(spec, backbone, tokens)
    ids = torch.randint(2, 50, (1, 7))
    with torch.no_grad():
        hidden = lm.deberta(ids).last_hidden_state[0]
        expected = lm(ids).logits[0]
        found = head(hidden)
    torch.testing.assert_close(found, expected if tokens is None else expected[:, tokens], atol=1e-5, rtol=1e-5)


def test_a_decoder_that_sees_ahead_cannot_be_asked_for_several_tokens(tmp_path: Path) -> None:
    recipe = recipe_for(save_tiny(tmp_path, "original_glm"))
    check_language_model(find_backbone(recipe.backbone), several_tokens=True)  # GLM's head is its word embeddings
    other = tmp_path / "causal"
    other.mkdir()
    seeing_ahead = recipe_for(save_tiny(other, "llama"), bidirectional=True)
    spec = find_backbone(seeing_ahead.backbone)
    check_language_model(spec, several_tokens=False)
    with pytest.raises(ConfigError, match=r"backbone\.bidirectional lets a token see"):
        check_language_model(spec, several_tokens=True)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_bf16_words_are_computed_in_float32_and_vocabularies_as_stored(family: str, tmp_path: Path) -> None:
    save_language_model(tmp_path, family)
    recipe = recipe_for(tmp_path, dtype="bf16")
    spec = find_backbone(recipe.backbone)
    words = build_model(recipe, "words", spec, 2, words=[[[5]], [[9]]])
    answers = build_model(recipe, "answers", spec, 2)
    assert {parameter.dtype for parameter in words.head.parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in answers.head.parameters()} == {torch.bfloat16}
    hidden = torch.randn(3, spec.config.hidden_size)
    few = words.head.language(hidden)
    many = answers.head.language(hidden)
    assert few.dtype == many.dtype == torch.float32
    torch.testing.assert_close(few, many[:, [5, 9]], atol=0.1, rtol=0.05)


def test_a_plan_needs_no_weights(tmp_path: Path) -> None:
    save_language_model(tmp_path, "bert")
    recipe = recipe_for(tmp_path)
    spec = find_backbone(recipe.backbone)
    assert count_parameters(recipe, "answers", spec, 2).head == 0
