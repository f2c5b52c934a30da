"""LoRA (Hu et al. 2021) by PEFT: low-rank matrices beside some of a frozen backbone's linear layers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from transformers.utils.import_utils import is_bitsandbytes_available

from ptv2kit.errors import ConfigError, require_extra
from ptv2kit.models.glm.configuration import OriginalGlmConfig
from ptv2kit.models.quantization import bitsandbytes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ptv2kit.spec.recipe import Lora

_ADAPTER = "default"  # what PEFT calls the only adapter
_OWN_TARGETS = {OriginalGlmConfig.model_type: ("query_key_value",)}


def lora_targets(settings: Lora, backbone: PreTrainedModel) -> list[str]:
    """The ends of the names of the linear layers that get matrices; `auto`: the queries and values, as PEFT chooses.

    Raises:
        ConfigError: PEFT is not installed, it has no choice for this type of model, or a name ends no linear layer's.
    """
    require_extra("peft", "method lora needs PEFT", "lora")
    if is_bitsandbytes_available():
        bitsandbytes()  # before PEFT imports it, which would let it run code from the hub
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as CHOICES

    kind = str(backbone.config.model_type)
    targets = settings.targets
    if targets == "auto":
        targets = _OWN_TARGETS.get(kind) or tuple(CHOICES.get(kind, ()))
        if not targets:
            raise ConfigError(
                f"lora.targets is auto, and PEFT has no choice for models of type '{kind}'",
                hint=f"name some of {', '.join(_linear_names(backbone))}",
            )
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name, _ in backbone.named_modules()):
            raise ConfigError(
                f"lora.targets names '{target}', which no layer of the backbone is called",
                hint=f"it has {', '.join(_linear_names(backbone))}",
            )
    return list(targets)


def add_lora(settings: Lora, backbone: PreTrainedModel) -> None:
    """Put trainable matrices, in fp32, beside the linear layers of a frozen backbone; they start as no change.

    Raises:
        ConfigError: see `lora_targets`.
    """
    targets = lora_targets(settings, backbone)
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=targets, bias="none"
    )
    with warnings.catch_warnings():
        # PEFT corrects the layout of GPT-2's layers by itself, and reads an attribute that transformers renames.
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to", UserWarning)
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        inject_adapter_in_model(config, backbone, adapter_name=_ADAPTER)
    for parameter in backbone.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def lora_parameters(backbone: nn.Module) -> int:
    """How many parameters LoRA's matrices have."""
    return sum(parameter.numel() for name, parameter in backbone.named_parameters() if ".lora_" in name)


def to_peft(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The matrices of `PromptedModel.inference_state` under the names of PEFT's `adapter_model.safetensors`."""
    return {
        f"base_model.model.{name.removeprefix('backbone.').replace(f'.{_ADAPTER}.', '.')}": tensor
        for name, tensor in tensors.items()
        if ".lora_" in name
    }


def adapter_config(settings: Lora, backbone: PreTrainedModel, source: str) -> dict[str, Any]:
    """The content of PEFT's `adapter_config.json`."""
    return {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "base_model_name_or_path": source,
        "inference_mode": True,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "target_modules": lora_targets(settings, backbone),
        "bias": "none",
    }


def _linear_names(backbone: nn.Module) -> list[str]:
    """The ends of the names of all linear layers, each once."""
    return list(
        dict.fromkeys(name.rpartition(".")[2] for name, each in backbone.named_modules() if isinstance(each, nn.Linear))
    )
