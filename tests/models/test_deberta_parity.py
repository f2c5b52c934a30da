"""Deep prompts in DeBERTa equal those of the official P-Tuning v2 classes (golden numbers in ../shared/parity)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel, PreTrainedModel

from ptv2kit.models import deberta
from ptv2kit.models.injection import Injection, LayerPrompt
from tests.models.test_parity import backbone_folder

# The manifest's own recommendation; the other parity tests allow ten times as much.
OUTPUTS = {"atol": 1e-5, "rtol": 1e-5}
GRADIENTS = {"atol": 5e-6, "rtol": 1e-5}
CASES = [
    "deberta-sequence_classification-prefix",
    "deberta-sequence_classification-prefix-mlp",
    "deberta-token_classification-prefix",
    "deberta-token_classification-prefix-mlp",
    "deberta-question_answering-prefix",
    "deberta-multiple_choice-prefix",
    "deberta-multiple_choice-prefix-mlp",
    "deberta_v2-token_classification-prefix",
    "deberta_v2-token_classification-prefix-mlp",
]
Weights = dict[str, Tensor]
"""Tensors by the names of the official state dict."""


@pytest.fixture(scope="module")
def parity(shared: Path) -> Path:
    return shared / "parity" / "p_tuning_v2"


@pytest.fixture(scope="module")
def manifest(parity: Path) -> dict[str, Any]:
    return json.loads((parity / "manifest.json").read_text())


def test_no_case_of_deberta_is_left_out(manifest: dict[str, Any]) -> None:
    assert sorted(CASES) == sorted(
        case["id"] for case in manifest["cases"] if case["model_type"] in deberta.MODEL_TYPES
    )


def load_golden_backbone(manifest: dict[str, Any], parity: Path, name: str, folder: Path) -> PreTrainedModel:
    """The golden backbone, frozen and adapted."""
    source = backbone_folder(manifest, parity, name, folder)
    model, info = AutoModel.from_pretrained(source, attn_implementation="eager", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    deberta.adapt(model)
    return model.requires_grad_(False).eval()


def leave_padding_unmasked(backbone: PreTrainedModel) -> None:
    """As the official v2 code does: embeddings of padding are not set to 0, and the convolution sees them.

    That is a mistake: a real token's output then depends on how far its batch was padded. transformers masks them, and
    so does what is built on it here. The golden numbers of v2 were made with the mistake.
    """

    def drop_mask(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        assert kwargs["mask"] is not None
        return args, {**kwargs, "mask": None}

    backbone.embeddings.register_forward_pre_hook(drop_mask, with_kwargs=True)


def prefix_table(weights: Weights) -> Tensor:
    """`[prompt_length, layers · 2 · hidden]`, through the official two-layer MLP where there is one."""
    table = weights["prefix_encoder.embedding.weight"]
    if "prefix_encoder.trans.0.weight" not in weights:
        return table
    inner = F.linear(table, weights["prefix_encoder.trans.0.weight"], weights["prefix_encoder.trans.0.bias"]).tanh()
    return F.linear(inner, weights["prefix_encoder.trans.2.weight"], weights["prefix_encoder.trans.2.bias"])


def split_table(table: Tensor, layers: int, heads: int) -> list[LayerPrompt]:
    """Per layer keys and values, each `[1, heads, prompt_length, head_dim]`; columns as the manifest says."""
    parts = table.view(len(table), layers, 2, heads, -1).permute(1, 2, 3, 0, 4)
    return [(part[0][None], part[1][None]) for part in parts]


def run_head(case: dict[str, Any], golden: Weights, weights: Weights, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and loss of the official heads, from `[rows, length, hidden]`."""
    if case["task"] == "question_answering":
        logits = F.linear(hidden, weights["qa_outputs.weight"], weights["qa_outputs.bias"])
        length = logits.shape[1]
        # The softmax runs over padding; a target behind the window is not counted.
        losses = [
            F.cross_entropy(logits[..., end], golden[f"input.{name}_positions"].clamp(0, length), ignore_index=length)
            for end, name in enumerate(("start", "end"))
        ]
        return logits, torch.stack(losses).mean()
    if case["task"] == "token_classification":
        logits = F.linear(hidden, weights["classifier.weight"], weights["classifier.bias"])
        labels = golden["input.labels"].masked_fill(golden["input.attention_mask"] == 0, -100)
        return logits, F.cross_entropy(logits.flatten(0, 1), labels.flatten())
    pooled = F.gelu(F.linear(hidden[:, 0], weights["pooler.dense.weight"], weights["pooler.dense.bias"]))
    logits = F.linear(pooled, weights["classifier.weight"], weights["classifier.bias"])
    if case["task"] == "multiple_choice":
        logits = logits.view(golden["input.input_ids"].shape[:2])
    return logits, F.cross_entropy(logits, golden["input.labels"])


def encode(backbone: PreTrainedModel, golden: Weights) -> Tensor:
    """`[rows, length, hidden]`; the choices of an example stand one after the other."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    return backbone(**{name: golden[f"input.{name}"].flatten(0, -2) for name in names}).last_hidden_state


def load_case(manifest: dict[str, Any], parity: Path, case_id: str) -> tuple[dict[str, Any], Weights, Weights]:
    """The case's entry, its tensors, and its trainable parameters as leaves."""
    case = next(case for case in manifest["cases"] if case["id"] == case_id)
    golden = load_file(parity / case["file"])
    weights = {name: golden[f"param.{name}"].clone().requires_grad_() for name in case["trainable_parameters"]}
    assert {f"param.{name}" for name in weights} == {name for name in golden if name.startswith("param.")}
    return case, golden, weights


def golden_logits(case: dict[str, Any], golden: Weights) -> Tensor:
    if case["task"] == "question_answering":
        return torch.stack([golden["output.start_logits"], golden["output.end_logits"]], dim=-1)
    return golden["output.logits"]


@pytest.mark.parametrize("case_id", CASES)
def test_equals_the_official_implementation(
    case_id: str, manifest: dict[str, Any], parity: Path, tmp_path: Path
) -> None:
    case, golden, weights = load_case(manifest, parity, case_id)
    backbone = load_golden_backbone(manifest, parity, case["backbone"], tmp_path)
    if case["backbone"] == "deberta_v2":
        leave_padding_unmasked(backbone)
    layers = deberta.find_layers(backbone.config)
    prompts = split_table(prefix_table(weights), len(layers), layers[0].kv_heads)
    torch.testing.assert_close(
        torch.stack([torch.cat(prompt) for prompt in prompts]), golden["output.prefix_key_values"], **OUTPUTS
    )
    Injection(backbone, layers).set(prompts)

    hidden = encode(backbone, golden)
    logits, loss = run_head(case, golden, weights, hidden)
    loss.backward()

    torch.testing.assert_close(hidden, golden["output.backbone_last_hidden_state"], **OUTPUTS)
    torch.testing.assert_close(logits, golden_logits(case, golden), **OUTPUTS)
    torch.testing.assert_close(loss, golden["output.loss"].squeeze(), **OUTPUTS)
    for name, weight in weights.items():
        torch.testing.assert_close(weight.grad, golden[f"grad.{name}"], **GRADIENTS)
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_v2_with_its_mask_does_not_see_padding(manifest: dict[str, Any], parity: Path, tmp_path: Path) -> None:
    """What the official v2 code gets wrong: with the convolution padding leaks into real tokens."""
    _, golden, weights = load_case(manifest, parity, "deberta_v2-token_classification-prefix")
    backbone = load_golden_backbone(manifest, parity, "deberta_v2", tmp_path)
    layers = deberta.find_layers(backbone.config)
    Injection(backbone, layers).set(split_table(prefix_table(weights), len(layers), layers[0].kv_heads))
    masks = golden["input.attention_mask"]
    padded = masks.sum(dim=1) < masks.shape[1]
    assert padded.any()

    def farthest_from_alone() -> float:
        batch = encode(backbone, golden)
        worst = 0.0
        for row, mask in enumerate(masks):
            inputs = {
                name: golden[f"input.{name}"][row : row + 1, : mask.sum()] for name in ("input_ids", "attention_mask")
            }
            alone = backbone(**inputs).last_hidden_state[0]
            worst = max(worst, (batch[row, : len(alone)] - alone).abs().max().item())
        return worst

    assert farthest_from_alone() < 1e-5
    leave_padding_unmasked(backbone)
    assert farthest_from_alone() > 0.1


def without_prompt(injection: Injection, prompts: list[LayerPrompt], patch: pytest.MonkeyPatch) -> None:
    injection.set(None)


def keys_and_values_swapped(injection: Injection, prompts: list[LayerPrompt], patch: pytest.MonkeyPatch) -> None:
    injection.set([(value, key) for key, value in prompts])


def prompt_scores_without_relative_factor(
    injection: Injection, prompts: list[LayerPrompt], patch: pytest.MonkeyPatch
) -> None:
    injection.set([(key * 3**0.5, value) for key, value in prompts])


def prompt_with_relative_bias(injection: Injection, prompts: list[LayerPrompt], patch: pytest.MonkeyPatch) -> None:
    """The bias of the first token for all columns of the prompt."""
    injection.set(prompts)
    patch.setattr(deberta.F, "pad", lambda bias, pad: torch.cat([bias[..., :1].expand(-1, -1, -1, pad[0]), bias], -1))


CONTROLS: dict[str, Callable[[Injection, list[LayerPrompt], pytest.MonkeyPatch], None]] = {
    "prefix_masked_out": without_prompt,
    "keys_and_values_swapped": keys_and_values_swapped,
    "deberta_prefix_scores_not_divided_by_relative_factor": prompt_scores_without_relative_factor,
    "deberta_relative_bias_on_prefix": prompt_with_relative_bias,
}
"""What breaks one rule on purpose, by the manifest's name of it."""
SEEN = 0.01  # a thousand times the tolerance


@pytest.mark.slow
@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("case_id", CASES)
def test_a_broken_rule_is_seen(
    case_id: str,
    control: str,
    manifest: dict[str, Any],
    parity: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case, golden, weights = load_case(manifest, parity, case_id)
    backbone = load_golden_backbone(manifest, parity, case["backbone"], tmp_path)
    if case["backbone"] == "deberta_v2":
        leave_padding_unmasked(backbone)
    layers = deberta.find_layers(backbone.config)
    prompts = split_table(prefix_table(weights), len(layers), layers[0].kv_heads)
    CONTROLS[control](Injection(backbone, layers), prompts, monkeypatch)
    logits, _ = run_head(case, golden, weights, encode(backbone, golden))
    change = (logits - golden_logits(case, golden)).abs().max().item()
    assert change > SEEN


def test_padded_queries_that_attend_move_the_loss_of_start_and_end(
    manifest: dict[str, Any], parity: Path, tmp_path: Path
) -> None:
    case, golden, weights = load_case(manifest, parity, "deberta-question_answering-prefix")
    backbone = load_golden_backbone(manifest, parity, "deberta", tmp_path)
    layers = deberta.find_layers(backbone.config)
    Injection(backbone, layers).set(split_table(prefix_table(weights), len(layers), layers[0].kv_heads))

    def let_padded_queries_attend(module: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden, mask, *rest = args
        return hidden, mask[:, None, :].expand(-1, mask.shape[1], -1), *rest

    backbone.encoder.register_forward_pre_hook(let_padded_queries_attend)
    logits, loss = run_head(case, golden, weights, encode(backbone, golden))
    change = (logits - golden_logits(case, golden)).abs().amax(dim=-1)
    real = golden["input.attention_mask"].bool()
    assert change[real].max() < 1e-5
    assert change[~real].max() > SEEN
    assert (loss - golden["output.loss"]).abs() > SEEN
