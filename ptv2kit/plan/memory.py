"""Memory of each process under each strategy, and which strategy fits.

P frozen parameters of c bytes and p trained ones in fp32, on N processes: the frozen weights cost `c·P` in every
process, and only ZeRO's third stage divides them. Trained parameters cost 16 bytes each (weight, gradient, two moments
of AdamW); stage 1 divides the moments by N, stage 2 the gradients too. With a frozen backbone that is next to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, cast, final

from torch import nn
from transformers.pytorch_utils import Conv1D

from ptv2kit.models.backbones import BackboneSpec
from ptv2kit.models.build import build_head, empty_model
from ptv2kit.models.counts import ParameterCount
from ptv2kit.plan.depth import layers_are_alike, passes_by_depth
from ptv2kit.plan.hardware import GIB
from ptv2kit.plan.passes import DTYPES, PassCosts, TaskShape, count_passes
from ptv2kit.spec.recipe import Distributed, Recipe

Strategy = Literal["none", "ddp", "zero1", "zero2", "zero3"]
Offload = Literal["none", "cpu", "nvme"]
STRATEGIES: tuple[Strategy, ...] = ("none", "ddp", "zero1", "zero2", "zero3")

RESERVE = int(1.5 * GIB)
"""Assumed for the CUDA context, the libraries' own buffers and what fragmentation wastes."""

LIVE_PARAMETERS = 200_000_000
"""Parameters that zero3 holds gathered at one time: a layer of a 10B model. DeepSpeed's own default is 1e9."""
PREFETCHED_PARAMETERS = 50_000_000
"""Parameters that zero3 gathers ahead."""
REDUCE_BUCKET = 1_000_000
"""Numbers in a message of gradients of zero1 and zero2; DeepSpeed sets aside as much memory, however few there are."""
_BITS = {"int8": 8, "nf4": 4}


@final
@dataclass(frozen=True)
class ModelCosts:
    """What must be known of a model to plan with it.

    Args:
        count: parameters; heads of all tasks together.
        frozen: bytes of the frozen weights as they are stored.
        trained: bytes of what is trained.
    """

    count: ParameterCount
    shape: TaskShape
    passes: PassCosts
    frozen: float
    trained: float


@final
@dataclass(frozen=True)
class Footprint:
    """Bytes of one process on its GPU, and beside it.

    Args:
        weights: frozen and trained.
        buckets: what is sent between processes, and, of zero3, the weights that are gathered at one time.
        prefix: the prompt's keys and values as the batch sees them.
        head: what the head keeps, with the copies of the last hidden states in fp32.
        reserve: assumed for CUDA and its libraries.
        host: bytes in the machine's memory, or on its disk, for each process.
    """

    weights: float
    gradients: float
    optimizer: float
    buckets: float
    activations: float
    prefix: float
    head: float
    reserve: float
    host: float

    @property
    def total(self) -> float:
        """All that is on the GPU."""
        return sum(getattr(self, field.name) for field in fields(self) if field.name != "host")


@final
@dataclass(frozen=True)
class Setup:
    """A way to train.

    Args:
        strategy: what the processes share.
        offload: where the frozen weights of zero3 wait.
        processes: in all, one for each GPU.
    """

    strategy: Strategy
    offload: Offload
    processes: int

    @property
    def name(self) -> str:
        """As it is shown."""
        return self.strategy if self.offload == "none" else f"{self.strategy} + {self.offload}"


@final
@dataclass(frozen=True)
class Choice:
    """A strategy and why.

    Args:
        micro_batch: most examples per forward pass that fit each GPU, 0 if not even one does; None: it was not asked,
            because there is nothing to decide.
        reason: a sentence without a full stop.
    """

    setup: Setup
    micro_batch: int | None
    reason: str


def measure(recipe: Recipe, spec: BackboneSpec, shapes: Sequence[TaskShape]) -> ModelCosts:
    """Build the model without weights and count what its passes keep; of several tasks the largest decides.

    Args:
        recipe: how it is trained.
        spec: from `find_backbone`.
        shapes: of its tasks, at least one.

    Raises:
        ConfigError: the recipe asks for what the backbone does not have, or its passes cannot be counted.
    """
    recipe = spec.resolved(recipe)
    largest = max(shapes, key=lambda shape: shape.inputs * shape.max_length)
    plain = recipe.model_copy(update={"train": recipe.train.model_copy(update={"gradient_checkpointing": False})})
    model = empty_model(plain, largest.unit, spec, largest.labels)
    heads = [
        model.head if shape is largest else build_head(recipe, shape.unit, spec, shape.labels, model.backbone)
        for shape in shapes
        if not shape.own_head
    ]
    trained_heads = sum(parameter.numel() for head in heads for parameter in head.parameters())
    count = model.parameter_count()
    count = replace(count, head=trained_heads)
    nn.Module.to(model.backbone, DTYPES[recipe.backbone.dtype])
    stored = _stored_bytes(model.backbone, recipe)
    alike = layers_are_alike(plain, spec)
    passes = passes_by_depth(plain, spec, largest) if alike else count_passes(model, plain, largest)
    own = 4 * (count.prompt + count.adapter + count.norms + count.head)
    frozen, trained = (0.0, own + stored) if count.tuned else (stored - 4 * count.norms, own)
    return ModelCosts(count, largest, passes, frozen, trained)


def footprint(recipe: Recipe, costs: ModelCosts, setup: Setup, examples: int, *, checkpointing: bool) -> Footprint:
    """What one process needs.

    Args:
        recipe: how it is trained.
        examples: per forward pass.
        checkpointing: whether layers are computed again in the backward pass.
    """
    n = setup.processes
    # Of zero3 only the frozen weights are in parts; what is trained is whole in each process.
    frozen = costs.frozen / n if setup.strategy == "zero3" else costs.frozen
    gradients = costs.trained / (n if setup.strategy == "zero2" else 1)
    optimizer = 2 * costs.trained / (n if setup.strategy in ("zero1", "zero2") else 1)
    host = 0.0
    if setup.offload != "none":
        host, frozen = frozen, 0.0
    one_pass = costs.passes.at(examples)
    return Footprint(
        weights=frozen + costs.trained,
        gradients=gradients,
        optimizer=optimizer,
        buckets=_buckets(recipe, costs, setup),
        activations=one_pass.activations(checkpointing),
        prefix=one_pass.prompt,
        head=one_pass.head + one_pass.copies,
        reserve=RESERVE,
        host=host,
    )


def largest_micro_batch(recipe: Recipe, costs: ModelCosts, setup: Setup, memory: float, *, checkpointing: bool) -> int:
    """Most examples per forward pass that fit `memory` bytes, 0 if not even one does; arguments as of `footprint`."""
    one, two = (footprint(recipe, costs, setup, n, checkpointing=checkpointing).total for n in (1, 2))
    return 0 if one > memory else 1 + int((memory - one) / (two - one))


def choose_strategy(
    recipe: Recipe, spec: BackboneSpec, shapes: Sequence[TaskShape], *, processes: int, memory: float | None
) -> Choice:
    """What `distributed.strategy` means on this machine; `auto` resolved as by `decide`.

    The model is measured only if that is needed: with `auto` and several GPUs.

    Args:
        recipe: how it is trained.
        spec: from `find_backbone`.
        processes: in all.
        memory: bytes of each GPU that the run may have; None: there is no GPU, and memory decides nothing.

    Raises:
        ConfigError: see `measure`.
    """
    wanted = recipe.distributed
    if wanted.strategy != "auto" or wanted.offload != "none" or processes == 1 or memory is None:
        return _without_measuring(wanted, processes)
    return decide(recipe, measure(recipe, spec, shapes), processes=processes, memory=memory)


def possible_strategies(recipe: Recipe) -> tuple[Strategy, ...]:
    """The strategies for several processes that can train a recipe, the one with the least communication first.

    zero3 keeps frozen weights in parts, so it trains no backbone and takes no quantized one; the optimizer of several
    tasks is not shared out.
    """
    optimizers: tuple[Strategy, ...] = () if len(recipe.task_names) > 1 else ("zero1", "zero2")
    frozen = not recipe.changes_backbone and recipe.backbone.quantization is None
    return ("ddp", *optimizers, *(("zero3",) if frozen else ()))


def decide(recipe: Recipe, costs: ModelCosts, *, processes: int, memory: float) -> Choice:
    """The recipe's strategy, or for `auto`: `none` on one process; on several the first of `possible_strategies` with
    which the recipe's micro-batch fits each GPU (one example, if that is `auto`), or if none does, the one that needs
    least. Offloading asks for `zero3`.

    Args:
        recipe: how it is trained.
        costs: from `measure`.
        processes: in all.
        memory: bytes of each GPU that the run may have.
    """
    checkpointing = recipe.train.gradient_checkpointing

    def fitting(setup: Setup) -> int:
        return largest_micro_batch(recipe, costs, setup, memory, checkpointing=checkpointing)

    wanted = recipe.distributed
    if wanted.strategy != "auto" or wanted.offload != "none" or processes == 1:
        choice = _without_measuring(wanted, processes)
        return Choice(choice.setup, fitting(choice.setup), choice.reason)
    micro = recipe.train.micro_batch_size
    needed = 1 if micro == "auto" else min(micro, math.ceil(recipe.train.most_examples(costs.shape.tokens) / processes))
    setups = [Setup(strategy, "none", processes) for strategy in possible_strategies(recipe)]
    for setup in setups:
        if fitting(setup) >= needed:
            reason = f"the whole model and a micro-batch of {needed} fit each GPU"
            if setup.strategy != "ddp":
                before = setups[setups.index(setup) - 1].strategy
                reason = f"a micro-batch of {needed} fits each GPU, which it does not with {before}"
            return Choice(setup, fitting(setup), reason)
    least = min(setups, key=lambda each: footprint(recipe, costs, each, needed, checkpointing=checkpointing).total)
    return Choice(least, fitting(least), f"no strategy fits a micro-batch of {needed}, and this one needs least")


def _without_measuring(wanted: Distributed, processes: int) -> Choice:
    if wanted.strategy != "auto":
        count = 1 if wanted.strategy == "none" else processes
        return Choice(Setup(wanted.strategy, wanted.offload, count), None, "the recipe says so")
    if wanted.offload != "none":
        return Choice(Setup("zero3", wanted.offload, processes), None, "only zero3 can offload")
    if processes == 1:
        return Choice(Setup("none", "none", 1), None, "there is one process")
    return Choice(Setup("ddp", "none", processes), None, "there is no GPU whose memory could be too small")


def _buckets(recipe: Recipe, costs: ModelCosts, setup: Setup) -> float:
    """Buffers of communication; DeepSpeed's own settings in the recipe count."""
    if setup.strategy == "none":
        return 0.0
    if setup.strategy == "ddp":
        return costs.trained  # all gradients in one message
    zero = cast("Mapping[str, Any]", recipe.deepspeed.get("zero_optimization") or {})
    if setup.strategy != "zero3":
        return 2 * 4.0 * float(zero.get("reduce_bucket_size", REDUCE_BUCKET))  # one is filled while the other is sent
    width = costs.frozen / costs.count.backbone
    live = min(float(costs.count.backbone), float(zero.get("stage3_max_live_parameters", LIVE_PARAMETERS)))
    ahead = min(float(costs.count.backbone), float(zero.get("stage3_prefetch_bucket_size", PREFETCHED_PARAMETERS)))
    return costs.trained + width * (live + ahead)


def _stored_bytes(backbone: nn.Module, recipe: Recipe) -> float:
    """Bytes of the backbone's weights; rounded linear layers have a scale for each row or block."""
    bits = _BITS.get(recipe.backbone.quantization or "")
    rounded: dict[int, float] = {}
    if bits is not None:
        for path, module in backbone.named_modules():
            if isinstance(module, nn.Linear | Conv1D) and any(part.isdecimal() for part in path.split(".")):
                weight = module.weight
                scales = weight.shape[0] if bits == 8 else weight.numel() / 64
                rounded[id(weight)] = weight.numel() * bits / 8 + 4 * scales
    return sum(
        rounded.get(id(parameter), parameter.numel() * parameter.element_size()) for parameter in backbone.parameters()
    )
