"""Layers of configuration: a file's ancestors, the file, the command line. The later one wins; mappings merge."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ptv2kit.config.yaml import Document, KeyPath, Position, load_document, parse_value
from ptv2kit.errors import ConfigError, Problem

_RESOLVER = re.compile(r"(?<!\\)\$\{[^}]*:")


@final
@dataclass(frozen=True)
class Override:
    """A value from the command line, `key=value` as it was written."""

    text: str

    def __str__(self) -> str:
        return "command line"

    def problem(self, message: str, hint: str = "") -> Problem:
        """A problem of this override."""
        return Problem(message, location=str(self), excerpt=self.text, hint=hint)


Origin = Position | Override
"""Where a value was written. A value that is written nowhere is a default."""


@final
@dataclass(frozen=True)
class Layer:
    """One source of values.

    Args:
        values: plain mappings, lists and scalars.
        keys: where each key was written.
        places: where each value was written.
    """

    values: dict[str, Any]
    keys: Mapping[KeyPath, Origin]
    places: Mapping[KeyPath, Origin]


@final
@dataclass(frozen=True)
class Merged:
    """All layers together.

    Args:
        path: the file that was asked for.
        values: merged and interpolated, `extends` taken out.
        layers: lowest precedence first.
        problems: what was wrong with interpolations; the values of those keys are as written.
    """

    path: Path
    values: dict[str, Any]
    layers: tuple[Layer, ...]
    problems: tuple[Problem, ...]

    def key(self, path: KeyPath) -> Origin:
        """Where the key of `path` was written; if it was not, where the nearest key above it was."""
        return self._find([layer.keys for layer in self.layers], path)

    def place(self, path: KeyPath) -> Origin:
        """Where the value of `path` was written; if it was not, where the nearest value above it was."""
        return self._find([layer.places for layer in self.layers], path)

    def origin(self, path: KeyPath) -> Origin | None:
        """Where the value of `path` was written, None if it was not."""
        return next((layer.places[path] for layer in reversed(self.layers) if path in layer.places), None)

    def _find(self, tables: Sequence[Mapping[KeyPath, Origin]], path: KeyPath) -> Origin:
        for length in range(len(path), 0, -1):
            for table in reversed(tables):
                if path[:length] in table:
                    return table[path[:length]]
        return Position(str(self.path), 1, 1, "")


def merge_file(path: Path, overrides: Sequence[str] = ()) -> Merged:
    """Read a file with its ancestors, merge them and the command line, and interpolate `${key}`.

    Args:
        path: of a recipe, task or suite.
        overrides: `key.sub=value` each.

    Raises:
        ConfigError: a file or an override is malformed, or `extends` leads nowhere or in a circle.
    """
    layers = [_layer(document) for document in _ancestry(path)]
    if overrides:
        layers.append(_override_layer(overrides))
    merged = OmegaConf.create()
    for layer in layers:
        merged = OmegaConf.merge(merged, OmegaConf.create(layer.values))
    assert OmegaConf.is_dict(merged)
    values: Any = OmegaConf.to_container(merged)
    draft = Merged(path, values, tuple(layers), ())
    problems: list[Problem] = []
    for leaf_path, leaf in list(leaves(values)):
        if isinstance(leaf, str) and "${" in leaf:
            try:
                _set(values, leaf_path, _interpolate(merged, leaf_path, leaf))
            except (OmegaConfBaseException, ValueError) as error:
                first_line = str(error).split("\n", 1)[0]
                problems.append(draft.place(leaf_path).problem(f"cannot interpolate '{leaf}': {first_line}"))
    return Merged(path, values, tuple(layers), tuple(problems))


def leaves(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Every scalar and empty collection below `value`, with the way to it."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))
    else:
        yield path, value


def dotted(path: KeyPath) -> str:
    """`('expect', 0, 'value')` as `expect[0].value`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _layer(document: Document) -> Layer:
    values = {key: value for key, value in document.values.items() if key != "extends"}
    return Layer(values, document.keys, document.places)


def _ancestry(path: Path) -> list[Document]:
    """The file and its ancestors, the oldest first."""
    chain = [load_document(path)]
    seen = [path.resolve()]
    while "extends" in chain[0].values:
        child = chain[0]
        place, parent = child.places[("extends",)], child.values["extends"]
        if not isinstance(parent, str):
            raise ConfigError([place.problem("'extends' must be the path of one YAML file")])
        parent_path = child.path.parent / parent
        if parent_path.resolve() in seen:
            names = " → ".join(str(document.path) for document in reversed(chain))
            raise ConfigError([place.problem(f"'extends' goes in a circle: {names} → {parent_path}")])
        if not parent_path.is_file():
            raise ConfigError([place.problem(f"'extends' names a file that does not exist: '{parent_path}'")])
        seen.append(parent_path.resolve())
        chain.insert(0, load_document(parent_path))
    return chain


def _override_layer(overrides: Sequence[str]) -> Layer:
    values: dict[str, Any] = {}
    places: dict[KeyPath, Origin] = {}
    problems: list[Problem] = []
    for text in overrides:
        origin = Override(text)
        key, equals, value = text.partition("=")
        path: KeyPath = tuple(key.split("."))
        if not equals or not all(path):
            problems.append(origin.problem("an override is written 'key=value' or 'section.key=value'"))
            continue
        try:
            parsed = parse_value(value, "command line")
        except ConfigError as error:
            problems += error.problems
            continue
        node = values
        for depth, part in enumerate(path[:-1], 1):
            places[path[:depth]] = origin
            below = node.setdefault(str(part), {})
            if not isinstance(below, dict):
                problems.append(origin.problem(f"'{dotted(path[:depth])}' is set to a single value as well"))
                break
            node = below
        else:
            node[str(path[-1])] = parsed
            for below_path, _ in _all_paths(parsed, path):
                places[below_path] = origin
    if problems:
        raise ConfigError(problems)
    return Layer(values, places, places)


def _all_paths(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _all_paths(item, (*path, key))


def _interpolate(config: Any, path: KeyPath, text: str) -> Any:
    if _RESOLVER.search(text):
        raise ValueError("only '${key}' is allowed, no resolver such as 'oc.env:'")
    node = config
    for part in path[:-1]:
        node = node[part]
    value = node[path[-1]]
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _set(values: Any, path: KeyPath, value: Any) -> None:
    for part in path[:-1]:
        values = values[part]
    values[path[-1]] = value
