"""`ptv2kit run SUITE`: train every cell of a suite, or search, and show what came out."""

from __future__ import annotations

import argparse
import json
import re
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from ptv2kit.cli.preflight import Preflight
from ptv2kit.cli.subject import silence_libraries
from ptv2kit.errors import (
    ConfigError,
    DataError,
    ExpectationMissedError,
    InterruptedRunError,
    OutOfMemoryError,
    Problem,
    ProjectError,
    TerminatedRunError,
    TrainingError,
)

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
    from rich.console import Console

    from ptv2kit.config.cells import load_suite
    from ptv2kit.reporting.run_folder import require_writable
    from ptv2kit.reporting.suite_folder import SuiteFolder

    suite = load_suite(args.file, args.overrides)
    if suite.studies:
        from ptv2kit.training.search import require_optuna

        require_optuna()
    messages = Console(stderr=True, quiet=args.quiet, highlight=False, markup=False, emoji=False)
    silence_libraries()
    require_writable(args.runs_dir)
    keys = _check(suite, args.data_root)
    if args.dry_run:
        return _list_cells(suite, as_json=args.json)
    folder = SuiteFolder(args.runs_dir / suite.suite.suite)
    folder.write_suite(_resolved(suite))
    runner = SuiteRunner(folder, messages, args.data_root, suite.suite.description or suite.suite.suite)
    if suite.studies:
        from ptv2kit.cli.run_search import Searches

        Searches(suite, runner, keys).run()
    else:
        runner.run_cells(suite.cells, keys)
    return runner.report(as_json=args.json, name=suite.suite.suite)


def _check(suite: ResolvedSuite, data_root: Path | None) -> list[str]:
    """The key of each cell, after everything was checked that can be without rows and weights.

    Raises:
        ConfigError: a cell cannot be run.
        DataError: its data cannot be had.
    """
    from ptv2kit.config.cells import in_cells

    preflight = Preflight(data_root)
    keys: list[str] = []
    found: dict[type[ProjectError], dict[Problem, list[str]]] = {}
    for cell in suite.cells:
        try:
            keys.append(preflight.key(cell.resolved))
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
        self.terminated = False

    def run_cells(self, cells: Sequence[Cell], keys: Sequence[str]) -> None:
        """Train the cells that are not finished; a failed one is tried again, and stops none of the others."""
        from ptv2kit.reporting.suite_folder import CellRecord

        done = [self.folder.record_of(cell.name) for cell in cells]
        self.records = [
            replace(record, case=cell.case, settings=cell.settings)
            if record is not None and record.key == key and record.status == "finished"
            else CellRecord(cell.name, cell.case, cell.settings, "waiting", key)
            for cell, key, record in zip(cells, keys, done, strict=True)
        ]
        for index, (cell, key) in enumerate(zip(cells, keys, strict=True)):
            label = f"[{index + 1}/{len(cells)}] {cell.name}"
            if self.records[index].status == "finished":
                self.messages.print(f"{label}: finished before", soft_wrap=True)
            elif not self.interrupted:
                self.messages.print(f"{label}", style="bold", soft_wrap=True)
                try:
                    record = replace(self.train(cell), key=key)
                except KeyboardInterrupt:
                    record = replace(self.records[index], status="interrupted")
                except BrokenPipeError:
                    raise
                except Exception as error:  # noqa: BLE001 - a fault of ours in one cell must not cost the others
                    self.messages.print(traceback.format_exc(), soft_wrap=True)
                    found = f"internal error: {type(error).__name__}: {error}"
                    record = replace(self.records[index], status="failed", error=found, exit_code=1)
                self.interrupted = record.status == "interrupted"
                self.records[index] = record
                self.folder.write_record(record)
                self.write_tables()
            if self.records[index].status == "finished":
                self.missed += [f"{cell.name}: {text}" for text in self.records[index].missed(cell.resolved)]
        self.failed = [record for record in self.records if record.status == "failed"]
        self.write_tables()

    def train(self, cell: Cell, watchers: Sequence[TrainingEvents] = ()) -> CellRecord:
        """Train one cell; an error of the project is part of its record, any other is raised."""
        from ptv2kit.cli.train import train_recipe
        from ptv2kit.reporting.suite_folder import CellRecord

        blank = CellRecord(cell.name, cell.case, cell.settings, "failed")
        try:
            run, outcome = train_recipe(
                cell.resolved,
                data_root=self._data_root,
                runs_dir=self.folder.runs,
                messages=self.messages,
                overrides=[str(override) for override in cell.overrides],
                watchers=watchers,
                name=cell.name,
            )
        except ProjectError as error:
            self.messages.print(f"failed: {error}", soft_wrap=True)
            return replace(blank, error=error.problems[0].message, exit_code=error.exit_code)
        self.terminated = outcome.status == "terminated"
        return CellRecord(
            name=cell.name,
            case=cell.case,
            settings=cell.settings,
            status="interrupted" if outcome.status == "terminated" else outcome.status,
            score=outcome.score,
            metrics={split: dict(scores.values) for split, scores in outcome.scores.items()},
            best_epoch=outcome.best_epoch,
            epochs=outcome.epochs,
            seconds=round(outcome.seconds, 3),
            trained=outcome.parameters.trained,
            run=run.path.relative_to(self.folder.path).as_posix(),
        )

    def write_tables(self) -> None:
        """Show what is known so far."""
        from ptv2kit.reporting.suite_folder import best_of

        self.folder.write_tables(self._title, self.records)
        cases = dict.fromkeys(record.case for record in self.records)
        for case in cases if len(cases) > 1 else ():
            best = best_of([record for record in self.records if record.case == case])
            if best is not None:
                self.folder.write_best(best, f"best.{case}.yaml")
        best = best_of(self.records)
        if best is not None and not self.folder.write_best(best):
            self.messages.print(f"best.yaml is not written: the run of {best.name} is on another machine")

    def report(self, *, as_json: bool, name: str) -> int:
        """Print the table; then everything that is not as it should be, as an error.

        Raises:
            ProjectError: cells failed, missed what they should reach, or the user interrupted.
        """
        from ptv2kit.config.suite import shown
        from ptv2kit.reporting.suite_folder import SUITE_VERSION, best_of, markdown_table

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
            sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        else:
            sys.stdout.write(markdown_table(self.records) + "\n")
            if best is not None:
                chosen = ", ".join(f"{key}={shown(value)}" for key, value in best.settings.items())
                sys.stdout.write(f"best: {best.name} with {best.score:.2f} ({chosen})\n")
            sys.stdout.write(f"suite: {self.folder.path}\n")
        if self.elsewhere:
            self.messages.print(f"still running in other processes: {self.elsewhere} trials")
        done = sum(record.status in ("finished", "stopped") for record in self.records)
        if self.interrupted:
            message = f"interrupted after {done} of {len(self.records)} cells; run the same command again to go on"
            raise TerminatedRunError(message) if self.terminated else InterruptedRunError(message)
        if self.failed:
            codes = {record.exit_code for record in self.failed}
            kind = next((kind for kind in _ERRORS if codes == {kind.exit_code}), TrainingError)
            raise kind(Problem(f"cell '{record.name}' failed: {record.error}") for record in self.failed)
        if self.missed:
            raise ExpectationMissedError(Problem(text) for text in self.missed)
        return 0


def _list_cells(suite: ResolvedSuite, *, as_json: bool) -> int:
    """Say what would be run."""
    if as_json:
        content = {
            "suite": suite.suite.suite,
            "cells": [{"name": cell.name, "case": cell.case, "settings": cell.settings} for cell in suite.cells],
            "trials": {study.case: study.search.budget for study in suite.studies},
        }
        sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        return 0
    for study in suite.studies:
        where = f"{study.case}: " if study.case else ""
        space = ", ".join(study.search.space)
        sys.stdout.write(f"{where}{study.search.budget} trials of {study.recipe_path}, searching {space}\n")
    for cell in suite.cells:
        sys.stdout.write(f"{'checked: ' if suite.studies else ''}{cell.name}\n")
    if not suite.studies:
        sys.stdout.write(f"{len(suite.cells)} cells; nothing was trained or written\n")
    return 0


def _resolved(suite: ResolvedSuite) -> str:
    """The suite with every default and absolute paths; the password of a database is left out."""
    from ptv2kit.config.load import resolved_yaml

    section = suite.suite
    path = suite.path.parent.absolute()
    update: dict[str, Any] = {
        "recipe": None if section.recipe is None else str(path / section.recipe),
        "cases": tuple(
            case if case.recipe is None else case.model_copy(update={"recipe": str(path / case.recipe)})
            for case in section.cases
        ),
    }
    if section.search is not None and section.search.storage is not None:
        shown = re.sub(r"://([^:/@]*):[^@]*@", r"://\1:***@", section.search.storage)
        update["search"] = section.search.model_copy(update={"storage": shown})
    return resolved_yaml(section.model_copy(update=update))
