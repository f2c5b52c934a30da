"""A report as Markdown, as one HTML file that needs nothing else, and as plain values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

from ptv2kit import __version__
from ptv2kit.errors import ConfigError, visible
from ptv2kit.files import write_atomically
from ptv2kit.report.cells import Cell, Column, Table, aligned, make, signed, stat_text
from ptv2kit.report.charts import Chart, charts
from ptv2kit.report.configurations import Configuration, Section, Stat, merge
from ptv2kit.report.entries import Group
from ptv2kit.report.evidence import evidence
from ptv2kit.report.exported import to_csv, to_latex
from ptv2kit.report.figures import draw
from ptv2kit.report.tables import configurations_table, expectations_table, label, pivot_table, runs_table

REPORT_VERSION = 1
_SPECIAL = re.compile(r"([\\`*_\[\]<>|#])")


@final
@dataclass(frozen=True)
class Part:
    """What a report says of one group.

    Args:
        summary: how much of it has finished.
        problems: what failed, is missing or was missed: a title, and names with reasons.
        tables: below the charts.
        charts: each with its files; none without matplotlib.
        evidence: what stands behind the scores.
    """

    section: Section
    title: str
    summary: str
    problems: dict[str, list[tuple[str, str]]]
    pivot: Table | None
    tables: list[Table]
    charts: list[tuple[Chart, dict[str, bytes]]]
    evidence: list[Table]

    @property
    def texts(self) -> list[str]:
        """The paragraphs below the title."""
        group = self.section.group
        return [text for text in (group.description, self.summary, *group.notes) if text]


@final
@dataclass(frozen=True)
class Report:
    """A report before it is written: a part for each suite and one for all single runs; `rules` say what scores are."""

    title: str
    parts: list[Part]
    rules: list[str]
    runs: Table
    version: str = __version__


def build(groups: Sequence[Group], *, figures: bool = True) -> Report:
    """Merge, compare and describe what was read, and draw it if there are to be `figures`, which need matplotlib."""
    sections = [merge(group) for group in groups]
    parts = [_part(section, figures=figures) for section in sections]
    title = "Report: " + ", ".join(part.title for part in parts)
    return Report(title, parts, _rules(sections), runs_table(sections))


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write figures, `tables/*.csv` and `*.tex`, `report.md` and `report.html`, each whole or not at all.

    The pages come last.

    Returns:
        The files.

    Raises:
        ConfigError: the folder cannot be written.
    """
    content: dict[str, bytes] = {}
    for part in report.parts:
        for _, files in part.charts:
            content |= files
        for table in (*([part.pivot] if part.pivot else []), *part.tables, *part.evidence):
            content[f"tables/{table.key}.csv"] = to_csv(table).encode()
            content[f"tables/{table.key}.tex"] = to_latex(table).encode()
    loader = PackageLoader("ptv2kit.report", ".")
    environment = Environment(
        loader=loader,
        autoescape=select_autoescape(["html.j2"]),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters: Any = environment.filters
    filters.update(line=_escape, table=_table, svg=_svg, values=_values)
    content["report.md"] = visible(environment.get_template("report.md.j2").render(report=report)).encode()
    content["report.html"] = environment.get_template("report.html.j2").render(report=report).encode()
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
    parts: list[dict[str, Any]] = []
    for part in report.parts:
        section, group = part.section, part.section.group
        parts.append(
            {
                "name": group.name,
                "search": group.search,
                "total": len(group.entries),
                "finished": sum(entry.finished for entry in group.entries),
                "missing": [entry.name for entry in section.with_status("missing")],
                "failed": {entry.name: entry.error for entry in section.with_status("failed")},
                "unfinished": {entry.name: entry.status for entry in section.unfinished},
                "notes": list(group.notes),
                "configurations": [_configuration(item) for item in section.configurations],
            }
        )
    return {"schema_version": REPORT_VERSION, "parts": parts}


def _configuration(item: Configuration) -> dict[str, Any]:
    def stat(found: Stat | None) -> dict[str, Any] | None:
        return found and {"mean": found.mean, "deviation": found.deviation, "seeds": found.count}

    comparisons = [
        {
            **found.expectation.model_dump(mode="json"),
            "ours": stat(found.ours),
            "difference": found.difference,
            "missed": found.missed,
        }
        for found in item.comparisons
    ]
    return {
        "task": item.task.name,
        "metric": item.task.metric,
        "backbone": item.backbone,
        "method": item.method,
        "case": item.case,
        "settings": dict(item.settings),
        "status": item.status,
        "seeds": [score.seed for score in item.finished],
        "validation_max": stat(item.best),
        "validation_last": stat(item.last),
        "tests": {split: stat(found) for split, found in item.tests.items()},
        "comparisons": comparisons,
        "trained": item.results and item.results.parameters.trained,
        "share": item.results and item.results.parameters.share,
        "loss": stat(item.loss),
        "seconds": item.seconds,
        "cpu_seconds": item.cpu_seconds,
        "runs": [score.entry.run.as_posix() for score in item.scores if score.entry.run is not None],
    }


def _part(section: Section, *, figures: bool) -> Part:
    group = section.group
    key = f"suite-{group.name}".replace(".", "-")
    tables = [configurations_table(section, f"{key}-configurations"), expectations_table(section, f"{key}-values")]
    what = "trials" if group.search else "runs" if group.name == "runs" else "cells"
    statuses = [entry.status for entry in group.entries]
    rest = "".join(f", {statuses.count(each)} {each}" for each in dict.fromkeys(statuses) if each != "finished")
    return Part(
        section=section,
        title="single runs" if group.name == "runs" else group.name,
        summary=f"{statuses.count('finished')} of {len(statuses)} {what} finished{rest}.",
        problems=_problems(section),
        pivot=pivot_table(section, f"{key}-tasks"),
        tables=[table for table in tables if table is not None],
        charts=[(chart, draw(chart)) for chart in charts(section)] if figures else [],
        evidence=evidence(section, key),
    )


def _problems(section: Section) -> dict[str, list[tuple[str, str]]]:
    entries = section.group.entries
    failed = [(entry.name, entry.error or "no reason was kept") for entry in section.with_status("failed")]
    repeated = [
        (entry.name, f"seed {entry.values.get('train.seed')} of {label(item)}")
        for item in section.configurations
        for entry in item.repeated
    ]
    missed: list[tuple[str, str]] = []
    for item in section.configurations:
        for found in item.comparisons:
            if found.missed and found.ours is not None:
                wanted, ours = found.expectation, found.ours.mean
                text = f"{wanted.split} {wanted.metric}: {ours:.2f}, expected {wanted.value:g}"
                missed.append((label(item), f"{text} ({signed(ours - wanted.value)})"))
    titled = {
        "Failed": failed,
        "Missing: never started": [(entry.name, "") for entry in section.with_status("missing")],
        "Not finished": [(entry.name, entry.status) for entry in section.unfinished],
        "Expected values that were missed": missed,
        "Trained with other values than the suite has now": [
            (entry.name, "; ".join(entry.changed)) for entry in entries if entry.changed
        ],
        "Not counted: a later run has the same seed and configuration": repeated,
    }
    return {title: list(dict.fromkeys(found)) for title, found in titled.items() if found}


def _rules(sections: Sequence[Section]) -> list[str]:
    items = [item for section in sections for item in section.configurations]
    tested = [item for item in items if item.tests]
    rules = [
        "“Validation, best epoch” is the maximum over epochs on the validation split. The paper's authors report "
        "this on development sets. It chooses the epoch by the very rows that it is measured on, so it is optimistic."
    ]
    if tested:
        rules.append(
            "“Test, epoch chosen on validation” is our default: the validation split chooses the epoch, and the test "
            "split, which chose nothing, is scored once with it."
        )
    if len(tested) < sum(bool(item.finished) for item in items):
        which = "Not every task here" if tested else "None of these tasks"
        rules.append(
            f"{which} has a test split with labels. Without one no unbiased score exists: the validation score chooses "
            "the epoch and is optimistic. The score after the last epoch, which nothing chose, stands beside it."
        )
    rules.append(
        "Means are over the seeds that finished, ± is their sample standard deviation (n - 1), and the number of seeds "
        "follows in parentheses. A single seed has no deviation. Differences are ours minus the other value."
    )
    return rules


def _escape(text: str) -> str:
    """Text that no reader of Markdown takes for markup, in one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _table(table: Table) -> str:
    """A table of Markdown, aligned for reading as it is."""

    def text(cell: Cell) -> str:
        return _escape(f"{cell.text} [{cell.note}]" if cell.text and cell.note else cell.text or cell.note)

    lines = [
        [_escape(title) for _, title, _ in table.columns],
        *([text(cell) for cell in row.cells] for row in table.rows),
    ]
    return aligned(lines, [numeric for _, _, numeric in table.columns])


def _svg(files: dict[str, bytes]) -> Markup:
    """The `<svg>` element of a figure; its ids would occur once for each figure of the page, so they go."""
    text = next(data for name, data in files.items() if name.endswith(".svg")).decode()
    text = re.sub(r'(<g) id="[A-Za-z0-9]+_\d+"', r"\1", text[text.index("<svg") :])
    return Markup(text)


def _values(chart: Chart, key: str) -> Table:
    """The values of a chart."""
    points = [(panel, series, point) for panel in chart.panels for series in panel.series for point in series.points]
    columns: list[Column[Any]] = [
        Column("panel", "panel", lambda item: Cell(item[0].title)),
        Column("series", "series", lambda item: Cell(item[1].name)),
        Column("x", chart.x_label or "task", lambda item: Cell(item[2].label, item[2].x), numeric=True),
        Column("score", "score", lambda item: Cell(stat_text(item[2].stat), item[2].stat.mean), numeric=True),
        Column(
            "paper",
            "paper",
            lambda item: Cell() if item[2].paper is None else Cell(f"{item[2].paper:g}", item[2].paper),
            numeric=True,
        ),
    ]
    return make(key, "Values of the chart", "", columns, points)
