"""What a recipe asks for that contradicts itself, its tasks, or a backbone on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ptv2kit.errors import Problem, did_you_mean
from ptv2kit.spec.base import Fault
from ptv2kit.spec.layers import covered_layers, layers_on_disk
from ptv2kit.spec.merge import Merged, Override
from ptv2kit.spec.recipe import DEEP_METHODS, Recipe
from ptv2kit.spec.task import AnyTask


def problems_of(faults: Iterable[Fault], merged: Merged) -> list[Problem]:
    """Find the line and column of each fault."""
    return [
        (merged.key if fault.at_key else merged.place)(fault.path).problem(fault.message, fault.hint)
        for fault in faults
    ]


def check_recipe(recipe: Recipe, tasks: Sequence[AnyTask], merged: Merged) -> list[Problem]:
    """The contradictions of a recipe, each at its line and column."""
    origin = merged.place(("backbone", "name"))
    base = Path() if isinstance(origin, Override) else Path(origin.path).parent
    return problems_of(_faults(recipe, tasks, base), merged)


def _faults(recipe: Recipe, tasks: Sequence[AnyTask], base: Path) -> Iterator[Fault]:
    """All of them; `base` is what the path of a backbone is relative to."""
    names = [task.task for task in tasks]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield Fault(("task", index), f"'task' has two tasks that are called '{name}'")
    length = recipe.train.max_length
    for task in tasks:
        if length is not None and task.stride >= length:
            message = f"'train.max_length' ({length}) must be more than 'input.stride' of task '{task.task}'"
            yield Fault(("train", "max_length"), f"{message} ({task.stride})")
        for name, limit in recipe.limit.model_dump(exclude={"seed"}).items():
            if limit is not None and name != "train" and task.groups_rows:
                message = f"'limit.{name}' would tear apart the groups that task '{task.task}' scores together"
                yield Fault(("limit", name), message)
            elif isinstance(limit, str) and task.class_column is None:
                message = f"'limit.{name}' is '{limit}', but task '{task.task}' has no class for each row"
                yield Fault(("limit", name), message, "give a number of rows")
    if recipe.limit.test is not None and all(task.data.splits.test is None for task in tasks):
        without = f"task '{names[0]}' has no test split" if len(names) == 1 else "no task has a test split"
        yield Fault(("limit", "test"), f"'limit.test' is set, but {without}")
    for task in tasks if recipe.train.select_on is not None else ():
        if any(task.data.splits.faults()):
            message = "'train.select_on' must be a share above 0% and up to 50%"
            yield Fault(("train", "select_on"), message)
            break
    yield from _method(recipe, tasks)
    yield from _prompt(recipe, tasks, base)
    yield from _train(recipe)
    yield from _expectations(recipe, tasks)


def _method(recipe: Recipe, tasks: Sequence[AnyTask]) -> Iterator[Fault]:
    if recipe.method == "fine_tuning":
        for key, value in (("dtype", recipe.backbone_settings.dtype), ("quantization", recipe.backbone.quantization)):
            if value not in ("fp32", None):
                message = f"'backbone.{key}' is {value}, but 'method' fine_tuning trains the backbone, which needs fp32"
                yield Fault(("backbone", key), message)
    if recipe.method == "lora" and recipe.backbone.quantization is not None:
        message = "'method' lora does not train beside quantized weights"
        yield Fault(("backbone", "quantization"), message, "leave the quantization out, or take a method with a prompt")
    if recipe.train.layer_norm_learning_rate is not None:
        key = "'train.layer_norm_learning_rate'"
        if recipe.prompt_length == 0:
            message = f"{key} goes with a prompt, which 'method' {recipe.method} has none of"
            yield Fault(("train", "layer_norm_learning_rate"), message, at_key=True)
        for name, value in (("dtype", recipe.backbone_settings.dtype), ("quantization", recipe.backbone.quantization)):
            if value not in ("fp32", None):
                message = f"'backbone.{name}' is {value}, but {key} trains weights of the backbone, which needs fp32"
                yield Fault(("backbone", name), message)
    if recipe.method == "linear_probe" and any(task.head == "verbalizer" for task in tasks):
        message = "'method' linear_probe trains the head alone, but a verbalizer has nothing to train"
        yield Fault(("method",), message, "set a method with a prompt, or head: linear")


def _prompt(recipe: Recipe, tasks: Sequence[AnyTask], base: Path) -> Iterator[Fault]:
    """What a prompt starts from, and the layers that it is on."""
    init, words = recipe.prompt.init, recipe.prompt.words
    if init == "words" and (words is None or not words.strip()):
        hint = 'such as words: "the answer is yes or no"'
        yield Fault(("prompt", "init"), "'prompt.init' words needs 'prompt.words'", hint)
    elif init != "words" and words is not None:
        yield Fault(("prompt", "words"), f"'prompt.words' needs 'prompt.init: words', found {init}", at_key=True)
    elif init == "labels":
        nameless = [task.task for task in tasks if not task.labels_are_words]
        if nameless:
            message = f"'prompt.init' is labels, but the labels of task '{nameless[0]}' are not words"
            yield Fault(("prompt", "init"), message, "set prompt.init to words or tokens")
    if recipe.init_from is not None and recipe.prompt_length == 0:
        yield Fault(("init_from",), f"'init_from' brings a prompt, but 'method' {recipe.method} has none")
    elif recipe.init_from is not None and recipe.reparameterization != "none":
        message = f"'init_from' brings a plain prompt, but 'prompt.reparameterization' is {recipe.reparameterization}"
        yield Fault(("init_from",), message, "set prompt.reparameterization to none")
    if recipe.method in DEEP_METHODS and recipe.prompt.layers != "all":
        count = layers_on_disk(recipe.backbone.name, base)
        try:
            if count is not None:  # of the hub's backbones it is found when they are loaded
                covered_layers(recipe.prompt.layers, count)
        except ValueError as error:
            yield Fault(("prompt", "layers"), f"'prompt.layers': {error}")


def _train(recipe: Recipe) -> Iterator[Fault]:
    """Batches, kept lower layers, compilation."""
    train = recipe.train
    if train.batch_size is None and train.batch_tokens is None:
        yield Fault(("train", "batch_size"), "'train.batch_size' is null, and there is no 'train.batch_tokens'")
    elif train.batch_size is not None and train.batch_tokens is not None:
        message = f"'train.batch_tokens' takes the place of 'train.batch_size', which is {train.batch_size}"
        yield Fault(("train", "batch_tokens"), message, "set train.batch_size to null, or leave it out")
    deep = recipe.method in DEEP_METHODS
    everywhere = deep and recipe.prompt.layers == "all"
    if train.cache_trunk in ("memory", "disk") and recipe.method != "linear_probe" and (everywhere or not deep):
        why = "'prompt.layers' is all" if deep else f"'method' is {recipe.method}"
        message = f"'train.cache_trunk' is {train.cache_trunk}, but {why}, so that no layer is below the lowest prompt"
        hint = "set prompt.layers to the upper ones, such as 7.., or train.cache_trunk to off"
        yield Fault(("train", "cache_trunk"), message, hint)
    elif train.cache_trunk in ("memory", "disk") and train.layer_norm_learning_rate is not None:
        message = f"'train.cache_trunk' is {train.cache_trunk}, but the lower layers' LayerNorms are trained"
        yield Fault(("train", "cache_trunk"), message, "set train.cache_trunk to off")
    if train.compile:  # only passes that are the same for all lengths can be compiled once
        if recipe.method == "fine_tuning":
            reason = "'method' fine_tuning trains the backbone, and what is compiled is a frozen one"
        elif train.layer_norm_learning_rate is not None:
            reason = "LayerNorms are trained, and what is compiled is a frozen backbone"
        elif train.gradient_checkpointing:
            reason = "'train.gradient_checkpointing' is true, which is not compiled with every backbone"
        elif recipe.backbone.quantization is not None:
            reason = f"'backbone.quantization' is {recipe.backbone.quantization}"
        elif recipe.distributed.strategy.startswith("zero"):
            reason = f"'distributed.strategy' is {recipe.distributed.strategy}, which gathers weights within a pass"
        else:
            return
        yield Fault(("train", "compile"), f"'train.compile' is true, but {reason}", "set train.compile to false")


def _expectations(recipe: Recipe, tasks: Sequence[AnyTask]) -> Iterator[Fault]:
    names = [task.task for task in tasks]
    for index, wanted in enumerate(recipe.expect):
        path, key = ("expect", index), f"expect[{index}]"
        if wanted.task is None and len(tasks) > 1:
            yield Fault(path, f"'{key}' must say which 'task'", f"it is one of {', '.join(names)}")
            continue
        if wanted.task is not None and wanted.task not in names:
            message = f"'{key}.task' is '{wanted.task}', which the recipe does not have"
            yield Fault((*path, "task"), message, did_you_mean(wanted.task, names))
            continue
        task = tasks[0 if wanted.task is None else names.index(wanted.task)]
        splits = list(task.data.splits.by_name())
        if wanted.metric not in task.metrics:
            message = f"'{key}.metric' is '{wanted.metric}', which task '{task.task}' does not measure"
            yield Fault((*path, "metric"), message, did_you_mean(wanted.metric, list(task.metrics)))
        if wanted.split not in splits:
            message = f"'{key}.split' is '{wanted.split}', but task '{task.task}' has no such split"
            close = did_you_mean(wanted.split, splits)
            yield Fault((*path, "split"), message, close if close.startswith("did") else f"it has {', '.join(splits)}")
