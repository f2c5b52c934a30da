"""Logits, loss and gradients equal those of the official P-Tuning v2 classes (golden numbers in ../shared/parity)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from ptv2kit.config.recipe import Backbone
from ptv2kit.models.backbones import find_backbone, load_backbone
from ptv2kit.models.heads import ChoicesHead, Head, SequenceHead, StartEndHead, TokenHead
from ptv2kit.models.model import PromptedModel
from ptv2kit.models.prompts import DeepPrompt

TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}
CASES = [
    "bert-sequence_classification-prefix",
    "bert-token_classification-prefix",
    "bert-multiple_choice-prefix",
    "bert-question_answering-prefix",
    "roberta-sequence_classification-prefix",
    "roberta-token_classification-prefix",
    "roberta-multiple_choice-prefix",
    "roberta-question_answering-prefix",
]
HEADS = {
    "sequence_classification": "classifier",
    "token_classification": "classifier",
    "multiple_choice": "classifier",
    "question_answering": "qa_outputs",
}
"""What the official classes call the last linear layer."""


@pytest.fixture(scope="module")
def parity(shared: Path) -> Path:
    return shared / "parity" / "p_tuning_v2"


@pytest.fixture(scope="module")
def manifest(parity: Path) -> dict[str, Any]:
    return json.loads((parity / "manifest.json").read_text())


def test_no_case_of_this_kind_is_left_out(manifest: dict[str, Any]) -> None:
    found = [
        case["id"]
        for case in manifest["cases"]
        if case["method"] == "prefix" and case["model_type"] in {"bert", "roberta"} and not case["prefix_projection"]
    ]
    assert sorted(found) == sorted(CASES)


def backbone_folder(manifest: dict[str, Any], parity: Path, name: str, folder: Path) -> Path:
    """The tiny golden backbone as a folder that `from_pretrained` reads."""
    entry = manifest["backbones"][name]
    settings = dict(entry["config"])
    AutoConfig.for_model(settings.pop("model_type"), **settings).save_pretrained(folder)
    save_file(load_file(parity / entry["weights_file"]), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def official_layout(prompt: DeepPrompt, tensors: list[torch.Tensor]) -> torch.Tensor:
    """Per-layer `[2, heads, length, head_dim]` as the official `[length, 2·layers·hidden]`."""
    return torch.stack(tensors).permute(3, 0, 1, 2, 4).reshape(prompt.length, -1)


def build_head(case: dict[str, Any], golden: dict[str, torch.Tensor], hidden: int) -> tuple[Head, str]:
    """The head of a case, and the name of its linear layer."""
    match case["task"]:
        case "sequence_classification":
            return SequenceHead(hidden, case["num_labels"], dropout=0.0, pooling="pooler"), "linear"
        case "multiple_choice":
            choices = golden["input.input_ids"].shape[1]
            return ChoicesHead(hidden, choices, dropout=0.0, pooling="pooler"), "sequence.linear"
        case "question_answering":
            return StartEndHead(hidden), "linear"
        case _:
            return TokenHead(hidden, case["num_labels"], dropout=0.0), "linear"


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


@pytest.mark.parametrize("case_id", CASES)
def test_equals_the_official_implementation(
    case_id: str, manifest: dict[str, Any], parity: Path, tmp_path: Path
) -> None:
    case = next(case for case in manifest["cases"] if case["id"] == case_id)
    golden = load_file(parity / case["file"])
    folder = backbone_folder(manifest, parity, case["backbone"], tmp_path)
    spec = find_backbone(Backbone(name=str(folder)))
    layers, length = len(spec.layers), case["pre_seq_len"]
    prompt = DeepPrompt(spec.layers, length, dropout=0.0, init_scale=0.02)
    head, linear = build_head(case, golden, spec.config.hidden_size)
    model = PromptedModel(spec, load_backbone(spec), prompt, head, shift_positions=True).eval()

    heads, head_dim = spec.layers[0].kv_heads, spec.layers[0].head_dim
    embedding = golden["param.prefix_encoder.embedding.weight"]
    per_layer = embedding.view(length, layers, 2, heads, head_dim).permute(1, 2, 3, 0, 4)
    model.load_trained_state(
        {f"prompt.layers.{index}": per_layer[index] for index in range(layers)}
        | {f"head.{linear}.{name}": golden[f"param.{HEADS[case['task']]}.{name}"] for name in ("weight", "bias")}
    )
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == sum(
        tensor.numel() for name, tensor in golden.items() if name.startswith("param.")
    )

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
    gradients = [parameter.grad for parameter in prompt.layers]
    torch.testing.assert_close(
        official_layout(prompt, gradients), golden["grad.prefix_encoder.embedding.weight"], **TOLERANCE
    )
    for name, parameter in head.get_submodule(linear).named_parameters():
        torch.testing.assert_close(parameter.grad, golden[f"grad.{HEADS[case['task']]}.{name}"], **TOLERANCE)
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
