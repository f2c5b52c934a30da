"""Cells that start from the prompt of another cell: `init_from: cell:NAME`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ptv2kit.errors import ConfigError, Problem, did_you_mean
from ptv2kit.spec.merge import Setting
from ptv2kit.spec.suite import shown

if TYPE_CHECKING:
    from ptv2kit.spec.cells import Cell

START = "cell:"
"""What `init_from` begins with where it names a cell and not a folder."""


def link_starts(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """The cells, with `after` for each whose `init_from` names another, and null in its place.

    A name is that of a cell, or of a case: then it is the case's cell with the same values of what both vary.

    Raises:
        ConfigError: there is no such cell, its prompt does not fit, or cells wait for each other.
    """
    by_name = {cell.name: cell for cell in cells}
    linked: list[Cell] = []
    found: dict[Problem, None] = {}
    for cell in cells:
        written = cell.resolved.recipe.init_from
        if written is None or not written.startswith(START):
            linked.append(cell)
            continue
        try:
            other = _other(cell, written.removeprefix(START), by_name)
            _check_fit(cell, other)
        except ConfigError as error:
            found |= dict.fromkeys(error.problems)
            continue
        linked.append(_without_start(cell, other.name))
    if not found:
        found |= dict.fromkeys(_circles({cell.name: cell.after for cell in linked}, by_name))
    if found:
        raise ConfigError(found)
    return tuple(linked)


def _other(cell: Cell, name: str, by_name: Mapping[str, Cell]) -> Cell:
    place = cell.resolved.merged.place(("init_from",))
    if name in by_name:
        return by_name[name]
    of_case = [other for other in by_name.values() if other.case == name and other.case]
    if not of_case:
        known = [*dict.fromkeys(other.case for other in by_name.values() if other.case), *by_name]
        raise ConfigError([place.problem(f"no cell and no case is called '{name}'", did_you_mean(name, known))])
    fitting = [
        other
        for other in of_case
        if all(cell.settings[key] == value for key, value in other.settings.items() if key in cell.settings)
    ]
    if len(fitting) == 1:
        return fitting[0]
    same = ", ".join(f"{key}={shown(value)}" for key, value in cell.settings.items() if key in of_case[0].settings)
    count = "no cell" if not fitting else f"{len(fitting)} cells"
    message = f"case '{name}' has {count} that '{cell.name}' can start from{f' ({same})' if same else ''}. Expected one"
    hint = f"name one: {START}{fitting[0].name}" if fitting else ""
    raise ConfigError([place.problem(message, hint)])


def _check_fit(cell: Cell, other: Cell) -> None:
    """A prompt fits what is made as it was.

    Raises:
        ConfigError: backbone, method, length or layers differ.
    """
    recipe, start = cell.resolved.recipe, other.resolved.recipe
    pairs: list[tuple[str, object, object]] = [
        ("backbone.name", recipe.backbone.name, start.backbone.name),
        ("method", recipe.method, start.method),
        ("prompt.length", recipe.prompt.length, start.prompt.length),
        ("prompt.layers", recipe.prompt.layers, start.prompt.layers),
    ]
    place = cell.resolved.merged.place(("init_from",))
    problems = [
        place.problem(f"'{cell.name}' has {key} {mine}, but '{other.name}', from which it starts, has {its}")
        for key, mine, its in pairs
        if mine != its
    ]
    if problems:
        raise ConfigError(problems)


def _without_start(cell: Cell, after: str) -> Cell:
    """The cell as it is before there is a run to start from."""
    resolved = cell.resolved
    kept = tuple(
        override
        for override in cell.overrides
        if (override.key if isinstance(override, Setting) else override.partition("=")[0]) != "init_from"
    )
    return replace(
        cell,
        after=after,
        overrides=(*kept, Setting("init_from", None, resolved.merged.place(("init_from",)))),
        resolved=replace(
            resolved,
            recipe=resolved.recipe.model_copy(update={"init_from": None}),
            merged=replace(resolved.merged, values={**resolved.merged.values, "init_from": None}),
        ),
    )


def _circles(after: Mapping[str, str | None], by_name: Mapping[str, Cell]) -> list[Problem]:
    """Cells that would wait for each other, or for themselves."""
    problems: list[Problem] = []
    for name in after:
        way: list[str] = [name]
        following = after[name]
        while following is not None and following not in way:
            way.append(following)
            following = after[following]
        if following == name:
            place = by_name[name].resolved.merged.place(("init_from",))
            names = " → ".join(f"'{each}'" for each in (*way, name))
            problems.append(place.problem(f"cells start from each other in a circle: {names}"))
    return problems
