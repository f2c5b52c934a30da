"""Logits, loss and gradients equal those of the official P-Tuning v2 classes (golden numbers in ../shared/parity)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, PreTrainedModel

from ptv2kit.models.backbones import BackboneSpec, find_backbone, load_backbone
from ptv2kit.models.families import Family
from ptv2kit.models.heads import ChoicesHead, Head, Pooling, SequenceHead, StartEndHead, TokenHead
from ptv2kit.models.model import PromptedModel
from ptv2kit.models.prompts import DeepPrompt, EmbeddingPrompt, NetworkPrompt, ShallowPrompt
from ptv2kit.spec.recipe import Backbone
from tests.conftest import SHARED

TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}


def cases_of(method: str) -> list[str]:
    """All cases of a method that there are; none where the golden numbers are not."""
    manifest = SHARED / "parity" / "p_tuning_v2" / "manifest.json"
    if not manifest.exists():
        return ["absent"]
    return [case["id"] for case in json.loads(manifest.read_text())["cases"] if case["method"] == method]


PREFIX_CASES = cases_of("prefix")
PROMPT_CASES = cases_of("prompt")


@pytest.fixture(scope="module")
def parity(shared: Path) -> Path:
    return shared / "parity" / "p_tuning_v2"


@pytest.fixture(scope="module")
def manifest(parity: Path) -> dict[str, Any]:
    return json.loads((parity / "manifest.json").read_text())


def backbone_folder(manifest: dict[str, Any], parity: Path, name: str, folder: Path) -> Path:
    """The tiny golden backbone as a folder that `from_pretrained` reads."""
    entry = manifest["backbones"][name]
    settings = dict(entry["config"])
    AutoConfig.for_model(settings.pop("model_type"), **settings).save_pretrained(folder)
    save_file(load_file(parity / entry["weights_file"]), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def build_prompt(case: dict[str, Any], spec: BackboneSpec) -> DeepPrompt:
    length, hidden = case["pre_seq_len"], spec.config.hidden_size
    if case["prefix_projection"]:
        width = case["prefix_hidden_size"]
        return NetworkPrompt(spec.layers, length, dropout=0.0, init_scale=0.02, width=hidden, hidden=width)
    return EmbeddingPrompt(spec.layers, length, dropout=0.0, init_scale=0.02)


def ours(
    case: dict[str, Any], golden: dict[str, torch.Tensor], kind: str, spec: BackboneSpec
) -> dict[str, torch.Tensor]:
    """The official prompt's parameters (`param`) or their gradients (`grad`) under the names of ours.

    The embedding `[length, layers·2·heads·head_dim]` becomes `[2, heads, length, head_dim]` for each layer; the columns
    of the network's output have the same order in both.
    """
    embedding = golden[f"{kind}.prefix_encoder.embedding.weight"]
    if case["prefix_projection"]:
        network = [f"{layer}.{name}" for layer in (0, 2) for name in ("weight", "bias")]
        return {"embedding": embedding} | {
            f"mlp.{name}": golden[f"{kind}.prefix_encoder.trans.{name}"] for name in network
        }
    heads, head_dim = spec.layers[0].kv_heads, spec.layers[0].head_dim
    per_layer = embedding.view(case["pre_seq_len"], len(spec.layers), 2, heads, head_dim).permute(1, 2, 3, 0, 4)
    return {f"layers.{index}": layer for index, layer in enumerate(per_layer)}


def build_head(case: dict[str, Any], golden: dict[str, torch.Tensor], hidden: int) -> tuple[Head, dict[str, str]]:
    """The head of a case, and what the official class calls its layers."""
    pooling = Pooling("first", "gelu") if case["model_type"] == "deberta" else Pooling("pooler")
    pooler = {"dense": "pooler.dense"} if pooling.dense else {}
    match case["task"]:
        case "sequence_classification":
            return SequenceHead(hidden, case["num_labels"], 0.0, pooling), {"linear": "classifier", **pooler}
        case "multiple_choice":
            choices = golden["input.input_ids"].shape[1]
            names = {"linear": "classifier", **pooler}
            head = ChoicesHead(hidden, choices, 0.0, pooling)
            return head, {f"sequence.{own}": theirs for own, theirs in names.items()}
        case "question_answering":
            return StartEndHead(hidden), {"linear": "qa_outputs"}
        case _:
            return TokenHead(hidden, case["num_labels"], dropout=0.0), {"linear": "classifier"}


def golden_labels(case: dict[str, Any], golden: dict[str, torch.Tensor]) -> torch.Tensor:
    """Targets as our heads take them: what the official classes leave out of the loss is ignored."""
    if case["task"] == "question_answering":
        labels = torch.stack([golden["input.start_positions"], golden["input.end_positions"]], 1)
        return labels.masked_fill(labels >= case["seq_len"], -100)
    if case["task"] == "token_classification":
        return golden["input.labels"].masked_fill(golden["input.attention_mask"] == 0, -100)
    return golden["input.labels"]


def golden_logits(case: dict[str, Any], golden: dict[str, torch.Tensor]) -> torch.Tensor:
    if case["task"] == "question_answering":
        return torch.stack([golden["output.start_logits"], golden["output.end_logits"]], -1)
    return golden["output.logits"]


def assert_head_gradients_equal(
    case: dict[str, Any], golden: dict[str, torch.Tensor], head: Head, names: dict[str, str]
) -> None:
    for ours, theirs in names.items():
        for name, parameter in head.get_submodule(ours).named_parameters():
            torch.testing.assert_close(parameter.grad, golden[f"grad.{theirs}.{name}"], **TOLERANCE)


@pytest.mark.parametrize("case_id", PREFIX_CASES)
def test_a_deep_prompt_equals_the_official_implementation(
    case_id: str, manifest: dict[str, Any], parity: Path, tmp_path: Path
) -> None:
    case = next(case for case in manifest["cases"] if case["id"] == case_id)
    golden = load_file(parity / case["file"])
    folder = backbone_folder(manifest, parity, case["backbone"], tmp_path)
    spec = find_backbone(Backbone(name=str(folder)))
    prompt = build_prompt(case, spec)
    head, names = build_head(case, golden, spec.config.hidden_size)
    shift = spec.family.shifts
    assert shift is (case["model_type"] in ("bert", "roberta"))
    model = PromptedModel(spec, load_backbone(spec), prompt, head, shift_positions=shift).eval()
    if case["model_type"] == "deberta-v2":
        show_padding_to_the_convolution(model.backbone)
    model.load_trained_state(
        {f"prompt.{name}": tensor for name, tensor in ours(case, golden, "param", spec).items()}
        | {
            f"head.{own}.{name}": golden[f"param.{theirs}.{name}"]
            for own, theirs in names.items()
            for name in ("weight", "bias")
        }
    )
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == sum(
        tensor.numel() for name, tensor in golden.items() if name.startswith("param.")
    )
    stacked = torch.stack(prompt.keys_and_values())
    torch.testing.assert_close(stacked, golden["output.prefix_key_values"], **TOLERANCE)

    inputs = [golden.get(f"input.{name}") for name in ("input_ids", "attention_mask", "token_type_ids")]
    # choices stand one after the other: [batch, choices, length] → [batch · choices, length]
    output = model.encode(*(None if tensor is None else tensor.flatten(0, -2) for tensor in inputs))
    logits = model.head(output)
    labels = golden_labels(case, golden)
    loss = head.loss_sum(logits, labels) / head.target_count(labels)
    loss.backward()

    torch.testing.assert_close(output.hidden, golden["output.backbone_last_hidden_state"], **TOLERANCE)
    torch.testing.assert_close(logits, golden_logits(case, golden), **TOLERANCE)
    torch.testing.assert_close(loss, golden["output.loss"].squeeze(), **TOLERANCE)
    for name, gradient in ours(case, golden, "grad", spec).items():
        torch.testing.assert_close(prompt.get_parameter(name).grad, gradient, **TOLERANCE)
    assert_head_gradients_equal(case, golden, head, names)
    assert all(parameter.grad is None for parameter in model.backbone.parameters())


def show_padding_to_the_convolution(backbone: PreTrainedModel) -> None:
    """The official DeBERTa-v2 does not blank embeddings at padding, so that it leaks into real tokens through the
    convolution; transformers does, and so do we. Here it is undone, to compare all the rest."""

    def without_mask(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        assert kwargs["mask"] is not None
        return args, {**kwargs, "mask": None}

    backbone.embeddings.register_forward_pre_hook(without_mask, with_kwargs=True)


class OfficialEmbeddings(torch.nn.Module):
    """The official code's word embeddings behind a shallow prompt: tokens go through the whole embedding block, and all
    of it through the block again. That is a mistake of the code which we do not have; here it is put in for comparison.
    """

    def __init__(self, block: torch.nn.Module, segments: torch.Tensor | None) -> None:
        super().__init__()
        self.block = block
        self.segments = segments

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.block(input_ids=input_ids, token_type_ids=self.segments)


@pytest.mark.parametrize("case_id", PROMPT_CASES)
def test_a_shallow_prompt_equals_the_official_implementation(
    case_id: str, manifest: dict[str, Any], parity: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = next(case for case in manifest["cases"] if case["id"] == case_id)
    golden = load_file(parity / case["file"])
    folder = backbone_folder(manifest, parity, case["backbone"], tmp_path)
    spec = find_backbone(Backbone(name=str(folder)))
    backbone, hidden = load_backbone(spec), spec.config.hidden_size
    prompt = ShallowPrompt(case["pre_seq_len"], hidden, dropout=0.0, init_scale=0.02)
    head, names = build_head(case, golden, hidden)
    model = PromptedModel(spec, backbone, prompt, head, shift_positions=True).eval()
    ids, mask, segments = (
        None if tensor is None else tensor.flatten(0, -2)
        for tensor in (golden.get(f"input.{name}") for name in ("input_ids", "attention_mask", "token_type_ids"))
    )
    twice = OfficialEmbeddings(backbone.embeddings, segments)
    monkeypatch.setattr(type(backbone), "get_input_embeddings", lambda self: twice)
    if case["task"] == "multiple_choice":
        # Another mistake that we do not have: it pools the first vector of the prompt, not the first token.
        monkeypatch.setattr(Family, "pool", lambda self, backbone, hidden: backbone.pooler(complete[-1]))
    complete: list[torch.Tensor] = []
    backbone.register_forward_hook(lambda module, args, output: complete.append(output.last_hidden_state))
    model.load_trained_state(
        {"prompt.vectors.embedding.weight": golden["param.prefix_encoder.weight"]}
        | {
            f"head.{own}.{name}": golden[f"param.{theirs}.{name}"]
            for own, theirs in names.items()
            for name in ("weight", "bias")
        }
    )
    logits = model(ids, mask)
    labels = golden_labels(case, golden)
    loss = head.loss_sum(logits, labels) / head.target_count(labels)
    loss.backward()
    torch.testing.assert_close(complete[0], golden["output.backbone_last_hidden_state"], **TOLERANCE)
    torch.testing.assert_close(logits, golden["output.logits"], **TOLERANCE)
    torch.testing.assert_close(loss, golden["output.loss"].squeeze(), **TOLERANCE)
    torch.testing.assert_close(prompt.vectors.embedding.weight.grad, golden["grad.prefix_encoder.weight"], **TOLERANCE)
    assert_head_gradients_equal(case, golden, head, names)
