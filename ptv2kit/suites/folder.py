"""A suite's folder: its cells' runs, and what came out of all of them as tables. Every file is written atomically."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from ptv2kit.data.schemes.records import Scores
from ptv2kit.errors import DataError, visible
from ptv2kit.files import is_file, write_atomically
from ptv2kit.models.counts import ParameterCount
from ptv2kit.report.cells import aligned
from ptv2kit.report.records import CellRecord, read_file
from ptv2kit.spec.cells import cell_name
from ptv2kit.spec.load import ResolvedRecipe, load_recipe, resolved_yaml
from ptv2kit.spec.suite import short_names, shown
from ptv2kit.training.results import Outcome, TaskOutcome

SUITE_VERSION = 1


def missed(record: CellRecord, resolved: ResolvedRecipe) -> list[str]:
    """A sentence for each value in `expect` of a cell's recipe that was not reached."""
    several = len(resolved.tasks) > 1
    tasks: list[TaskOutcome] = []
    for task in resolved.tasks:
        name = task.task.task
        own = {
            split.removeprefix(f"{name}/") if several else split: Scores(dict(values))
            for split, values in record.metrics.items()
            if not several or split.startswith(f"{name}/")
        }
        tasks.append(TaskOutcome(task.task, record.best_epoch, own))
    nothing = ParameterCount(backbone=0, prompt=0, head=0)
    return Outcome(resolved.recipe, tuple(tasks), "finished", nothing, record.best_epoch, 0, 0.0, (), ()).missed()


def best_of(records: Sequence[CellRecord]) -> CellRecord | None:
    """The finished cell with the highest score, the first of equals; where there are finals, the best of them.

    None if there is none, or if scores are of different tasks or metrics, which cannot be compared.
    """
    scored = [record for record in records if record.status == "finished" and record.score is not None]
    finals = [record for record in scored if record.final]
    if len({record.kind for record in finals or scored}) > 1:
        return None
    return max(finals or scored, key=lambda record: record.score or 0.0, default=None)


def bests_of(records: Sequence[CellRecord]) -> dict[str, CellRecord]:
    """The best cell of the suite as `best`, of each case as `best.<case>`, of each task and metric as `best.<task>`."""
    found: dict[str, CellRecord | None] = {"best": best_of(records)}
    cases = dict.fromkeys(record.case for record in records)
    for case in cases if len(cases) > 1 else ():
        found[f"best.{case}"] = best_of([record for record in records if record.case == case])
    kinds = dict.fromkeys(record.kind for record in records if record.score is not None)
    for kind in kinds if len(kinds) > 1 else ():
        task, metric = kind
        single = sum(each == task for each, _ in kinds) == 1
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", task if single else f"{task}.{metric}")
        found.setdefault(f"best.{name}", best_of([record for record in records if record.kind == kind]))
    return {name: record for name, record in found.items() if record is not None}


@final
@dataclass(frozen=True)
class SuiteFolder:
    """Where a suite keeps what it does.

    Args:
        path: `<runs>/<suite>`.
    """

    path: Path

    @property
    def journal(self) -> Path:
        """The trials of its searches, unless they are kept elsewhere."""
        return self.path.absolute() / "search.journal"

    @property
    def runs(self) -> Path:
        """Holds a folder for each cell."""
        return self.path / "cells"

    def lock(self, name: str) -> Path:
        """Held by the process that trains a cell."""
        return self.runs / name / ".lock"

    def record_of(self, name: str) -> CellRecord | None:
        """What was written of a cell, None if nothing was.

        Raises:
            DataError: the file is not what it should be.
        """
        path = self._record_path(name)
        if not is_file(path):
            return None
        return read_file(path, CellRecord, hint="delete it; the cell is run again")

    def finished_by_key(self, cells: Collection[str]) -> dict[str, CellRecord]:
        """What the suites beside this one have finished, and this one in cells that it no longer has, by the run's key.

        Args:
            cells: names of this suite's; two of equal outcome, as with one process and with two, are both trained.

        Returns:
            Records with runs relative to this folder.
        """
        found: dict[str, CellRecord] = {}
        for path in sorted(self.path.parent.glob("*/cells/*/cell.json")):
            other = path.parents[2]
            if other.name == self.path.name and path.parent.name in cells:
                continue
            try:
                record = read_file(path, CellRecord)
            except DataError:
                continue  # its own suite says so
            if record.status == "finished" and record.key and (other / record.run / "results.json").is_file():
                run = os.path.relpath(other / record.run, self.path)
                found.setdefault(record.key, record.model_copy(update={"run": Path(run).as_posix()}))
        return found

    def run_of(self, record: CellRecord) -> Path:
        """The folder of a cell's run, which may be another suite's; this folder need not exist."""
        return Path(os.path.normpath(self.path / record.run))

    def write_record(self, record: CellRecord) -> None:
        """Keep what is known of a cell."""
        self._write(self._record_path(record.name), _json(record.model_dump(mode="json")))

    def write_suite(self, text: str) -> None:
        """Keep the suite as it was understood."""
        self._write(self.path / "suite.resolved.yaml", text)

    def write_tables(self, title: str, records: Sequence[CellRecord]) -> None:
        """Write `table.md` and `table.csv`."""
        lines = [f"# {title}", "", markdown_table(records), ""]
        for name, best in bests_of(records).items():
            what = "Best" if name == "best" else f"Best of {name.partition('.')[2]}"
            lines += [f"{what}: `{best.name}` with {best.score:.2f}; its recipe is `{name}.yaml`.", ""]
        counts = {status: sum(record.status == status for record in records) for status in ("finished", "stopped")}
        lines.append(
            f"{counts['finished']} of {len(records)} finished"
            + (f", {counts['stopped']} stopped by the pruner." if counts["stopped"] else ".")
        )
        lines.append("Scores are of the best epoch on the validation split, which chose it: they are optimistic.")
        self._write(self.path / "table.md", "\n".join(lines) + "\n")
        self._write(self.path / "table.csv", _csv(records))

    def write_best(self, record: CellRecord, name: str = "best.yaml") -> bool:
        """Write the recipe of a cell so that `ptv2kit run` takes it, from what its run has kept.

        Returns:
            Whether its run is there; one of another machine may not be.
        """
        run = self.path / record.run
        if not record.run or not is_file(run / "recipe.resolved.yaml"):
            return False
        recipe = load_recipe(run / "recipe.resolved.yaml").recipe
        tasks = tuple(f"{record.run}/{task}" for task in recipe.task_names)
        update = {"task": tasks[0] if isinstance(recipe.task, str) else tasks}
        text = resolved_yaml(recipe.model_copy(update=update))
        self._write(self.path / name, f"# {record.name}: {record.score:.2f}\n{text}")
        return True

    def _record_path(self, name: str) -> Path:
        return self.runs / name / "cell.json"

    def _write(self, path: Path, text: str) -> None:
        write_atomically(path, (visible(text) if path.suffix == ".md" else text).encode())


def table_rows(records: Sequence[CellRecord]) -> tuple[list[str], list[list[str]]]:
    """The header and a row for each cell, as text.

    Columns: the cell, the case if there are cases, each setting, each metric by split, status, epochs, seconds, trained
    parameters and the run's folder.
    """
    settings = short_names({key: None for record in records for key in record.settings})
    columns = list(
        dict.fromkeys(
            (split, name) for record in records for split, values in record.metrics.items() for name in values
        )
    )
    cases = any(record.case for record in records)
    header = [
        "cell",
        *(["case"] if cases else []),
        *settings.values(),
        *(f"{split} {name}" for split, name in columns),
        "score",
        "status",
        "epochs",
        "seconds",
        "trained",
        "run",
    ]
    rows = [
        [
            record.name,
            *([record.case] if cases else []),
            *(shown(record.settings[key]) if key in record.settings else "" for key in settings),
            *(_number(record.metrics.get(split, {}).get(name)) for split, name in columns),
            _number(record.score),
            record.status,
            str(record.epochs) if record.epochs else "",
            f"{record.seconds:.0f}" if record.epochs else "",
            str(record.trained) if record.trained else "",
            record.run,
        ]
        for record in records
    ]
    return header, rows


def markdown_table(records: Sequence[CellRecord]) -> str:
    """The table without the columns that say nothing new, aligned for reading as it is."""
    header, rows = table_rows(records)
    firsts = [next(iter(record.metrics.get("validation", {}).values()), None) for record in records]
    named = all(record.name == cell_name(record.case, record.settings) for record in records)
    dropped = {"run", *(["cell"] if named else [])} | (
        {"score"} if firsts == [record.score for record in records] else set[str]()
    )
    kept = [index for index, name in enumerate(header) if name not in dropped]
    cells = [[row[index].replace("|", "\\|") for index in kept] for row in [header, *rows]]
    return aligned(cells, [False] * len(kept))


def _csv(records: Sequence[CellRecord]) -> str:
    header, rows = table_rows(records)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*header, "best_epoch", "error"])
    for record, row in zip(records, rows, strict=True):
        writer.writerow([*row, record.best_epoch or "", record.error])
    return text.getvalue()


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
