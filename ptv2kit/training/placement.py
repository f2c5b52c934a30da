"""How the processes of a run share the work, and how much of a batch fits; decided before weights are read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from rich.console import Console

from ptv2kit.plan.memory import choose_strategy, decide, largest_micro_batch, measure
from ptv2kit.plan.plan import task_shape
from ptv2kit.training.distributed import Chosen, check_strategy
from ptv2kit.training.prepare import Prepared
from ptv2kit.training.processes import Processes, Workers


@final
@dataclass(frozen=True)
class Placement:
    """How a training is spread out.

    Args:
        strategy: how the processes share the work.
        micro_batch: most examples per forward pass; None: a process's whole share of a batch.
    """

    strategy: Chosen
    micro_batch: int | None


def gpu_memory(device: torch.device) -> float | None:
    """Bytes of a GPU; None for the CPU, whose memory decides nothing."""
    return float(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else None


def place(prepared: Sequence[Prepared], processes: Processes, messages: Console) -> Placement:
    """How the processes share the work, and on a GPU how much of a batch fits, checked before weights are read.

    All of them decide by the smallest GPU, so that they decide the same.

    Raises:
        ConfigError: the recipe cannot be trained that way.
    """
    recipe, spec, size = prepared[0].recipe, prepared[0].spec, processes.size
    memories = processes.gather(gpu_memory(prepared[0].device))
    memory = min((each for each in memories if each is not None), default=None)
    shapes = [task_shape(recipe, each.task) for each in prepared]
    if memory is not None and recipe.train.micro_batch_size == "auto" and recipe.backbone.quantization is None:
        choice = decide(recipe, measure(recipe, spec, shapes), processes=size, memory=memory)
    else:
        choice = choose_strategy(recipe, spec, shapes, processes=size, memory=memory)
    chosen = choice.setup.strategy
    check_strategy(recipe, spec, chosen, size)
    if size > 1 or chosen != "none":
        messages.print(f"{size} processes, strategy {chosen}: {choice.reason}", soft_wrap=True)
    share = math.ceil(recipe.train.most_examples(max(shape.tokens for shape in shapes)) / size)
    if recipe.train.micro_batch_size != "auto" or choice.micro_batch is None or choice.micro_batch >= share:
        return Placement(chosen, None)
    if choice.micro_batch == 0:
        messages.print("the plan says that not even one example fits this GPU; trying anyway", soft_wrap=True)
    micro = max(1, choice.micro_batch)
    messages.print(f"micro-batches of {micro}: more do not fit the GPU", soft_wrap=True)
    return Placement(chosen, micro)


def memory_advice(prepared: Sequence[Prepared], found: Workers | None) -> str:
    """What to change so that a recipe fits, from the plan where there is a GPU."""
    recipe, memory = prepared[0].recipe, gpu_memory(prepared[0].device)
    batch = recipe.train.batch_size
    advice = (
        f"lower train.batch_tokens (now {recipe.train.batch_tokens}), or set train.micro_batch_size"
        if batch is None
        else f"set train.micro_batch_size below {batch}"
    )
    checkpointing = "" if recipe.train.gradient_checkpointing else ", or set train.gradient_checkpointing: true"
    if memory is not None and recipe.backbone.quantization is None:
        costs = measure(recipe, prepared[0].spec, [task_shape(recipe, each.task) for each in prepared])
        choice = decide(recipe, costs, processes=1 if found is None else found.size, memory=memory)
        if choice.micro_batch:
            half = max(1, choice.micro_batch // 2)
            advice = f"set train.micro_batch_size to {half} (by the plan {choice.micro_batch} fit)"
        fits = largest_micro_batch(recipe, costs, choice.setup, memory, checkpointing=True)
        checkpointing = checkpointing and f"{checkpointing} (by the plan micro-batches up to {fits} fit then)"
    shorter = f", or lower prompt.length (now {recipe.prompt.length})" if recipe.prompt_length else ""
    return f"{advice}{shorter}{checkpointing}; 'ptv2kit plan' shows what needs how much"
