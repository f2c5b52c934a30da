"""Frozen backbones in 8 or 4 bits.

transformers has bitsandbytes round each weight while it is read, so that a model is never in memory unrounded.
Codes and scales are then taken over by a layer of our own, `QuantizedLinear`. The library's layers would not do: on
CPUs with AVX512-BF16 those of 4 bits cannot be differentiated any more after an evaluation; those of 8 bits round
activations too (on a CPU only in evaluation), warn at every call, and keep activations that gradient checkpointing
should free.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Generator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.utils.import_utils import is_accelerate_available, is_bitsandbytes_available

from ptv2kit.errors import ConfigError
from ptv2kit.models.injection import auto_class
from ptv2kit.models.sharding import parameter_count

Quantization = Literal["int8", "nf4"]
"""`int8`: one scale for each output; `nf4`: normal float of 4 bits, one scale for each 64 weights
(Dettmers et al. 2023, https://arxiv.org/abs/2305.14314). Activations are never rounded."""

BITSANDBYTES = "0.50"
"""The oldest release that was tried."""
_BLOCK = 64
_HINT = "pip install 'ptv2kit[quantization]'"


@final
class QuantizedLinear(nn.Module):
    """A linear layer that is only read: its rounded weights are widened for each multiplication, and never kept wide.

    Args:
        codes: `int8`: `[out_features, in_features]` int8; `nf4`: two weights in each uint8, in the order of the rows.
        scales: fp32; `int8`: `[out_features]`, the largest value of a row; `nf4`: `[blocks]`, the largest of a block.
        bias: `[out_features]` or None.
        shape: `(out_features, in_features)`.
    """

    def __init__(
        self, codes: Tensor, scales: Tensor, bias: Tensor | None, shape: tuple[int, int], dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.codes: Tensor
        self.scales: Tensor
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self.out_features, self.in_features = shape
        self.dtype = dtype

    @property
    def weight(self) -> Tensor:
        """The widened weights `[out_features, in_features]`, made anew at each call; some models read them directly."""
        if self.codes.dtype == torch.int8:
            return self.codes.float().mul_((self.scales / 127).unsqueeze(1)).to(self.dtype)
        functional = bitsandbytes().functional
        shape = torch.Size((self.out_features, self.in_features))
        state = functional.QuantState(self.scales, shape, blocksize=_BLOCK, quant_type="nf4", dtype=self.dtype)
        return functional.dequantize_4bit(self.codes, state)

    def forward(self, inputs: Tensor) -> Tensor:
        """`[..., in_features]` → `[..., out_features]`; differentiable in `inputs` alone."""
        return _ReadOnlyLinear.apply(inputs, self)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, codes={self.codes.dtype}"


@final
class _ReadOnlyLinear(torch.autograd.Function):
    """Keeps nothing for the backward pass: the gradient of the inputs needs the weights alone, widened once more."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, layer: QuantizedLinear) -> Tensor:
        ctx.layer = layer
        return F.linear(inputs, layer.weight, layer.bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] @ ctx.layer.weight, None


def check_quantization(name: Quantization, config: PretrainedConfig, device_type: str) -> None:
    """Make sure, before weights are read, that they can be quantized.

    Args:
        name: what to quantize to.
        device_type: where it will be computed, as in `torch.device.type`.

    Raises:
        ConfigError: a library is missing or too old, cannot serve the device, or the weights are quantized already.
    """
    setting = f"backbone.quantization is {name}"
    if not is_bitsandbytes_available(BITSANDBYTES):
        raise ConfigError(f"{setting}, which needs bitsandbytes {BITSANDBYTES} or later", hint=_HINT)
    if not is_accelerate_available():
        raise ConfigError(f"{setting}, with which transformers needs accelerate", hint=_HINT)
    if getattr(config, "quantization_config", None) is not None:
        raise ConfigError(
            f"{setting}, but the backbone's weights are quantized already",
            hint="name a backbone with weights in full precision",
        )
    if device_type not in ("cpu", "cuda"):
        raise ConfigError(f"{setting}, which is not supported on '{device_type}'", hint="compute on cpu or cuda")
    functional = bitsandbytes().functional
    sample = torch.ones(_BLOCK, _BLOCK, dtype=torch.float16, device=device_type)
    try:
        if name == "int8":
            functional.int8_vectorwise_quant(sample)
        else:
            codes, state = functional.quantize_4bit(sample, quant_type="nf4", blocksize=_BLOCK)
            functional.dequantize_4bit(codes, state)
    except (RuntimeError, NotImplementedError) as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise ConfigError(
            f"{setting}, but the installed bitsandbytes does not work on '{device_type}': {reason}",
            hint="python -m bitsandbytes says what it found",
        ) from error


def quantization_arguments(
    name: Quantization, config: PretrainedConfig, dtype: torch.dtype, device: str = "cpu"
) -> dict[str, Any]:
    """What `from_pretrained` must be given beside its usual arguments; `take_over` is to follow.

    Only linear layers within the stack of layers are quantized: embeddings, norms, pooler and projections beside the
    stack stay as they are.

    Args:
        name: what to quantize to.
        config: of the backbone, not quantized.
        dtype: of all that is not quantized.
        device: where weights are rounded and stay; the model can be moved afterwards.
    """
    bitsandbytes()
    with torch.device("meta"):
        model: PreTrainedModel = auto_class(config).from_config(config)
    outside = [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and not _is_in_stack(path)
    ]
    # The device is always named: without one transformers takes a GPU wherever there is one.
    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_8bit=name == "int8",
            load_in_4bit=name == "nf4",
            llm_int8_skip_modules=outside,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=dtype,
        ),
        "device_map": {"": device},
    }


def take_over(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Put a `QuantizedLinear` in the place of each of bitsandbytes' layers; codes and scales are not copied.

    Args:
        model: loaded with `quantization_arguments`, on a device that is not "meta".

    Raises:
        ConfigError: the model has linear layers, or experts in one tensor, in its stack that were not quantized.
    """
    layers = bitsandbytes().nn
    for path, module in list(model.named_modules()):
        found: Any = module
        if isinstance(module, layers.Linear4bit):
            state = found.weight.quant_state
            assert (state.blocksize, state.quant_type, state.nested) == (_BLOCK, "nf4", False)
            scales, (out_features, in_features) = state.absmax, state.shape
        elif isinstance(module, layers.Linear8bitLt):
            scales, (out_features, in_features) = found.weight.SCB, found.weight.shape
        else:
            if isinstance(module, nn.Linear | Conv1D) and _is_in_stack(path):
                raise ConfigError(f"models of type '{model.config.model_type}' cannot be quantized: '{path}' was left")
            continue
        shape = (int(out_features), int(in_features))
        model.set_submodule(path, QuantizedLinear(found.weight.data, scales, found.bias, shape, dtype))
    for path, parameter in model.named_parameters():
        if parameter.dim() == 3 and _is_in_stack(path):
            raise ConfigError(
                f"models of type '{model.config.model_type}' cannot be quantized: the experts in '{path}' were left"
            )


def frozen_parameters(model: nn.Module) -> int:
    """How many parameters a backbone has; a rounded weight counts as one, however it is stored."""
    # Layers may share their weights, as parameters do.
    rounded = {
        id(module.codes): module.in_features * module.out_features
        for module in model.modules()
        if isinstance(module, QuantizedLinear)
    }
    return sum(rounded.values()) + sum(parameter_count(parameter) for parameter in model.parameters())


def _is_in_stack(path: str) -> bool:
    """Whether a module belongs to a list of modules, as layers do."""
    return any(part.isdecimal() for part in path.split("."))


def bitsandbytes() -> ModuleType:
    """The library, imported when it is first needed, without the code that it may fetch."""
    if "bitsandbytes" in sys.modules:
        return sys.modules["bitsandbytes"]
    with _no_code_from_the_hub():
        return importlib.import_module("bitsandbytes")


@contextmanager
def _no_code_from_the_hub() -> Generator[None]:
    """On some CPUs bitsandbytes fetches and runs a compiled kernel from the hub while it is imported.

    It does so if the package `kernels` is there, and complains if not. The kernel is not used here.
    """
    absent = object()
    before: Any = sys.modules.get("kernels", absent)
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    level = logger.level
    modules: dict[str, Any] = sys.modules
    modules["kernels"] = None
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        if before is absent:
            del modules["kernels"]
        else:
            modules["kernels"] = before
