"""Recipes and tasks from files: every problem of all files at once, or objects that are whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import yaml
from pydantic import TypeAdapter

from ptv2kit.errors import ConfigError, Problem
from ptv2kit.spec.base import Section
from ptv2kit.spec.checks import check_recipe, problems_of
from ptv2kit.spec.merge import Merged, Setting, find_named, merge_file
from ptv2kit.spec.recipe import Recipe
from ptv2kit.spec.task import TASK_SECTIONS, AnyTask, Task, scheme_of
from ptv2kit.spec.validate import validate, without_removed
from ptv2kit.spec.yaml import KeyPath, Position, load_document, scalar

RESOLVED_RECIPE = "recipe.resolved.yaml"
"""What a run's folder calls its recipe."""
_RECIPE: TypeAdapter[Any] = TypeAdapter(Recipe)
_TASK: TypeAdapter[Any] = TypeAdapter(Task)


@final
@dataclass(frozen=True)
class ResolvedTask:
    """A task and where it came from.

    Args:
        task: validated.
        path: its file.
        merged: the values that were written, and where.
    """

    task: AnyTask
    path: Path
    merged: Merged


@final
@dataclass(frozen=True)
class ResolvedRecipe:
    """A recipe with its tasks, and where they came from.

    Args:
        recipe: validated.
        tasks: of the recipe, at least one.
        path: its file.
        merged: the values that were written, and where.
    """

    recipe: Recipe
    tasks: tuple[ResolvedTask, ...]
    path: Path
    merged: Merged

    @property
    def task(self) -> ResolvedTask:
        """The only task, or the first of several."""
        return self.tasks[0]


def file_kind(path: Path) -> str:
    """What a file is by its first key: `recipe`, `task` or `suite`.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or begins with another key.
    """
    document = load_document(path)
    kind = next(iter(document.values), "")
    if kind == "extends":
        kind = next((key for key in ("suite", "recipe", "task") if key in document.values), "recipe")
    if kind not in ("recipe", "task", "suite"):
        place = document.keys.get((kind,), Position(str(path), 1, 1, ""))
        message = "the first key must be 'recipe', 'task' or 'suite'"
        raise ConfigError([place.problem(message), *document.problems])
    return kind


def load_task(path: Path, overrides: Sequence[str] = ()) -> ResolvedTask:
    """Load and validate a task file.

    Args:
        overrides: `key=value` each.

    Raises:
        ConfigError: with every problem of the file.
    """
    task, merged, problems = _task(path, overrides)
    if problems:
        raise ConfigError(_in_order(problems))
    return ResolvedTask(task, path, merged)


def load_recipe(path: Path, overrides: Sequence[str | Setting] = ()) -> ResolvedRecipe:
    """Load and validate a recipe file and the tasks that it names.

    Args:
        overrides: `key=value` each, or a suite's settings; they win over the file.

    Raises:
        ConfigError: with every problem of all files.
    """
    merged = merge_file(path, overrides)
    if path.name == RESOLVED_RECIPE:
        merged = without_removed(merged)
    recipe, problems = validate(_RECIPE, merged, Recipe)
    written = merged.values.get("task")
    names: list[tuple[KeyPath, object]] = [(("task",), written)]
    if isinstance(written, list):
        names = [(("task", index), name) for index, name in enumerate(written)]
    tasks: list[ResolvedTask] = []
    for place, name in names:
        if not isinstance(name, str):
            continue  # validation has said it
        try:
            task_path = find_named(merged.place(place), name, "task")
            task, task_merged, task_problems = _task(task_path, ())
        except ConfigError as error:
            problems += error.problems
            continue
        problems += task_problems
        if task is not None:
            tasks.append(ResolvedTask(task, task_path, task_merged))
    if recipe is not None and recipe.train.select_on is not None:
        tasks = [_selecting_on(recipe.train.select_on, task) for task in tasks]
    if recipe is not None and len(tasks) == len(names):
        problems += check_recipe(recipe, [task.task for task in tasks], merged)
    if problems:
        raise ConfigError(_in_order(problems))
    assert recipe is not None
    assert tasks
    return ResolvedRecipe(recipe, tuple(tasks), path, merged)


def _selecting_on(share: str, found: ResolvedTask) -> ResolvedTask:
    """See `train.select_on`."""
    data = found.task.data
    splits = {"splits": data.splits.selecting_on(share)}
    return replace(found, task=found.task.model_copy(update={"data": data.model_copy(update=splits)}))


def resolved_yaml(section: Section) -> str:
    """A recipe or task with all its defaults as YAML, which loads again to an equal object."""
    return yaml.dump(section.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)


def _task(path: Path, overrides: Sequence[str]) -> tuple[Any, Merged, list[Problem]]:
    merged = merge_file(path, overrides)
    scheme = scheme_of(merged.values)
    section = TASK_SECTIONS.get(scheme or "")
    task, problems = validate(_TASK, merged, section or Task)
    if section is None:
        problems += _check_without_scheme(merged)
    if task is not None:
        problems += problems_of(task.faults(), merged)
    return task, merged, problems


def _check_without_scheme(merged: Merged) -> list[Problem]:
    """The problems of a task whose scheme is missing or unknown; what only the scheme decides is left out."""
    described: Any = merged.values.get("input")
    keys: dict[str, str] = {"words": "iob2", "choices": "choices", "question": "start_end"}
    named = next(
        (scheme for key, scheme in keys.items() if isinstance(described, dict) and key in described), "classes"
    )
    section = TASK_SECTIONS[named]
    rest = {key: value for key, value in merged.values.items() if key not in ("labels", "metrics")}
    problems = validate(TypeAdapter(section), replace(merged, values=rest), section)[1]
    return [problem for problem in problems if problem.message != "missing key 'labels'"]


def _in_order(problems: Sequence[Problem]) -> list[Problem]:
    """The first file's problems first, each file's from top to bottom."""
    files = list(dict.fromkeys(problem.location.split(":")[0] for problem in problems))

    def place(problem: Problem) -> tuple[int, list[int]]:
        file, *numbers = problem.location.split(":")
        return files.index(file), [int(number) for number in numbers if number.isdecimal()]

    return sorted(problems, key=place)


@final
class _Dumper(yaml.SafeDumper):
    """Writes what our own loader reads back unchanged."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """Quoted if plain text would be read as something else."""
        # What cannot be printed, such as a line break of Unicode, survives only as an escape.
        plain = isinstance(scalar(text), str) and text.isprintable()
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')

    def ignore_aliases(self, data: Any) -> bool:
        """Our loader takes none."""
        return True


_Dumper.add_representer(str, _Dumper.represent_text)
