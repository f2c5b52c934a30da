"""The plan of a run: parameters, memory, steps, time, and what was assumed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, final

from ptv2kit.data.sources import read_split_if_here
from ptv2kit.errors import ConfigError
from ptv2kit.models.backbones import BackboneSpec
from ptv2kit.models.build import check_model, trunk_depth
from ptv2kit.plan.hardware import LEAST, UTILISATION, Gpu
from ptv2kit.plan.memory import (
    STRATEGIES,
    Choice,
    Footprint,
    ModelCosts,
    Setup,
    decide,
    footprint,
    largest_micro_batch,
    measure,
    possible_strategies,
)
from ptv2kit.plan.passes import TaskShape
from ptv2kit.spec.load import ResolvedTask
from ptv2kit.spec.recipe import Recipe
from ptv2kit.spec.task import AnyTask

ASSUMED_LABELS = 32
ASSUMED_OPTIONS = 4
"""Labels of a task that takes them from its training rows."""
BUS = 20e9
"""Bytes per second that are assumed to reach a GPU from the machine's memory."""


@final
@dataclass(frozen=True)
class Option:
    """One way to train, and what it needs of each GPU.

    Args:
        setup: strategy, offloading, processes.
        examples: per forward pass.
        footprint: as the recipe says it about gradient checkpointing.
        checkpointed: activations with gradient checkpointing, in bytes; None: the backbone does not support it.
        plain: activations without.
        micro_batch: most examples per forward pass that fit, 0 if not even one does.
    """

    setup: Setup
    examples: int
    footprint: Footprint
    plain: float
    checkpointed: float | None
    micro_batch: int


@final
@dataclass(frozen=True)
class Duration:
    """How long a run will take.

    Args:
        steps: optimizer steps of all epochs.
        hours: on the GPU of the plan; None: its rate is not known.
        cost: of all GPUs; None: without hours or a price.
    """

    steps: int
    hours: float | None
    cost: float | None


@final
@dataclass(frozen=True)
class Plan:
    """What a run will need.

    Args:
        gpu: on which.
        options: every way to train.
        rows: of the training splits, by task; None: not known.
        duration: None if the rows are not known.
        hours_here: without a GPU on this machine's processor; None: not asked for, or the rows are not known.
        warnings: what will not work.
        assumptions: what the numbers rest on.
    """

    recipe: Recipe
    gpu: Gpu
    costs: ModelCosts
    options: tuple[Option, ...]
    choice: Choice
    rows: dict[str, int | None]
    duration: Duration | None
    hours_here: float | None
    warnings: tuple[str, ...]
    assumptions: tuple[str, ...]

    @property
    def chosen(self) -> Option:
        """The option that is taken."""
        return next(option for option in self.options if option.setup == self.choice.setup)

    def to_json(self) -> dict[str, Any]:
        """All numbers; bytes, operations per second, hours."""
        count = self.costs.count
        return {
            "recipe": self.recipe.recipe,
            "backbone": self.recipe.backbone.name,
            "parameters": {**asdict(count), "frozen": count.frozen, "trained": count.trained, "share": count.share},
            "gpu": asdict(self.gpu),
            "processes": max(option.setup.processes for option in self.options),
            "strategies": [
                {
                    **asdict(option.setup),
                    "micro_batch": option.examples,
                    "bytes": {**asdict(option.footprint), "total": option.footprint.total},
                    "activations": {"plain": option.plain, "checkpointed": option.checkpointed},
                    "fits": option.footprint.total <= self.gpu.memory,
                    "largest_micro_batch": option.micro_batch,
                }
                for option in self.options
            ],
            "chosen": {**asdict(self.choice.setup), "reason": self.choice.reason},
            "rows": self.rows,
            "duration": None if self.duration is None else asdict(self.duration),
            "hours_here": self.hours_here,
            "warnings": list(self.warnings),
            "assumptions": list(self.assumptions),
        }


def task_shape(recipe: Recipe, task: AnyTask) -> TaskShape:
    """The size of a task's inputs and head, as far as its file tells."""
    length = recipe.train.max_length or task.input.max_length
    unit, size = task.logits()
    own = task.head == "verbalizer"
    assumed = ASSUMED_OPTIONS if unit == "choices" else ASSUMED_LABELS
    return TaskShape(task.task, unit, size or assumed, length, assumed=size is None, own_head=own)


def make_plan(
    recipe: Recipe,
    spec: BackboneSpec,
    tasks: Sequence[ResolvedTask],
    gpu: Gpu,
    *,
    processes: int,
    data_root: Path | None = None,
    rows: int | None = None,
    count_rows: bool = True,
    price: float | None = None,
    processor: Gpu | None = None,
) -> Plan:
    """Plan a run.

    Args:
        recipe: how it is trained.
        spec: from `find_backbone`.
        gpu: on which.
        processes: GPUs in all.
        data_root: where data files are looked up first, to count their rows.
        rows: of the training splits together, instead of counting them.
        count_rows: whether files are read to count them; if not, steps are unknown.
        price: of a GPU for an hour.
        processor: of this machine, from `time_processor`, if the time on it is wanted too.

    Raises:
        ConfigError: the backbone cannot do what the recipe asks for.
        DataError: a data file is malformed.
    """
    recipe = spec.resolved(recipe)
    shapes = [task_shape(recipe, task.task) for task in tasks]
    for shape in shapes:
        check_model(recipe, spec, shape.max_length)
    costs = measure(recipe, spec, shapes)
    setups = [Setup(strategy, "none", 1 if strategy == "none" else processes) for strategy in STRATEGIES]
    offload = "cpu" if recipe.distributed.offload == "none" else recipe.distributed.offload
    setups.append(Setup("zero3", offload, processes))
    choice = decide(recipe, costs, processes=processes, memory=gpu.memory)
    if choice.setup not in setups:
        setups.append(choice.setup)
    options = tuple(_option(recipe, spec, costs, setup, gpu) for setup in setups)
    found: dict[str, int | None] = {"": rows}
    if rows is None and count_rows:
        found = _count_rows(recipe, tasks, data_root)
    chosen = next(option for option in options if option.setup == choice.setup)
    duration = _duration(recipe, costs, chosen, gpu, spec.depth, found, price)
    here = None
    if processor is not None:
        alone = _option(recipe, spec, costs, Setup("none", "none", 1), processor)
        here = _duration(recipe, costs, alone, processor, spec.depth, found, None)
    return Plan(
        recipe,
        gpu,
        costs,
        options,
        choice,
        found,
        duration,
        None if here is None else here.hours,
        warnings=tuple(_warnings(recipe, spec, costs, chosen, options, gpu)),
        assumptions=tuple(_assumptions(recipe, spec, shapes, costs, chosen, duration)),
    )


def _option(recipe: Recipe, spec: BackboneSpec, costs: ModelCosts, setup: Setup, gpu: Gpu) -> Option:
    share = math.ceil(recipe.train.most_examples(costs.shape.tokens) / setup.processes)
    micro = recipe.train.micro_batch_size
    examples = share if micro == "auto" else min(micro, share)
    again = recipe.train.gradient_checkpointing
    one_pass = costs.passes.at(examples)
    return Option(
        setup,
        examples,
        footprint(recipe, costs, setup, examples, checkpointing=again),
        plain=one_pass.activations(False),
        checkpointed=one_pass.activations(True) if spec.attention.checkpoints else None,
        micro_batch=largest_micro_batch(recipe, costs, setup, gpu.memory, checkpointing=again),
    )


def _count_rows(recipe: Recipe, tasks: Sequence[ResolvedTask], data_root: Path | None) -> dict[str, int | None]:
    """Rows of each task's training split, where its files are on this machine."""
    found: dict[str, int | None] = {}
    for task in tasks:
        data = read_split_if_here(task.task, "train", task_path=task.path, data_root=data_root)
        found[task.task.task] = None if data is None else len(data.limited(*recipe.limit_of("train"), task.task).rows)
    return found


def _duration(
    recipe: Recipe,
    costs: ModelCosts,
    chosen: Option,
    gpu: Gpu,
    layers: int,
    rows: dict[str, int | None],
    price: float | None,
) -> Duration | None:
    known = [count for count in rows.values() if count is not None]
    if len(known) < len(rows):
        return None
    batch = recipe.train.most_examples(costs.shape.tokens)
    steps = recipe.train.epochs * sum(math.ceil(count / batch) for count in known)
    again = recipe.train.gradient_checkpointing
    processes = chosen.setup.processes
    examples = recipe.train.epochs * sum(known)
    passes = math.ceil(examples / processes / chosen.examples)
    work = examples * costs.passes.at(1).operations(again) / processes
    seconds = gpu.seconds(recipe.backbone.dtype, work, passes * layers)
    if seconds is None:
        return Duration(steps, None, None)
    if chosen.setup.offload != "none":
        # Every pass over the layers fetches all weights of this process's part.
        seconds += passes * (3 if again else 2) * chosen.footprint.host / BUS
    hours = seconds / 3600
    return Duration(steps, hours, None if price is None else hours * processes * price)


def _warnings(
    recipe: Recipe, spec: BackboneSpec, costs: ModelCosts, chosen: Option, options: Sequence[Option], gpu: Gpu
) -> list[str]:
    warnings = [spec.layers_note] if spec.layers_note else []
    if not spec.at_hand:
        warnings.append(
            f"backbone '{spec.source}' is not on this machine: planned with its published sizes; tokenizer and weights "
            "were not looked at"
        )
    if chosen.footprint.total > gpu.memory:
        remedies = _remedies(recipe, spec, costs, chosen, options, gpu)
        warnings.append(
            f"{chosen.setup.name} with a micro-batch of {chosen.examples} does not fit {gpu.name}: "
            + ("; or ".join(remedies) if remedies else "nothing that can be set in the recipe makes it fit")
        )
    return warnings


def _remedies(
    recipe: Recipe, spec: BackboneSpec, costs: ModelCosts, chosen: Option, options: Sequence[Option], gpu: Gpu
) -> list[str]:
    """What would make a run fit, each computed."""
    found: list[str] = []
    if chosen.micro_batch:
        found.append(f"set train.micro_batch_size to {chosen.micro_batch} or less")
    possible = possible_strategies(recipe)
    fitting = [option for option in options if option.micro_batch and option.setup.strategy in possible]
    if fitting and not chosen.micro_batch:
        setup = min(fitting, key=lambda option: option.footprint.host).setup
        offload = "" if setup.offload == "none" else f" and distributed.offload: {setup.offload}"
        found.append(f"set distributed.strategy: {setup.strategy}{offload}")
    again = recipe.train.gradient_checkpointing
    if not again and spec.attention.checkpoints:
        micro = largest_micro_batch(recipe, costs, chosen.setup, gpu.memory, checkpointing=True)
        if micro:
            found.append(f"set train.gradient_checkpointing: true (a micro-batch of {micro} then fits)")
    if not found:
        for strategy, processes in product(possible, (2, 4, 8, 16, 32, 64)):
            setup = Setup(strategy, "none", processes)
            more = processes > chosen.setup.processes
            if more and largest_micro_batch(recipe, costs, setup, gpu.memory, checkpointing=again):
                found.append(f"{processes} GPUs with distributed.strategy: {strategy} fit")
                break
    return found


def _assumptions(
    recipe: Recipe,
    spec: BackboneSpec,
    shapes: Sequence[TaskShape],
    costs: ModelCosts,
    chosen: Option,
    duration: Duration | None,
) -> list[str]:
    found = [f"inputs of {costs.shape.max_length} sub-words each; shorter ones need less"]
    found += [
        f"assumed {shape.labels} {'options per row' if shape.unit == 'choices' else 'labels'} for task '{shape.name}'"
        for shape in shapes
        if shape.assumed
    ]
    if recipe.train.cache_trunk != "off" and trunk_depth(recipe, spec) > 0:
        found.append(
            "layers below the prompt are computed in every step; where train.cache_trunk keeps them, it is less"
        )
    if recipe.train.batch_tokens is not None:
        batch = recipe.train.most_examples(costs.shape.tokens)
        found.append(f"batches of {batch} such examples; shorter ones make larger batches, and fewer steps")
    if len(shapes) > 1:
        found.append(f"memory is that of task '{costs.shape.name}', which has the largest passes")
    if spec.layers_note:
        found.append("layers without attention are computed as in plain PyTorch; kernels of other packages need less")
    found.append("1.5 GiB of each GPU are left to CUDA, its libraries and fragmentation")
    if duration is not None and duration.hours is not None:
        found.append(
            f"{UTILISATION:.0%} of the peak rate is reached, and a layer takes {LEAST * 1000:g} ms of a step at least: "
            "guesses"
        )
        found.append("evaluation, reading data and communication between GPUs take no time")
        if chosen.setup.offload != "none":
            found.append(f"offloaded weights reach the GPU at {BUS / 1e9:g} GB/s")
        if any(shape.unit == "start_end" for shape in shapes):
            found.append("a row makes one window; long passages make several, and more steps")
    return found


def count_processes(recipe: Recipe, recipe_path: Path, gpus: int | None, here: int) -> int:
    """Processes in all.

    Args:
        recipe: whose host file or number of GPUs counts if the user says nothing.
        recipe_path: its file; the host file is beside it.
        gpus: what the user says.
        here: GPUs of this machine, for `auto`; at least 1.

    Raises:
        ConfigError: the host file cannot be read, or has a line that is none of DeepSpeed's.
    """
    if gpus is not None:
        if gpus < 1:
            raise ConfigError(f"--gpus must be at least 1. Got {gpus}")
        return gpus
    if recipe.distributed.hostfile is None:
        return recipe.processes_on(here)
    path = recipe_path.parent / recipe.distributed.hostfile
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"distributed.hostfile cannot be read: {error.strerror}", location=str(path)) from error
    slots = 0
    for number, line in enumerate(lines, start=1):
        words = line.split("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or not words[1].removeprefix("slots=").isdecimal():
            raise ConfigError(f"expected '<host> slots=<processes>', got {line!r}", location=f"{path}:{number}")
        slots += int(words[1].removeprefix("slots="))
    return slots
