"""From a resolved recipe to what is trained: checks first what is cheap, so that a fault shows before costly work."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import final

import torch

from ptv2kit.data.dataset import EncodedSplit, Progress, encode_split
from ptv2kit.data.schemes import build_scheme
from ptv2kit.data.schemes.base import LabelScheme
from ptv2kit.data.schemes.records import Feature
from ptv2kit.data.sources import Located, locate_split, read_splits
from ptv2kit.data.tokens import Subwords
from ptv2kit.data.verbalizer import check_task_words
from ptv2kit.errors import ConfigError, DataError, Problem
from ptv2kit.files import is_file, is_folder
from ptv2kit.models.backbones import BackboneSpec, find_backbone
from ptv2kit.models.build import build_head, build_model, check_model
from ptv2kit.models.checkpoints import load_tokenizer
from ptv2kit.models.language_head import check_language_model, require_language_head
from ptv2kit.models.model import PromptedModel
from ptv2kit.models.quantization import check_quantization
from ptv2kit.models.sharding import Sharding
from ptv2kit.spec.merge import merge_file
from ptv2kit.spec.recipe import Recipe
from ptv2kit.spec.sources import HubSource, JsonlSource, Splits
from ptv2kit.spec.task import AnyTask
from ptv2kit.training.compilation import require_compiler
from ptv2kit.training.processes import workers


@final
@dataclass(frozen=True)
class Prepared:
    """Everything but the weights.

    Args:
        recipe: how it is trained.
        device: where to compute.
        splits: encoded, by name; tests only if the task has any.
        weights: what each class counts in the loss; empty: all count the same.
        first_words: tokens that the prompt starts from; empty unless the recipe says `prompt.init: labels` or `words`.
    """

    recipe: Recipe
    task: AnyTask
    device: torch.device
    spec: BackboneSpec
    scheme: LabelScheme
    splits: Mapping[str, EncodedSplit]
    weights: tuple[float, ...] = ()
    first_words: tuple[int, ...] = ()

    @property
    def skipped(self) -> dict[str, int]:
        """Malformed rows that were left out, by split; only splits from which the task leaves them out."""
        return {name: len(split.data.skipped) for name, split in self.splits.items() if split.data.skipped is not None}

    def build_model(self, sharding: Sharding | None = None) -> PromptedModel:
        """Load the backbone and put a fresh prompt and head on it; seed the generators first.

        Args:
            sharding: of the frozen weights; None: whole.
        """
        scheme, size = self.scheme, len(self.scheme.names)
        model = build_model(self.recipe, scheme.unit, self.spec, size, self.device, sharding, scheme.words)
        model.to(self.device)
        model.head.weigh(self.weights)
        if self.first_words and model.prompt is not None:
            ids = torch.tensor([self.first_words[: model.prompt.length]], device=self.device)
            model.start_prompt_from_tokens(ids, torch.ones_like(ids))
        if self.recipe.prompt.init == "tokens" and model.prompt is not None:
            batch = self.scheme.collate(self._first_tokens(self.recipe.prompt.length)).to(self.device)
            model.start_prompt_from_tokens(batch.input_ids, batch.attention_mask, batch.token_type_ids)
        return model

    def self_contained(self) -> tuple[Recipe, AnyTask]:
        """Recipe and task with the paths of the files that were read, so that they can be run from anywhere."""
        files = {name: split.data.pattern for name, split in self.splits.items()}
        task, recipe = self.task, self.recipe
        if all(files.values()):
            shares = task.data.splits.shares()
            written = task.data.splits.by_name()
            splits = _as_splits(
                {name: written[name] if name in shares else str(path) for name, path in files.items()},
                task.data.splits.seed,
            )
            source = JsonlSource(source="jsonl", splits=splits)
            data = source if isinstance(task.data, HubSource) else task.data.model_copy(update={"splits": splits})
            task = task.model_copy(update={"data": data})
        backbone = recipe.backbone
        if is_folder(Path(backbone.name)):
            backbone = backbone.model_copy(update={"name": str(Path(backbone.name).absolute())})
        return recipe.model_copy(update={"backbone": backbone}), task

    def _first_tokens(self, count: int) -> list[Feature]:
        """Training examples, in an order that the seed decides, with at least `count` tokens in all if there are."""
        features = list(self.splits["train"].features)
        random.Random(self.recipe.train.seed).shuffle(features)
        lengths = accumulate(feature.length for feature in features)
        return features[: 1 + sum(length < count for length in lengths)]


def locate_data(task: AnyTask, task_path: Path, data_root: Path | None) -> dict[str, Located | None]:
    """The files of each split that the task names, None where the hub is asked.

    Raises:
        ConfigError: the data root is not a folder.
        DataError: a file is missing; all missing files are named.
    """
    found: dict[str, Located | None] = {}
    problems: list[Problem] = []
    for split in task.data.splits.by_name():
        try:
            found[split] = locate_split(task, split, task_path=task_path, data_root=data_root)
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    lacking = [split for split, path in found.items() if path is None]
    if lacking and len(lacking) < len(found):
        assert isinstance(task.data, HubSource)
        raise DataError(
            f"the mirror '{data_root}/{task.data.mirror or task.task}' lacks the split {' and '.join(lacking)}",
            hint="put all splits there, or none, so that they are of one make",
        )
    return found


def _as_splits(files: Mapping[str, str], seed: int) -> Splits:
    """The inverse of `Splits.by_name`."""
    tests = {name.removeprefix("test_"): file for name, file in files.items() if name.startswith("test_")}
    return Splits(train=files["train"], validation=files["validation"], test=tests or files.get("test"), seed=seed)


def choose_device(name: str) -> torch.device:
    """The device of `train.device`; of several processes on a machine each has a GPU of its own.

    Raises:
        ConfigError: a GPU was asked for and there is none, there are fewer than processes, or there is no such device.
    """
    if name not in ("auto", "cpu", "cuda", "mps"):
        hint = "auto, cpu, cuda or mps; CUDA_VISIBLE_DEVICES chooses one of several GPUs"
        raise ConfigError(f"there is no device '{name}'", hint=hint)
    if name == "mps":
        if not torch.backends.mps.is_available():
            message = "train.device is mps, but torch finds no GPU of Apple"
            raise ConfigError(message, hint="set train.device to auto or cpu")
        if workers() is not None:
            raise ConfigError("train.device is mps, which several processes cannot share", hint="start one process")
        return torch.device("mps")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("train.device is cuda, but torch finds no GPU", hint="set train.device to auto or cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    found, gpus = workers(), torch.cuda.device_count()
    if found is None:
        return torch.device("cuda")
    place = 0 if gpus == 1 else found.local_rank  # a scheduler may show each process its own GPU alone
    if place >= gpus:
        raise ConfigError(
            f"process {found.rank} is number {place + 1} on its machine, where torch finds {gpus} GPUs",
            hint="start as many processes as there are GPUs",
        )
    return torch.device("cuda", place)


def check_backbone(recipe: Recipe, task: AnyTask) -> tuple[BackboneSpec, int]:
    """The backbone's facts and the longest input, checked against each other.

    Raises:
        ConfigError: the backbone is not supported, or has no positions for the longest input.
        DataError: it could not be loaded.
    """
    spec = find_backbone(recipe.backbone_settings)
    max_length = recipe.train.max_length or task.input.max_length
    check_model(recipe, spec, max_length)
    if task.head == "verbalizer":
        check_language_model(spec, several_tokens=False)
    return spec, max_length


def prepare_tasks(
    recipe: Recipe, tasks: Sequence[tuple[AnyTask, Path]], data_root: Path | None, progress: Progress
) -> tuple[Prepared, ...]:
    """`prepare` for each task of a recipe, with its file; the problems of all of them at once."""
    prepared: list[Prepared] = []
    problems: list[Problem] = []
    for task, path in tasks:
        try:
            prepared.append(prepare(recipe, task, path, data_root, progress))
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(dict.fromkeys(problems))
    return tuple(prepared)


def build_models(prepared: Sequence[Prepared], sharding: Sharding | None = None) -> list[PromptedModel]:
    """A model for each task of a recipe: they share backbone and prompt, and each has a head of its own."""
    words = dict.fromkeys(each.first_words for each in prepared)
    first = replace(prepared[0], first_words=tuple(number for each in words for number in each)).build_model(sharding)
    heads = [
        build_head(each.recipe, each.scheme.unit, each.spec, len(each.scheme.names), first.backbone, each.scheme.words)
        for each in prepared[1:]
    ]
    for each, head in zip(prepared[1:], heads, strict=True):
        head.to(each.device).weigh(each.weights)
    return [first, *map(first.with_head, heads)]


def _check_batch_tokens(recipe: Recipe, split: EncodedSplit) -> None:
    """Every example fits a batch."""
    budget = recipe.train.batch_tokens
    longest = max((feature.length * len(feature.inputs) for feature in split.features), default=0)
    if budget is not None and longest > budget:
        raise ConfigError(
            f"train.batch_tokens is {budget}, but an example of the training split has {longest} tokens",
            hint=f"set train.batch_tokens to {longest} or more, or a lower train.max_length",
        )


def first_words(recipe: Recipe, scheme: LabelScheme, subwords: Subwords) -> tuple[int, ...]:
    """The tokens of `prompt.init: labels` or `words`; empty for any other."""
    if recipe.prompt.init == "words":
        return subwords.plain(recipe.prompt.words or "")
    if recipe.prompt.init != "labels":
        return ()
    words = [word for of_class in scheme.words for word in of_class]
    if not words:
        names = dict.fromkeys(name[2:] if name[:2] in ("B-", "I-") else name for name in scheme.names if name != "O")
        words = [subwords.word(f" {name}") for name in names]
    return tuple(number for word in words for number in word)


def prepare(recipe: Recipe, task: AnyTask, task_path: Path, data_root: Path | None, progress: Progress) -> Prepared:
    """Find the backbone, read and encode all splits.

    Args:
        recipe: how it is trained.
        task_path: the task's file; data files are looked up beside it.
        data_root: where data files are looked up first.

    Raises:
        ConfigError: settings do not fit each other, the backbone or the machine.
        DataError: the data or the backbone could not be loaded, or the data is malformed.
    """
    # What is cheap comes first: files, sizes and words are checked before a row is read or a weight is loaded.
    device = choose_device(recipe.train.device)
    located = locate_data(task, task_path, data_root)
    spec, max_length = check_backbone(recipe, task)
    if recipe.train.compile:
        require_compiler(device)
    if recipe.backbone.quantization is not None:
        check_quantization(recipe.backbone.quantization, spec.config, device.type)
    tokenizer = load_tokenizer(spec, words=task.reads_words)
    subwords = Subwords(tokenizer, max_length, spec.filling, spec.vocabulary)
    if task.head == "verbalizer":
        check_task_words(task, subwords, merge_file(task_path) if is_file(task_path) else None)
        require_language_head(spec)
    read = read_splits(task, located, task_path=task_path, data_root=data_root)
    data = {split: rows.limited(*recipe.limit_of(split), task) for split, rows in read.items()}
    scheme = build_scheme(task, subwords, data["train"].rows)
    splits: dict[str, EncodedSplit] = {}
    problems: list[Problem] = []
    for split in data:
        try:
            splits[split] = encode_split(scheme, data[split], progress)
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(dict.fromkeys(problems))
    _check_batch_tokens(recipe, splits["train"])
    if scheme.unit == "answers":
        check_language_model(spec, several_tokens=True)
    weights = scheme.loss_weights(splits["train"].features)
    words = first_words(recipe, scheme, subwords)
    return Prepared(spec.resolved(recipe), task, device, spec, scheme, splits, weights, words)
