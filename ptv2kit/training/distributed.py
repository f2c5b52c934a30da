"""Several processes: which ones there are, and the configuration of DeepSpeed."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.optim import AdamW

from ptv2kit.errors import ConfigError, did_you_mean
from ptv2kit.models.backbones import BackboneSpec
from ptv2kit.models.sharding import Sharding
from ptv2kit.plan.memory import LIVE_PARAMETERS, PREFETCHED_PARAMETERS, REDUCE_BUCKET
from ptv2kit.spec.recipe import Recipe
from ptv2kit.training.parts import TaskPart
from ptv2kit.training.processes import Processes
from ptv2kit.training.strategy import Replicated, Strategy
from ptv2kit.training.zero import PartitionedOptimizer

Chosen = Literal["none", "ddp", "zero1", "zero2", "zero3"]
StrategyFactory = Callable[[Sequence[TaskPart], Mapping[str, nn.Parameter], AdamW, Processes], Strategy]

_OURS = {
    "train_batch_size": "train.batch_size",
    "train_micro_batch_size_per_gpu": "train.micro_batch_size",
    "gradient_accumulation_steps": "train.micro_batch_size",
    "gradient_clipping": "train.max_gradient_norm",
    "optimizer": "train.learning_rate and its neighbours",
    "scheduler": "train.schedule",
    "bf16": "backbone.dtype",
    "fp16": "backbone.dtype",
    "activation_checkpointing": "train.gradient_checkpointing",
}
"""DeepSpeed's keys that a recipe has keys of its own for."""
_KNOWN = (
    "zero_optimization",
    "communication_data_type",
    "prescale_gradients",
    "gradient_predivide_factor",
    "sparse_gradients",
    "steps_per_print",
    "wall_clock_breakdown",
    "dump_state",
    "comms_logger",
    "flops_profiler",
    "aio",
    "zero_allow_untested_optimizer",
    "zero_force_ds_cpu_optimizer",
    "memory_breakdown",
    "seq_parallel_communication_data_type",
)


def check_strategy(recipe: Recipe, spec: BackboneSpec, chosen: Chosen, size: int) -> None:
    """Make sure, before weights are read, that a recipe can be trained this way.

    Args:
        spec: its backbone.
        chosen: how processes share the work.
        size: number of processes.

    Raises:
        ConfigError: DeepSpeed is not installed, its block is wrong, or the strategy does not fit the recipe.
    """
    wanted = recipe.distributed
    if chosen == "none" and size > 1:
        raise ConfigError(f"distributed.strategy is none, but there are {size} processes", hint="set it to auto")
    if wanted.offload != "none" and chosen != "zero3":
        raise ConfigError(
            f"distributed.offload is {wanted.offload}, which only zero3 can; the strategy is {chosen}",
            hint="set distributed.strategy to zero3",
        )
    if (wanted.offload == "nvme") != (wanted.nvme_path is not None):
        raise ConfigError("distributed.offload: nvme and distributed.nvme_path belong together")
    _check_trunk_cache(recipe, chosen, size)
    check_deepspeed_block(recipe.deepspeed)
    if not chosen.startswith("zero"):
        if recipe.deepspeed:
            raise ConfigError(f"the block 'deepspeed' is for zero1, zero2 and zero3; the strategy is {chosen}")
        return
    if size == 1 and chosen != "zero3":
        raise ConfigError(f"distributed.strategy is {chosen}, but there is one process", hint="set it to auto")
    for package in ("deepspeed", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"distributed.strategy is {chosen}, but {package} is not installed",
                hint="pip install 'ptv2kit[distributed]'",
            )
    if chosen != "zero3" and len(recipe.task_names) > 1:
        raise ConfigError(
            f"distributed.strategy is {chosen}, whose optimizer moves the heads of all tasks in every step",
            hint="set it to ddp, which needs hardly more memory, or to zero3",
        )
    if recipe.train.compile and chosen.startswith("zero"):
        raise ConfigError(
            f"train.compile is true, but distributed.strategy is {chosen}, which gathers weights within a pass",
            hint="set train.compile to false, or distributed.strategy to ddp",
        )
    if chosen == "zero3":
        _check_sharding(recipe, spec)


def _check_trunk_cache(recipe: Recipe, strategy: Chosen, processes: int) -> None:
    """Whether processes can keep the outputs of lower layers as the recipe says."""
    wanted = recipe.train.cache_trunk
    if wanted not in ("memory", "disk"):
        return
    if strategy.startswith("zero"):
        raise ConfigError(
            f"train.cache_trunk is {wanted}, but distributed.strategy is {strategy}, which gathers every layer's "
            "weights in every pass",
            hint="set train.cache_trunk to off, or distributed.strategy to ddp",
        )
    if wanted == "disk" and processes > 1:
        raise ConfigError(
            f"train.cache_trunk is disk, which one process writes; there are {processes}",
            hint="set it to memory, which each process has its own of, or to off",
        )


def _check_sharding(recipe: Recipe, spec: BackboneSpec) -> None:
    """What could not be loaded of frozen weights in parts."""
    reasons = {
        "method fine_tuning trains the backbone, and zero3 is for frozen ones; set the strategy to zero2": (
            recipe.method == "fine_tuning"
        ),
        "method lora trains matrices within the backbone's layers, which zero3 has in parts; set the strategy to ddp": (
            recipe.method == "lora"
        ),
        "train.layer_norm_learning_rate trains weights of the backbone, which zero3 has in parts": (
            recipe.train.layer_norm_learning_rate is not None
        ),
        "backbone.quantization keeps weights in buffers, which zero3 does not put in parts": (
            recipe.backbone.quantization is not None
        ),
        f"models of type '{spec.family.model_type}' share weights between layers, which zero3 gathers once": (
            spec.family.model_type == "albert"
        ),
    }
    for reason, holds in reasons.items():
        if holds:
            raise ConfigError(f"distributed.strategy is zero3: {reason}")


def check_deepspeed_block(block: Mapping[str, Any]) -> None:
    """Make sure that the recipe's `deepspeed` holds keys that DeepSpeed knows and that no key of ours decides.

    Raises:
        ConfigError: it does not.
    """
    for key in block:
        if key in _OURS:
            raise ConfigError(f"deepspeed.{key}: a recipe says this with {_OURS[key]}")
        if key not in _KNOWN:
            raise ConfigError(f"unknown key 'deepspeed.{key}'", hint=did_you_mean(key, _KNOWN))
    zero: Any = block.get("zero_optimization", {})
    if not isinstance(zero, dict):
        raise ConfigError("'deepspeed.zero_optimization' must be a mapping")
    if "stage" in zero:
        raise ConfigError("deepspeed.zero_optimization.stage: a recipe says this with distributed.strategy")
    if zero and importlib.util.find_spec("deepspeed") is not None:
        from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
        from pydantic import ValidationError

        try:
            DeepSpeedZeroConfig.model_validate({**zero, "stage": 3})
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"]))
            known = list(DeepSpeedZeroConfig.model_fields)
            hint = did_you_mean(name, known) if first["type"] == "extra_forbidden" else ""
            raise ConfigError(f"deepspeed.zero_optimization.{name}: {first['msg']}", hint=hint) from error


def deepspeed_config(recipe: Recipe, stage: Literal[1, 2, 3]) -> dict[str, Any]:
    """The configuration of DeepSpeed: ours, and the recipe's block over it."""
    zero: dict[str, Any] = {"stage": stage, "reduce_bucket_size": REDUCE_BUCKET}
    if stage == 3:
        zero["stage3_max_live_parameters"] = LIVE_PARAMETERS
        zero["stage3_prefetch_bucket_size"] = PREFETCHED_PARAMETERS
    wanted = recipe.distributed
    if stage == 3 and wanted.offload != "none":
        place = {} if wanted.nvme_path is None else {"nvme_path": wanted.nvme_path}
        pinned = torch.cuda.is_available()
        zero["offload_param"] = {"device": wanted.offload, "pin_memory": pinned, **place}
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        # Since 0.19.8 it clips to 1.0 unless told otherwise.
        "gradient_clipping": recipe.train.max_gradient_norm if stage < 3 else 0.0,
        "steps_per_print": 2**31,
        "zero_allow_untested_optimizer": True,
        # Without this, ZeRO-3 reads bf16 weights into float32 without a word.
        "bf16": {"enabled": stage == 3 and recipe.backbone.dtype == "bf16"},
        "zero_optimization": zero,
    }
    return _merged(config, recipe.deepspeed)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def prepare_strategy(
    recipe: Recipe, chosen: Chosen, device: torch.device, size: int
) -> tuple[StrategyFactory, Sharding | None]:
    """What makes the steps, and how the frozen weights are shared out; the process group must be there.

    Args:
        recipe: of the run, checked by `check_strategy`.
        chosen: how processes share the work.
        size: number of processes.
    """
    if not chosen.startswith("zero"):
        return Replicated, None
    start_deepspeed(device, size)
    if chosen == "zero3":
        return Replicated, Sharding(deepspeed_config(recipe, 3))
    return partial(PartitionedOptimizer, config=deepspeed_config(recipe, 1 if chosen == "zero1" else 2)), None


def start_deepspeed(device: torch.device, size: int) -> None:
    """Let DeepSpeed take the process group over, quietly, and without compiling anything on a CPU."""
    # It calls functions of torch that are about to be renamed.
    warnings.filterwarnings("ignore", "`torch.distributed.*deprecated", FutureWarning)
    if size == 1 and not dist.is_initialized():
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    import deepspeed
    from deepspeed.utils import logger

    logger.setLevel("ERROR")
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)  # stdout carries results
    if device.type == "cuda":
        os.environ["LOCAL_RANK"] = str(torch.cuda.current_device())  # DeepSpeed takes the GPU of this number
    if device.type == "cpu":
        # Messages through shared memory would be compiled first, for minutes; gloo serves.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("nccl" if device.type == "cuda" else "gloo", verbose=False)
