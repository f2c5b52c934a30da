"""Every resolved value and where it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from ptv2kit.config.cells import ResolvedSuite
from ptv2kit.config.load import ResolvedRecipe, ResolvedTask
from ptv2kit.config.merge import dotted, leaves
from ptv2kit.errors import ConfigError, did_you_mean


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


def explain(resolved: ResolvedRecipe | ResolvedTask | ResolvedSuite, key: str = "") -> list[Explained]:
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
    found = [row for row in rows if row.key == key or row.key.startswith((f"{key}.", f"{key}["))]
    if not found:
        raise ConfigError(f"there is no key '{key}'", hint=did_you_mean(key, [row.key for row in rows]))
    return found
