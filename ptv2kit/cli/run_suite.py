"""`ptv2kit run SUITE`: train every cell of a suite, or search, and show what came out."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from ptv2kit.cli.crew import local_crew, ray_crew, visible_gpus
from ptv2kit.cli.output import show
from ptv2kit.cli.preflight import Preflight
from ptv2kit.cli.subject import silence_libraries
from ptv2kit.cli.worker import SESSION, Worker, train_cell
from ptv2kit.config.yaml import parse_value
from ptv2kit.errors import (
    ConfigError,
    DataError,
    ExpectationMissedError,
    HungUpRunError,
    InterruptedRunError,
    OutOfMemoryError,
    Problem,
    ProjectError,
    TerminatedRunError,
    TrainingError,
)
from ptv2kit.files import free_disk

if TYPE_CHECKING:
    from rich.console import Console

    from ptv2kit.config.cells import Cell, ResolvedSuite
    from ptv2kit.reporting.suite_folder import CellRecord, SuiteFolder
    from ptv2kit.training.trainer import TrainingEvents

_ERRORS: tuple[type[ProjectError], ...] = (ConfigError, DataError, OutOfMemoryError, TrainingError)


def run_suite(args: argparse.Namespace) -> int:
    """Run the suite that `args` names; what is finished is not run again.

    Raises:
        ProjectError: nothing was run, or what failed, was missed or interrupted.
    """

    from ptv2kit.cli.launch import end_with_parent
    from ptv2kit.config.cells import load_suite
    from ptv2kit.reporting.console import open_console
    from ptv2kit.reporting.run_folder import require_writable
    from ptv2kit.reporting.suite_folder import SuiteFolder

    end_with_parent()
    suite = load_suite(args.file, args.overrides)
    _check_options(args, suite)
    if suite.studies:
        from ptv2kit.training.search import require_optuna

        require_optuna()
    messages = open_console(stderr=True, quiet=args.quiet)
    silence_libraries()
    require_writable(args.runs_dir)
    from ptv2kit.cli.suite_plan import check_disk, disk_needed, finished_records, print_suite_plan

    preflight = Preflight(args.data_root)
    folder = SuiteFolder(args.runs_dir / suite.suite.suite)
    jobs = count_jobs(args, suite)
    try:
        keys = _check(suite, preflight)
    except (ConfigError, DataError) as error:
        if args.dry_run:  # the plan may be worth reading all the same
            full = print_suite_plan(suite, folder, [""] * len(suite.cells), preflight, args, jobs)
            raise type(error)([*error.problems, *full]) from error
        raise
    if args.dry_run:
        full = print_suite_plan(suite, folder, keys, preflight, args, jobs)
        if full:
            raise ConfigError(full)
        return 0
    known = finished_records(suite, folder, keys, preflight)
    full = check_disk(
        disk_needed(suite, known, args.data_root, jobs), free_disk(args.runs_dir.absolute()), args.runs_dir
    )
    if full:
        raise ConfigError(full)
    folder.write_suite(_resolved(suite, args.overrides))
    runner = SuiteRunner(folder, messages, args.data_root, suite.suite.description or suite.suite.suite)
    session = os.environ.get(SESSION) or uuid.uuid4().hex

    def crew(look: Callable[[], None]) -> signal.Signals | None:
        if args.engine == "ray":
            count = None if args.jobs == "auto" else jobs
            return ray_crew(count, args.address, args.command_line, folder.path, session, messages, look)
        return local_crew(jobs, args.command_line, folder.path, session, messages, look)

    alone = jobs == 1 and args.engine == "local"
    if suite.studies:
        from ptv2kit.cli.run_search import Searches

        if not alone:
            runner.stopped(crew(lambda: None))
        searches = Searches(suite, runner, keys)
        if runner.interrupted:
            searches.show()
        else:
            searches.run()
    else:
        runner.run_cells(suite.cells, keys, preflight, session, None if alone else crew)
    return runner.report(as_json=args.json, name=suite.suite.suite)


def _check_options(args: argparse.Namespace, suite: ResolvedSuite) -> None:
    """Refuse what contradicts itself."""
    if args.resume:
        raise ConfigError("--resume is for a single run", hint="a suite goes on by itself: leave it out")
    if args.address is not None and args.engine != "ray" and SESSION not in os.environ:  # a worker has these words too
        raise ConfigError("--address is for --engine ray")
    if args.gpu is not None and not args.dry_run:
        raise ConfigError("--gpu names a GPU to plan for: it is for --dry-run")
    if args.engine == "ray" and suite.studies:
        raise ConfigError(
            "--engine ray is for grids, and this suite has a search",
            hint="start the same command on each machine: with 'search.storage' they share the trials",
        )


def count_jobs(args: argparse.Namespace, suite: ResolvedSuite) -> int:
    """How many cells this machine trains at one time."""
    if args.jobs != "auto":
        return args.jobs
    if all(cell.resolved.recipe.train.device == "cpu" for cell in suite.cells):
        return 1
    return max(1, len(visible_gpus()))


def _check(suite: ResolvedSuite, preflight: Preflight) -> list[str]:
    """The key of each cell, empty where it starts from another one's prompt.

    Everything is checked that can be without rows and weights.

    Raises:
        ConfigError: a cell cannot be run.
        DataError: its data cannot be had.
    """
    from ptv2kit.config.cells import in_cells

    keys: list[str] = []
    found: dict[type[ProjectError], dict[Problem, list[str]]] = {}
    for cell in suite.cells:
        try:
            key = preflight.key(cell.resolved)
            keys.append(key if cell.after is None else "")
        except (ConfigError, DataError) as error:
            for problem in error.problems:
                found.setdefault(type(error), {}).setdefault(problem, []).append(cell.name)
    for kind in (ConfigError, DataError):
        if kind in found:
            raise kind(in_cells(found[kind], len(suite.cells)))
    return keys


@final
class SuiteRunner:
    """Trains cells one after the other, keeps a record of each, and reports them.

    Args:
        folder: of the suite.
        messages: of stderr.
        data_root: where data files are looked up first.
        title: of the table.
    """

    def __init__(self, folder: SuiteFolder, messages: Console, data_root: Path | None, title: str) -> None:
        self.folder = folder
        self.messages = messages
        self._data_root = data_root
        self._title = title
        self.records: list[CellRecord] = []
        self.failed: list[CellRecord] = []
        self.missed: list[str] = []
        self.elsewhere = 0
        self.interrupted = False
        self.stopped_by: signal.Signals | None = None

    def run_cells(
        self,
        cells: Sequence[Cell],
        keys: Sequence[str],
        preflight: Preflight,
        session: str,
        crew: Callable[[Callable[[], None]], signal.Signals | None] | None,
    ) -> None:
        """Train the cells that are not finished; a failed one is tried again, and stops none of the others.

        Args:
            cells: of the suite.
            keys: from `_check`.
            preflight: makes the keys that are not known yet.
            session: of this command.
            crew: runs several workers; None: this process is the only one.
        """
        worker = Worker(
            self.folder,
            cells,
            keys,
            data_root=self._data_root,
            messages=self.messages,
            key=lambda cell: preflight.key(cell.resolved),
            session=session,
            changed=lambda: self._look(worker),
        )
        if crew is None:
            self.stopped(worker.run())
        else:
            for record in worker.records():
                if record.status == "finished":
                    worker.say(record.name, "finished before")
            shown: dict[str, str] = {record.name: record.status for record in worker.records()}
            self.stopped(crew(lambda: _say_changes(worker, shown)))
            worker.note_killed()
            _say_changes(worker, shown)
            left = [record.name for record in worker.records() if record.status == "waiting"]
            if left and not self.interrupted:
                raise TrainingError(
                    f"the workers ended and left {len(left)} cells untouched, the first is '{left[0]}'",
                    hint=f"what they printed lies in '{self.folder.path}/worker-*.log'",
                )
        self._look(worker)
        self.interrupted = self.interrupted or any(record.status == "interrupted" for record in self.records)
        self.elsewhere = sum(record.status == "running" for record in self.records)
        self.failed = [record for record in self.records if record.status == "failed"]
        for cell, record in zip(cells, self.records, strict=True):
            if record.status == "finished":
                self.missed += [f"{cell.name}: {text}" for text in record.missed(cell.resolved)]

    def _look(self, worker: Worker) -> None:
        self.records = worker.records()
        self.write_tables()

    def stopped(self, number: signal.Signals | None) -> None:
        """Note by which signal the cells were interrupted, if they were."""
        if number is not None:
            self.interrupted = True
            self.stopped_by = number

    def train(self, cell: Cell, watchers: Sequence[TrainingEvents] = ()) -> CellRecord:
        """Train one cell in this process; an error of the project is part of its record, any other is raised."""
        done = train_cell(
            cell, folder=self.folder.path, data_root=self._data_root, messages=self.messages, watchers=watchers
        )
        self.stopped_by = done.stopped
        return done.record

    def write_tables(self) -> None:
        """Show what is known so far."""
        from ptv2kit.reporting.suite_folder import bests_of

        self.folder.write_tables(self._title, self.records)
        bests = bests_of(self.records)
        for path in self.folder.path.glob("best*.yaml"):
            if path.stem not in bests:  # written while fewer cells were finished
                path.unlink()
        for name, best in bests.items():
            if not self.folder.write_best(best, f"{name}.yaml"):
                self.messages.print(f"{name}.yaml is not written: the run of {best.name} is on another machine")

    def report(self, *, as_json: bool, name: str) -> int:
        """Print the table; then everything that is not as it should be, as an error.

        Raises:
            ProjectError: cells failed, missed what they should reach, or the user interrupted.
        """
        from ptv2kit.config.suite import shown
        from ptv2kit.reporting.suite_folder import SUITE_VERSION, best_of, bests_of, markdown_table

        best = best_of(self.records)
        if as_json:
            content = {
                "schema_version": SUITE_VERSION,
                "suite": name,
                "folder": str(self.folder.path),
                "status": "interrupted" if self.interrupted else "failed" if self.failed else "finished",
                "best": None if best is None else best.name,
                "missed": self.missed,
                "cells": [record.to_json() for record in self.records],
            }
            show(json.dumps(content, indent=2, ensure_ascii=False) + "\n", end="")
        else:
            show(markdown_table(self.records) + "\n", end="")
            for file, each in bests_of(self.records).items():
                chosen = ", ".join(f"{key}={shown(value)}" for key, value in each.settings.items())
                show(f"{file.replace('.', ' of ', 1)}: {each.name} with {each.score:.2f} ({chosen})")
            show(f"suite: {self.folder.path}\n", end="")
        if self.elsewhere:
            self.messages.print(f"still running in other processes: {self.elsewhere}")
        done = sum(record.status in ("finished", "stopped") for record in self.records)
        if self.interrupted:
            message = f"interrupted after {done} of {len(self.records)} cells; run the same command again to go on"
            kinds = {signal.SIGTERM: TerminatedRunError, signal.SIGHUP: HungUpRunError}
            raise kinds.get(self.stopped_by or signal.SIGINT, InterruptedRunError)(message)
        if self.failed:
            codes = {record.exit_code for record in self.failed}
            kind = next((kind for kind in _ERRORS if codes == {kind.exit_code}), TrainingError)
            failed = [Problem(f"cell '{record.name}' failed: {record.error}") for record in self.failed]
            raise kind([*failed, *map(Problem, self.missed)])
        if self.missed:
            raise ExpectationMissedError(Problem(text) for text in self.missed)
        return 0


def _resolved(suite: ResolvedSuite, overrides: Sequence[str]) -> str:
    """The suite with every default and absolute paths; the password of a database is left out."""
    from ptv2kit.config.load import resolved_yaml
    from ptv2kit.config.rules import used_rules

    section = suite.suite
    path = suite.path.parent.absolute()
    update: dict[str, Any] = {
        "recipe": None if section.recipe is None else str(path / section.recipe),
        "cases": tuple(
            case if case.recipe is None else case.model_copy(update={"recipe": str(path / case.recipe)})
            for case in section.cases
        ),
        "override": section.override | _given(overrides),
        "rules": used_rules(section, [(cell.case, cell.settings) for cell in suite.cells]),
    }
    if section.search is not None and section.search.storage is not None:
        shown = re.sub(r"://([^:/@]*):[^@]*@", r"://\1:***@", section.search.storage)
        update["search"] = section.search.model_copy(update={"storage": shown})
    return resolved_yaml(section.model_copy(update=update))


def _given(overrides: Sequence[str]) -> dict[str, Any]:
    """What the command line gave for the recipes of all cells."""
    pairs = (text.partition("=") for text in overrides if not text.startswith("search."))
    return {key: parse_value(value) for key, _, value in pairs}


def _say_changes(worker: Worker, shown: dict[str, str]) -> None:
    """Say which cells have begun or ended since the last call."""
    for record in worker.records():
        if record.status != shown[record.name]:
            shown[record.name] = record.status
            score = "" if record.score is None else f", {record.score:.2f}"
            error = f": {record.error}" if record.error else ""
            worker.say(record.name, f"{'starts' if record.status == 'running' else record.status}{score}{error}")
