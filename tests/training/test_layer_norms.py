"""`train.layer_norm_learning_rate`: what is trained beside a prompt, at which rate, what is kept, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ptv2kit.cli.main import main
from ptv2kit.models.backbones import find_backbone
from ptv2kit.models.build import build_model
from ptv2kit.models.model import PromptedModel
from ptv2kit.spec.recipe import Recipe
from ptv2kit.training.load_run import load_run
from ptv2kit.training.optimization import build_optimizer
from tests.projects import Project, project, read_json
from tests.tiny_backbones import in_turn, save_tiny

__all__ = ["project"]
RATE = "train.layer_norm_learning_rate=0.01"


def model_of(folder: Path, method: str = "p_tuning_v2", **train: Any) -> tuple[Recipe, PromptedModel]:
    recipe = Recipe.model_validate(
        {
            "recipe": "r",
            "task": "t",
            "backbone": {"name": str(folder)},
            "method": method,
            "prompt": {"length": 3},
            "train": {"epochs": 1, "learning_rate": 0.1, "layer_norm_learning_rate": 0.01, **train},
        }
    )
    return recipe, build_model(recipe, "token", find_backbone(recipe.backbone), 3)


@pytest.mark.parametrize("family", in_turn(["bert", "roberta", "deberta-v2", "gpt2", "llama", "qwen3", "original_glm"]))
def test_prompt_head_and_layer_norms_are_trained(family: str, tmp_path: Path) -> None:
    _, model = model_of(save_tiny(tmp_path, family))
    trained = model.trained_state()
    norms = {name: each for name, each in trained.items() if name.startswith("backbone.")}
    assert norms.keys() == {
        name
        for name, each in model.named_parameters()
        # What these families call them; each has a gain, and most have a shift, and all are vectors.
        if name.startswith("backbone.") and each.dim() == 1 and ("norm" in name.lower() or ".ln_" in name)
    }
    count = model.parameter_count()
    assert count.norms == sum(each.numel() for each in norms.values()) > 0
    assert count.trained == sum(each.numel() for each in trained.values())
    assert (count.frozen, count.tuned) == (count.backbone - count.norms, False)
    assert f"LayerNorms {count.norms:,} + head" in count.text


@pytest.mark.parametrize("method", ["p_tuning_v2", "prompt_tuning"])
def test_each_part_has_its_rate(method: str, backbone: Path) -> None:
    recipe, model = model_of(backbone, method, head_learning_rate=0.02)
    named = {("heads.t." if name.startswith("head.") else "") + name: each for name, each in model.named_parameters()}
    optimizer = build_optimizer({name: each for name, each in named.items() if each.requires_grad}, recipe.train)
    rates = {id(each): group["lr"] for group in optimizer.param_groups for each in group["params"]}
    wanted = {"backbone": 0.01, "prompt": 0.1, "heads": 0.02}
    assert rates == {id(each): wanted[name.split(".")[0]] for name, each in named.items() if each.requires_grad}


def test_they_are_kept_and_loaded(project: Project) -> None:
    code, _, err = project.run("--json", RATE)
    assert code == 0, err
    [run] = project.runs
    results = read_json(run / "results.json")
    tensors = load_file(run / "prompt" / "prompt.safetensors")
    norms = {name: each for name, each in tensors.items() if name.startswith("backbone.")}
    assert results["parameters"]["layer_norms"] == sum(each.numel() for each in norms.values()) > 0
    model = load_run(run, device="cpu").model
    for name, parameter in model.named_parameters():
        if name in norms:
            assert torch.equal(parameter, norms[name])
            assert not torch.equal(parameter, torch.full_like(parameter, float("weight" in name))), "it has moved"
    assert main(["evaluate", str(run), "--json"]) == 0
    assert str(results["metrics"]["validation"]["span_f1"])[:8] in project.capsys.readouterr().out
    assert main(["export", str(run), "--to", "adapter"]) == 2
    assert "its prompt belongs to LayerNorms that were trained with it" in project.capsys.readouterr().err


def test_a_run_starts_from_prompt_and_layer_norms(project: Project) -> None:
    assert project.run(RATE)[0] == 0
    [first] = project.runs
    code, _, err = project.run(f"init_from={first}", RATE, "train.learning_rate=1e-9", "train.epochs=1")
    assert code == 0, err
    second = next(run for run in project.runs if run != first)
    before, after = (load_file(run / "prompt" / "prompt.safetensors") for run in (first, second))
    assert before.keys() == after.keys()
    torch.testing.assert_close(before["prompt.layers.0"], after["prompt.layers.0"])
    code, _, err = project.run(f"init_from={first}")
    assert code == 2
    assert f"init_from: the run '{first}' trained the LayerNorms of the backbone" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method=linear_probe"], "goes with a prompt, which 'method' linear_probe has none of"),
        (["method=fine_tuning"], "goes with a prompt, which 'method' fine_tuning has none of"),
        (["backbone.dtype=bf16"], "'backbone.dtype' is bf16, but 'train.layer_norm_learning_rate' trains weights"),
        (["prompt.layers=2-2", "train.cache_trunk=memory"], "but the lower layers' LayerNorms are trained"),
        (["train.compile=true"], "LayerNorms are trained, and what is compiled is a frozen backbone"),
    ],
)
def test_what_cannot_be_is_said(project: Project, words: list[str], message: str) -> None:
    code, _, err = project.run(RATE, *words)
    assert code == 2
    assert message in err
