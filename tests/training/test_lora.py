"""`method: lora`: PEFT's own numbers, what is trained and kept, what is exported, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModel

from ptv2kit.cli.main import main
from ptv2kit.errors import ConfigError
from ptv2kit.models.backbones import find_backbone
from ptv2kit.models.build import build_model
from ptv2kit.models.model import PromptedModel
from ptv2kit.spec.recipe import Recipe
from ptv2kit.training.load_run import load_run
from tests.projects import Project, project, read_json
from tests.tiny_backbones import in_turn, save_tiny

__all__ = ["project"]
INPUTS = {"input_ids": torch.tensor([[2, 5, 7, 8, 3]]), "attention_mask": torch.ones(1, 5, dtype=torch.long)}


def model_of(folder: Path, **lora: Any) -> PromptedModel:
    recipe = Recipe.model_validate(
        {
            "recipe": "r",
            "task": "t",
            "backbone": {"name": str(folder), "dropout": 0.0, "attention_dropout": 0.0},
            "method": "lora",
            "lora": lora,
            "train": {"epochs": 1, "learning_rate": 0.1},
        }
    )
    torch.manual_seed(0)
    return build_model(recipe, "token", find_backbone(recipe.backbone), 3)


@pytest.mark.parametrize("family", in_turn(["bert", "roberta", "deberta-v2", "gpt2", "llama", "qwen3", "original_glm"]))
def test_only_the_matrices_and_the_head_are_trained(family: str, tmp_path: Path) -> None:
    model = model_of(save_tiny(tmp_path, family), rank=2)
    count = model.parameter_count()
    trained = model.trained_state()
    assert count.adapter == sum(each.numel() for name, each in trained.items() if ".lora_" in name) > 0
    assert count.trained == sum(each.numel() for each in trained.values())
    assert count.frozen == count.backbone
    model.eval()
    with torch.no_grad():
        before = model.encode(**INPUTS).hidden
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
        assert not torch.allclose(before, model.encode(**INPUTS).hidden)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_it_computes_what_peft_computes(backbone: Path) -> None:
    model = model_of(backbone, rank=3, alpha=5, targets=["query", "dense"]).eval()
    config = LoraConfig(r=3, lora_alpha=5, target_modules=["query", "dense"])
    theirs = get_peft_model(AutoModel.from_pretrained(backbone), config).eval()
    own = {name: each for name, each in model.backbone.named_parameters() if ".lora_" in name}
    other = {
        name.removeprefix("base_model.model."): each for name, each in theirs.named_parameters() if ".lora_" in name
    }
    assert own.keys() == other.keys()
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.normal_(std=0.3)
            other[name].copy_(parameter)
        torch.testing.assert_close(model.encode(**INPUTS).hidden, theirs(**INPUTS).last_hidden_state)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_a_run_is_kept_loaded_and_exported(project: Project, backbone: Path) -> None:
    code, out, _ = project.run("--json", "method=lora", "lora.rank=2", "train.epochs=2")
    assert code == 0
    results = json.loads(out)
    assert results["method"] == "lora"
    assert results["parameters"]["adapter"] > 0
    [run] = project.runs
    tensors = load_file(run / "prompt" / "prompt.safetensors")
    assert all(".lora_" in name or name.startswith("head.") for name in tensors)
    assert main(["export", str(run), "--to", "adapter"]) == 0
    assert "PEFT adapter (LoRA of rank 2), head in head.safetensors" in project.capsys.readouterr().out
    ours = load_run(run, device="cpu").model
    theirs = PeftModel.from_pretrained(AutoModel.from_pretrained(backbone), "adapter").eval()
    with torch.no_grad():
        torch.testing.assert_close(ours.encode(**INPUTS).hidden, theirs(**INPUTS).last_hidden_state)
    assert read_json(Path("adapter/adapter_config.json"))["target_modules"] == ["query", "value"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lora.targets=[qury]"], "lora.targets names 'qury', which no layer of the backbone is called"),
        (["lora.rank=0"], "'lora.rank' must be at least 1"),
        (["backbone.quantization=int8"], "'method' lora does not train beside quantized weights"),
    ],
)
def test_what_cannot_be_is_said(project: Project, words: list[str], message: str) -> None:
    code, _, err = project.run("method=lora", *words)
    assert code == 2
    assert message in err


def test_a_type_without_a_usual_choice_names_its_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft.utils import constants

    monkeypatch.setattr(constants, "TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING", {})
    with pytest.raises(ConfigError, match="no choice for models of type 'gpt2'"):
        model_of(save_tiny(tmp_path, "gpt2"))
