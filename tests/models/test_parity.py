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
from ptv2kit.models.heads import Head, SequenceHead, TokenHead
from ptv2kit.models.model import PromptedModel
from ptv2kit.models.prompts import DeepPrompt

TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}
CASES = [
    "bert-sequence_classification-prefix",
    "bert-token_classification-prefix",
    "roberta-sequence_classification-prefix",
    "roberta-token_classification-prefix",
]


@pytest.fixture(scope="module")
def parity(shared: Path) -> Path:
    return shared / "parity" / "p_tuning_v2"


@pytest.fixture(scope="module")
def manifest(parity: Path) -> dict[str, Any]:
    return json.loads((parity / "manifest.json").read_text())


def test_no_case_of_this_kind_is_left_out(manifest: dict[str, Any]) -> None:
    kinds = {"sequence_classification", "token_classification"}
    found = [
        case["id"]
        for case in manifest["cases"]
        if case["method"] == "prefix"
        and case["model_type"] in {"bert", "roberta"}
        and case["task"] in kinds
        and not case["prefix_projection"]
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
    head: Head
    hidden = spec.config.hidden_size
    if case["task"] == "sequence_classification":
        head = SequenceHead(hidden, case["num_labels"], dropout=0.0, pooling="pooler")
    else:
        head = TokenHead(hidden, case["num_labels"], dropout=0.0)
    model = PromptedModel(spec, load_backbone(spec), prompt, head, shift_positions=True).eval()

    heads, head_dim = spec.layers[0].kv_heads, spec.layers[0].head_dim
    embedding = golden["param.prefix_encoder.embedding.weight"]
    per_layer = embedding.view(length, layers, 2, heads, head_dim).permute(1, 2, 3, 0, 4)
    model.load_trained_state(
        {f"prompt.layers.{index}": per_layer[index] for index in range(layers)}
        | {f"head.linear.{name}": golden[f"param.classifier.{name}"] for name in ("weight", "bias")}
    )
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == sum(
        tensor.numel() for name, tensor in golden.items() if name.startswith("param.")
    )

    output = model.encode(golden["input.input_ids"], golden["input.attention_mask"], golden.get("input.token_type_ids"))
    logits = model.head(output)
    labels = golden["input.labels"]
    if case["task"] == "token_classification":
        labels = labels.masked_fill(golden["input.attention_mask"] == 0, -100)
    loss = head.loss_sum(logits, labels) / head.target_count(labels)
    loss.backward()

    torch.testing.assert_close(output.hidden, golden["output.backbone_last_hidden_state"], **TOLERANCE)
    torch.testing.assert_close(logits, golden["output.logits"], **TOLERANCE)
    torch.testing.assert_close(loss, golden["output.loss"].squeeze(), **TOLERANCE)
    gradients = [parameter.grad for parameter in prompt.layers]
    torch.testing.assert_close(
        official_layout(prompt, gradients), golden["grad.prefix_encoder.embedding.weight"], **TOLERANCE
    )
    torch.testing.assert_close(head.linear.weight.grad, golden["grad.classifier.weight"], **TOLERANCE)
    torch.testing.assert_close(head.linear.bias.grad, golden["grad.classifier.bias"], **TOLERANCE)
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
