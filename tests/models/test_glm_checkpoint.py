"""Published weights of the original GLM: every layout is read to the bit, everything odd is refused by name."""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ptv2kit.errors import ConfigError, DataError
from ptv2kit.models.glm.checkpoint import expected_shapes, find_checkpoint, published_config
from ptv2kit.models.glm.convert import convert
from tests.models.test_glm_tokenizer import tiny_vocabulary

# As in the config.json of THUDM/glm-2b, made small.
PUBLISHED: dict[str, Any] = {
    "architectures": ["GLMModel"],
    "attention_dropout_prob": 0.1,
    "attention_scale": 1.0,
    "auto_map": {"AutoConfig": "configuration_glm.GLMConfig", "AutoModel": "modeling_glm.GLMModel"},
    "block_position_encoding": True,
    "checkpoint_activations": False,
    "embedding_dropout_prob": 0.1,
    "hidden_size": 32,
    "initializer_range": 0.02,
    "max_sequence_length": 64,
    "model_type": "glm",
    "num_attention_heads": 4,
    "num_layers": 2,
    "output_dropout_prob": 0.1,
    "pad_token_id": 0,
    "pool_token": "cls",
    "relative_encoding": False,
    "spell_func": "lstm",
    "spell_length": None,
    "vocab_size": 128,
}
QKV = "transformer.layers.1.attention.query_key_value.weight"
NORM = "transformer.layers.0.input_layernorm.weight"


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {name: torch.randn(shape) for name, shape in expected_shapes(PUBLISHED).items()}


def published(folder: Path, weights: dict[str, Any], file: str = "pytorch_model.bin", **settings: Any) -> Path:
    """A folder as on the hub."""
    folder.mkdir()
    tiny_vocabulary(folder)
    (folder / "config.json").write_text(json.dumps({**PUBLISHED, **settings}))
    if file.endswith(".bin"):
        torch.save(weights, folder / file)
    else:
        save_file(weights, folder / file)
    return folder


def split(name: str, tensor: Tensor, rank: int, ranks: int) -> Tensor:
    """The part of a tensor that a model-parallel rank has."""
    if "query_key_value" in name:
        return torch.cat([third.chunk(ranks)[rank] for third in tensor.chunk(3)])
    if name == "word_embeddings.weight" or "h_to_4h" in name:
        return tensor.chunk(ranks)[rank].clone()
    if name.endswith("weight") and ("attention.dense" in name or "4h_to_h" in name):
        return tensor.chunk(ranks, dim=1)[rank].clone()
    return tensor.clone()


def megatron(
    folder: Path, weights: dict[str, Tensor], ranks: int, tracker: str = "latest_checkpointed_iteration.txt"
) -> Path:
    """A checkpoint as the official training code writes it."""
    (folder / "250000").mkdir(parents=True)
    (folder / tracker).write_text("250000\n")
    for rank in range(ranks):
        state = {
            "iteration": 250000,
            "module": {name: split(name, tensor, rank, ranks) for name, tensor in weights.items()},
            "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
            "lr_scheduler": {"start_lr": 1e-4, "decay_style": "linear"},
            "args": argparse.Namespace(num_layers=2, fp16=True),
            "random_rng_state": random.getstate(),
            "np_rng_state": np.random.RandomState(1).get_state(),
            "torch_rng_state": torch.get_rng_state(),
            "mp_world_size": ranks,
        }
        torch.save(state, folder / "250000" / f"mp_rank_{rank:02}_model_states.pt")
    return folder


def read(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for path in folder.glob("*.safetensors"):
        found |= load_file(path)
    return found


def converted(source: Path, **options: Any) -> dict[str, Tensor]:
    heads = options.pop("heads", None)
    options.setdefault("tokenizer", source)
    convert(find_checkpoint(source, heads), source.parent / "converted", **options)
    return read(source.parent / "converted")


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize("head", [False, True])
def test_a_folder_of_the_hub(tmp_path: Path, weights: dict[str, Tensor], file: str, head: bool) -> None:
    stored = weights
    if head:  # as in THUDM/glm-2b, whose file is that of the classification class
        stored = {f"glm.{name}": tensor for name, tensor in weights.items()}
        stored |= {f"{name}.{kind}": torch.zeros(2) for name in ("dense", "out_proj") for kind in ("weight", "bias")}
    assert same(converted(published(tmp_path / "source", stored, file)), weights)


@pytest.mark.parametrize("kind", ["pytorch_model-{}.bin", "model-{}.safetensors"])
def test_shards_of_the_hub(tmp_path: Path, weights: dict[str, Tensor], kind: str) -> None:
    names = list(weights)
    source = published(tmp_path / "source", {name: weights[name] for name in names[::2]}, kind.format(1))
    rest = {name: weights[name] for name in names[1::2]}
    if kind.endswith("bin"):
        torch.save(rest, source / kind.format(2))
    else:
        save_file(rest, source / kind.format(2))
    place = {name: kind.format(1 + number % 2) for number, name in enumerate(names)}
    index = source / ("pytorch_model.bin.index.json" if kind.endswith("bin") else "model.safetensors.index.json")
    index.write_text(json.dumps({"metadata": {}, "weight_map": place}))
    assert same(converted(source), weights)

    for changed, message in [
        ({**place, names[0]: kind.format(2)}, rf"'{names[0]}' is in it, but not by"),
        ({**place, "more": kind.format(1)}, "'more' should be in it by"),
        ({**place, names[0]: "../other.bin"}, r"expected files beside it, got '\.\./other\.bin'"),
        ({**place, names[0]: "no.bin"}, r"it names 'no\.bin', which is not there"),
        ({}, "expected 'weight_map'"),
    ]:
        index.write_text(json.dumps({"weight_map": changed}))
        with pytest.raises(DataError, match=message):
            find_checkpoint(source)


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("tracker", ["latest_checkpointed_iteration.txt", "latest"])
def test_checkpoints_of_the_training_code(tmp_path: Path, weights: dict[str, Tensor], ranks: int, tracker: str) -> None:
    source = megatron(tmp_path / "source", weights, ranks, tracker)
    tiny_vocabulary(tmp_path / "tokenizer")
    checkpoint = find_checkpoint(source, heads=4)
    assert checkpoint.config == {
        "num_layers": 2,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "vocab_size": 128,
        "max_sequence_length": 64,
    }
    assert same(converted(source, heads=4, tokenizer=tmp_path / "tokenizer"), weights)
    (source / "config.json").write_text('{"hidden_size": 32, "fp16": true}')  # the arguments of a training
    assert find_checkpoint(source, heads=4).config == checkpoint.config
    assert find_checkpoint(source / "250000", heads=4).config == checkpoint.config


def test_numpys_random_state_is_read_under_its_old_name_too(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    source = megatron(tmp_path / "source", weights, 1)
    path = source / "250000" / "mp_rank_00_model_states.pt"
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    (pickled,) = [name for name in entries if name.endswith("/data.pkl")]
    renamed = re.sub(rb"numpy\.(_core|core)\.multiarray", b"numpy.core.multiarray", entries[pickled])
    assert b"numpy.core.multiarray\n_reconstruct" in renamed
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**entries, pickled: renamed}.items():
            archive.writestr(name, content)
    assert find_checkpoint(source, 4).config["num_layers"] == 2


def test_parameters_and_views_are_weights_like_any(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    stored: dict[str, Any] = {name: torch.nn.Parameter(tensor) for name, tensor in weights.items()}
    stored[QKV] = torch.cat([torch.zeros(1, 32), weights[QKV]])[1:]
    stored["word_embeddings.weight"] = weights["word_embeddings.weight"].t().contiguous().t()
    assert same(converted(published(tmp_path / "source", stored)), weights)


def test_golden_ranks_join_to_the_golden_weights(tmp_path: Path, shared: Path) -> None:
    golden = shared / "parity" / "glm"
    source = tmp_path / "source"
    source.mkdir()
    for rank in (0, 1):
        part = load_file(golden / f"weights_mp2_rank{rank:02}.safetensors")
        torch.save({"module": part}, source / f"mp_rank_{rank:02}_model_states.pt")
    tiny_vocabulary(tmp_path / "tokenizer")
    found = converted(source, heads=4, tokenizer=tmp_path / "tokenizer")
    assert same(found, load_file(golden / "weights.safetensors"))


WRONG: list[tuple[str, Callable[[dict[str, Any]], object], str]] = [
    ("missing", lambda found: found.pop(QKV), f"there is no tensor '{QKV}'"),
    ("unexpected", lambda found: found.update(extra=torch.zeros(1)), "the tensor 'extra' belongs to no GLM"),
    ("third layer", lambda found: found.update({QKV.replace("1", "2"): found[QKV]}), "layers.2.* belongs to no GLM"),
    ("shape", lambda found: found.update({NORM: torch.zeros(31)}), rf"'{NORM}' is \[31\] of float32, expected \[32\]"),
    ("type", lambda found: found.update({NORM: torch.zeros(32, dtype=torch.int64)}), rf"'{NORM}' is \[32\] of int64"),
    ("twice", lambda found: found.update({f"glm.{NORM}": found[NORM]}), f"'{NORM}' is in it twice"),
    ("prefixed head", lambda found: found.update({"glm.dense.bias": torch.zeros(1)}), "'dense.bias' belongs to no GLM"),
    ("no tensor", lambda found: found.update(step=3), "'step' is a int"),
]


@pytest.mark.parametrize(("change", "message"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_tensors_that_do_not_fit_are_named(
    tmp_path: Path, weights: dict[str, Tensor], change: Callable[[dict[str, Any]], object], message: str
) -> None:
    stored: dict[str, Any] = dict(weights)
    change(stored)
    source = published(tmp_path / "source", stored)
    with pytest.raises(DataError, match=message) as caught:
        find_checkpoint(source)
    assert str(source) in str(caught.value)


def test_many_problems_are_counted(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    source = published(tmp_path / "source", {"a": torch.zeros(1)})
    with pytest.raises(DataError, match=f"and {len(weights) - 8} more like it") as caught:
        find_checkpoint(source)
    assert len(caught.value.problems) == 10


class Evil:
    """An object whose unpickling runs a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch was-run",)


@pytest.mark.parametrize("layout", ["hub", "megatron"])
def test_code_in_a_pickle_is_not_run(
    tmp_path: Path, weights: dict[str, Tensor], layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    allowed = set(torch.serialization.get_safe_globals())
    if layout == "hub":
        source = published(tmp_path / "source", {**weights, "extra": Evil()})
    else:
        source = megatron(tmp_path / "source", weights, 1)
        content = {"module": weights, "optimizer": Evil()}
        torch.save(content, source / "250000" / "mp_rank_00_model_states.pt")
    with pytest.raises(DataError, match=r"objects whose code would have to run: \w+\.system"):
        find_checkpoint(source, 4)
    assert not (tmp_path / "was-run").exists()
    assert set(torch.serialization.get_safe_globals()) == allowed


def test_files_that_are_not_whole_are_refused(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    source = published(tmp_path / "source", weights)
    file = source / "pytorch_model.bin"
    content = file.read_bytes()
    file.write_bytes(content[:-200])
    with pytest.raises(DataError, match=r"pytorch_model\.bin: error: it is cut off"):
        find_checkpoint(source)
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    with pytest.raises(DataError, match="Git LFS pointer"):
        find_checkpoint(source)
    torch.save([1], file)
    with pytest.raises(DataError, match="expected a dictionary, got list"):
        find_checkpoint(source)
    file.unlink()
    with pytest.raises(DataError, match="there are no weights"):
        find_checkpoint(source)
    save_file(weights, source / "model.safetensors")
    whole = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").write_bytes(whole[:-8])
    with pytest.raises(DataError, match=r"model\.safetensors: error: it cannot be read"):
        find_checkpoint(source)


def test_faults_of_a_training_checkpoint(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    source = megatron(tmp_path / "source", weights, 4)
    tracker, state = source / "latest_checkpointed_iteration.txt", source / "250000"
    with pytest.raises(ConfigError, match=r"2 layers and hidden size 32 is none of the published ones"):
        find_checkpoint(source)
    with pytest.raises(ConfigError, match="5 heads do not divide the hidden size 32"):
        find_checkpoint(source, 5)
    for text, message in [
        ("../250000", "expected the name of a folder"),
        ("", "expected the name"),
        ("..", "expected the name"),
        ("7", "'7', which is not"),
    ]:
        tracker.write_text(text)
        with pytest.raises(DataError, match=message):
            find_checkpoint(source, 4)
    tracker.write_text("250000")

    third = state / "mp_rank_02_model_states.pt"
    content = torch.load(third, weights_only=False)
    for change, message in [
        ({**content, "module": {NORM: content["module"][NORM]}}, "is not on all model-parallel ranks"),
        ({**content, "module": {**content["module"], NORM: torch.zeros(7)}}, r"is \[7\] of float32, but \[32\]"),
        ({**content, "module": None}, "expected tensors by name, got none"),
        ({"model": content["module"]}, "there is no 'module' in it"),
    ]:
        torch.save(change, third)
        with pytest.raises(DataError, match=message):
            find_checkpoint(source, 4)
    torch.save({**content, "module": {**content["module"], NORM: torch.zeros(32)}}, third)
    tiny_vocabulary(tmp_path / "tokenizer")
    with pytest.raises(DataError, match=f"'{NORM}' should be the same on all model-parallel ranks, but 0 and 2 differ"):
        converted(source, heads=4, tokenizer=tmp_path / "tokenizer")
    third.unlink()
    with pytest.raises(DataError, match="up to model-parallel rank 3, but none of rank 2"):
        find_checkpoint(source, 4)


def test_only_the_original_glm_is_taken(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    source = published(tmp_path / "source", weights)
    described = source / "config.json"
    with pytest.raises(ConfigError, match="--heads is 8, but 'num_attention_heads' is 4"):
        find_checkpoint(source, 8)
    glm4 = {"model_type": "glm", "num_hidden_layers": 40, "hidden_size": 4096, "vocab_size": 151552}
    for settings, error, message in [
        (glm4, ConfigError, "this is GLM-4, not the original GLM"),
        ({"model_type": "bert"}, ConfigError, "its model type is 'bert'"),
        ({"model_type": "original_glm"}, ConfigError, "a converted GLM already"),
        ({**PUBLISHED, "num_layers": "2"}, DataError, r"config\.json: error: 'num_layers' should be a positive"),
        ({**PUBLISHED, "relative_encoding": True}, DataError, "relative positions"),
        ({**PUBLISHED, "block_position_encoding": False}, DataError, "without block positions"),
        ([], DataError, "expected one JSON object"),
    ]:
        described.write_text(json.dumps(settings))
        with pytest.raises(error, match=message):
            find_checkpoint(source)
    described.unlink()
    with pytest.raises(ConfigError, match="holds no GLM"):
        find_checkpoint(source)
    with pytest.raises(ConfigError, match="does not exist"):
        find_checkpoint(tmp_path / "nowhere")


def test_published_settings() -> None:
    found = published_config(PUBLISHED)
    assert found is not None
    assert found["num_layers"] == 2
    assert found["attention_scale"] == 1.0
    assert not {"model_type", "pad_token_id", "auto_map", "pool_token"} & found.keys()
    assert published_config({"model_type": "glm", "num_hidden_layers": 40}) is None
    assert published_config({"model_type": "bert", "block_position_encoding": True}) is None
