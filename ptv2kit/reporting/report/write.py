"""The files of a report, all made before the first is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ptv2kit.errors import ConfigError, visible
from ptv2kit.files import write_atomically
from ptv2kit.reporting.report.figures import figure_files
from ptv2kit.reporting.report.markdown import markdown
from ptv2kit.reporting.report.model import Configuration, Stat
from ptv2kit.reporting.report.page import page
from ptv2kit.reporting.report.words import Part, Report

REPORT_VERSION = 1


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write figures, `report.md` and `report.html`, each whole or not at all, the pages last.

    Returns:
        The files.

    Raises:
        ConfigError: the folder cannot be written.
    """
    content: dict[str, bytes] = {}
    for part in report.parts:
        for chart in part.charts:
            content |= figure_files(chart)
    content["report.md"] = visible(markdown(report)).encode()
    content["report.html"] = page(report).encode()
    for name, data in content.items():
        try:
            write_atomically(folder / name, data)
        except OSError as error:
            raise ConfigError(
                f"the report cannot be written to '{folder}': {error.strerror or error}",
                hint="choose a folder with --to",
            ) from error
    return [folder / name for name in content]


def to_json(report: Report) -> dict[str, Any]:
    """The report's numbers as plain values."""
    return {
        "schema_version": REPORT_VERSION,
        "parts": [_part(part) for part in report.parts],
    }


def _part(part: Part) -> dict[str, Any]:
    entries = part.section.group.entries
    return {
        "name": part.section.group.name,
        "search": part.section.group.search,
        "total": len(entries),
        "finished": part.section.finished,
        "missing": [entry.name for entry in entries if entry.status == "missing"],
        "failed": {entry.name: entry.error for entry in entries if entry.status == "failed"},
        "unfinished": {entry.name: entry.status for entry in part.section.incomplete if entry.status != "missing"},
        "notes": list(part.section.group.notes),
        "configurations": [_configuration(item) for item in part.section.configurations],
    }


def _configuration(item: Configuration) -> dict[str, Any]:
    return {
        "task": item.task.name,
        "metric": item.task.metric,
        "backbone": item.backbone,
        "method": item.method,
        "case": item.case,
        "settings": dict(item.settings),
        "status": item.status,
        "seeds": [score.seed for score in item.finished],
        "validation_max": _stat(item.best),
        "validation_last": _stat(item.last),
        "tests": {split: _stat(stat) for split, stat in item.tests.items()},
        "comparisons": [
            {
                **found.expectation.model_dump(mode="json"),
                "ours": _stat(found.ours),
                "difference": found.difference,
                "missed": found.missed,
            }
            for found in item.comparisons
        ],
        "trained": item.trained,
        "share": item.share,
        "seconds": item.seconds,
        "runs": [score.entry.run.as_posix() for score in item.scores if score.entry.run is not None],
    }


def _stat(stat: Stat | None) -> dict[str, Any] | None:
    return None if stat is None else {"mean": stat.mean, "deviation": stat.deviation, "seeds": stat.count}
