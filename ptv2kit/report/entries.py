"""From the arguments of `ptv2kit report` to groups of entries: the cells of a suite, or the runs that were named."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

from ptv2kit.errors import ConfigError
from ptv2kit.files import is_file, is_folder
from ptv2kit.report.records import CellRecord, Logged, Results, Run, Task, flatten, is_run, read_file, read_run
from ptv2kit.spec.cells import Cell, ResolvedSuite, load_suite
from ptv2kit.spec.load import file_kind
from ptv2kit.spec.recipe import Expectation
from ptv2kit.spec.suite import short_names
from ptv2kit.spec.yaml import load_document

SEED = "train.seed"
_NOT_COMPARED = ("description", "licence", "expect", "task", "recipe", "init_from", "limit.test")
_NOT_COMPARED_SECTIONS = ("distributed.", "deepspeed.", "train.checkpoint_steps", "train.keep_checkpoints")
_LISTED = 5


@final
@dataclass(frozen=True)
class Entry:
    """A cell of a suite or a run, also one that was never started.

    Args:
        name: of the cell, or the run's folder.
        case: of the suite, empty without cases.
        settings: what tells it from the others of its group, by dotted key.
        values: of its recipe, by dotted key; of a run that exists those that it was trained with.
        tasks: empty if not even they are known.
        status: `finished`, or another word for what it is.
        run: its folder, None if there is none.
        changed: keys that its suite now sets to other values than it was trained with.
        source: where its settings come from, where the suite says so.
        logged: by its run while it trained, None if it has not ended.
    """

    name: str
    case: str
    settings: Mapping[str, Any]
    values: Mapping[str, Any]
    tasks: tuple[Task, ...]
    expect: tuple[Expectation, ...]
    status: str
    error: str = ""
    run: Path | None = None
    results: Results | None = None
    changed: tuple[str, ...] = ()
    source: str = ""
    logged: Logged | None = None

    @property
    def finished(self) -> bool:
        """Whether it counts: it ran to its end and was scored."""
        return self.status == "finished" and self.results is not None

    def with_run(self, found: Run | None) -> Entry:
        """The entry with what its run says; what its suite now sets otherwise is named."""
        if found is None:
            return self
        changed = tuple(
            f"{key} {json.dumps(found.values[key])}, now {json.dumps(value)}"
            for key, value in self.values.items()
            if _compared(key) and key in found.values and not _same(found.values[key], value)
            if (key, value) != ("backbone.dtype", "auto")  # a run says what that was where it was trained
        )
        entry = replace(self, values=found.values, tasks=found.tasks, changed=changed)
        return replace(entry, run=found.path, results=found.results, logged=found.logged)


@final
@dataclass(frozen=True)
class Group:
    """What is reported together.

    Args:
        name: of the suite; of runs `runs`.
        entries: in the order of the suite.
        search: whether the entries are trials of a search.
        notes: sentences on what is not as one might think.
        labels: what values and keys are called, as the suite says.
    """

    name: str
    description: str
    entries: tuple[Entry, ...]
    search: bool = False
    notes: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict[str, str])


def collect(arguments: Sequence[Path], runs_dir: Path, only: Sequence[str] = ()) -> tuple[Group, ...]:
    """Read everything that the arguments name; suites first, then all single runs as one group.

    Args:
        arguments: suite files, suites' folders, runs' folders, or folders of runs.
        runs_dir: the parent of the suites' folders.
        only: of suites, the cells whose name matches one of these patterns; empty: all.

    Raises:
        ConfigError: an argument is none of these, or nothing of it has been run; or a pattern matches no cell.
        DataError: a file in a folder is not what it should be.
    """
    groups: dict[Path, Group] = {}
    runs: dict[Path, Run] = {}
    for argument in arguments:
        if _is_suite(argument):
            groups.setdefault(argument.resolve(), _group_of_folder(argument, only))
        elif only and not is_file(argument):
            raise ConfigError(f"--only chooses cells of a suite, and '{argument}' is not one")
        elif is_run(argument):
            runs.setdefault(argument.resolve(), read_run(argument))
        elif is_folder(argument):
            found = sorted(path for path in argument.iterdir() if is_run(path))
            if not found:
                hint = "give a suite's file, or the folder of a suite or of a run, such as runs/quickstart/RUN"
                raise ConfigError(f"'{argument}' is not the folder of a run or of a suite", hint=hint)
            runs |= {path.resolve(): read_run(path) for path in found if path.resolve() not in runs}
        elif is_file(argument):
            kind = file_kind(argument)
            if kind != "suite":
                hint = f"give the folder of its runs, such as '{runs_dir / argument.stem}'" if kind == "recipe" else ""
                raise ConfigError(f"'{argument}' is a {kind}, not a suite", hint=hint)
            folder = runs_dir / load_suite(argument).suite.suite
            groups[folder.resolve()] = _group(load_suite(argument, _given(folder)), folder, only)
        else:
            raise ConfigError(f"'{argument}' does not exist")
    for folder, group in groups.items():
        if all(entry.run is None and not entry.error for entry in group.entries):
            hint = "ptv2kit run SUITE trains its cells; --runs-dir names the parent of their folder"
            raise ConfigError(f"nothing of the suite '{group.name}' has been run in '{folder}'", hint=hint)
    single = [_group_of_runs(list(runs.values()))] if runs else []
    return (*groups.values(), *single)


def suite_folder(argument: Path, runs_dir: Path) -> Path | None:
    """The suite's folder that an argument names, None if it does not name a suite.

    Raises:
        ConfigError: the file cannot be read.
    """
    if is_folder(argument):
        return argument if _is_suite(argument) else None
    name: Any = load_document(argument).values.get("suite")
    return runs_dir / name if isinstance(name, str) else None


def _is_suite(folder: Path) -> bool:
    return is_folder(folder / "cells") or is_file(folder / "suite.resolved.yaml")


def _given(folder: Path) -> list[str]:
    """What the command line gave for all cells when the suite was run, as its folder keeps it."""
    path = folder / "suite.resolved.yaml"
    written: Any = load_document(path).values.get("override", {}) if is_file(path) else {}
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in written.items()]


def _group_of_folder(folder: Path, only: Sequence[str]) -> Group:
    path = folder / "suite.resolved.yaml"
    try:
        suite = load_suite(path)
    except ConfigError as error:
        if only:
            raise
        reason = error.problems[0].message
    else:
        return _group(suite, folder, only)
    note = f"The suite's file cannot be loaded here ({reason}), so cells that were never started are not known."
    entries: list[Entry] = []
    for record_path in sorted(folder.glob("cells/*/cell.json")):
        record = read_file(record_path, CellRecord)
        found = _run_of(folder, record.run)
        expect = found.results.expectations() if found and found.results else ()
        entry = Entry(record.name, record.case, record.settings, record.settings, (), expect, record.status)
        entries.append(replace(entry.with_run(found), error=record.error, changed=()))
    written: Any = load_document(path).values if is_file(path) else {}
    name, description = str(written.get("suite", folder.name)), str(written.get("description", ""))
    labels = {str(key): str(value) for key, value in dict(written.get("labels", {})).items()}
    return Group(name, description, tuple(entries), notes=(note,), labels=labels)


def _group(suite: ResolvedSuite, folder: Path, only: Sequence[str]) -> Group:
    part = suite.only(only) if only else suite
    if suite.studies:
        return _group_of_search(suite, folder)
    entries = tuple(_entry(cell, folder) for cell in part.cells)
    known = {cell.name for cell in suite.cells}
    more = [path.parent.name for path in sorted(folder.glob("cells/*/cell.json")) if path.parent.name not in known]
    notes: list[str] = []
    if len(entries) < len(suite.cells):
        chosen = f"those that match {' or '.join(only)}"
        notes.append(f"Only {len(entries)} of the suite's {len(suite.cells)} cells: {chosen}.")
    if more:
        rest = f" and {len(more) - _LISTED} more" if len(more) > _LISTED else ""
        names = ", ".join(more[:_LISTED]) + rest
        notes.append(f"{len(more)} more cells lie in the folder that the suite no longer has: {names}.")
    own = suite.suite
    return Group(own.suite, own.description, entries, notes=tuple(notes), labels=own.labels)


def _entry(cell: Cell, folder: Path) -> Entry:
    entry = _missing(cell)
    path = folder / "cells" / cell.name / "cell.json"
    if not is_file(path):
        runs = sorted(run for run in path.parent.glob("*") if is_run(run))
        return replace(entry.with_run(read_run(runs[-1])), status="unfinished") if runs else entry
    record = read_file(path, CellRecord)
    entry = replace(entry.with_run(_run_of(folder, record.run)), status=record.status, error=record.error)
    return entry if entry.results is not None else replace(entry, results=record.results())


def _missing(cell: Cell) -> Entry:
    """A cell before anything is known of its run."""
    recipe = cell.resolved.recipe
    tasks = tuple(Task(task.task.task, task.task.metrics[0]) for task in cell.resolved.tasks)
    values = flatten(recipe.model_dump(mode="json"))
    source = "; ".join(dict.fromkeys(cell.sources.values()))
    return Entry(cell.name, cell.case, cell.settings, values, tasks, recipe.expect, "missing", source=source)


def _group_of_search(suite: ResolvedSuite, folder: Path) -> Group:
    """The trials that the search's table has; those that are still to come have no name yet."""
    search = suite.suite.search
    assert search is not None
    table = folder / "table.csv"
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines())) if is_file(table) else []
    names = short_names(dict.fromkeys(search.space))
    missing = {cell.case: _missing(cell) for cell in reversed(suite.cells)}
    entries: list[Entry] = []
    for row in rows:
        entry = missing[row.get("case") or next(iter(missing))]
        found = _run_of(folder, row["run"])
        settings = {key: found.values[key] if found else _plain(row.get(names[key], "")) for key in search.space}
        entry = replace(entry.with_run(found), name=row["cell"], settings=settings, changed=())
        entries.append(replace(entry, status=row["status"], error=row["error"]))
    tried = sum(not entry.name.endswith("final") for entry in entries)
    wanted = search.budget * len(suite.studies)
    notes = ["These are trials of a search: the best of many scores is more optimistic than a single one."]
    notes += [f"{wanted - tried} of {wanted} trials have not been started."] if tried < wanted else []
    own = suite.suite
    return Group(own.suite, own.description, tuple(entries), search=True, notes=tuple(notes), labels=own.labels)


def _run_of(folder: Path, name: str) -> Run | None:
    return read_run(folder / name) if name and is_run(folder / name) else None


def _group_of_runs(runs: Sequence[Run]) -> Group:
    """Single runs; what differs between them are their settings, as if a suite had varied it."""
    keys = dict.fromkeys(key for run in runs for key in run.values if _compared(key) or key == "recipe")
    varied = [key for key in keys if len({json.dumps(run.values.get(key)) for run in runs}) > 1]
    if "recipe" in varied and len({run.tasks for run in runs}) == len({run.values["recipe"] for run in runs}):
        varied.remove("recipe")  # the task says the same
    entries: list[Entry] = []
    for run in runs:
        settings = {key: run.values[key] for key in varied if key in run.values}
        expect = run.results.expectations() if run.results else ()
        status = run.results.status if run.results else "unfinished"
        entry = Entry(str(run.path), "", settings, run.values, run.tasks, expect, status)
        entries.append(replace(entry, run=run.path, results=run.results, logged=run.logged))
    return Group("runs", "", tuple(entries))


def _compared(key: str) -> bool:
    """Whether another value of a recipe's key makes another run of it."""
    return key not in _NOT_COMPARED and not key.startswith(_NOT_COMPARED_SECTIONS)


def _same(trained: Any, written: Any) -> bool:
    """Whether a run was trained with what its suite says; it keeps the absolute path of a local folder."""
    if isinstance(trained, str) and isinstance(written, str) and trained.startswith("/"):
        return trained.endswith(f"/{written.removeprefix('./')}") or trained == str(Path(written).resolve())
    return trained == written


def _plain(text: str) -> Any:
    """A value that a table shows, read back."""
    try:
        return json.loads(text)
    except ValueError:
        return text
