"""What a suite's keys must have in common, which no single key shows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence

from ptv2kit.errors import Problem
from ptv2kit.spec.merge import Merged, dotted
from ptv2kit.spec.suite import LONGEST_LIST, Parameter, Search, Suite
from ptv2kit.spec.yaml import KeyPath


def varied_keys(suite: Suite) -> list[str]:
    """Every key that differs between cells, dotted."""
    keys = [*suite.grid, *(suite.search.space if suite.search else {})]
    for case in suite.cases:
        keys += [*case.set, *case.grid]
    return list(dict.fromkeys(keys))


def check_suite(suite: Suite, merged: Merged) -> list[Problem]:
    """Every contradiction between the keys of a valid suite."""
    problems: list[Problem] = []
    if not (suite.grid or suite.cases or suite.search):
        hint = "grid lists values by key, cases name what is compared, search looks for the best values"
        problems.append(merged.key(("suite",)).problem("a suite has 'grid', 'cases' or 'search'", hint))
    problems += _check_cases(suite, merged)
    for path, keys in _sections(suite):
        for key in keys:
            if key in ("recipe", "extends") or key.startswith("extends."):
                problems.append(merged.key((*path, key)).problem(f"'{key}' cannot be set in a suite"))
    problems += _check_grids(suite, merged)
    if suite.search is not None:
        if suite.grid:
            hint = "put the lists into search.space as {values: […]}; sampler: grid tries all of them"
            problems.append(merged.key(("grid",)).problem("a suite has 'grid' or 'search', not both", hint))
        for index, case in enumerate(suite.cases):
            if case.grid:
                place = merged.key(("cases", index, "grid"))
                problems.append(place.problem("a case of a search has no 'grid': it has a search of its own"))
        problems += _check_search(suite.search, merged)
    return problems


def _sections(suite: Suite) -> Iterable[tuple[KeyPath, Iterable[str]]]:
    """Every mapping whose keys are those of a recipe."""
    yield ("set",), suite.set
    yield ("grid",), suite.grid
    for index, case in enumerate(suite.cases):
        yield ("cases", index, "set"), case.set
        yield ("cases", index, "grid"), case.grid
    for index, rule in enumerate(suite.rules):
        yield ("rules", index, "set"), rule.set
    if suite.search is not None:
        yield ("search", "space"), suite.search.space
        yield ("search", "final"), suite.search.final or {}


def _check_cases(suite: Suite, merged: Merged) -> list[Problem]:
    problems: list[Problem] = []
    names: list[str] = []
    for index, case in enumerate(suite.cases):
        if case.name in names:
            place = merged.place(("cases", index, "name"))
            problems.append(place.problem(f"two cases have the name '{case.name}'"))
        names.append(case.name)
        if case.recipe is None and suite.recipe is None:
            place = merged.place(("cases", index))
            problems.append(place.problem("missing key 'recipe': neither the case nor the suite names one"))
    if suite.recipe is None and not suite.cases:
        problems.append(merged.key(("suite",)).problem("missing key 'recipe'"))
    return problems


def _check_grids(suite: Suite, merged: Merged) -> list[Problem]:
    """A list must not repeat a value, and what is varied must be set in no other place."""
    problems: list[Problem] = []
    for key, values in suite.grid.items():
        problems += _repeated(("grid", key), values, merged)
        problems += _twice(("grid", key), suite.set, merged)
    for index, case in enumerate(suite.cases):
        for key, values in case.grid.items():
            path: KeyPath = ("cases", index, "grid", key)
            problems += _repeated(path, values, merged)
            problems += _twice(path, {**suite.set, **suite.grid, **case.set}, merged)
        for key in case.set:
            searched = suite.search.space if suite.search else {}
            problems += _twice(("cases", index, "set", key), {**suite.grid, **searched}, merged)
    for key in suite.search.space if suite.search else {}:
        problems += _twice(("search", "space", key), suite.set, merged)
    return problems


def _twice(path: KeyPath, others: Mapping[str, object], merged: Merged) -> list[Problem]:
    if path[-1] not in others:
        return []
    return [merged.key(path).problem(f"'{path[-1]}' is varied, and is set in another place too")]


def _repeated(path: KeyPath, values: Sequence[object], merged: Merged) -> list[Problem]:
    seen: list[str] = []
    problems: list[Problem] = []
    for index, value in enumerate(values):
        text = json.dumps(value)
        if text in seen:
            problems.append(merged.place((*path, index)).problem(f"'{dotted(path)}' lists {text} twice"))
        seen.append(text)
    return problems


def _check_search(search: Search, merged: Merged) -> list[Problem]:
    problems: list[Problem] = []
    for key, parameter in search.space.items():
        path: KeyPath = ("search", "space", key)
        if parameter.values is not None:
            problems += _repeated((*path, "values"), parameter.values, merged)
        message = _contradiction(parameter, grid=search.sampler == "grid")
        if message:
            problems.append(merged.place(path).problem(f"'{dotted(path)}' {message}"))
    if problems:
        return problems
    if search.sampler != "grid":
        if search.trials is None:
            problems.append(merged.key(("search",)).problem("missing key 'search.trials'"))
    elif search.trials is not None:
        place = merged.key(("search", "trials"))
        problems.append(place.problem("sampler: grid tries every point: it has no 'trials'"))
    else:
        count = math.prod(len(parameter.listed() or ()) for parameter in search.space.values())
        if count > LONGEST_LIST:
            message = f"the grid has {count:,} points. Expected {LONGEST_LIST:,} or fewer"
            problems.append(merged.key(("search", "space")).problem(message))
    return problems


def _contradiction(parameter: Parameter, *, grid: bool) -> str:
    """What is wrong with a parameter, empty if nothing is."""
    low, high, step = parameter.low, parameter.high, parameter.step
    if parameter.values is not None:
        ranged = low is not None or high is not None or step is not None or parameter.log or parameter.integer
        return "has 'values' or a range, not both" if ranged else ""
    if low is None or high is None:
        return "must have 'low' and 'high', or 'values'"
    if low > high:
        return f"must have low ≤ high, found {low:g} and {high:g}"
    if parameter.log and low <= 0:
        return f"is searched on the scale of logarithms: low must be greater than 0, found {low:g}"
    if parameter.log and step is not None:
        return "has 'log' or 'step', not both"
    if parameter.integer and any(number is not None and number != int(number) for number in (low, high, step)):
        return "must have whole numbers for low, high and step"
    if grid and parameter.listed() is None:
        return "must have 'values', or a 'step' that leaves few enough: sampler: grid tries every one"
    return ""
