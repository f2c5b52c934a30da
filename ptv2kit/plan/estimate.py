"""What the runs of a suite will need: operations, hours, disk. What several runs have in common is measured once."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ptv2kit.data.rows import Row
from ptv2kit.data.schemes import build_scheme
from ptv2kit.data.sources import classes_of, read_split_if_here
from ptv2kit.data.tokens import Subwords
from ptv2kit.models.backbones import BackboneSpec, empty_backbone
from ptv2kit.models.build import build_head, covered, empty_model, trunk_depth
from ptv2kit.models.checkpoints import load_tokenizer
from ptv2kit.plan.hardware import Gpu
from ptv2kit.plan.passes import TaskShape
from ptv2kit.plan.plan import task_shape
from ptv2kit.spec.load import ResolvedRecipe, ResolvedTask
from ptv2kit.spec.recipe import DEEP_METHODS, SHALLOW_METHODS, Recipe
from ptv2kit.spec.suite import Keep, keeps_tensors

_SMALL_FILES = 200_000
"""Bytes of a run's folder besides tensors: resolved YAML, logs, metrics, generators. Predictions come on top."""
_SAMPLE = 64
"""Rows whose lengths stand for those of all."""
_MODEL_KEYS: Any = {"backbone", "method", "prompt", "deepspeed"}
_TRAIN_KEYS = ("max_length", "gradient_checkpointing", "device")


@final
@dataclass(frozen=True)
class Disk:
    """Bytes of a run's folder: what is left at the end, and how large it is at most while the run trains."""

    kept: int
    peak: int


@final
@dataclass(frozen=True)
class Estimate:
    """What a run will need.

    Args:
        examples: rows that it trains on, over all epochs; None: its files are not on this machine.
        operations: of all forward and backward passes on them; inputs are as long as a sample of the rows, where rows
            and tokenizer are on this machine, else as long as they may be.
        layers: how often a layer is computed in all steps.
        disk: bytes of its folder when it is largest, without predictions.
    """

    examples: int | None
    operations: float | None
    layers: float
    disk: Disk

    def seconds(self, gpu: Gpu, dtype: str) -> float | None:
        """Wall time of training on a GPU, None if its rate or the rows are not known.

        Args:
            gpu: on which.
        """
        return None if self.operations is None else gpu.seconds(dtype, self.operations, self.layers)


@final
class Estimator:
    """Estimates runs one after the other.

    Args:
        spec: gives a recipe's backbone, of each backbone the same one.
        data_root: where data files are looked up first.
        keep: what of a run is kept at its end.
    """

    def __init__(self, spec: Callable[[Recipe], BackboneSpec], data_root: Path | None, keep: Keep) -> None:
        self._spec = spec
        self._keep: Keep = keep
        self._data_root = data_root
        self._backbones: dict[str, PreTrainedModel] = {}
        self._operations: dict[str, float] = {}
        self._disk: dict[str, tuple[int, int]] = {}
        self._splits: dict[str, tuple[int, list[Row], list[int]] | None] = {}
        self._lengths: dict[str, tuple[float, int]] = {}

    def estimate(self, resolved: ResolvedRecipe) -> Estimate:
        """Estimate a run.

        Raises:
            ConfigError: the backbone cannot do what the recipe asks for.
            DataError: the backbone's configuration could not be loaded, or a data file is malformed.
        """
        recipe = resolved.recipe
        rows = [self._rows_of(recipe, task) for task in resolved.tasks]
        known = [count for count in rows if count is not None]
        disk = self.disk(resolved)
        if len(known) < len(rows):
            return Estimate(None, None, 0.0, disk)
        pairs = list(zip(resolved.tasks, known, strict=True))
        epochs, layers = recipe.train.epochs, self._spec(recipe).depth
        work = sum(count * self._operations_of(recipe, task) for task, count in pairs)
        batches = (count / recipe.train.most_examples(task_shape(recipe, task.task).tokens) for task, count in pairs)
        return Estimate(epochs * sum(known), epochs * work, epochs * layers * sum(batches), disk)

    def disk(self, resolved: ResolvedRecipe) -> Disk:
        """Bytes of a run's folder.

        Raises:
            ConfigError: the backbone cannot do what the recipe asks for.
            DataError: the backbone's configuration could not be loaded.
        """
        key = _key(resolved)
        if key not in self._disk:
            self._disk[key] = self._sizes(resolved)
        trained, saved = self._disk[key]
        prompts = saved * (1 if len(resolved.tasks) == 1 else len(resolved.tasks) + 1)
        checkpoint = trained + 2 * trained  # what is trained, with the optimizer's two moments
        keeps = resolved.recipe.train.keep_checkpoints
        # While it trains: the checkpoints and one that is being written, with the best prompts that they know of.
        peak = (keeps + 1) * (checkpoint + prompts) + prompts + _SMALL_FILES
        return Disk(
            kept=_SMALL_FILES + (prompts if keeps_tensors(self._keep, resolved.recipe.method) else 0), peak=peak
        )

    def _sizes(self, resolved: ResolvedRecipe) -> tuple[int, int]:
        """Bytes of all that is trained, and of what is kept for inference, where networks of prompts are folded."""
        recipe, spec = resolved.recipe, self._spec(resolved.recipe)
        shapes = [task_shape(recipe, task.task) for task in resolved.tasks]
        model = empty_model(recipe, shapes[0].unit, spec, shapes[0].labels, self._empty(recipe))
        others = [
            parameter.numel() * parameter.element_size()
            for shape in shapes[1:]
            if not shape.own_head
            for parameter in build_head(recipe, shape.unit, spec, shape.labels, model.backbone).parameters()
        ]

        def trained() -> int:
            own = [each for each in model.parameters() if each.requires_grad]
            return sum(each.numel() * each.element_size() for each in own) + sum(others)

        unfolded = trained()
        model.fold_prompt()
        return unfolded, trained()

    def _operations_of(self, recipe: Recipe, task: ResolvedTask) -> float:
        """Of one row, forward and backward."""
        windows, length = self._length_of(recipe, task)
        shape = replace(task_shape(recipe, task.task), name="", max_length=length)
        train = {name: getattr(recipe.train, name) for name in _TRAIN_KEYS}
        key = json.dumps([recipe.model_dump(mode="json", include=_MODEL_KEYS), str(shape), train], sort_keys=True)
        if key not in self._operations:
            backbone = self._empty(recipe) or empty_backbone(self._spec(recipe))
            self._operations[key] = operations(recipe, self._spec(recipe), backbone, shape)
        return windows * self._operations[key]

    def _length_of(self, recipe: Recipe, task: ResolvedTask) -> tuple[float, int]:
        """Inputs for each row, which is more than one if long rows are read in windows, and their mean length."""
        longest = task_shape(recipe, task.task).max_length
        spec, split = self._spec(recipe), self._split(task)
        if split is None or not spec.at_hand:
            return 1.0, longest
        rows = split[1]
        key = json.dumps([_data_key(task), recipe.backbone.model_dump(mode="json"), longest])
        if key not in self._lengths:
            tokenizer = load_tokenizer(spec, words=task.task.reads_words)
            scheme = build_scheme(task.task, Subwords(tokenizer, longest, spec.filling, spec.vocabulary), rows)
            encoded = [scheme.encode(row, index, labelled=False) for index, row in enumerate(rows)]
            lengths = [feature.length for features in encoded for feature in features]
            self._lengths[key] = len(lengths) / len(rows), round(sum(lengths) / len(lengths))
        return self._lengths[key]

    def _empty(self, recipe: Recipe) -> PreTrainedModel | None:
        """The backbone without weights, made once for all recipes of it; None for LoRA, which changes it."""
        if recipe.method == "lora":
            return None
        key = recipe.backbone.model_dump_json()
        if key not in self._backbones:
            self._backbones[key] = empty_backbone(self._spec(recipe))
        return self._backbones[key].requires_grad_(False)

    def _rows_of(self, recipe: Recipe, task: ResolvedTask) -> int | None:
        """Rows of a training split as far as the recipe takes them; None if its files are not on this machine."""
        split, limit = self._split(task), recipe.limit.train
        if split is None or limit is None:
            return None if split is None else split[0]
        if isinstance(limit, int):
            return min(split[0], limit)
        return sum(min(size, int(limit.split()[0])) for size in split[2])

    def _split(self, task: ResolvedTask) -> tuple[int, list[Row], list[int]] | None:
        """Number of a task's training rows, a sample of them, and how many each class has, if they have classes; None
        if its files are not on this machine."""
        key = _data_key(task)
        if key not in self._splits:
            data = read_split_if_here(task.task, "train", task_path=task.path, data_root=self._data_root)
            self._splits[key] = None
            if data is not None:
                rows = data.rows
                classes = {} if task.task.class_column is None else classes_of(task.task, rows)
                sample = list(rows[:: max(1, len(rows) // _SAMPLE)])
                self._splits[key] = len(rows), sample, [len(indices) for indices in classes.values()]
        return self._splits[key]


def operations(recipe: Recipe, spec: BackboneSpec, backbone: nn.Module, shape: TaskShape) -> float:
    """Floating-point operations of a forward and a backward pass over one example, by formula.

    A token costs two operations for each weight of the layers, and four for each dimension of each token and prompt
    vector that it attends to. The backward pass costs as much again, from the lowest trained layer on, in attention
    twice as much, and once more for weights that are trained. Heads and networks that make prompts are left out.
    `ptv2kit plan` counts the operations instead, which takes a second for each kind of run.

    Args:
        backbone: from `empty_backbone`.
    """
    count = len(spec.layers)
    shallow = recipe.prompt.length if recipe.method in SHALLOW_METHODS else 0
    tokens = shape.max_length + shallow
    indices = covered(recipe, spec) or tuple(range(count))
    behind = recipe.prompt.length * (len(indices) if recipe.method in DEEP_METHODS else 0) / count
    weights = sum(each.weight.numel() for each in backbone.modules() if isinstance(each, nn.Linear | Conv1D))
    products = 2.0 * weights * tokens
    attention = 4.0 * tokens * (tokens + behind) * int(spec.config.hidden_size) * count
    forward = products + attention
    reached = 0.0 if recipe.method == "linear_probe" else 1 - trunk_depth(recipe, spec) / count
    trained = products if recipe.method == "fine_tuning" else 0.0
    again = forward if recipe.train.gradient_checkpointing else 0.0
    return shape.inputs * (forward + again + reached * (products + 2 * attention) + trained)


def _data_key(task: ResolvedTask) -> str:
    """What decides which rows a task has."""
    return json.dumps([str(task.path), task.task.model_dump(mode="json")], sort_keys=True)


def _key(resolved: ResolvedRecipe) -> str:
    """What decides the size of a model."""
    recipe = resolved.recipe
    shapes = [task_shape(recipe, task.task) for task in resolved.tasks]
    heads = [(shape.unit, shape.labels, shape.own_head) for shape in shapes]
    layer_norms = recipe.train.layer_norm_learning_rate is not None
    return json.dumps([recipe.model_dump(mode="json", include=_MODEL_KEYS), heads, layer_norms], sort_keys=True)


def disk_of(sizes: Sequence[tuple[int, Disk]], jobs: int) -> int:
    """Bytes that a suite needs: what all runs keep, and what those at one time need on top.

    Args:
        sizes: how often a run is made, and what it needs.
        jobs: runs at one time.
    """
    largest = sorted((size.peak - size.kept for times, size in sizes for _ in range(min(times, jobs))), reverse=True)
    return sum(times * size.kept for times, size in sizes) + sum(largest[:jobs])


def readable(size: float) -> str:
    """Bytes as people read them, such as `1.3 GB`; powers of 1000."""
    unit = min(4, int(math.log(max(size, 1), 1000)))
    return f"{size / 1000**unit:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[unit]}"
