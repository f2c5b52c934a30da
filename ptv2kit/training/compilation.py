"""`train.compile`: the frozen backbone as compiled code, for inputs of any length."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys

import torch

from ptv2kit.errors import ConfigError
from ptv2kit.models.model import PromptedModel

_COMPILERS = ("c++", "g++", "clang++", "cl")


def require_compiler(device: torch.device) -> None:
    """Make sure, before weights are read, that there is what torch's Inductor makes code with.

    Raises:
        ConfigError: no C++ compiler for a CPU, or neither Triton nor a C compiler for a GPU.
    """
    own = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ([own] if own else _COMPILERS)):
        raise ConfigError(
            f"train.compile is true, which needs a C++ compiler; {own or ', '.join(_COMPILERS)} is not on the PATH",
            hint="install g++, or set train.compile to false",
        )
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise ConfigError(
            f"train.compile is true, which needs Triton on a GPU; it is not installed ({sys.platform})",
            hint="pip install triton, or set train.compile to false",
        )


def compile_backbone(model: PromptedModel, backend: str = "inductor") -> None:
    """Have the backbone's passes compiled when they are first made; names of parameters stay as they are.

    Batch size and length stay open, so that few kinds of passes are told apart, such as training and evaluation.

    Args:
        model: whose backbone, shared by the models of other tasks, is meant.
        backend: of `torch.compile`.
    """
    model.backbone.compile(dynamic=True, backend=backend)
