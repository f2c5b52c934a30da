"""Every resolved value and where it came from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, final

from ptv2kit.errors import ConfigError, did_you_mean
from ptv2kit.spec.cells import ResolvedSuite
from ptv2kit.spec.load import ResolvedRecipe, ResolvedTask
from ptv2kit.spec.merge import dotted, leaves

Resolved = ResolvedRecipe | ResolvedTask | ResolvedSuite


@final
@dataclass(frozen=True)
class Explained:
    """A value of a resolved file.

    Args:
        key: dotted.
        value: plain.
        origin: `path:line:column`, `command line` or `default`.
    """

    key: str
    value: Any
    origin: str


@final
@dataclass(frozen=True)
class Difference:
    """A key that two resolved files have different values for.

    Args:
        key: dotted; of a recipe's tasks it begins with `<task>: `.
        one: the first file's value, None if it has no such key.
    """

    key: str
    one: Explained | None
    other: Explained | None


def differences(one: Resolved, other: Resolved, key: str = "") -> list[Difference]:
    """The keys with different values, in the order of the first file; of recipes also those of their tasks.

    Args:
        one: a recipe, task or suite.
        key: only what is at and below it; empty: all.

    Raises:
        ConfigError: the files are of different kinds, or neither has such a key.
    """
    if type(one) is not type(other):
        kinds = {ResolvedRecipe: "recipe", ResolvedTask: "task", ResolvedSuite: "suite"}
        raise ConfigError(f"a {kinds[type(one)]} cannot be compared with a {kinds[type(other)]}")
    first, second = ({row.key: row for row in _with_tasks(resolved)} for resolved in (one, other))
    keys = [name for name in dict.fromkeys([*first, *second]) if not key or _is_below(name, key)]
    if not keys:
        raise ConfigError(f"there is no key '{key}'", hint=did_you_mean(key, [*first, *second]))
    pairs = [Difference(name, first.get(name), second.get(name)) for name in keys]
    return [pair for pair in pairs if (pair.one and pair.one.value) != (pair.other and pair.other.value)]


def _with_tasks(resolved: Resolved) -> list[Explained]:
    """All values; of a recipe its tasks' too, wherever these were found."""
    rows = explain(resolved)
    if not isinstance(resolved, ResolvedRecipe):
        return rows
    rows = [row for row in rows if row.key != "task" and not row.key.startswith("task[")]
    for task in resolved.tasks:
        rows += [replace(row, key=f"{task.task.task}: {row.key}") for row in explain(task)]
    return rows


def _is_below(name: str, key: str) -> bool:
    return name == key or name.startswith((f"{key}.", f"{key}["))


def explain(resolved: Resolved, key: str = "") -> list[Explained]:
    """All values of a recipe, task or suite, or those at and below `key`.

    Raises:
        ConfigError: there is no such key.
    """
    match resolved:
        case ResolvedRecipe():
            section = resolved.recipe
        case ResolvedTask():
            section = resolved.task
        case ResolvedSuite():
            section = resolved.suite
    rows = [
        Explained(dotted(path), value, str(resolved.merged.places.get(path, "default")))
        for path, value in leaves(section.model_dump(mode="json"))
    ]
    if not key:
        return rows
    found = [row for row in rows if _is_below(row.key, key)]
    if not found:
        raise ConfigError(f"there is no key '{key}'", hint=did_you_mean(key, [row.key for row in rows]))
    return found
