"""`ptv2kit run SUITE`: train every cell of a suite, or search, and show what came out."""

from __future__ import annotations

import argparse
import json
import os
import re
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from ptv2kit.cli.output import show
from ptv2kit.cli.suite_plan import check_disk, disk_needed, finished_records, print_suite_plan
from ptv2kit.cli.terminal import open_console
from ptv2kit.errors import (
    ConfigError,
    DataError,
    ExpectationMissedError,
    OutOfMemoryError,
    Problem,
    ProjectError,
    TrainingError,
)
from ptv2kit.files import is_locked
from ptv2kit.machine import free_disk
from ptv2kit.models.checkpoints import silence_libraries
from ptv2kit.spec.cells import ResolvedSuite, in_cells
from ptv2kit.spec.load import resolved_yaml
from ptv2kit.spec.rules import used_rules
from ptv2kit.spec.suite import shown
from ptv2kit.spec.yaml import parse_value
from ptv2kit.suites.cell import CELL, train_part
from ptv2kit.suites.crew import local_crew, ray_crew, visible_gpus
from ptv2kit.suites.folder import SUITE_VERSION, SuiteFolder, best_of, bests_of, markdown_table
from ptv2kit.suites.preflight import Preflight
from ptv2kit.suites.runner import SuiteRunner
from ptv2kit.suites.searches import Searches
from ptv2kit.suites.study import require_optuna
from ptv2kit.suites.worker import SESSION
from ptv2kit.training.folder import require_writable
from ptv2kit.training.launch import cell_processes, end_with_parent
from ptv2kit.training.signals import STOPPED, EndedEarly

_ERRORS: tuple[type[ProjectError], ...] = (ConfigError, DataError, OutOfMemoryError, TrainingError)


def run_suite(args: argparse.Namespace, suite: ResolvedSuite) -> int:
    """Run a suite; what is finished is not run again.

    Raises:
        ProjectError: nothing was run, or what failed, was missed or interrupted.
    """
    end_with_parent()
    _check_options(args, suite)
    if suite.studies:
        require_optuna()
    messages = open_console(stderr=True, quiet=args.quiet)
    silence_libraries(quiet=args.quiet)
    require_writable(args.runs_dir)

    folder = SuiteFolder(args.runs_dir / suite.suite.suite)
    together = os.environ.get(CELL)
    if together is not None:
        cell = next((cell for cell in suite.cells if cell.name == together), None)
        if cell is None:
            raise ConfigError(f"the suite has changed since it was started: it has no cell '{together}' any more")
        return train_part(cell, folder, args.data_root, messages)
    preflight = Preflight(args.data_root, planning=args.dry_run)
    jobs = count_jobs(args, suite)
    try:
        keys = _check(suite, preflight)
    except (ConfigError, DataError) as error:
        if args.dry_run:  # the plan may be worth reading
            full = print_suite_plan(suite, folder, [""] * len(suite.cells), preflight, args, jobs)
            raise type(error)([*error.problems, *full]) from error
        raise
    if args.dry_run:
        full = print_suite_plan(suite, folder, keys, preflight, args, jobs)
        if full:
            raise ConfigError(full)
        return 0
    known = finished_records(suite, folder, keys, preflight)
    full = check_disk(disk_needed(suite, known, preflight, jobs), free_disk(args.runs_dir.absolute()), args.runs_dir)
    if full:
        raise ConfigError(full)
    folder.write_suite(_resolved(suite, args.overrides))
    for record in known.values():
        if not is_locked(folder.lock(record.name)) and folder.record_of(record.name) != record:
            folder.write_record(record)
            messages.print(f"{record.name}: finished before, in {record.run}", soft_wrap=True)
    title = suite.suite.description or suite.suite.suite
    runner = SuiteRunner(folder, messages, args.data_root, title, whole=not args.only)
    session = os.environ.get(SESSION) or uuid.uuid4().hex

    def crew(processes: int, look: Callable[[], None]) -> EndedEarly | None:
        words, count = args.command_line, max(1, jobs // processes)
        if args.engine == "ray":
            at_most = None if args.jobs == "auto" else count
            return ray_crew(at_most, processes, args.address, words, folder.path, session, messages, look)
        return local_crew(count, processes, words, folder.path, session, messages, look)

    alone = jobs == 1 and args.engine == "local"
    if suite.studies:
        if not alone:
            runner.stopped(crew(1, lambda: None))
        searches = Searches(suite, runner, keys)
        if runner.interrupted:
            searches.show()
        else:
            searches.run()
    else:
        runner.run_cells(suite.cells, keys, preflight, session, args.command_line, None if alone else crew)
    return _report(runner, as_json=args.json, name=suite.suite.suite)


def _report(runner: SuiteRunner, *, as_json: bool, name: str) -> int:
    """Print the table; then everything that is not as it should be, as an error.

    Raises:
        ProjectError: cells failed, missed what they should reach, or the user interrupted.
    """
    best = best_of(runner.records)
    if as_json:
        content = {
            "schema_version": SUITE_VERSION,
            "suite": name,
            "folder": str(runner.folder.path),
            "status": "interrupted" if runner.interrupted else "failed" if runner.failed else "finished",
            "best": None if best is None else best.name,
            "missed": runner.missed,
            "cells": [record.model_dump(mode="json") for record in runner.records],
        }
        show(json.dumps(content, indent=2, ensure_ascii=False) + "\n", end="")
    else:
        show(markdown_table(runner.records) + "\n", end="")
        for file, each in bests_of(runner.records).items():
            chosen = ", ".join(f"{key}={shown(value)}" for key, value in each.settings.items())
            show(f"{file.replace('.', ' of ', 1)}: {each.name} with {each.score:.2f} ({chosen})")
        show(f"suite: {runner.folder.path}\n", end="")
    if runner.elsewhere:
        runner.messages.print(f"still running in other processes: {runner.elsewhere}")
    done = sum(record.status in ("finished", "stopped") for record in runner.records)
    if runner.interrupted:
        message = f"interrupted after {done} of {len(runner.records)} cells; run the same command again to resume"
        raise STOPPED[runner.stopped_by or "interrupted"](message)
    if runner.failed:
        codes = {record.exit_code for record in runner.failed}
        kind = next((kind for kind in _ERRORS if codes == {kind.exit_code}), TrainingError)
        failed = [Problem(f"cell '{record.name}' failed: {record.error}") for record in runner.failed]
        raise kind([*failed, *map(Problem, runner.missed)])
    if runner.missed:
        raise ExpectationMissedError(Problem(text) for text in runner.missed)
    return 0


def _check_options(args: argparse.Namespace, suite: ResolvedSuite) -> None:
    """Refuse what contradicts itself."""
    if args.resume:
        raise ConfigError("--resume is for a single run", hint="a suite resumes by itself: leave it out")
    if args.address is not None and args.engine != "ray" and SESSION not in os.environ:  # a worker has these words too
        raise ConfigError("--address is for --engine ray")
    if suite.studies and any(cell_processes(cell.resolved.recipe) > 1 for cell in suite.cells):
        raise ConfigError(
            "a trial of a search has one process, but distributed.gpus asks for more",
            hint="start a search once for each GPU instead, with CUDA_VISIBLE_DEVICES: they share its trials",
        )
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
        DataError: its data could not be loaded.
    """
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


def _resolved(suite: ResolvedSuite, overrides: Sequence[str]) -> str:
    """The suite with every default and absolute paths; the password of a database is left out."""
    section = suite.suite
    path = suite.path.parent.absolute()
    update: dict[str, Any] = {
        "recipe": None if section.recipe is None else str(path / section.recipe),
        "cases": tuple(
            case if case.recipe is None else case.model_copy(update={"recipe": str(path / case.recipe)})
            for case in section.cases
        ),
        "expect": None,  # the rules that it made are among those below
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
