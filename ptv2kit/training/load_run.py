"""A trained run from its folder, without the data that it was trained on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from transformers import PreTrainedTokenizerBase

from ptv2kit.data.dataset import encode_split
from ptv2kit.data.schemes import build_scheme
from ptv2kit.data.schemes.base import LabelScheme
from ptv2kit.data.sources.split import SplitData
from ptv2kit.data.templates import task_rows
from ptv2kit.data.tokens import Subwords
from ptv2kit.data.unlabelled import row_in_memory, rows_in_memory
from ptv2kit.errors import ConfigError, DataError, did_you_mean
from ptv2kit.files import is_file
from ptv2kit.models.backbones import BackboneSpec
from ptv2kit.models.build import build_model
from ptv2kit.models.checkpoints import load_tokenizer
from ptv2kit.models.model import PromptedModel
from ptv2kit.spec.load import ResolvedRecipe, load_recipe
from ptv2kit.spec.recipe import Recipe
from ptv2kit.spec.task import AnyTask
from ptv2kit.training.evaluate import evaluate
from ptv2kit.training.predict import Predictor
from ptv2kit.training.prepare import check_backbone, choose_device
from ptv2kit.training.prompt_file import load_prompt, require_facts


@final
@dataclass(frozen=True, repr=False)
class LoadedRun:
    """A run that can predict, and score rows with labels.

    Args:
        folder: that it was read from.
        task: the one that was asked for, with the labels that it was trained with.
        tokenizer: of the backbone, as the task's scheme uses it.
        model: with the best prompt and head, in evaluation mode.
        facts: of the prompt's file: epoch, scores and the like.
        device: where the model is.
    """

    folder: Path
    recipe: Recipe
    task: AnyTask
    spec: BackboneSpec
    tokenizer: PreTrainedTokenizerBase
    scheme: LabelScheme
    model: PromptedModel
    facts: dict[str, Any]
    device: torch.device

    def __repr__(self) -> str:
        # That of a dataclass would print every layer of the model.
        return f"LoadedRun({str(self.folder)!r}, task {self.task.task!r}, backbone {self.recipe.backbone.name!r})"

    def predictor(self, batch_size: int | None = None) -> Predictor:
        """What answers rows, `batch_size` inputs at a time; None: as many as the run was evaluated with.

        Raises:
            ConfigError: `batch_size` is below 1.
        """
        return Predictor(self.task, self.scheme, self.model, self.device, self._inputs_at_once(batch_size))

    def _inputs_at_once(self, batch_size: int | None) -> int:
        if batch_size is None:
            return self.recipe.train.eval_batch_size
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1. Got {batch_size}")
        return batch_size

    def predict(self, rows: Iterable[Mapping[str, Any] | str], batch_size: int | None = None) -> list[dict[str, Any]]:
        """The answer to each row: `label`, `probability` and what the task's scheme tells besides, such as `spans`.

        Args:
            rows: the columns of each, as in the task's data but without labels; or the text, if the task reads one
                column only; or a pandas table.
            batch_size: inputs per forward pass; None: as many as the run was evaluated with.

        Raises:
            ConfigError: a row is a text, but the task reads several columns; this is one row, not a list; or
                `batch_size` is below 1.
            DataError: rows lack a column, or one is of the wrong kind; all of them are named.
        """
        given = [
            row_in_memory(self.task, row, f"row {number}") for number, row in enumerate(rows_in_memory(rows), start=1)
        ]
        answers = list(self.predictor(batch_size).answers(given))
        problems = [problem for answer in answers if answer.error is not None for problem in answer.error.problems]
        if problems:
            raise DataError(problems)
        return [answer.values for answer in answers if answer.values is not None]

    def evaluate(self, rows: Iterable[Mapping[str, Any]], batch_size: int | None = None) -> dict[str, float]:
        """The task's metrics over rows with labels, such as `{"span_f1": 84.9}`; as `ptv2kit evaluate --data FILE`.

        Args:
            rows: the columns of each, as in the task's data; or a pandas table.
            batch_size: inputs per forward pass; None: as many as the run was evaluated with.

        Raises:
            ConfigError: this is one row, not a list, or `batch_size` is below 1.
            DataError: there is no row, or rows lack a column or have a wrong one; all of them are named.
        """
        given = (
            row_in_memory(self.task, row, f"row {number}") for number, row in enumerate(rows_in_memory(rows), start=1)
        )
        made = tuple(task_rows(self.task, given))
        if not made:
            raise DataError("there is no row to score")
        split = encode_split(self.scheme, SplitData("rows", made, "rows in memory", ""), _no_progress)
        size = self._inputs_at_once(batch_size)
        found = evaluate(self.model, self.scheme, split, size, self.device, _no_progress)
        return dict(found.scores.values)


def _no_progress(*_: object) -> None:
    """Show no progress."""


def load_run(folder: Path, task: str | None = None, device: str = "auto", beside: LoadedRun | None = None) -> LoadedRun:
    """Read a run's recipe, task, prompt and head, and load its backbone.

    Args:
        task: which one of several.
        device: as `train.device`.
        beside: a run whose backbone is taken instead, whose device, and whose tokenizer if it serves; None: load them.

    Raises:
        ConfigError: this is not the folder of a run, it has no head, it has several tasks and none was named, what
            was saved does not fit its own recipe, or the run beside has another backbone.
        DataError: a file is torn, or the backbone could not be loaded.
    """
    resolved = read_run(folder)
    chosen = _choose(resolved, task, folder)
    several = len(resolved.tasks) > 1
    prompt = folder / "prompt" / chosen.task if several else folder / "prompt"
    tensors, facts = load_prompt(prompt)
    require_facts(facts, prompt)
    if facts["task"] != chosen.task:
        raise DataError(f"this is the prompt of task '{facts['task']}', not of '{chosen.task}'", location=str(prompt))
    if not facts["names"]:
        raise ConfigError(f"the run '{folder}' has a prompt and no head", hint="init_from lets a new run start from it")
    own = chosen.with_names(facts["names"]).with_scores(facts.get("validation", {}))
    recipe = resolved.recipe
    where = choose_device(device) if beside is None else beside.device
    spec, max_length = check_backbone(recipe, own)
    if beside is not None:
        _require_same_backbone(folder, recipe, spec, beside)
    words = own.reads_words
    shared = beside is not None and beside.task.reads_words == words
    tokenizer = beside.tokenizer if beside is not None and shared else load_tokenizer(spec, words=words)
    scheme = build_scheme(own, Subwords(tokenizer, max_length, spec.filling, spec.vocabulary), ())
    backbone = None if beside is None else beside.model.backbone
    model = build_model(recipe, scheme.unit, spec, len(scheme.names), where, words=scheme.words, backbone=backbone)
    model.fold_prompt()
    try:
        model.load_trained_state(tensors)
    except ConfigError as error:
        raise DataError(str(error.problems[0].message), location=str(folder / "prompt")) from error
    return LoadedRun(folder, recipe, own, spec, tokenizer, scheme, model.to(where).eval(), facts, where)


def _require_same_backbone(folder: Path, recipe: Recipe, spec: BackboneSpec, beside: LoadedRun) -> None:
    """Prompts of both runs belong to the same weights, computed in the same way."""
    for run, each in ((folder, recipe), (beside.folder, beside.recipe)):
        if each.changes_backbone:
            raise ConfigError(
                f"the run '{run}' trained its backbone, or something within it, which no other run can share",
                hint="use 'ptv2kit predict' with it, or serve it alone",
            )
    own = {
        "name": (spec.source, beside.spec.source),
        "revision": (recipe.backbone.revision, beside.recipe.backbone.revision),
        "dtype": (recipe.backbone.dtype, beside.recipe.backbone.dtype),
        "quantization": (recipe.backbone.quantization, beside.recipe.backbone.quantization),
        "bidirectional": (recipe.backbone.bidirectional, beside.recipe.backbone.bidirectional),
        "attention": (spec.kernel, beside.spec.kernel),
    }
    for key, (here, there) in own.items():
        if here != there:
            raise ConfigError(
                f"the run '{folder}' has backbone.{key} {here}, but '{beside.folder}' has {there}",
                hint="prompts share a backbone only if they were trained on the same; serve this run apart",
            )


def read_run(folder: Path) -> ResolvedRecipe:
    """The recipe and the tasks of a run.

    Raises:
        ConfigError: this is not the folder of a run, or its files are no longer valid.
    """
    path = folder / "recipe.resolved.yaml"
    if not is_file(path):
        raise ConfigError(
            f"'{folder}' is not the folder of a run, which has 'recipe.resolved.yaml'",
            hint="'ptv2kit run' prints a run's folder",
        )
    return load_recipe(path)


def _choose(resolved: ResolvedRecipe, task: str | None, folder: Path) -> AnyTask:
    names = [each.task.task for each in resolved.tasks]
    if task is None and len(names) > 1:
        raise ConfigError(f"the run '{folder}' has several tasks", hint=f"name one of them: {', '.join(names)}")
    if task is not None and task not in names:
        raise ConfigError(f"the run '{folder}' has no task '{task}'", hint=did_you_mean(task, names))
    return resolved.tasks[0 if task is None else names.index(task)].task
