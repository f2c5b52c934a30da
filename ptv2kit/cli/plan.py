"""`ptv2kit plan`: what a run will need, before anything is downloaded or computed."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

import torch

from ptv2kit.cli.output import show
from ptv2kit.cli.terminal import open_console, print_table
from ptv2kit.errors import ConfigError
from ptv2kit.models.backbones import BackboneSpec, find_backbone
from ptv2kit.models.checkpoints import silence_libraries
from ptv2kit.plan.hardware import Gpu, find_gpu, gpu_of_machine, time_processor
from ptv2kit.plan.plan import Plan, count_processes, make_plan
from ptv2kit.spec.load import ResolvedRecipe

if TYPE_CHECKING:
    from rich.console import Console


_LONG, _FIRST_LOOK = 2.0, 1 / 3
"""Hours on a processor from which a first look with fewer rows is proposed, and that it takes."""
_FEWEST = 200
"""Rows of a first look."""


def run(args: argparse.Namespace) -> int:
    """Print the plan.

    Raises:
        ConfigError: the recipe is wrong, or asks for what the backbone does not have.
        DataError: a data file is malformed, or the backbone's configuration could not be loaded.
    """
    named = args.gpu is not None or args.memory is not None or args.peak_tflops is not None
    gpu = find_gpu(args.gpu, args.memory, args.peak_tflops) if named else None
    for option, value in (("--rows", args.rows), ("--price", args.price)):
        if value is not None and value <= 0:
            raise ConfigError(f"{option} must be more than 0. Got {value:g}")
    resolved: ResolvedRecipe = args.resolved
    silence_libraries()

    there, gpus = gpu_here()
    plan = make_plan(
        resolved.recipe,
        find_backbone(resolved.recipe.backbone_settings, planning=True),
        resolved.tasks,
        gpu or there,
        processes=count_processes(resolved.recipe, resolved.path, args.gpus, 1 if named else gpus),
        data_root=args.data_root,
        rows=args.rows,
        price=args.price,
        processor=None if named or torch.cuda.is_available() else time_processor(),
    )
    if args.json:
        show(json.dumps(plan.to_json(), indent=2))
        return 0

    console = open_console()
    print_plan(console, plan)
    return 0


def gpu_here() -> tuple[Gpu, int]:
    """This machine's first GPU and how many it has; without any, the one that is planned for, once."""
    if not torch.cuda.is_available():
        return find_gpu(None, None, None), 1
    found = torch.cuda.get_device_properties(0)
    return gpu_of_machine(str(found.name), int(found.total_memory)), torch.cuda.device_count()


def print_summary(console: Console, resolved: ResolvedRecipe, spec: BackboneSpec) -> None:
    """What a dry run says of the plan on this machine: parameters, strategy, memory; no row is read."""
    gpu, gpus = gpu_here()
    processes = count_processes(resolved.recipe, resolved.path, None, gpus)
    plan = make_plan(resolved.recipe, spec, resolved.tasks, gpu, processes=processes, count_rows=False)
    console.print(_parameters(plan), soft_wrap=True)
    console.print(f"plan for {processes} x {gpu.name}: {_strategy(plan)}", soft_wrap=True)
    for warning in plan.warnings:
        console.print(f"warning: {warning}", soft_wrap=True)
    console.print("plan: 'ptv2kit plan' has the rest: memory by part, other GPUs, time", soft_wrap=True)


def print_plan(console: Console, plan: Plan) -> None:
    """The plan for people."""
    chosen = plan.chosen
    trained = plan.recipe.trained(head=plan.costs.count.head > 0)
    console.print(f"{plan.recipe.recipe}: {trained}", style="bold", soft_wrap=True)
    console.print(_parameters(plan), soft_wrap=True)
    console.print(_steps(plan), soft_wrap=True)
    console.print()
    _print_memory(console, plan)
    console.print()
    console.print(f"strategy: {_strategy(plan)}", soft_wrap=True)
    again = chosen.checkpointed
    with_it = "not supported by this backbone" if again is None else f"{again / 2**30:.2f} GiB with it"
    console.print(
        f"activations: {chosen.plain / 2**30:.2f} GiB without gradient checkpointing, {with_it}", soft_wrap=True
    )
    console.print(_time(plan), soft_wrap=True)
    few = _first_look(plan)
    if few:
        limits = f"limit.train={few} limit.validation=500"
        console.print(f"a first look: {limits} takes about {_FIRST_LOOK * 60:.0f} minutes", soft_wrap=True)
    for warning in plan.warnings:
        console.print(f"warning: {warning}", style="yellow", soft_wrap=True)
    for assumption in plan.assumptions:
        console.print(f"assumed: {assumption.removeprefix('assumed ')}", style="dim", soft_wrap=True)


def _print_memory(console: Console, plan: Plan) -> None:
    from rich import box
    from rich.table import Table

    processes = max(option.setup.processes for option in plan.options)
    again = " with gradient checkpointing" if plan.recipe.train.gradient_checkpointing else ""
    console.print(
        f"GiB on each of {processes} x {plan.gpu.name} ({plan.gpu.memory / 2**30:.1f} GiB){again}", soft_wrap=True
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for option in plan.options:
        taken = option.setup == plan.choice.setup
        name = f"{option.setup.name} *" if taken else option.setup.name
        table.add_column(name, justify="right", no_wrap=True, style="bold" if taken else None)
    for part in ("weights", "gradients", "optimizer", "buckets", "activations", "prefix", "head", "reserve", "total"):
        sizes = [f"{getattr(option.footprint, part) / 2**30:.2f}" for option in plan.options]
        table.add_row(part, *sizes, end_section=part in ("reserve", "total"))
    table.add_row("on the host", *(f"{option.footprint.host / 2**30:.2f}" for option in plan.options))
    table.add_row("micro-batch", *(f"{option.examples:,}" for option in plan.options))
    table.add_row("largest that fits", *(_most(option.micro_batch) for option in plan.options))
    print_table(console, table)


def _parameters(plan: Plan) -> str:
    count = plan.costs.count
    return (
        f"parameters: {count.frozen:,} frozen; {count.trained:,} trained = {count.percent} of the backbone "
        f"({count.text})"
    )


def _strategy(plan: Plan) -> str:
    chosen = plan.chosen
    return (
        f"{chosen.setup.name}, because {plan.choice.reason}; micro-batches of {chosen.examples}, "
        f"{chosen.footprint.total / 2**30:.1f} of {plan.gpu.memory / 2**30:.1f} GiB; "
        f"the largest that fits is {_most(chosen.micro_batch)}"
    )


def _most(examples: int) -> str:
    return str(examples) if examples < 10_000 else ">9999"


def _steps(plan: Plan) -> str:
    train = plan.recipe.train
    if plan.duration is None:
        unknown = [name for name, rows in plan.rows.items() if rows is None]
        return (
            f"steps: unknown, because the training rows of {' and '.join(unknown)} are not on this machine; "
            f"say --rows N or --data-root DIR ({train.epochs} epochs, batches of {train.batch})"
        )
    rows = sum(count or 0 for count in plan.rows.values())
    return f"steps: {plan.duration.steps:,} ({train.epochs} epochs of {rows:,} rows, batches of {train.batch})"


def _time(plan: Plan) -> str:
    if plan.duration is None:
        return "time: unknown without the number of rows"
    if plan.duration.hours is None:
        return f"time: unknown, because the peak rate of {plan.gpu.name} is not known; say --peak-tflops X"
    processes = plan.choice.setup.processes
    cost = "" if plan.duration.cost is None else f", cost {plan.duration.cost:,.2f}"
    here = "" if plan.hours_here is None else f"; {_length(plan.hours_here)} on this machine's processor"
    return (
        f"time: about {_length(plan.duration.hours)} on {processes} x {plan.gpu.name}{cost}{here}; less if inputs are "
        "shorter"
    )


def _first_look(plan: Plan) -> int:
    """Rows of each task whose training takes `_FIRST_LOOK` here; 0 if all do not take long, or so few teach nothing."""
    if plan.hours_here is None or plan.hours_here < _LONG:
        return 0
    rows = min(count or 0 for count in plan.rows.values()) * _FIRST_LOOK / plan.hours_here
    return int(float(f"{rows:.1g}")) if rows >= _FEWEST else 0


def _length(hours: float) -> str:
    return f"{hours:,.1f} hours" if hours >= 1 else f"{hours * 60:.1f} minutes"
