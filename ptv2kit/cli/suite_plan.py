"""`ptv2kit run SUITE --dry-run`: the cells, which are finished, and what the others will need."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from ptv2kit.cli.output import show
from ptv2kit.cli.plan import gpu_here
from ptv2kit.errors import ConfigError, DataError, Problem
from ptv2kit.files import is_locked
from ptv2kit.machine import free_disk
from ptv2kit.plan.estimate import Disk, Estimate, Estimator, disk_of, readable
from ptv2kit.plan.hardware import Gpu, find_gpu, time_processor
from ptv2kit.report.records import CellRecord
from ptv2kit.spec.cells import Cell, ResolvedSuite
from ptv2kit.spec.suite import keeps_tensors
from ptv2kit.suites.cell import starting_from
from ptv2kit.suites.folder import SuiteFolder
from ptv2kit.suites.preflight import Preflight
from ptv2kit.training.launch import cell_processes

_LENGTHS = "inputs as long as a sample of the rows, or as they may be where rows or tokenizer are not on this machine"


@final
@dataclass(frozen=True)
class _Line:
    """A cell of the plan.

    Args:
        status: `finished`, `running` in another process, `waiting`, or as it ended before and will be tried again.
        times: how often it is trained; a search trains what stands for its trials.
        estimate: None if it is finished or cannot be estimated.
        seconds: of one training, measured for a finished cell, else estimated as if its processes shared the work
            without loss; None: not known.
        fault: why it cannot be estimated.
    """

    cell: Cell
    status: str
    times: int
    estimate: Estimate | None
    seconds: float | None
    fault: str | None = None

    @property
    def processes(self) -> int:
        """That train it together."""
        return cell_processes(self.cell.resolved.recipe)


def print_suite_plan(
    suite: ResolvedSuite,
    folder: SuiteFolder,
    keys: Sequence[str],
    preflight: Preflight,
    args: argparse.Namespace,
    jobs: int,
) -> list[Problem]:
    """Print what a suite would run and need; nothing is written.

    Args:
        suite: its cells, or those that show what a search may choose.
        folder: of the suite; need not exist.
        keys: of the cells, empty where none is known yet.
        preflight: makes keys, and knows the backbones.
        jobs: cells at one time.

    Returns:
        What is wrong if the disk is too small.

    Raises:
        ConfigError: the GPU of `--gpu` is not known.
    """
    gpu, named = _gpu(args)
    known = finished_records(suite, folder, keys, preflight)
    estimator = Estimator(preflight.spec, args.data_root, suite.suite.keep)
    estimates: dict[str, Estimate] = {}
    faults: dict[str, str] = {}
    for cell in suite.cells:
        try:
            estimates[cell.name] = estimator.estimate(cell.resolved)
        except (ConfigError, DataError) as error:
            problem = error.problems[0]
            faults[cell.name] = f"{problem.location}: {problem.message}" if problem.location else problem.message
    rates = {} if named else _rates(suite.cells, known, estimates)
    trials = {study.case: study.search.budget for study in suite.studies}
    found = {**estimates, **faults}
    lines = [_line(cell, folder, known, found[cell.name], gpu, rates, trials) for cell in suite.cells]
    basis = _basis(gpu, rates, named=named)
    free = free_disk(args.runs_dir.absolute())
    if suite.studies:
        lines = _largest_of_each(lines)
    open_lines = [line for line in lines if line.status != "finished"]
    sizes = [(line.times, line.estimate.disk) for line in open_lines if line.estimate is not None]
    disk = disk_of(sizes, jobs)
    if args.json:
        content = _to_json(suite, lines, disk, free, basis, jobs) | {"not_on_this_machine": preflight.absent}
        show(json.dumps(content, indent=2, ensure_ascii=False) + "\n", end="")
    else:
        _print(suite, lines, disk, free, basis, jobs, preflight.absent)
    return check_disk(disk, free, args.runs_dir)


def finished_records(
    suite: ResolvedSuite, folder: SuiteFolder, keys: Sequence[str], preflight: Preflight
) -> dict[str, CellRecord]:
    """The records of the cells of a grid that need not be trained again, by name.

    Another suite may have trained them, or this one when its cells had other names; that counts only if the run has
    kept as much as this suite keeps.
    """
    found: dict[str, CellRecord] = {}
    if suite.studies:
        return found
    finished = folder.finished_by_key({cell.name for cell in suite.cells})
    left = dict(zip((cell.name for cell in suite.cells), zip(suite.cells, keys, strict=True), strict=True))
    while True:
        ready = [name for name, (cell, _) in left.items() if cell.after is None or cell.after in found]
        if not ready:
            return found
        for name in ready:
            cell, key = left.pop(name)
            if cell.after is not None:
                try:
                    key = preflight.key(starting_from(cell, folder.run_of(found[cell.after])).resolved)
                except (ConfigError, DataError):
                    continue  # its start is gone: it will be said when it is run
            record = folder.record_of(name)
            if record is not None and record.status == "finished" and record.key == key:
                found[name] = record
            elif key in finished and _keeps_enough(cell, folder.run_of(finished[key])):
                own = {"name": name, "case": cell.case, "settings": dict(cell.settings)}
                found[name] = finished[key].model_copy(update=own)


def _keeps_enough(cell: Cell, run: Path) -> bool:
    """Whether a run that another cell has made has what this cell's suite keeps of it."""
    return not keeps_tensors(cell.keep, cell.resolved.recipe.method) or (run / "prompt").is_dir()


def _peak(size: Disk) -> int:
    return size.peak


def check_disk(needed: int, free: int, where: Path) -> list[Problem]:
    """What is wrong if there is less room than the runs will need."""
    if needed <= free:
        return []
    message = f"the runs will need about {readable(needed)} below '{where}', where {readable(free)} are free"
    return [Problem(message, hint="choose another disk with --runs-dir, set keep: scores, or lower --jobs")]


def disk_needed(suite: ResolvedSuite, known: Mapping[str, CellRecord], preflight: Preflight, jobs: int) -> int:
    """Bytes that the runs of all cells that are not finished will need; of a search, those of all trials."""
    estimator = Estimator(preflight.spec, None, suite.suite.keep)
    sizes = {cell.name: estimator.disk(cell.resolved) for cell in suite.cells if cell.name not in known}
    if not suite.studies:
        return disk_of([(1, size) for size in sizes.values()], jobs)
    found = [
        (study.search.budget, max((sizes[cell.name] for cell in suite.cells if cell.case == study.case), key=_peak))
        for study in suite.studies
    ]
    return disk_of(found, jobs)


def _gpu(args: argparse.Namespace) -> tuple[Gpu, bool]:
    """The GPU to plan for, without any this processor, and whether the user named it."""
    import torch

    if args.gpu is not None:
        return find_gpu(args.gpu, None, None), True
    return (gpu_here()[0] if torch.cuda.is_available() else time_processor()), False


def _rates(
    cells: Sequence[Cell], known: Mapping[str, CellRecord], estimates: Mapping[str, Estimate]
) -> dict[tuple[str, str], float]:
    """Operations per second of the slowest finished cell, by task and backbone."""
    rates: dict[tuple[str, str], float] = {}
    for cell in cells:
        record, estimate = known.get(cell.name), estimates.get(cell.name)
        if record is None or estimate is None or estimate.operations is None or record.seconds <= 0:
            continue
        share = record.epochs / cell.resolved.recipe.train.epochs  # patience may have ended it early
        rate = share * estimate.operations / record.seconds / cell_processes(cell.resolved.recipe)
        rates[_kind(cell)] = min(rate, rates.get(_kind(cell), rate))
    return rates


def _kind(cell: Cell) -> tuple[str, str]:
    recipe = cell.resolved.recipe
    return " ".join(recipe.task_names), recipe.backbone.name


def _line(
    cell: Cell,
    folder: SuiteFolder,
    known: Mapping[str, CellRecord],
    found: Estimate | str,
    gpu: Gpu,
    rates: Mapping[tuple[str, str], float],
    trials: Mapping[str, int],
) -> _Line:
    if cell.name in known:
        return _Line(cell, "finished", 1, None, known[cell.name].seconds)
    estimate, fault = (None, found) if isinstance(found, str) else (found, None)
    before = None if trials else folder.record_of(cell.name)
    status = "waiting"
    if not trials and is_locked(folder.lock(cell.name)):
        status = "running"
    elif before is not None and before.status in ("failed", "interrupted"):
        status = f"{before.status} before"
    seconds = None
    if estimate is not None and estimate.operations is not None:
        if _kind(cell) in rates:
            seconds = estimate.operations / rates[_kind(cell)]
        else:
            seconds = estimate.seconds(gpu, cell.resolved.recipe.backbone_settings.dtype)
        seconds = None if seconds is None else seconds / cell_processes(cell.resolved.recipe)
    return _Line(cell, status, trials.get(cell.case, 1), estimate, seconds, fault)


def _largest_of_each(lines: Sequence[_Line]) -> list[_Line]:
    """Of each search the cell that needs most; the others are only there to be checked, and count nothing."""
    chosen: dict[str, _Line] = {}
    for line in lines:
        best = chosen.get(line.cell.case)
        if best is None or _operations(line) > _operations(best):
            chosen[line.cell.case] = line
    return list(chosen.values())


def _operations(line: _Line) -> float:
    return 0.0 if line.estimate is None or line.estimate.operations is None else line.estimate.operations


def _basis(gpu: Gpu, rates: Mapping[tuple[str, str], float], *, named: bool) -> str:
    """What the hours rest on."""
    if named:
        return f"hours on {gpu.name} at 40% of its peak rate; {_LENGTHS}; training only"
    parts: list[str] = []
    if rates:
        parts.append("hours by the rate of the slowest finished cell of the same task and backbone")
    rate = "a timed product of matrices" if gpu.memory == 0 else "its peak rate"
    parts.append(f"{'else ' if rates else 'hours '}on {gpu.name} at 40% of {rate}; {_LENGTHS}; training only")
    return ", ".join(parts) + ("; --gpu h100 plans for another" if gpu.memory == 0 else "")


def _unknown(lines: Sequence[_Line]) -> dict[str, int]:
    """Why the time of cells is not known, and of how many."""
    found: Counter[str] = Counter()
    for line in lines:
        recipe = line.cell.resolved.recipe
        if line.seconds is not None:
            continue
        if line.estimate is None:
            assert line.fault is not None
            found[line.fault] += 1
        elif line.estimate.operations is None:
            found[f"the training rows of {' and '.join(recipe.task_names)} are not on this machine"] += 1
        else:
            found["the rate of the GPU is not known"] += 1
    return dict(found)


def _totals(lines: Sequence[_Line]) -> tuple[float, float | None, int]:
    """Seconds of all that is open and known; operations, None if any is unknown; how many have unknown seconds."""
    seconds = [line.times * line.seconds for line in lines if line.seconds is not None]
    operations = [
        line.times * line.estimate.operations
        for line in lines
        if line.estimate is not None and line.estimate.operations is not None
    ]
    unknown = len(lines) - len(seconds)
    return (
        sum(seconds),
        sum(operations) if len(operations) == len(lines) else None,
        unknown,
    )


def _print(
    suite: ResolvedSuite,
    lines: Sequence[_Line],
    disk: int,
    free: int,
    basis: str,
    jobs: int,
    absent: Sequence[str],
) -> None:
    out = sys.stdout
    for study in suite.studies:
        where = f"{study.case}: " if study.case else ""
        space = ", ".join(study.search.space)
        out.write(f"{where}{study.search.budget} trials of {study.recipe_path}, searching {space}\n")
    if suite.studies:
        for cell in suite.cells:
            out.write(f"checked: {cell.name}\n")
    else:
        width = max(len(line.cell.name) for line in lines)
        for line in lines:
            start = f", starts from {line.cell.after}" if line.cell.after else ""
            out.write(f"{line.cell.name.ljust(width)}  {_needs(line)}{start}\n")
    done = sum(line.status == "finished" for line in lines)
    open_lines = [line for line in lines if line.status != "finished"]
    count = sum(line.times for line in open_lines)
    if suite.studies:
        out.write(f"{count} trials at most, each counted as large as the largest\n")
    else:
        out.write(f"{len(lines)} cells, {done} finished, {count} to train\n")
    if open_lines:
        seconds, operations, unknown = _totals(open_lines)
        if unknown < len(open_lines):
            work = sum(line.times * line.processes * (line.seconds or 0.0) for line in open_lines)
            at_once = f", {_hours(work / jobs)} with {jobs} at one time" if jobs > 1 else ""
            of = f" for {len(open_lines) - unknown} of {len(open_lines)} cells" if unknown else ""
            out.write(f"time: {_hours(seconds)}{at_once}{of}\n")
        for reason, count in _unknown(open_lines).items():
            out.write(f"time of {count} cells not known: {reason}\n")
        if operations is not None:
            out.write(f"work: {operations:.2g} floating-point operations\n")
        out.write(f"{basis}\n")
        if absent:
            out.write(f"not on this machine, planned with published sizes: {', '.join(absent)}\n")
        if disk:
            out.write(f"disk: about {readable(disk)} of {readable(free)} that are free; predictions come on top\n")
    out.write("nothing was trained or written\n")


def _needs(line: _Line) -> str:
    parts = [line.status]
    if line.processes > 1:
        parts.append(f"{line.processes} processes")
    if line.seconds is not None:
        parts.append(_hours(line.seconds))
    elif line.estimate is not None and line.estimate.operations is not None:
        parts.append(f"{line.estimate.operations:.2g} operations")
    elif line.estimate is not None:
        parts.append("rows not known")
    if line.estimate is not None:
        parts.append(readable(line.estimate.disk.kept))
    return ", ".join(parts)


def _hours(seconds: float) -> str:
    """A length of time with the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.0f} seconds" if seconds >= 1 else "under 1 second"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _to_json(
    suite: ResolvedSuite, lines: Sequence[_Line], disk: int, free: int, basis: str, jobs: int
) -> dict[str, Any]:
    by_name = {line.cell.name: line for line in lines}
    open_lines = [line for line in lines if line.status != "finished"]
    seconds, operations, unknown = _totals(open_lines)
    return {
        "suite": suite.suite.suite,
        "cells": [_cell_json(cell, by_name.get(cell.name)) for cell in suite.cells],
        "trials": {study.case: study.search.budget for study in suite.studies},
        "jobs": jobs,
        "hours": None if unknown else seconds / 3600,
        "hours_known": seconds / 3600,
        "cells_unknown": unknown,
        "operations": operations,
        "basis": basis,
        "disk": {"needed": disk, "free": free},
    }


def _cell_json(cell: Cell, line: _Line | None) -> dict[str, Any]:
    found: dict[str, Any] = {"name": cell.name, "case": cell.case, "settings": cell.settings, "after": cell.after}
    if line is None:
        return found
    estimate = line.estimate
    return {
        **found,
        "status": line.status,
        "processes": line.processes,
        "hours": None if line.seconds is None else line.seconds / 3600,
        "operations": None if estimate is None else estimate.operations,
        "disk": None if estimate is None else estimate.disk.kept,
    }
