"""`train.compile`: the same numbers, few compilations, and refusals by name."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend  # counts what is compiled

from ptv2kit.cli.main import main
from ptv2kit.errors import ConfigError
from ptv2kit.models.backbones import find_backbone
from ptv2kit.models.build import build_model, check_model
from ptv2kit.models.model import PromptedModel
from ptv2kit.spec.recipe import Recipe
from ptv2kit.training import compilation
from ptv2kit.training.compilation import compile_backbone, require_compiler
from tests.tiny_backbones import save_tiny
from tests.training.test_trunk_cache import ROWS, prepared_for

CPU = torch.device("cpu")
SETTINGS: dict[str, dict[str, Any]] = {
    "deep": {},
    "kept layers": {"prompt": {"layers": "2-3"}},
    "a network": {"prompt": {"reparameterization": "mlp"}},
    "shallow": {"method": "prompt_tuning"},
}


def recipe_of(folder: Path, method: str = "p_tuning_v2", **settings: dict[str, Any]) -> Recipe:
    return Recipe.model_validate(
        {
            "recipe": "r",
            "task": "t",
            "method": method,
            "backbone": {"name": str(folder), "dropout": 0.0, "attention_dropout": 0.0, **settings.get("backbone", {})},
            "prompt": {"length": 5, "init_scale": 1.0, "dropout": 0.0, **settings.get("prompt", {})},
            "train": {"epochs": 1, "learning_rate": 0.1, **settings.get("train", {})},
        }
    )


def build(recipe: Recipe) -> PromptedModel:
    spec = find_backbone(recipe.backbone)
    check_model(recipe, spec, max_length=9)
    torch.manual_seed(1)
    model = build_model(recipe, "token", spec, 3)
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.normal_(std=0.3)
    return model.eval()


def batches() -> list[dict[str, Tensor]]:
    """Nine batches of two to five rows with two to twenty tokens."""
    generator = random.Random(1)
    found: list[dict[str, Tensor]] = []
    for rows in (4, 4, 3, 4, 4, 2, 4, 4, 5):
        lengths = [generator.randint(2, 20) for _ in range(rows)]
        mask = torch.tensor([[1] * length + [0] * (max(lengths) - length) for length in lengths])
        ids = torch.randint(5, 12, mask.shape, generator=torch.Generator().manual_seed(3))
        found.append({"input_ids": ids * mask + (1 - mask), "attention_mask": mask})
    return found


@pytest.mark.night
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch asks for it itself
@pytest.mark.parametrize(
    ("family", "setting"),
    [
        ("bert", "deep"),
        ("bert", "kept layers"),
        ("gpt2", "shallow"),
        ("llama", "a network"),
        ("original_glm", "deep"),
    ],
)
def test_few_passes_are_compiled_and_give_the_same(tmp_path: Path, family: str, setting: str) -> None:
    torch._dynamo.reset()  # pyright: ignore[reportPrivateUsage] - torch has no public one
    settings = {"method": "p_tuning_v2", **SETTINGS[setting]}
    model = build(recipe_of(save_tiny(tmp_path, family), **{**settings}))
    cached = setting == "kept layers"
    if cached:
        assert model.trunk is not None
        model.trunk.install()
        model(**batches()[0])

    def run() -> list[Tensor]:
        outputs: list[Tensor] = []
        model.train()
        for batch in batches():
            states = {"trunk_states": model.trunk_output(**batch)} if cached else {}
            torch.manual_seed(0)
            model.zero_grad()
            logits = model(**batch, **states)
            logits.square().sum().backward()
            gradients = [own.grad.clone() for own in model.parameters() if own.requires_grad and own.grad is not None]
            outputs += [logits.detach(), *gradients]
        model.eval()
        with torch.inference_mode(), model.prompt_made_once():
            return outputs + [model(**batch) for batch in batches()]

    expected = run()
    names = [name for name, _ in model.named_parameters()]
    counter = CompileCounterWithBackend("aot_eager")
    compile_backbone(model, backend=counter)  # pyright: ignore[reportArgumentType] - a backend may be a function too
    for found, plain in zip(run(), expected, strict=True):
        torch.testing.assert_close(found, plain, atol=float(plain.abs().max()) * 1e-4, rtol=0)
    assert 0 < counter.frame_count <= 10, "of 27 passes"
    assert [name for name, _ in model.named_parameters()] == names


@pytest.mark.night
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # of torch's own modules
def test_a_run_is_compiled_by_inductor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(
        "TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled")
    )  # none that another process left half-written
    folder = save_tiny(tmp_path, "bert")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "t.yaml").write_text(
        "task: t\ndata: {source: jsonl, splits: {train: rows.jsonl, validation: rows.jsonl}}\n"
        "input: {text: '{text}', max_length: 16}\nlabels: {scheme: classes, column: label, names: ['false', 'true']}\n"
    )
    (tmp_path / "r.yaml").write_text(
        f"recipe: r\ntask: t.yaml\nbackbone: {{name: {folder}, dropout: 0.0, attention_dropout: 0.0}}\n"
        "prompt: {length: 4}\ntrain: {epochs: 2, batch_size: 3, learning_rate: 0.05}\n"
    )
    scores: list[Any] = []
    for value in ("false", "true"):
        assert main(["run", "r.yaml", "--quiet", "--runs-dir", value, f"train.compile={value}"]) == 0
        [results] = Path(value).rglob("results.json")
        scores.append(json.loads(results.read_text())["metrics"])
    assert scores[0] == scores[1]


def test_without_a_compiler_it_is_refused_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(compilation.shutil, "which", lambda _: None)
    with pytest.raises(ConfigError, match=r"needs a C\+\+ compiler; c\+\+, g\+\+, clang\+\+, cl is not on the PATH"):
        require_compiler(CPU)
    folder = save_tiny(tmp_path, "bert")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    with pytest.raises(ConfigError, match=r"needs a C\+\+ compiler"):
        prepared_for(folder, compile=True)
    monkeypatch.setattr(compilation.shutil, "which", lambda name: name)
    require_compiler(CPU)
    monkeypatch.setattr(compilation.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="needs Triton on a GPU"):
        require_compiler(torch.device("cuda"))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (["train.gradient_checkpointing=true"], "'train.gradient_checkpointing' is true"),
        (["method=fine_tuning"], "'method' fine_tuning trains the backbone"),
        (["backbone.quantization=int8"], "'backbone.quantization' is int8"),
        (["distributed.strategy=zero3"], "'distributed.strategy' is zero3"),
    ],
)
def test_what_changes_passes_is_refused(settings: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "recipes/quickstart.yaml", "--dry-run", "train.compile=true", *settings]) == 2
    error = capsys.readouterr().err
    assert "'train.compile' is true, but " in error
    assert reason in error
