"""A suite's rules: which cells they match, and what they lay over these cells' recipes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from ptv2kit.errors import ConfigError, Problem, did_you_mean
from ptv2kit.spec.checks import check_recipe
from ptv2kit.spec.load import ResolvedRecipe
from ptv2kit.spec.merge import Merged, Origin, Setting
from ptv2kit.spec.suite import Rule, Suite, shown
from ptv2kit.spec.suite_checks import varied_keys
from ptv2kit.spec.validate import describe
from ptv2kit.spec.yaml import KeyPath, Position

CASE = "case"
"""In `where`, the name of the case."""


@final
@dataclass(frozen=True)
class Placed:
    """Something that a rule says, and where.

    Args:
        value: plain, as it was written.
        path: the way to it in the suite.
    """

    value: Any
    path: KeyPath
    merged: Merged


def check_rules(suite: Suite, merged: Merged) -> list[Problem]:
    """Every mistake of the rules that shows without the cells."""
    problems: list[Problem] = []
    if suite.rules and suite.search is not None:
        hint = "rules are for the cells of a grid; give each case a 'set'"
        return [merged.key(("rules",)).problem("a search has no 'rules'", hint)]
    known = _known_values(suite)
    for index, rule in enumerate(suite.rules):
        if not (rule.set or rule.expect):
            place = merged.place(("rules", index))
            problems.append(place.problem("the rule does nothing: it has neither 'set' nor 'expect'"))
        for key, wanted in rule.where.items():
            path: KeyPath = ("rules", index, "where", key)
            if key not in known:
                what = "the suite has no cases" if key == CASE else f"the suite does not vary '{key}'"
                hint = did_you_mean(key, list(known))
                if _inherited(index, merged) and not hint.startswith("did"):
                    hint = f"the rule comes along by 'extends': set '{key}' in 'grid', as a list of one value"
                problems.append(merged.key(path).problem(what, hint))
            elif not _inherited(index, merged):
                problems += _check_values(path, wanted, known[key], merged)
    return problems


def check_use(suite: Suite, merged: Merged, uses: Sequence[tuple[Sequence[int], Iterable[str]]]) -> list[Problem]:
    """Rules, and values of rules, that change no cell.

    Args:
        suite: without other mistakes.
        merged: its values and their places.
        uses: of each cell, the indices of the rules that match it and the keys that it sets itself.
    """
    own: dict[int, list[set[str]]] = {}
    for indices, keys in uses:
        for index in indices:
            own.setdefault(index, []).append(set(keys))
    problems: list[Problem] = []
    for index, rule in enumerate(suite.rules):
        if _inherited(index, merged):
            continue
        if index not in own:
            place = merged.place(("rules", index))
            problems.append(place.problem("the rule matches no cell: no cell has all of 'where'"))
            continue
        for key in rule.set:
            if all(key in keys for keys in own[index]):
                place = merged.key(("rules", index, "set", key))
                message = f"'{key}' has no effect: every cell that the rule matches sets it by its case or 'grid'"
                problems.append(place.problem(message))
    return problems


def matching(rules: Sequence[Rule], values: Mapping[str, Any]) -> tuple[int, ...]:
    """Indices of the rules that match a cell.

    Args:
        values: of the cell, by dotted key and `case`.
    """
    return tuple(
        index
        for index, rule in enumerate(rules)
        if all(
            key in values and any(_same(values[key], wanted) for wanted in _listed(either))
            for key, either in rule.where.items()
        )
    )


def rule_settings(rules: Sequence[Rule], indices: Iterable[int], merged: Merged) -> tuple[Setting, ...]:
    """What the rules set, later ones last."""
    return tuple(
        Setting(key, value, merged.place(("rules", index, "set", key)))
        for index in indices
        for key, value in rules[index].set.items()
    )


def rule_sources(rules: Sequence[Rule], indices: Iterable[int], own: Iterable[str]) -> dict[str, str]:
    """Where values come from, by key, of the rules that say so and have the last word.

    Args:
        indices: of the rules that match the cell.
        own: keys that the cell sets itself.
    """
    sources = {key: rules[index].source for index in indices for key in rules[index].set}
    hidden = set(own)
    return {key: source for key, source in sources.items() if source and key not in hidden}


def rule_expectations(rules: Sequence[Rule], indices: Iterable[int], merged: Merged) -> tuple[Placed, ...]:
    """What the rules expect of a cell."""
    values: Any = merged.values
    return tuple(
        Placed(values["rules"][index]["expect"][item], ("rules", index, "expect", item), merged)
        for index in indices
        for item in range(len(rules[index].expect))
    )


def with_expectations(resolved: ResolvedRecipe, suite: Suite, added: Sequence[Placed]) -> ResolvedRecipe:
    """A cell's recipe that also expects what the rules say.

    Raises:
        ConfigError: its task does not measure that.
    """
    if not added:
        return resolved
    values: Any = resolved.merged.values
    before: list[Any] = list(values.get("expect") or [])
    keys: dict[KeyPath, Origin] = dict(resolved.merged.keys)
    places: dict[KeyPath, Origin] = dict(resolved.merged.places)
    expectations = list(resolved.recipe.expect)
    for number, item in enumerate(added, len(before)):
        _, index, _, position = item.path
        assert isinstance(index, int)
        assert isinstance(position, int)
        expectations.append(suite.rules[index].expect[position])
        places["expect", number] = item.merged.place(item.path)
        for key in item.value:
            keys["expect", number, key] = item.merged.key((*item.path, key))
            places["expect", number, key] = item.merged.place((*item.path, key))
    written = [*before, *(item.value for item in added)]
    merged = replace(resolved.merged, values={**values, "expect": written}, keys=keys, places=places)
    recipe = resolved.recipe.model_copy(update={"expect": tuple(expectations)})
    problems = check_recipe(recipe, [task.task for task in resolved.tasks], merged)
    if problems:
        raise ConfigError(problems)
    return replace(resolved, recipe=recipe, merged=merged)


def used_rules(suite: Suite, cells: Iterable[tuple[str, Mapping[str, Any]]]) -> tuple[Rule, ...]:
    """The rules without what changes no cell, which only a suite that extends another may have.

    Args:
        suite: that was loaded.
        cells: case and settings of each.
    """
    known = _known_values(suite)
    of_case = {case.name: case.set for case in suite.cases}
    free: dict[int, set[str]] = {}
    for case, settings in cells:
        own = {**of_case.get(case, {}), **settings}
        for index in matching(suite.rules, {CASE: case, **own}):
            free.setdefault(index, set()).update(key for key in suite.rules[index].set if key not in own)
    kept: list[Rule] = []
    for index, keys in sorted(free.items()):
        rule = suite.rules[index]
        changed = {key: value for key, value in rule.set.items() if key in keys}
        if changed or rule.expect:
            where = {
                key: [value for value in _listed(wanted) if any(_same(value, other) for other in known[key])]
                for key, wanted in rule.where.items()
            }
            kept.append(rule.model_copy(update={"where": where, "set": changed}))
    return tuple(kept)


def _known_values(suite: Suite) -> dict[str, list[Any]]:
    """Every value that a cell has, by key; names of cases first."""
    known: dict[str, list[Any]] = {CASE: [case.name for case in suite.cases]} if suite.cases else {}
    for key in varied_keys(suite):
        known[key] = [*suite.grid.get(key, ())]
        for case in suite.cases:
            known[key] += [*case.grid.get(key, ()), *([case.set[key]] if key in case.set else [])]
    return known


def _check_values(path: KeyPath, wanted: Any, known: Sequence[Any], merged: Merged) -> list[Problem]:
    problems: list[Problem] = []
    if wanted == []:
        problems.append(merged.place(path).problem(f"'{path[-1]}' must be a value or a list of values, found no value"))
    for index, value in enumerate(_listed(wanted)):
        if not any(_same(value, other) for other in known):
            place = merged.place((*path, index) if isinstance(wanted, list) else path)
            names = list(dict.fromkeys(shown(other) for other in known))
            message = f"no cell has {describe(value)} for '{path[-1]}'"
            quoted = "write it without quotes" if isinstance(value, str) else "write it in quotes"
            hint = quoted if shown(value) in names else did_you_mean(shown(value), names)
            problems.append(place.problem(message, hint))
    return problems


def _inherited(index: int, merged: Merged) -> bool:
    """Whether a rule was written in a file that the suite extends."""
    place = merged.place(("rules", index))
    return isinstance(place, Position) and place.path != str(merged.path)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _same(one: Any, other: Any) -> bool:
    """Equal, but `true` is not 1."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)
