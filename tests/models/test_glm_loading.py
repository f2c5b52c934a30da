"""The original GLM as a backbone, straight from a folder as it is published."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import GlmConfig, GlmModel

from ptv2kit.errors import ConfigError
from ptv2kit.models.backbones import find_backbone, load_backbone
from ptv2kit.models.checkpoints import load_tokenizer
from ptv2kit.models.glm.modeling import OriginalGlmModel
from ptv2kit.spec.recipe import Backbone
from tests.models.glm_folders import PUBLISHED, expected_shapes, published

ROOT = Path(__file__).parents[2]


@pytest.fixture
def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {name: 0.1 * torch.randn(shape) for name, shape in expected_shapes(PUBLISHED).items()}


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize("prefix", ["", "glm."])
def test_a_published_folder_is_a_backbone(tmp_path: Path, weights: dict[str, Tensor], file: str, prefix: str) -> None:
    stored = {prefix + name: tensor for name, tensor in weights.items()}
    extras = {"dense.weight": torch.zeros(2, 2), "out_proj.bias": torch.zeros(2)}
    folder = published(tmp_path / "glm", {**stored, **extras}, file)
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "GLMGPT2Tokenizer", "auto_map": {"AutoTokenizer": ["tokenization_glm.X", null]}}'
    )
    spec = find_backbone(Backbone(name=str(folder)))
    assert len(spec.layers) == PUBLISHED["num_layers"]
    model = load_backbone(spec)
    assert isinstance(model, OriginalGlmModel)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items() if name in weights)
    tokenizer = load_tokenizer(spec, words=True)
    ids = tokenizer(["a", "a"], is_split_into_words=True)["input_ids"]
    assert ids[0] == tokenizer.cls_token_id
    assert ids[-1] == tokenizer.pad_token_id == tokenizer.eos_token_id


def test_weights_that_are_no_glms_are_refused_by_name(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    more = published(tmp_path / "more", {**weights, "lm_head.weight": torch.zeros(2, 2)})
    with pytest.raises(ConfigError, match=r"'lm_head.weight' among its weights is not a tensor of a GLM"):
        load_backbone(find_backbone(Backbone(name=str(more))))
    lost = "transformer.layers.1.mlp.dense_4h_to_h.bias"
    less = published(tmp_path / "less", {name: tensor for name, tensor in weights.items() if name != lost})
    with pytest.raises(ConfigError, match=f"lack 1 tensors, first '{lost}'"):
        load_backbone(find_backbone(Backbone(name=str(less))))


def test_glm_4_is_still_glm_4(tmp_path: Path) -> None:
    config = GlmConfig(
        hidden_size=32,
        intermediate_size=48,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_hidden_layers=2,
        head_dim=8,
        vocab_size=64,
        pad_token_id=0,
    )
    GlmModel(config).save_pretrained(tmp_path)
    spec = find_backbone(Backbone(name=str(tmp_path)))
    assert isinstance(load_backbone(spec), GlmModel)


LOAD = """
import sys, threading, time
from ptv2kit.spec.recipe import Backbone
from ptv2kit.models.backbones import find_backbone, load_backbone

def held():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

def watch():
    while True:
        peak[0] = max(peak[0], held())
        time.sleep(0.001)

spec = find_backbone(Backbone(name=sys.argv[1], dtype=sys.argv[2]))
before, peak = held(), [0]
threading.Thread(target=watch, daemon=True).start()
model = load_backbone(spec)
size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
print((max(peak[0], held()) - before) / size)
"""


@pytest.mark.night
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="held memory is read from Linux's /proc")
@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.safetensors"])
def test_loading_holds_the_weights_once(tmp_path: Path, file: str) -> None:
    """A peak of the memory that the process holds itself; pages of a mapped file can be dropped at any time."""
    sizes = {**PUBLISHED, "hidden_size": 1024, "num_layers": 10, "vocab_size": 50_000}
    stored = {f"glm.{name}": torch.zeros(shape, dtype=torch.half) for name, shape in expected_shapes(sizes).items()}
    folder = published(tmp_path / "glm", stored, file, **{key: sizes[key] for key in sizes if key != "model_type"})
    for dtype in ("bf16", "fp32"):
        command = [sys.executable, "-c", LOAD, str(folder), dtype]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert float(done.stdout.split()[-1]) < 1.2
