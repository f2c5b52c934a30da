"""Prompts, checkpoints and adapters from strangers: damaged, forged, or pickles in disguise."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from ptv2kit.errors import DataError
from ptv2kit.exchange.foreign import read_foreign
from ptv2kit.training.checkpoint import Checkpoints
from ptv2kit.training.prompt_file import digest, load_prompt
from tests.security.command import DEEP, QUICK, requires_message, run
from tests.security.generators import damaged

TASK = """task: tiny
data: {source: jsonl, splits: {train: rows.jsonl, validation: rows.jsonl}}
input: {words: words, max_length: 16}
labels: {scheme: iob2, column: tags, names: [LOC, PER]}
"""


class Bomb:
    """A pickle that leaves a file behind where it is loaded."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self._path,)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, backbone: Path, task_file: Path) -> Path:
    """A run that was stopped after its last checkpoint."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "rows.jsonl").write_text((task_file.parent / "rows.jsonl").read_text())
    (folder / "tiny.yaml").write_text(TASK)
    (folder / "recipe.yaml").write_text(
        f"recipe: tiny\ntask: tiny.yaml\nbackbone: {{name: {backbone}}}\nprompt: {{length: 4}}\n"
        "train: {epochs: 2, batch_size: 4, learning_rate: 0.05, checkpoint_steps: 2, keep_checkpoints: 2}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ending = run("run", "recipe.yaml", "--quiet")
    assert ending.code == 0, ending
    [found] = (folder / "runs").glob("*/*")
    return found


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """The run, to be spoiled."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def header_of(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        return load_file(path), dict(file.metadata())


def answers(run_folder: Path, file: Path) -> None:
    """`predict` on the run ends with an answer, or with a message that names the run or its file."""
    rows = run_folder.parent / "sentences.jsonl"
    rows.write_text('{"words": ["ada", "met"]}\n')
    ending = run("predict", str(run_folder), str(rows), "--device", "cpu")
    requires_message(ending, file if file.name in ending.err else run_folder)


def test_the_whole_run_answers(copy: Path) -> None:
    rows = copy.parent / "sentences.jsonl"
    rows.write_text('{"words": ["ada", "met"]}\n')
    assert run("predict", str(copy), str(rows)).code == 0


def error_of(call: Callable[[], object]) -> DataError | None:
    """What was refused; any other error goes on."""
    try:
        call()
    except DataError as error:
        return error
    return None


def check_damaged_prompt(trained: Path, folder: Path, data: st.DataObject) -> None:
    whole = (trained / "prompt" / "prompt.safetensors").read_bytes()
    (folder / "prompt.safetensors").write_bytes(data.draw(damaged(whole[:600])) + whole[600:])
    refused = error_of(lambda: load_prompt(folder))
    assert refused is None or "prompt.safetensors" in str(refused)


@QUICK
@given(data=st.data())
def test_a_damaged_prompt_is_named(trained: Path, tmp_path: Path, data: st.DataObject) -> None:
    check_damaged_prompt(trained, tmp_path, data)


@pytest.mark.night
@DEEP
@given(data=st.data())
def test_many_damaged_prompts(trained: Path, tmp_path: Path, data: st.DataObject) -> None:
    check_damaged_prompt(trained, tmp_path, data)


_json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@pytest.mark.slow
@QUICK
@given(key=st.sampled_from(["task", "names", "backbone", "method", "format", "prompt_length"]), value=_json_value)
def test_forged_facts(trained: Path, tmp_path: Path, key: str, value: object) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained, folder, dirs_exist_ok=True)
    path = folder / "prompt" / "prompt.safetensors"
    tensors, header = header_of(path)
    facts = json.loads(header["ptv2kit-prompt"])
    path.write_bytes(save(tensors, {"ptv2kit-prompt": json.dumps({**facts, key: value})}))
    answers(folder, path)


@pytest.mark.parametrize("header", ["[]", "1", "{", "[" * 100_000, '"x"', "NaN"])
def test_headers_that_are_no_facts(copy: Path, header: str) -> None:
    path = copy / "prompt" / "prompt.safetensors"
    path.write_bytes(save(load_file(path), {"ptv2kit-prompt": header}))
    answers(copy, path)
    with pytest.raises(DataError, match=r"prompt\.safetensors"):
        load_prompt(path.parent)


def safetensors_of(header: dict[str, Any], body: bytes = b"\0" * 64) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


MALFORMED = {
    "nothing": b"",
    "a header of sixteen exabytes": struct.pack("<Q", 2**64 - 1) + b"{}",
    "a header of a gigabyte": struct.pack("<Q", 2**30) + b"{}",
    "a deep header": struct.pack("<Q", 200_000) + b"[" * 200_000,
    "overlapping offsets": safetensors_of(
        {
            "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
            "b": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]},
        }
    ),
    "offsets behind the end": safetensors_of({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 1600]}}),
    "offsets backwards": safetensors_of({"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}}),
    "a shape of more than there is": safetensors_of({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 64]}}),
    "a shape that overflows": safetensors_of({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 64]}}),
    "an unknown type": safetensors_of({"a": {"dtype": "X9", "shape": [16], "data_offsets": [0, 64]}}),
    "bfloat16": save({"a": torch.zeros(4, dtype=torch.bfloat16)}),
    "eight bits": save({"a": torch.zeros(4, dtype=torch.float8_e4m3fn)}),
    "a pickle": pickle.dumps({"a": 1}),
    "a zip file": b"PK\x03\x04" + b"\0" * 100,
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_safetensors(copy: Path, name: str) -> None:
    prompt = copy / "prompt" / "prompt.safetensors"
    prompt.write_bytes(MALFORMED[name])
    answers(copy, prompt)
    with pytest.raises(DataError, match=r"prompt\.safetensors"):
        load_prompt(prompt.parent)
    for path in (copy / "checkpoints").glob("*.safetensors"):
        path.write_bytes(MALFORMED[name])
    with pytest.raises(DataError, match="no checkpoint of this run is whole"):
        Checkpoints(copy / "checkpoints", keep=1).latest()


def test_pickles_in_disguise_are_never_run(copy: Path, tmp_path: Path) -> None:
    mark = tmp_path / "code-has-run"
    bomb = pickle.dumps(Bomb(mark))
    prompt = copy / "prompt" / "prompt.safetensors"
    prompt.write_bytes(bomb)
    answers(copy, prompt)
    for name in ("adapter_model.bin", "pytorch_model.bin", "model.safetensors"):
        path = tmp_path / name
        path.write_bytes(bomb)
        with pytest.raises(DataError, match=name):
            read_foreign(path)
        torch.save({"prompt_embeddings": Bomb(mark)}, path)
        with pytest.raises(DataError, match=name):
            read_foreign(path)
    assert not mark.exists()
    pickle.loads(bomb)
    assert mark.exists()


def check_damaged_pickle(folder: Path, data: st.DataObject) -> None:
    path = folder / "pytorch_model.bin"
    legacy = data.draw(st.booleans())
    torch.save({"prefix_encoder.embedding.weight": torch.zeros(2, 8)}, path, _use_new_zipfile_serialization=not legacy)
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    refused = error_of(lambda: read_foreign(path))
    assert refused is None or "pytorch_model.bin" in str(refused)


@QUICK
@given(data=st.data())
def test_a_damaged_pickle_is_named(tmp_path: Path, data: st.DataObject) -> None:
    check_damaged_pickle(tmp_path, data)


@pytest.mark.night
@DEEP
@given(data=st.data())
def test_many_damaged_pickles(tmp_path: Path, data: st.DataObject) -> None:
    check_damaged_pickle(tmp_path, data)


ADAPTERS: dict[str, dict[str, Any]] = {
    "matrices that do not fit": {
        "prefix_encoder.embedding.weight": torch.zeros(2, 8),
        "prefix_encoder.trans.0.weight": torch.zeros(3, 7),
        "prefix_encoder.trans.0.bias": torch.zeros(3),
        "prefix_encoder.trans.2.weight": torch.zeros(8, 3),
        "prefix_encoder.trans.2.bias": torch.zeros(8),
    },
    "sparse": {"prefix_encoder.embedding.weight": torch.zeros(2, 8).to_sparse()},
    "complex": {"prefix_encoder.embedding.weight": torch.zeros(2, 8, dtype=torch.complex64)},
    "on no device": {"prefix_encoder.embedding.weight": torch.zeros(2, 8, device="meta")},
    "no tensor": {"prefix_encoder.embedding.weight": "x"},
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters_that_cannot_be(tmp_path: Path, name: str) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save(ADAPTERS[name], path)
    with pytest.raises(DataError, match=r"pytorch_model\.bin"):
        read_foreign(path)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "", "\ud7ff", '{"peft_type": []}', '{"peft_type": 1}'])
def test_adapter_configurations_that_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(save({"prompt_embeddings": torch.zeros(2, 8)}))
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(DataError, match=r"adapter_config\.json"):
        read_foreign(tmp_path)


def forged_checkpoint(path: Path, change: Callable[[dict[str, Any], dict[str, Tensor]], None]) -> None:
    tensors, header = header_of(path)
    description = json.loads(header["ptv2kit-checkpoint"])
    change(description, tensors)
    text = json.dumps(description)
    path.write_bytes(save(tensors, {"ptv2kit-checkpoint": text, "sha256": digest(tensors, text)}))


FORGERIES: dict[str, Callable[[dict[str, Any], dict[str, Tensor]], Any]] = {
    "no progress": lambda description, tensors: description.pop("progress"),
    "a step in words": lambda description, tensors: description["progress"].update(step="many"),
    "no scores": lambda description, tensors: description["progress"]["best"][0].update(scores=7),
    "generators of nothing": lambda description, tensors: description.update(generators=[1]),
    "generators in words": lambda description, tensors: description["generators"][0].update(python=["a", "b", "c"]),
    "no generator": lambda description, tensors: tensors.pop("generators/0/0"),
    "a device in words": lambda description, tensors: tensors.update({"generators/0/x": torch.zeros(1)}),
    "a tensor of another shape": lambda description, tensors: tensors.update(
        {"trained/prompt.layers.0": torch.zeros(1)}
    ),
    "a tensor too much": lambda description, tensors: tensors.update({"trained/x": torch.zeros(1)}),
    "nothing extra": lambda description, tensors: description.update(extra=[]),
    "no request": lambda description, tensors: description.update(extra={}),
    "lines in words": lambda description, tensors: description["extra"].update(lines="x"),
    "losses in words": lambda description, tensors: description["extra"].update(losses="x"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_checkpoints_are_refused(copy: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy.parent)
    (copy / "results.json").unlink()
    for path in (copy / "checkpoints").glob("*.safetensors"):
        forged_checkpoint(path, FORGERIES[name])
    ending = run("run", str(copy), "--resume", "--quiet")
    assert ending.code in (1, 2, 3), ending
    assert "Traceback" not in ending.err
    assert "internal error" not in ending.err, ending


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "1", "", '{"status": {}}'])
def test_results_that_are_none(copy: Path, text: str) -> None:
    (copy / "results.json").write_text(text)
    for words in (("ls", "runs", str(copy)), ("run", str(copy), "--resume", "--quiet", "--dry-run")):
        ending = run(*words)
        assert "Traceback" not in ending.err
        assert "internal error" not in ending.err, ending
