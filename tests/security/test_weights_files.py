"""Files that are not the weights that their names promise: what they are is said, and torch's advice is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.security.command import run
from tests.security.test_backbones import project

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2\nsize 17\n"


__all__ = ["project"]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("pointer in place of safetensors", "model.safetensors' is a Git LFS pointer, not the weights themselves"),
        ("pointer in place of bin", "pytorch_model.bin' is a Git LFS pointer, not the weights themselves"),
        ("truncated bin", "pytorch_model.bin' is cut off"),
        ("truncated safetensors", "model.safetensors' is cut off"),
        ("empty bin", "pytorch_model.bin' is empty"),
    ],
)
def test_what_the_file_is_is_said(project: Path, kind: str, message: str) -> None:
    weights = project / "backbone" / "model.safetensors"
    old = weights.with_name("pytorch_model.bin")
    torch.save(load_file(weights), old)
    whole = {True: old.read_bytes(), False: weights.read_bytes()}
    if "bin" in kind:
        weights.unlink()
        old.write_bytes({"pointer": POINTER.encode(), "truncated": whole[True][:2000], "empty": b""}[kind.split()[0]])
    else:
        old.unlink()
        weights.write_bytes({"pointer": POINTER.encode(), "truncated": whole[False][:6]}[kind.split()[0]])
    ending = run("run", "recipe.yaml", "--quiet")
    assert ending.code == 2, ending
    assert message in ending.err
    assert "weights_only" not in ending.err


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    "words", [("run", "recipe.yaml"), ("run", "recipe.yaml", "--dry-run"), ("plan", "recipe.yaml")]
)
def test_code_is_neither_run_nor_asked_about(
    project: Path, file: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: object) -> str:
        raise AssertionError("asked on standard input")

    monkeypatch.setattr("builtins.input", asked)
    path = project / "backbone" / file
    facts = json.loads(path.read_text())
    classes = {"AutoConfig": "own.Own", "AutoModel": "own.Own", "AutoTokenizer": ["own.Own", None]}
    facts |= {"auto_map": classes} | ({"model_type": "own"} if file == "config.json" else {"tokenizer_class": "Own"})
    path.write_text(json.dumps(facts))
    (project / "backbone" / "own.py").write_text("import pathlib\npathlib.Path('EXECUTED').touch()\n")
    ending = run(*words)
    assert not Path("EXECUTED").exists()
    if file == "config.json":
        assert ending.code == 2, ending
        assert "needs code of its own, which is not supported" in ending.err
