"""The trained tensors on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ptv2kit.errors import ConfigError, DataError
from ptv2kit.files import write_atomically
from ptv2kit.training.prompt_file import load_prompt, prompt_files
from tests.training.tiny import prepare_with

TENSORS = {"prompt.layers.0": torch.arange(6.0).view(2, 3)}


def write(folder: Path, tensors: dict[str, Any], facts: dict[str, Any]) -> None:
    for name, content in prompt_files(tensors, facts).items():
        write_atomically(folder / name, content)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    write(tmp_path / "prompt", TENSORS, {"epoch": 3})
    tensors, facts = load_prompt(tmp_path / "prompt")
    assert torch.equal(tensors["prompt.layers.0"], TENSORS["prompt.layers.0"])
    assert facts["epoch"] == 3
    assert sorted(path.name for path in (tmp_path / "prompt").iterdir()) == ["prompt.json", "prompt.safetensors"]


def test_only_trained_tensors_are_saved(backbone: Path, task_file: Path, tmp_path: Path) -> None:
    model = prepare_with(backbone, task_file).build_model()
    write(tmp_path, model.inference_state(), {})
    saved = load_file(tmp_path / "prompt.safetensors")
    assert sorted(saved) == ["head.linear.bias", "head.linear.weight", "prompt.layers.0", "prompt.layers.1"]
    assert sum(tensor.numel() for tensor in saved.values()) == model.parameter_count().trained


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"error: there is no trained prompt"):
        load_prompt(tmp_path)


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path, TENSORS, {})
    path = tmp_path / "prompt.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="this file holds no whole tensors"):
        load_prompt(tmp_path)


def test_an_edited_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path, TENSORS, {})
    path = tmp_path / "prompt.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="the tensors do not match the checksum in the file's header"):
        load_prompt(tmp_path)


def test_another_format_is_refused(tmp_path: Path) -> None:
    write(tmp_path, TENSORS, {"format_version": 99})
    with pytest.raises(DataError, match="expected format ptv2kit-prompt 1"):
        load_prompt(tmp_path)
    save_file(TENSORS, tmp_path / "prompt.safetensors")
    with pytest.raises(DataError, match="expected format ptv2kit-prompt 1"):
        load_prompt(tmp_path)


def test_tensors_of_another_model_are_refused(backbone: Path, task_file: Path) -> None:
    model = prepare_with(backbone, task_file).build_model()
    state = model.trained_state()
    with pytest.raises(ConfigError, match=r"'prompt\.layers\.0' has shape \(1, 2\)\. Expected \(2, 4, 4, 8\)"):
        model.load_trained_state({**state, "prompt.layers.0": torch.zeros(1, 2)})
    state.pop("head.linear.bias")
    with pytest.raises(ConfigError, match=r"'head\.linear\.bias' is in only one of them"):
        model.load_trained_state(state)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
