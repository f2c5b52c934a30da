"""Folders of models from strangers."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.security.command import QUICK, requires_message, run
from tests.security.generators import damaged
from tests.security.test_tensor_files import MALFORMED, TASK, Bomb


@pytest.fixture
def project(tmp_path: Path, backbone: Path, task_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe whose backbone is a folder beside it, to be spoiled."""
    shutil.copytree(backbone, tmp_path / "backbone")
    (tmp_path / "rows.jsonl").write_text((task_file.parent / "rows.jsonl").read_text())
    (tmp_path / "tiny.yaml").write_text(TASK)
    (tmp_path / "recipe.yaml").write_text(
        "recipe: tiny\ntask: tiny.yaml\nbackbone: {name: ./backbone}\nprompt: {length: 4}\n"
        "train: {epochs: 1, batch_size: 4, learning_rate: 0.05}\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_whole_folder_is_a_backbone(project: Path) -> None:
    assert run("run", "recipe.yaml", "--quiet").code == 0


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_weights(project: Path, name: str) -> None:
    (project / "backbone" / "model.safetensors").write_bytes(MALFORMED[name])
    ending = run("run", "recipe.yaml", "--quiet")
    assert ending.code in (2, 3), ending
    requires_message(ending, project / "backbone")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("bare", [True, False])
def test_pickled_weights_are_never_run(project: Path, bare: bool) -> None:
    mark = project / "code-has-run"
    (project / "backbone" / "model.safetensors").unlink()
    weights = project / "backbone" / "pytorch_model.bin"
    if bare:
        weights.write_bytes(pickle.dumps(Bomb(mark)))
    else:
        torch.save({"embeddings.word_embeddings.weight": Bomb(mark)}, weights)
    ending = run("run", "recipe.yaml", "--quiet")
    assert not mark.exists()
    assert ending.code in (2, 3), ending
    requires_message(ending, project / "backbone")


def test_code_of_a_model_is_never_run(project: Path) -> None:
    mark = project / "code-has-run"
    config = project / "backbone" / "config.json"
    facts = json.loads(config.read_text())
    facts |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Own"}}
    config.write_text(json.dumps(facts))
    (project / "backbone" / "own.py").write_text(f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n")
    ending = run("run", "recipe.yaml", "--quiet")
    assert not mark.exists()
    assert ending.code in (2, 3), ending
    requires_message(ending, project / "backbone")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "1", "", "null", '"x"', "{}", '{"model_type": 7}', "\0"])
def test_descriptions_that_are_none(project: Path, name: str, text: str) -> None:
    (project / "backbone" / name).write_text(text)
    ending = run("preview", "recipe.yaml", "--rows", "1")
    requires_message(ending, project / "backbone")


@QUICK
@given(data=st.data())
def test_damaged_configurations(project: Path, backbone: Path, data: st.DataObject) -> None:
    whole = (backbone / "config.json").read_bytes()
    (project / "backbone" / "config.json").write_bytes(data.draw(damaged(whole)))
    requires_message(run("plan", "recipe.yaml"), project / "backbone")
