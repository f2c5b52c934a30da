"""From the arguments of `ptv2kit report` to groups of entries: every cell of a suite, or every run that was named."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from ptv2kit.config.cells import Cell, ResolvedSuite, load_suite
from ptv2kit.config.load import file_kind
from ptv2kit.config.recipe import Expectation
from ptv2kit.config.suite import short_names
from ptv2kit.config.yaml import load_document
from ptv2kit.errors import ConfigError
from ptv2kit.files import is_file, is_folder
from ptv2kit.reporting.report.read import (
    Record,
    Results,
    RunFacts,
    TaskFacts,
    flatten,
    is_run,
    read_record,
    read_run,
)

SEED = "train.seed"
_NOT_COMPARED = ("description", "expect", "task", "recipe", "init_from", "limit.test")
_NOT_COMPARED_SECTIONS = ("distributed.", "deepspeed.", "train.checkpoint_steps", "train.keep_checkpoints")


@final
@dataclass(frozen=True)
class Entry:
    """A cell of a suite or a run, also one that was never started.

    Args:
        name: of the cell, or the run's folder.
        case: of the suite, empty without cases.
        settings: what tells it from the others of its group, by dotted key.
        values: of its recipe, by dotted key; of a run that is there those that it was trained with.
        tasks: empty if not even they are known.
        expect: what it should reach.
        status: `finished`, or another word for what it is.
        error: why it failed.
        run: its folder, None if there is none.
        results: None if there are none.
        changed: keys that its suite now sets to other values than it was trained with.
        source: where its settings come from, where the suite says so.
    """

    name: str
    case: str
    settings: Mapping[str, Any]
    values: Mapping[str, Any]
    tasks: tuple[TaskFacts, ...]
    expect: tuple[Expectation, ...]
    status: str
    error: str = ""
    run: Path | None = None
    results: Results | None = None
    changed: tuple[str, ...] = ()
    source: str = ""

    @property
    def finished(self) -> bool:
        """Whether it counts: it ran to its end and was scored."""
        return self.status == "finished" and self.results is not None


@final
@dataclass(frozen=True)
class Group:
    """What is reported together.

    Args:
        name: of the suite; of runs `runs`.
        entries: in the order of the suite.
        search: whether the entries are trials of a search.
        notes: sentences on what is not as one might think.
    """

    name: str
    description: str
    entries: tuple[Entry, ...]
    search: bool = False
    notes: tuple[str, ...] = ()


def collect(arguments: Sequence[Path], runs_dir: Path) -> tuple[Group, ...]:
    """Read everything that the arguments name; suites first, then all single runs as one group.

    Args:
        arguments: suite files, suites' folders, runs' folders, or folders of such.
        runs_dir: where the suites' folders lie.

    Raises:
        ConfigError: an argument is none of these, or nothing of it has been run.
        DataError: a file in a folder is not what it should be.
    """
    groups: dict[Path, Group] = {}
    runs: dict[Path, RunFacts] = {}
    for argument in arguments:
        if is_folder(argument / "cells") or is_file(argument / "suite.resolved.yaml"):
            groups.setdefault(argument.resolve(), _suite_folder(argument))
        elif is_run(argument):
            runs.setdefault(argument.resolve(), read_run(argument))
        elif not (is_folder(argument) or is_file(argument)):
            raise ConfigError(f"'{argument}' does not exist")
        elif is_folder(argument):
            found = sorted(path for path in argument.iterdir() if is_run(path))
            if not found:
                hint = "give a suite's file, or the folder of a suite or of a run, such as runs/quickstart/RUN"
                raise ConfigError(f"'{argument}' is not the folder of a run or of a suite", hint=hint)
            runs |= {path.resolve(): read_run(path) for path in found if path.resolve() not in runs}
        else:
            folder, group = _suite_file(argument, runs_dir)
            groups[folder.resolve()] = group
    for folder, group in groups.items():
        if all(entry.run is None and not entry.error for entry in group.entries):
            hint = "ptv2kit run SUITE trains its cells; --runs-dir says where they lie"
            raise ConfigError(f"nothing of the suite '{group.name}' has been run in '{folder}'", hint=hint)
    single = [_runs_group(list(runs.values()))] if runs else []
    return (*groups.values(), *single)


def suite_folder(argument: Path, runs_dir: Path) -> Path | None:
    """The suite's folder that an argument names, None if it is no suite.

    Raises:
        ConfigError: the file cannot be read.
    """
    if is_folder(argument):
        is_suite = is_folder(argument / "cells") or is_file(argument / "suite.resolved.yaml")
        return argument if is_suite else None
    values: Any = load_document(argument).values
    name = values.get("suite")
    return runs_dir / name if isinstance(name, str) else None


def _suite_file(path: Path, runs_dir: Path) -> tuple[Path, Group]:

    kind = file_kind(path)
    if kind != "suite":
        hint = f"give the folder of its runs, such as '{runs_dir / path.stem}'" if kind == "recipe" else ""
        raise ConfigError(f"'{path}' is a {kind}, not a suite", hint=hint)
    suite = load_suite(path)
    folder = runs_dir / suite.suite.suite
    return folder, _suite_group(load_suite(path, _given(folder)), folder)


def _given(folder: Path) -> list[str]:
    """What the command line gave for all cells when the suite was run, as its folder keeps it."""
    path = folder / "suite.resolved.yaml"
    written: Any = load_document(path).values.get("override", {}) if is_file(path) else {}
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in written.items()]


def _suite_folder(folder: Path) -> Group:

    path = folder / "suite.resolved.yaml"
    try:
        return _suite_group(load_suite(path), folder)
    except ConfigError as error:
        reason = error.problems[0].message
    note = f"The suite's file cannot be loaded here ({reason}), so cells that were never started are not known."
    records = [read_record(path) for path in sorted(folder.glob("cells/*/cell.json"))]
    written: Any = load_document(path).values if is_file(path) else {}
    entries = tuple(_recorded(folder, record) for record in records)
    return Group(str(written.get("suite", folder.name)), str(written.get("description", "")), entries, notes=(note,))


def _suite_group(suite: ResolvedSuite, folder: Path) -> Group:
    section = suite.suite
    if suite.studies:
        return _search_group(suite, folder)
    entries = tuple(_cell_entry(cell, folder) for cell in suite.cells)
    known = {entry.name for entry in entries}
    more = [path.parent.name for path in sorted(folder.glob("cells/*/cell.json")) if path.parent.name not in known]
    notes = [f"{len(more)} more cells lie in the folder that the suite no longer has: {_listed(more)}."] if more else []
    return Group(section.suite, section.description, entries, notes=tuple(notes))


def _search_group(suite: ResolvedSuite, folder: Path) -> Group:
    """The trials as the search's table has them; those that are still to come have no name yet."""
    section = suite.suite
    table = folder / "table.csv"
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines())) if is_file(table) else []
    assert section.search is not None
    keys = [*section.search.space]
    names = short_names(dict.fromkeys(keys))
    blank = {cell.case: _blank(cell) for cell in reversed(suite.cells)}
    entries: list[Entry] = []
    for row in rows:
        case = row.get("case") or next(iter(blank))
        found = _found(folder / row["run"]) if row["run"] else None
        values = found.values if found else blank[case].values
        settings = {key: values[key] if found else _plain(row.get(names[key], "")) for key in keys}
        expect = blank[case].expect
        entry = replace(blank[case], name=row["cell"], settings=settings, values=values, expect=expect)
        entries.append(replace(_with_run(entry, found), status=row["status"], error=row["error"], changed=()))
    tried = sum(not name.endswith("final") for name in (row["cell"] for row in rows))
    wanted = section.search.budget * len(suite.studies)
    notes = ["These are trials of a search: the best of many scores is more optimistic than a single one."]
    if tried < wanted:
        notes.append(f"{wanted - tried} of {wanted} trials have not been started.")
    return Group(section.suite, section.description, tuple(entries), search=True, notes=tuple(notes))


def _blank(cell: Cell) -> Entry:
    """A cell before anything is known of its run."""
    recipe = cell.resolved.recipe
    tasks = tuple(TaskFacts(task.task.task, task.task.metrics[0]) for task in cell.resolved.tasks)
    values = flatten(recipe.model_dump(mode="json"))
    source = "; ".join(dict.fromkeys(cell.sources.values()))
    return Entry(cell.name, cell.case, cell.settings, values, tasks, recipe.expect, "missing", source=source)


def _cell_entry(cell: Cell, folder: Path) -> Entry:
    entry = _blank(cell)
    path = folder / "cells" / cell.name / "cell.json"
    if not is_file(path):
        runs = sorted(run for run in path.parent.glob("*") if is_run(run))
        return replace(_with_run(entry, read_run(runs[-1])), status="unfinished") if runs else entry
    record = read_record(path)
    found = _found(folder / record.run) if record.run else None
    entry = replace(_with_run(entry, found), status=record.status, error=record.error)
    return entry if entry.results is not None else replace(entry, results=record.results())


def _recorded(folder: Path, record: Record) -> Entry:
    """A cell of a suite whose file is not there."""
    found = _found(folder / record.run) if record.run else None
    expect = found.results.expectations() if found and found.results else ()
    tasks = found.tasks if found else ()
    entry = Entry(record.name, record.case, record.settings, record.settings, tasks, expect, record.status)
    return replace(_with_run(entry, found), status=record.status, error=record.error, changed=())


def _with_run(entry: Entry, found: RunFacts | None) -> Entry:
    """A cell with what its run says; what the suite now sets otherwise is named."""
    if found is None:
        return entry
    changed = tuple(
        f"{key} {json.dumps(found.values[key])}, now {json.dumps(value)}"
        for key, value in entry.values.items()
        if _compared(key) and key in found.values and not _same(found.values[key], value)
    )
    results, tasks = found.results, found.tasks
    return replace(entry, values=found.values, tasks=tasks, run=found.path, results=results, changed=changed)


def _found(folder: Path) -> RunFacts | None:
    return read_run(folder) if is_run(folder) else None


def _runs_group(runs: Sequence[RunFacts]) -> Group:
    """Single runs; what differs between them are their settings, as if a suite had varied it."""
    keys = dict.fromkeys(key for run in runs for key in run.values if _compared(key) or key == "recipe")
    varied = [key for key in keys if len({json.dumps(run.values.get(key)) for run in runs}) > 1]
    if "recipe" in varied and len({tuple(run.tasks) for run in runs}) == len({run.values["recipe"] for run in runs}):
        varied.remove("recipe")  # the task says the same
    entries = tuple(
        Entry(
            name=str(run.path),
            case="",
            settings={key: run.values[key] for key in varied if key in run.values},
            values=run.values,
            tasks=run.tasks,
            expect=() if run.results is None else run.results.expectations(),
            status="unfinished" if run.results is None else run.results.status,
            run=run.path,
            results=run.results,
        )
        for run in runs
    )
    return Group("runs", "", entries)


def _compared(key: str) -> bool:
    """Whether another value of a recipe's key makes another run of it."""
    return key not in _NOT_COMPARED and not key.startswith(_NOT_COMPARED_SECTIONS)


def _same(trained: Any, written: Any) -> bool:
    """Whether a run was trained with what its suite says; it keeps the absolute path of a local folder."""
    if isinstance(trained, str) and isinstance(written, str) and trained.startswith("/"):
        return trained.endswith(f"/{written.removeprefix('./')}") or trained == str(Path(written).resolve())
    return trained == written


def _plain(text: str) -> Any:
    """A value as a table shows it, read back."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _listed(names: Iterable[str], most: int = 5) -> str:
    found = list(names)
    rest = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + rest
