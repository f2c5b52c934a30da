"""Layers of configuration: a file's ancestors, the file, the command line. The later one wins; mappings merge."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from ptv2kit.errors import ConfigError, Problem
from ptv2kit.spec.catalog import Kind, find_beside
from ptv2kit.spec.expansion import Expansion, only_plain
from ptv2kit.spec.yaml import Document, KeyPath, Position, load_document, parse_value

_INDEX = re.compile(r"\[[0-9]+\]")
_LONGEST_CHAIN = 32


@final
@dataclass(frozen=True)
class Override:
    """A value that was laid over a file.

    Args:
        text: from the command line, `key=value` as it was written; else the key.
        place: in the suite; None for the command line.
        source: what else than the command line gave it.
    """

    text: str
    place: Position | None = None
    source: str = "command line"

    def __str__(self) -> str:
        return self.source if self.place is None else str(self.place)

    @property
    def folder(self) -> Path:
        """What a path in the value is relative to."""
        return Path() if self.place is None else Path(self.place.path).parent

    def problem(self, message: str, hint: str = "") -> Problem:
        """A problem of this override."""
        if self.place is not None:
            return self.place.problem(message, hint)
        return Problem(message, location=str(self), excerpt=self.text, hint=hint)


Origin = Position | Override
"""Where a value was written. A value that is written nowhere is a default."""


@final
@dataclass(frozen=True)
class Setting:
    """A value that a suite lays over a recipe.

    Args:
        key: dotted.
        value: plain.
        origin: where the suite, or the command line, says so.
    """

    key: str
    value: Any
    origin: Origin

    def __str__(self) -> str:
        return f"{self.key}={json.dumps(self.value, ensure_ascii=False)}"


@final
@dataclass(frozen=True)
class Merged:
    """All layers together.

    Args:
        values: merged and interpolated, `extends` taken out.
        keys: where each key was written, by the layer that won.
        places: where each value was written, likewise.
        problems: what was wrong with files, overrides and interpolations; the rest was merged.
    """

    path: Path
    values: dict[str, Any]
    keys: Mapping[KeyPath, Origin]
    places: Mapping[KeyPath, Origin]
    problems: tuple[Problem, ...]

    def key(self, path: KeyPath) -> Origin:
        """Where the key of `path` was written; if it was not, where the nearest key or list item above it was."""
        for length in range(len(path), 0, -1):
            for table in (self.keys, self.places):
                if path[:length] in table:
                    return table[path[:length]]
        return self._top()

    def place(self, path: KeyPath) -> Origin:
        """Where the value of `path` was written; if it was not, where the nearest value above it was."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return self._top()

    def _top(self) -> Origin:
        """The file's first key."""
        return next(iter(self.keys.values()), Position(str(self.path), 1, 1, ""))


def merge_file(path: Path, overrides: Sequence[str | Setting] = ()) -> Merged:
    """Read a file with its ancestors, merge them and what is laid over them, and interpolate `${key}`.

    Args:
        path: of a recipe, task or suite.
        overrides: `key.sub=value` from the command line, or a suite's settings; a later one wins.

    Raises:
        ConfigError: a file cannot be read or is not YAML.
    """
    problems: list[Problem] = []
    merger = _Merger()
    for document in _ancestry(path, problems):
        problems += document.problems
        merger.add(document.values, document.keys, document.places)
    for override in overrides:
        try:
            merger.add(*_override(override))
        except ConfigError as error:
            problems += error.problems
    merger.values.pop("extends", None)
    problems += _interpolate(merger)
    return Merged(path, merger.values, merger.keys, merger.places, tuple(problems))


@final
class _Merger:
    """Values so far, with the places of the layer that won each of them."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.keys: dict[KeyPath, Origin] = {}
        self.places: dict[KeyPath, Origin] = {}

    def add(self, values: Mapping[str, Any], keys: Mapping[KeyPath, Origin], places: Mapping[KeyPath, Origin]) -> None:
        """Put a layer on top: mappings merge, everything else is replaced."""
        self._merge(self.values, values, ())
        for known, new in ((self.keys, keys), (self.places, places)):
            for path, origin in new.items():
                # A section to which the command line only adds stays where its file has it.
                if not (isinstance(origin, Override) and path in known):
                    known[path] = origin

    def _merge(self, below: dict[str, Any], above: Mapping[str, Any], path: KeyPath) -> None:
        for key, value in above.items():
            here = (*path, key)
            old = below.get(key)
            if isinstance(old, dict) and isinstance(value, dict):
                self._merge(old, value, here)
            else:
                self.forget(here)
                below[key] = copy.deepcopy(value)

    def forget(self, path: KeyPath) -> None:
        """Drop the places of everything at and below `path`."""
        for table in (self.keys, self.places):
            for known in [known for known in table if known[: len(path)] == path]:
                del table[known]


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


def find_named(origin: Origin, name: str, kind: Kind) -> Path:
    """The file that a value means, by a path or a name, as `find_beside` looks it up.

    Raises:
        ConfigError: there is no such file; at the place of the value.
    """
    folder = origin.folder if isinstance(origin, Override) else Path(origin.path).parent
    try:
        return find_beside(name, kind, folder)
    except ConfigError as error:
        raise ConfigError([origin.problem(each.message, each.hint) for each in error.problems]) from error


def dotted(path: KeyPath) -> str:
    """`('expect', 0, 'value')` as `expect[0].value`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _ancestry(path: Path, problems: list[Problem]) -> list[Document]:
    """The file and its ancestors, the oldest first; a fault of `extends` ends the chain."""
    chain = [load_document(path)]
    seen = [path.resolve()]
    while "extends" in chain[0].values:
        child = chain[0]
        place, parent = child.places[("extends",)], child.values["extends"]
        if not isinstance(parent, str):
            problems.append(place.problem("'extends' must be the path of one YAML file"))
            break
        kind: Kind = "suite" if "suite" in child.values else "task" if "data" in child.values else "recipe"
        try:
            parent_path = find_named(place, parent, kind)
        except ConfigError as error:
            problems += error.problems
            break
        if parent_path.resolve() in seen:
            names = " → ".join(str(document.path) for document in reversed(chain))
            problems.append(place.problem(f"'extends' goes in a circle: {names} → {parent_path}"))
            break
        if len(chain) == _LONGEST_CHAIN:
            problems.append(place.problem(f"'extends' goes over more than {_LONGEST_CHAIN} files"))
            break
        seen.append(parent_path.resolve())  # resolved: a link is a circle too
        chain.insert(0, load_document(parent_path))
    return chain


def _override(override: str | Setting) -> tuple[dict[str, Any], dict[KeyPath, Origin], dict[KeyPath, Origin]]:
    """One `key.sub=value` as a layer."""
    if isinstance(override, Setting):
        key, equals, value = override.key, "=", ""
        place = override.origin
        origin = place if isinstance(place, Override) else Override(key, place)
    else:
        key, equals, value = override.partition("=")
        origin = Override(override)
    path: KeyPath = tuple(key.split("."))
    if not equals or not all(path):
        raise ConfigError([origin.problem("an override is written 'key=value' or 'section.key=value'")])
    if path[0] == "extends":
        raise ConfigError([origin.problem("'extends' can only be set in a file")])
    if _INDEX.search(key):
        hint = f"give the whole list: {_INDEX.split(key)[0]}=[…]"
        raise ConfigError([origin.problem("lists are replaced as a whole, not by item", hint)])
    try:
        parsed = override.value if isinstance(override, Setting) else parse_value(value)
    except ConfigError as error:
        raise ConfigError([origin.problem(problem.message, problem.hint) for problem in error.problems]) from error
    layer = parsed
    for part in reversed(path):
        layer = {str(part): layer}
    places: dict[KeyPath, Origin] = {path[:depth]: origin for depth in range(1, len(path))}
    places |= dict.fromkeys(_all_paths(parsed, path), origin)
    return layer, places, places


def _all_paths(value: Any, path: KeyPath) -> Iterator[KeyPath]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _all_paths(item, (*path, key))


def _interpolate(merger: _Merger) -> list[Problem]:
    """Put values in for `${key}`. Only plain keys pass, so that OmegaConf's resolvers are never reached."""
    problems: list[Problem] = []
    wanted: list[tuple[KeyPath, str]] = []
    expansion = Expansion(merger.values)
    for path, leaf in leaves(merger.values):
        if isinstance(leaf, str) and "${" in leaf:
            if not only_plain(leaf):
                message = f"cannot interpolate '{leaf}': only '${{key}}' is allowed, no resolver and no escape"
                problems.append(merger.places[path].problem(message))
                continue
            try:
                expansion.add(leaf)
            except ValueError as error:
                problems.append(merger.places[path].problem(f"cannot interpolate '{leaf}': {error}"))
                break
            wanted.append((path, leaf))
    if problems or not wanted:
        return problems
    from omegaconf import OmegaConf  # few files have references, and its grammar takes a tenth of a second to load
    from omegaconf.errors import OmegaConfBaseException

    config = OmegaConf.create(merger.values)
    for path, leaf in wanted:
        try:
            node: Any = config
            for part in path:
                node = node[part]
            value = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
        except OmegaConfBaseException as error:
            first_line = str(error).split("\n", 1)[0]
            problems.append(merger.places[path].problem(f"cannot interpolate '{leaf}': {first_line}"))
            continue
        origin = merger.places[path]
        for below in _all_paths(value, path):
            merger.places[below] = origin
        _set(merger.values, path, value)
    return problems


def _set(values: Any, path: KeyPath, value: Any) -> None:
    for part in path[:-1]:
        values = values[part]
    values[path[-1]] = value
