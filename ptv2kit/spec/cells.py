"""A suite's cells: every recipe that it runs, loaded and checked before the first one starts."""

from __future__ import annotations

import fnmatch
import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

from pydantic import TypeAdapter

from ptv2kit.errors import ConfigError, Problem
from ptv2kit.spec.load import ResolvedRecipe, ResolvedTask, file_kind, load_recipe, load_task
from ptv2kit.spec.merge import Merged, Origin, Override, Setting, find_named, merge_file
from ptv2kit.spec.published import with_published
from ptv2kit.spec.rules import (
    CASE,
    Placed,
    check_rules,
    check_use,
    matching,
    rule_expectations,
    rule_settings,
    rule_sources,
    with_expectations,
)
from ptv2kit.spec.starts import START, link_starts
from ptv2kit.spec.suite import Case, Keep, Search, Suite, short_names, shown
from ptv2kit.spec.suite_checks import check_suite, varied_keys
from ptv2kit.spec.validate import validate
from ptv2kit.spec.yaml import KeyPath

_SUITE: TypeAdapter[Any] = TypeAdapter(Suite)
_LONGEST_NAME = 120


@final
@dataclass(frozen=True)
class Cell:
    """One run of a suite.

    Args:
        name: unique within the suite; also the name of its folder.
        case: the case's name, empty without cases.
        settings: what tells it from the other cells of its case, by dotted key.
        overrides: all that was laid over its recipe.
        resolved: the recipe with its tasks; its `init_from` is null where `after` is set.
        after: name of the cell of the same suite from whose run this one's prompt starts, None if there is none.
        sources: where values come from that rules have set, by dotted key; of those rules that say so.
        keep: what is left of it when it is finished.
    """

    name: str
    case: str
    settings: Mapping[str, Any]
    overrides: tuple[str | Setting, ...]
    resolved: ResolvedRecipe
    after: str | None = None
    sources: Mapping[str, str] = field(default_factory=dict[str, str])
    keep: Keep = "prompt"


@final
@dataclass(frozen=True)
class Study:
    """The search of a suite, or of one of its cases.

    Args:
        case: the case's name, empty without cases.
        recipe_path: the recipe that every trial starts from.
        fixed: what is laid over it in every trial.
        command_line: overrides that win over everything.
        origins: where the suite says what may be chosen for a key.
        final_origins: likewise for the keys of `final`.
        keep: what is left of a finished trial.
    """

    case: str
    search: Search
    recipe_path: Path
    fixed: tuple[Setting, ...]
    command_line: tuple[str, ...]
    origins: Mapping[str, Origin]
    final_origins: Mapping[str, Origin]
    keep: Keep

    def cell(self, name: str, settings: Mapping[str, Any], *, final: bool = False) -> Cell:
        """The cell of a trial.

        Args:
            settings: what was chosen, by dotted key.
            final: whether the values of `search.final` are added.

        Raises:
            ConfigError: a value is not allowed.
        """
        chosen = [Setting(key, value, self.origins[key]) for key, value in settings.items()]
        if final:
            added = self.search.final or {}
            chosen += [Setting(key, value, self.final_origins[key]) for key, value in added.items()]
        overrides = (*self.fixed, *chosen, *self.command_line)
        resolved = load_recipe(self.recipe_path, overrides)
        return Cell(name, self.case, dict(settings), overrides, resolved, keep=self.keep)


@final
@dataclass(frozen=True)
class ResolvedSuite:
    """A suite with all its cells, and where it came from.

    Args:
        suite: validated.
        path: its file.
        merged: the values that were written, and where.
        cells: every cell; of a search those at the ends of what may be chosen, which show that all can be run.
        studies: the searches, empty if there is no search.
    """

    suite: Suite
    path: Path
    merged: Merged
    cells: tuple[Cell, ...]
    studies: tuple[Study, ...]

    def only(self, patterns: Sequence[str]) -> ResolvedSuite:
        """A part of the suite: the cells whose name matches one of the patterns, and those that they start from.

        Args:
            patterns: as of a shell, such as `*task=rte*`.

        Raises:
            ConfigError: a pattern matches no cell, or this is a search.
        """
        if self.studies:
            raise ConfigError("--only chooses cells of a grid, and this suite has a search", location=str(self.path))
        chosen: set[str] = set()
        for pattern in patterns:
            found = {cell.name for cell in self.cells if fnmatch.fnmatchcase(cell.name, pattern)}
            if not found:
                hint = f"ptv2kit run {self.path} --dry-run names the cells, such as '{self.cells[0].name}'"
                raise ConfigError(f"--only '{pattern}' matches no cell", location=str(self.path), hint=hint)
            chosen |= found
        before: set[str] = set()
        while before != chosen:  # a start may have a start of its own
            before = chosen
            chosen = before | {cell.after for cell in self.cells if cell.name in before and cell.after is not None}
        return replace(self, cells=tuple(cell for cell in self.cells if cell.name in chosen))


def load_file(path: Path, overrides: Sequence[str] = ()) -> ResolvedRecipe | ResolvedTask | ResolvedSuite:
    """A recipe, a task or a suite; the file's first key says which.

    Raises:
        ConfigError: see `load_recipe`; or the first key is none of them.
    """
    match file_kind(path):
        case "recipe":
            return load_recipe(path, overrides)
        case "task":
            return load_task(path, overrides)
        case _:
            return load_suite(path, overrides)


def load_suite(path: Path, overrides: Sequence[str] = ()) -> ResolvedSuite:
    """Load and validate a suite, the recipe of every cell, and their tasks.

    Args:
        overrides: `key=value` each. `search.…=value` is of the suite, everything else goes to every cell.

    Raises:
        ConfigError: with every problem of all files; those of a cell with its name.
    """
    own = [text for text in overrides if text.startswith("search.")]
    given = tuple(text for text in overrides if not text.startswith("search."))
    merged = with_published(merge_file(path, own))
    suite, problems = validate(_SUITE, merged, Suite)
    if suite is not None:
        problems += check_suite(suite, merged) + check_rules(suite, merged)
    if problems:
        raise ConfigError(problems)
    assert suite is not None
    kept = tuple(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in suite.override.items())
    rest = (*kept, *given)
    _refuse_varied(suite, rest)
    cases: list[tuple[int, Case | None]] = list(enumerate(suite.cases)) or [(0, None)]
    if suite.search is None:
        plans = [plan for index, case in cases for plan in _grid_cells(suite, merged, index, case, rest)]
        problems = check_use(suite, merged, [(plan.rules, plan.own) for plan in plans])
        if problems:
            raise ConfigError(problems)
        cells = link_starts(_load_all(plans, suite))
        starts = {cell.after for cell in cells}
        cells = tuple(replace(cell, keep="all" if cell.name in starts else suite.keep) for cell in cells)
        return ResolvedSuite(suite, path, merged, cells, ())
    studies = [_study(suite, suite.search, merged, index, case, rest) for index, case in cases]
    plans = [plan for study in studies for plan in _corner_cells(study)]
    return ResolvedSuite(suite, path, merged, _load_all(plans, suite), tuple(studies))


def cell_name(case: str, settings: Mapping[str, Any]) -> str:
    """A name that can be a folder's: `large,learning_rate=0.005,length=8`."""
    names = short_names(settings)
    text = ",".join([*([case] if case else []), *(f"{names[key]}={shown(value)}" for key, value in settings.items())])
    safe = re.sub(r"[^A-Za-z0-9_.,=+-]+", "-", text)[:_LONGEST_NAME]
    return safe if safe == text else f"{safe}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


@final
@dataclass(frozen=True)
class _Plan:
    """A cell before its recipe is loaded.

    Args:
        case: its name, empty without cases.
        settings: as of the cell.
        recipe_path: what it starts from.
        own: keys that the case or the grid sets.
        rules: indices of the rules that match it.
        expected: what these rules expect.
    """

    name: str
    case: str
    settings: Mapping[str, Any]
    recipe_path: Path
    overrides: tuple[str | Setting, ...]
    own: frozenset[str] = frozenset()
    rules: tuple[int, ...] = ()
    expected: tuple[Placed, ...] = ()


def _grid_cells(
    suite: Suite, merged: Merged, index: int, case: Case | None, command_line: tuple[str, ...]
) -> Iterable[_Plan]:
    recipe_path = _recipe_path(merged, index, case)
    fixed, of_case = _fixed(suite, merged, index, case)
    case_name = case.name if case else ""
    lists: list[list[Setting]] = []
    for place, grid in ((("grid",), suite.grid), (("cases", index, "grid"), case.grid if case else {})):
        for key, values in grid.items():
            lists.append([Setting(key, value, merged.place((*place, key, i))) for i, value in enumerate(values)])
    for chosen in itertools.product(*lists):
        settings = {setting.key: setting.value for setting in chosen}
        own = {setting.key: setting.value for setting in (*of_case, *chosen)}
        rules = matching(suite.rules, {CASE: case_name, **own})
        expected = rule_expectations(suite.rules, rules, merged)
        if any(text.partition("=")[0] == "expect" for text in command_line):
            expected = ()
        yield _Plan(
            name=cell_name(case_name, settings),
            case=case_name,
            settings=settings,
            recipe_path=recipe_path,
            overrides=(*fixed, *rule_settings(suite.rules, rules, merged), *of_case, *chosen, *command_line),
            own=frozenset(own),
            rules=rules,
            expected=expected,
        )


def _study(
    suite: Suite, search: Search, merged: Merged, index: int, case: Case | None, command_line: tuple[str, ...]
) -> Study:
    return Study(
        case=case.name if case else "",
        search=search,
        recipe_path=_recipe_path(merged, index, case),
        fixed=tuple(itertools.chain(*_fixed(suite, merged, index, case))),
        command_line=command_line,
        origins={key: merged.key(("search", "space", key)) for key in search.space},
        final_origins={key: merged.place(("search", "final", key)) for key in search.final or {}},
        keep=suite.keep,
    )


def _corner_cells(study: Study) -> Iterable[_Plan]:
    """As few cells as show every value that is listed, both ends of each range, and the final values once."""
    corners = {key: parameter.corners() for key, parameter in study.search.space.items()}
    count = max(len(values) for values in corners.values())
    for index in range(count):
        settings = {key: values[min(index, len(values) - 1)] for key, values in corners.items()}
        chosen = tuple(Setting(key, value, study.origins[key]) for key, value in settings.items())
        plan = _Plan(
            name=cell_name(study.case, settings),
            case=study.case,
            settings=settings,
            recipe_path=study.recipe_path,
            overrides=(*study.fixed, *chosen, *study.command_line),
        )
        yield plan
        if index == 0 and study.search.final:
            added = tuple(Setting(key, value, study.final_origins[key]) for key, value in study.search.final.items())
            name = f"{plan.name},final"
            yield replace(plan, name=name, overrides=(*study.fixed, *chosen, *added, *study.command_line))


def _fixed(
    suite: Suite, merged: Merged, index: int, case: Case | None
) -> tuple[tuple[Setting, ...], tuple[Setting, ...]]:
    """The values of the suite's `set`, and those of the case's."""
    of_case = case.set if case else {}
    return (
        tuple(Setting(key, value, merged.place(("set", key))) for key, value in suite.set.items()),
        tuple(Setting(key, value, merged.place(("cases", index, "set", key))) for key, value in of_case.items()),
    )


def _recipe_path(merged: Merged, index: int, case: Case | None) -> Path:
    """The recipe of a case, or of the suite.

    Raises:
        ConfigError: there is no such file.
    """
    place: KeyPath = ("cases", index, "recipe") if case is not None and case.recipe is not None else ("recipe",)
    node: Any = merged.values
    for part in place:
        node = node[part]
    return find_named(merged.place(place), str(node), "recipe")


def _refuse_varied(suite: Suite, overrides: Sequence[str]) -> None:
    """An override of what the suite varies would make several cells the same."""
    keys = varied_keys(suite)
    problems: list[Problem] = []
    for text in overrides:
        name = text.partition("=")[0]
        for key in keys:
            if key == name or key.startswith(f"{name}.") or name.startswith(f"{key}."):
                message = f"the suite varies '{key}': it cannot be set for every cell"
                problems.append(Override(text).problem(message, "run the recipe alone, or copy the suite"))
    if problems:
        raise ConfigError(dict.fromkeys(problems))


def _load_all(plans: Sequence[_Plan], suite: Suite) -> tuple[Cell, ...]:
    """Load every cell; a problem that several have is said once.

    Raises:
        ConfigError: with the problems of all cells.
    """
    cells: list[Cell] = []
    found: dict[Problem, list[str]] = {}
    said: dict[tuple[str, str], Problem] = {}  # a mistake in a key of a grid has a place for each of its values
    for plan in plans:
        try:
            cells.append(_load(plan, suite))
        except ConfigError as error:
            for problem in error.problems:
                first = said.setdefault((problem.message, problem.hint), problem)
                found.setdefault(first, []).append(plan.name)
    if found:
        raise ConfigError(in_cells(found, len(plans)))
    return tuple(cells)


def _load(plan: _Plan, suite: Suite) -> Cell:
    """A cell with its recipe, which expects what the rules say too.

    Raises:
        ConfigError: with the problems of the recipe, or of what is expected.
    """
    resolved = load_recipe(plan.recipe_path, plan.overrides)
    if suite.search is not None and (resolved.recipe.init_from or "").startswith(START):
        place = resolved.merged.place(("init_from",))
        raise ConfigError([place.problem("a search has no cells that a prompt could start from")])
    overrides = plan.overrides
    if plan.expected:
        resolved = with_expectations(resolved, suite, plan.expected)
        written = resolved.merged.values["expect"]
        overrides = (*overrides, Setting("expect", written, resolved.merged.place(("expect", len(written) - 1))))
    given = {override.partition("=")[0] for override in plan.overrides if isinstance(override, str)}
    sources = rule_sources(suite.rules, plan.rules, plan.own | given)
    return Cell(plan.name, plan.case, plan.settings, overrides, resolved, sources=sources)


def in_cells(found: Mapping[Problem, Sequence[str]], total: int) -> list[Problem]:
    """Problems with the names of the cells that have them.

    Args:
        found: names of cells by problem.
        total: number of all cells.
    """
    problems: list[Problem] = []
    for problem, names in found.items():
        if len(names) == total > 1:
            where = "in every cell"
        else:
            where = f"cell '{names[0]}'" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
        problems.append(replace(problem, message=f"{problem.message} ({where})"))
    return problems
