"""`ptv2kit convert-glm`: what it writes, what it prints, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ptv2kit.cli.convert_glm import byte_count
from ptv2kit.cli.main import main
from ptv2kit.models.glm.checkpoint import expected_shapes
from tests.models.test_glm_checkpoint import PUBLISHED, megatron, published
from tests.models.test_glm_tokenizer import tiny_vocabulary


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {name: torch.randn(shape) for name, shape in expected_shapes(PUBLISHED).items()}


@pytest.fixture
def source(tmp_path: Path, weights: dict[str, Tensor]) -> Path:
    return published(tmp_path / "glm-published", weights)


def test_a_published_folder_becomes_one_of_ours(
    source: Path, tmp_path: Path, weights: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "glm"
    assert main(["convert-glm", str(source), str(target), "--dtype", "bf16"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{target}: 33,728 parameters, bfloat16, 0.07 MB in 1 file\n"
    assert err == f"{source}: 2 layers, hidden size 32, 4 heads, vocabulary 128\n"
    assert sorted(path.name for path in target.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    found = load_file(target / "model.safetensors")
    assert all(torch.equal(found[name], tensor.bfloat16()) for name, tensor in weights.items())


def test_a_training_checkpoint_needs_heads_and_a_tokenizer(
    tmp_path: Path, weights: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = megatron(tmp_path / "checkpoint", weights, 2), tmp_path / "glm"
    words = ["convert-glm", str(source), str(target)]
    assert main(words) == 2
    assert "\n  hint: --heads N" in capsys.readouterr().err
    assert main([*words, "--heads", "4"]) == 3
    assert f"{source}: error: there is no vocab.json, which GLM's tokenizer needs" in capsys.readouterr().err
    tiny_vocabulary(tmp_path / "tokenizer")
    assert main([*words, "--heads", "4", "--tokenizer", str(tmp_path / "tokenizer"), "--shard-size", "60kb"]) == 0
    assert capsys.readouterr().out == f"{target}: 33,728 parameters, float32, 0.13 MB in 3 files\n"
    assert json.loads((target / "config.json").read_text())["num_attention_heads"] == 4


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--dtype", "int8"],
        ["--shard-size", "4"],
        ["--shard-size", "0GB"],
        ["--shard-size", "GB"],
        ["--heads", "0"],
        ["--heads", "-1"],
        ["--heads", "²"],
    ],
)
def test_wrong_usage_ends_with_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["convert-glm", "source", *(["target", *words] if words else [])])
    assert caught.value.code == 2


def test_a_target_that_is_there_is_never_touched(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "glm").write_text("mine")
    assert main(["convert-glm", str(source), str(tmp_path / "glm")]) == 2
    assert capsys.readouterr().err.splitlines()[-2:] == [
        f"error: '{tmp_path / 'glm'}' is there already",
        "  hint: name a folder that does not exist, or remove this one",
    ]
    assert (tmp_path / "glm").read_text() == "mine"


def test_bad_data_ends_with_3_and_names_file_and_key(
    source: Path, tmp_path: Path, weights: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    name = "transformer.final_layernorm.bias"
    torch.save({key: value for key, value in weights.items() if key != name}, source / "pytorch_model.bin")
    assert main(["convert-glm", str(source), str(tmp_path / "glm")]) == 3
    assert capsys.readouterr() == ("", f"{source}: error: there is no tensor '{name}'\n")
    assert not (tmp_path / "glm").exists()


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["convert-glm", "--help"])
    assert caught.value.code == 0
    assert "  ptv2kit convert-glm glm-2b-published models/glm-2b --dtype bf16\n" in capsys.readouterr().out


def test_the_page_shows_commands_that_are_understood() -> None:
    from ptv2kit.cli.main import build_parser

    page = (Path(__file__).parents[2] / "docs" / "glm.md").read_text()
    commands = [line.split("#")[0].split()[1:] for line in page.splitlines() if line.startswith("ptv2kit ")]
    assert sum(words[0] == "convert-glm" for words in commands) >= 2
    for words in commands:
        build_parser().parse_args(words)


@pytest.mark.parametrize(
    ("text", "size"), [("4GB", 4 * 10**9), ("500MB", 5 * 10**8), ("1.5 gb", 15 * 10**8), ("20kb", 20_000)]
)
def test_sizes(text: str, size: int) -> None:
    assert byte_count(text) == size
