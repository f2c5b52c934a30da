"""Metrics and readers that other installed packages register as entry points."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Any, Literal

from ptv2kit.errors import ConfigError, did_you_mean
from ptv2kit.spec.base import Fault

Group = Literal["ptv2kit.metrics", "ptv2kit.readers"]


def plugin_faults(group: Group, name: str, path: tuple[str | int, ...]) -> Iterator[Fault]:
    """A fault if no installed package registers the name."""
    known = sorted(entry.name for entry in entry_points(group=group))
    if name not in known:
        key = ".".join(str(part) for part in path if isinstance(part, str))
        hint = did_you_mean(name, known) if known else f"a package registers it as an entry point of '{group}'"
        yield Fault(path, f"'{key}': no installed package has '{name}'", hint)


def load_plugin(group: Group, name: str) -> Callable[..., Any]:
    """Import what a package registers.

    Raises:
        ConfigError: there is none, or it cannot be imported.
    """
    found = entry_points(group=group, name=name)
    if not found:
        raise ConfigError(f"no installed package has '{name}' as an entry point of '{group}'")
    entry = next(iter(found))
    try:
        return entry.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"'{name}' of '{group}' ({entry.value}) cannot be imported: {error}") from error
