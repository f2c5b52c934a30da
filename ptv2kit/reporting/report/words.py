"""The sentences of a report that both of its forms have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from ptv2kit import __version__
from ptv2kit.reporting.report.charts import Chart, charts
from ptv2kit.reporting.report.collect import Group
from ptv2kit.reporting.report.model import Section, merge
from ptv2kit.reporting.report.overview import configurations_table, expectations_table, label
from ptv2kit.reporting.report.pivot import pivot_table
from ptv2kit.reporting.report.run_list import runs_table
from ptv2kit.reporting.report.tables import Cell, Column, Row, Table, signed, stat_text

GENERATED = f"Written by ptv2kit {__version__}."


@final
@dataclass(frozen=True)
class Part:
    """What a report says of one group.

    Args:
        section: its configurations.
        title: name of the group.
        summary: how much of it there is.
        problems: what failed, is missing or was missed, as name and reason.
        pivot: the table in the manner of the paper, if it has several tasks.
        expectations: values that the long table has no room for.
        charts: with numbered names.
    """

    section: Section
    title: str
    summary: str
    problems: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    pivot: Table | None
    configurations: Table
    expectations: Table | None
    charts: tuple[Chart, ...]


@final
@dataclass(frozen=True)
class Report:
    """A report before it is written.

    Args:
        rules: how scores were chosen, a paragraph each.
        parts: one for each suite, and one for all single runs.
        runs: every run.
    """

    title: str
    rules: tuple[str, ...]
    parts: tuple[Part, ...]
    runs: Table


def build(groups: Sequence[Group]) -> Report:
    """Merge, compare and describe what was read."""
    sections = [merge(group) for group in groups]
    parts = tuple(_part(section) for section in sections)
    title = "Report: " + ", ".join(part.title for part in parts)
    return Report(title, _rules(sections), parts, runs_table(sections))


def chart_table(chart: Chart, key: str) -> Table:
    """The values of a chart."""
    rows: list[Row] = []
    for panel in chart.panels:
        for series in panel.series:
            for point in series.points:
                cells = (
                    Cell(panel.title),
                    Cell(series.name),
                    Cell(point.label, point.x),
                    Cell(stat_text(point.stat), point.stat.mean),
                    Cell("" if point.paper is None else f"{point.paper:g}", point.paper),
                )
                rows.append(Row(cells))
    columns = [
        Column("panel", "panel"),
        Column("series", "series"),
        Column("x", chart.x_label or "task", numeric=True),
        Column("score", "score", numeric=True),
        Column("paper", "paper", numeric=True),
    ]
    kept = [index for index in range(len(columns)) if any(row.cells[index].text for row in rows)]
    trimmed = tuple(Row(tuple(row.cells[index] for index in kept)) for row in rows)
    return Table(key, "Values of the chart", "", tuple(columns[index] for index in kept), trimmed)


def _part(section: Section) -> Part:
    group = section.group
    key = f"suite-{group.name}".replace(".", "-")
    return Part(
        section=section,
        title="single runs" if group.name == "runs" else group.name,
        summary=_summary(section),
        problems=_problems(section),
        pivot=pivot_table(section, f"{key}-tasks"),
        configurations=configurations_table(section, f"{key}-configurations"),
        expectations=expectations_table(section, f"{key}-values"),
        charts=tuple(charts(section)),
    )


def _summary(section: Section) -> str:
    what = "trials" if section.group.search else "runs" if section.group.name == "runs" else "cells"
    counts: dict[str, int] = {}
    for entry in section.group.entries:
        counts[entry.status] = counts.get(entry.status, 0) + 1
    finished = counts.pop("finished", 0)
    rest = "".join(f", {count} {status}" for status, count in counts.items())
    return f"{finished} of {len(section.group.entries)} {what} finished{rest}."


def _problems(section: Section) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    failed = [(entry.name, entry.error or "no reason was kept") for entry in section.with_status("failed")]
    missing = [(entry.name, "") for entry in section.with_status("missing")]
    rest = [(entry.name, entry.status) for entry in section.incomplete if entry.status != "missing"]
    changed = [(entry.name, "; ".join(entry.changed)) for entry in section.group.entries if entry.changed]
    repeated = [
        (entry.name, f"seed {entry.values.get('train.seed')} of {label(item)}")
        for item in section.configurations
        for entry in item.repeated
    ]
    missed = [
        (
            label(item),
            f"{found.expectation.split} {found.expectation.metric}: {found.ours.mean:.2f}, expected "
            f"{found.expectation.value:g} ({signed(found.ours.mean - found.expectation.value)})",
        )
        for item in section.configurations
        for found in item.comparisons
        if found.missed and found.ours is not None
    ]
    titled = (
        ("Failed", failed),
        ("Missing: never started", missing),
        ("Not finished", rest),
        ("Expected values that were missed", missed),
        ("Trained with other values than the suite has now", changed),
        ("Not counted: a later run has the same seed and configuration", repeated),
    )
    return tuple((title, tuple(dict.fromkeys(found))) for title, found in titled if found)


def _rules(sections: Sequence[Section]) -> tuple[str, ...]:
    items = [item for section in sections for item in section.configurations]
    tested = [item for item in items if item.tests]
    scored = [item for item in items if item.finished]
    rules = [
        "“Validation, best epoch” is the maximum over epochs on the validation split. The paper's authors report "
        "this on development sets. It chooses the epoch by the very rows that it is measured on, so it is optimistic."
    ]
    if tested:
        rules.append(
            "“Test, epoch chosen on validation” is our default: the validation split chooses the epoch, and the test "
            "split, which chose nothing, is scored once with it."
        )
    if len(tested) < len(scored):
        which = "None of these tasks" if not tested else "Not every task here"
        rules.append(
            f"{which} has a test split with labels. Without one no unbiased score exists: the validation score chooses "
            "the epoch and is optimistic. The score after the last epoch, which nothing chose, stands beside it."
        )
    rules.append(
        "Means are over the seeds that finished, ± is their sample standard deviation (n - 1), and the number of seeds "
        "follows in parentheses. A single seed has no deviation. Differences are ours minus the other value."
    )
    return tuple(rules)
