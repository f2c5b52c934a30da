"""What the conversion of the original GLM writes, what it refuses, and how little memory it needs."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer

from ptv2kit.errors import ConfigError, DataError
from ptv2kit.models.glm.checkpoint import StoredTensor, expected_shapes, find_checkpoint
from ptv2kit.models.glm.convert import convert
from ptv2kit.models.glm.modeling import OriginalGlmModel
from tests.models.test_glm_checkpoint import NORM, PUBLISHED, converted, published, read, same, split
from tests.models.test_glm_tokenizer import tiny_vocabulary


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {name: torch.randn(shape) for name, shape in expected_shapes(PUBLISHED).items()}


@pytest.mark.parametrize("layout", ["hub", "two ranks"])
def test_a_converted_model_gives_the_golden_hidden_states(tmp_path: Path, shared: Path, layout: str) -> None:
    golden, source = shared / "parity" / "glm", tmp_path / "source"
    tiny_vocabulary(tmp_path / "tokenizer")
    if layout == "hub":
        published(source, load_file(golden / "weights.safetensors"), num_layers=4)
    else:
        source.mkdir()
        for rank in (0, 1):
            part = load_file(golden / f"weights_mp2_rank{rank:02}.safetensors")
            torch.save({"module": part}, source / f"mp_rank_{rank:02}_model_states.pt")
    converted(source, heads=4, tokenizer=tmp_path / "tokenizer")

    model, info = OriginalGlmModel.from_pretrained(tmp_path / "converted", output_loading_info=True)
    assert not any(info.values()), info
    inputs = load_file(golden / "inputs.safetensors")
    with torch.no_grad():
        found = model.eval()(
            input_ids=inputs["cls.input_ids"],
            position_ids=inputs["cls.position_ids"],
            context_length=inputs["cls.sep"],
        ).last_hidden_state
    expected = load_file(golden / "outputs_tanh.safetensors")["plain.cls_last_hidden"]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_an_odd_setting_is_refused_before_anything_is_written(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    source = published(tmp_path / "source", weights, attention_dropout_prob="much")
    with pytest.raises(DataError, match=r"its configuration is malformed: .*attention_dropout_prob"):
        converted(source)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_what_is_written(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    source = published(tmp_path / "source", weights)
    told: list[tuple[int, int]] = []
    made = convert(
        find_checkpoint(source),
        tmp_path / "new" / "glm",
        tokenizer=source,
        shard_size=20_000,
        on_bytes=lambda done, total: told.append((done, total)),
    )
    folder = tmp_path / "new" / "glm"
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(made.files)
    assert len(made.files) > 3
    for file in made.files:
        with safe_open(folder / file, framework="pt") as shard:
            assert shard.metadata() == {"format": "pt"}
            assert all(index["weight_map"][name] == file for name in shard.keys())  # noqa: SIM118
            assert len(list(shard.keys())) == 1 or (folder / file).stat().st_size < 22_000
    assert same(read(folder), weights)
    assert made.parameters == sum(tensor.numel() for tensor in weights.values())
    assert made.size == index["metadata"]["total_size"] == 4 * made.parameters
    assert told[-1] == (made.size, made.size)
    assert [done for done, _ in told] == sorted({done for done, _ in told})

    config = json.loads((folder / "config.json").read_text())
    assert (config["model_type"], config["dtype"]) == ("original_glm", "float32")
    assert (config["pad_token_id"], config["eos_token_id"]) == (119, 119)  # the published one says 0
    assert "auto_map" not in config
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["glm"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer("a").input_ids == [122, tokenizer.convert_tokens_to_ids("a"), 119]


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_weights_can_be_cast(tmp_path: Path, weights: dict[str, Tensor], precision: str, dtype: torch.dtype) -> None:
    found = converted(published(tmp_path / "source", weights), precision=precision)
    assert same(found, {name: tensor.to(dtype) for name, tensor in weights.items()})
    config = json.loads((tmp_path / "converted" / "config.json").read_text())
    assert config["dtype"] == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.safetensors"])
def test_types_are_kept_even_where_they_differ(tmp_path: Path, file: str) -> None:
    torch.manual_seed(0)
    # Odd sizes: behind half-precision tensors of odd length, wider ones would start in the middle of a value.
    odd = {"hidden_size": 3, "num_attention_heads": 1, "vocab_size": 129}
    mixed = {
        name: torch.randn(shape).to(torch.float32 if "layernorm" in name else torch.float16)
        for name, shape in expected_shapes({**PUBLISHED, **odd}).items()
    }
    found = converted(published(tmp_path / "source", mixed, file, **odd))
    assert same(found, mixed)
    assert found[NORM].dtype == torch.float32
    content = (tmp_path / "converted" / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    for name, entry in json.loads(content[8 : 8 + length]).items():
        if name != "__metadata__":
            assert (8 + length + entry["data_offsets"][0]) % found[name].itemsize == 0, name


def test_a_weight_too_large_for_fp16_is_named(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    source = published(tmp_path / "source", {**weights, NORM: torch.full((32,), 70000.0)})
    with pytest.raises(DataError, match=f"'{NORM}' holds 70000, which fp16 cannot"):
        converted(source, precision="fp16")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_the_target_must_be_new_and_the_tokenizer_must_fit(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    source = published(tmp_path / "source", weights)
    checkpoint = find_checkpoint(source)
    (tmp_path / "there").mkdir()
    with pytest.raises(ConfigError, match="is there already"):
        convert(checkpoint, tmp_path / "there", tokenizer=source)
    tiny_vocabulary(tmp_path / "large", 120)
    with pytest.raises(ConfigError, match="the tokenizer has 129 tokens, but the embeddings only 128"):
        convert(checkpoint, tmp_path / "new", tokenizer=tmp_path / "large")
    (source / "added_tokens.json").write_text('{"[MASK]": 124}')
    with pytest.raises(DataError, match="has the id 124"):
        convert(checkpoint, tmp_path / "new", tokenizer=source)
    assert not (tmp_path / "new").exists()


def test_a_full_disk_is_found_before_anything_is_written(
    tmp_path: Path, weights: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = find_checkpoint(published(tmp_path / "source", weights))
    usage = argparse.Namespace(free=5_000_000)
    monkeypatch.setattr("ptv2kit.models.glm.convert.shutil.disk_usage", lambda path: usage)
    with pytest.raises(DataError, match=r"it needs 0\.01 GB, but only 0\.01 GB are free"):
        convert(checkpoint, tmp_path / "new", tokenizer=tmp_path / "source")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("fault", [KeyboardInterrupt, OSError])
def test_an_interrupted_conversion_leaves_nothing(
    tmp_path: Path, weights: dict[str, Tensor], fault: type[BaseException]
) -> None:
    checkpoint = find_checkpoint(published(tmp_path / "source", weights))
    calls: list[int] = []

    def stop(done: int, total: int) -> None:
        calls.append(done)
        if len(calls) == 5:
            raise fault("stopped")

    with pytest.raises(DataError if fault is OSError else fault, match="stopped"):
        convert(checkpoint, tmp_path / "new", tokenizer=tmp_path / "source", on_bytes=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_one_tensor_at_a_time_is_held(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    checkpoint = find_checkpoint(published(tmp_path / "source", weights))
    living: list[weakref.ref[Tensor]] = []
    most = 0

    def watched(stored: StoredTensor) -> StoredTensor:
        def read() -> Tensor:
            nonlocal most
            tensor = stored.read() * 1
            living.append(weakref.ref(tensor))
            most = max(most, sum(reference() is not None for reference in living))
            return tensor

        return StoredTensor(stored.file, stored.shape, stored.dtype, read)

    def opened() -> dict[str, StoredTensor]:
        return {name: watched(stored) for name, stored in checkpoint.open().items()}

    watching = type(checkpoint)(checkpoint.folder, checkpoint.config, opened)
    convert(watching, tmp_path / "new", tokenizer=tmp_path / "source", precision="bf16")
    assert len(living) == len(weights)
    assert most <= 2  # the one being read, and the one just written


# VmHWM is the peak of this program alone; getrusage's also counts what the process had before it became this program.
MEASURED = """
import sys
from pathlib import Path
from ptv2kit.models.glm.checkpoint import find_checkpoint
from ptv2kit.models.glm.convert import convert
source, target, tokenizer, precision = sys.argv[1:]
def peak():
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024
before = peak()
made = convert(find_checkpoint(Path(source)), Path(target), tokenizer=Path(tokenizer), precision=precision,
               shard_size=50_000_000)
print(before, peak())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from Linux's /proc")
@pytest.mark.parametrize(("ranks", "precision"), [(1, "keep"), (1, "bf16"), (2, "keep")])
def test_memory_stays_far_below_the_models_size(tmp_path: Path, ranks: int, precision: str) -> None:
    sizes = {"num_layers": 12, "hidden_size": 768, "vocab_size": 25000, "max_sequence_length": 512}
    shapes = expected_shapes(sizes)
    source = tmp_path / "source"
    source.mkdir()
    total = 0
    for rank in range(ranks):
        part = {name: split(name, torch.zeros(shape), rank, ranks) for name, shape in shapes.items()}
        total += sum(tensor.nbytes for tensor in part.values())
        torch.save({"module": part}, source / f"mp_rank_{rank:02}_model_states.pt")
        del part
    assert total > 400_000_000
    tiny_vocabulary(tmp_path / "tokenizer")
    command = [
        sys.executable,
        "-c",
        MEASURED,
        str(source),
        str(tmp_path / "new"),
        str(tmp_path / "tokenizer"),
        precision,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    before, peak = map(int, done.stdout.split())
    print(f"ranks {ranks}, {precision}: {total / 1e6:.0f} MB read, peak {before / 1e6:.0f} → {peak / 1e6:.0f} MB")
    # A shard of 50 MB, the largest tensor (77 MB) as read and once more as joined or cast, and the tokenizer.
    assert peak - before < 0.5 * total
    assert peak < 1.25 * total
