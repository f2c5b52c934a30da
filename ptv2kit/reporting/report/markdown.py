"""The report as Markdown."""

from __future__ import annotations

import re

from ptv2kit.reporting.report.tables import Table
from ptv2kit.reporting.report.words import GENERATED, Part, Report

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#])")


def markdown(report: Report) -> str:
    """The whole page; figures are linked beside it."""
    blocks = [f"# {_escape(report.title)}"]
    for part in report.parts:
        blocks += _part(part)
    blocks += ["## How the scores are chosen", *map(_escape, report.rules)]
    blocks += _table(report.runs, "##")
    blocks.append(GENERATED)
    return "\n\n".join(blocks) + "\n"


def _part(part: Part) -> list[str]:
    group = part.section.group
    blocks = [f"## {_escape(part.title)}"]
    blocks += [_escape(text) for text in (group.description, part.summary, *group.notes) if text]
    for title, found in part.problems:
        lines = [f"- {_escape(name)}{': ' if reason else ''}{_escape(reason)}" for name, reason in found]
        blocks += [f"**{_escape(title)}**", "\n".join(lines)]
    if part.pivot is not None:
        blocks += _table(part.pivot, "###")
    for chart in part.charts:
        name = f"{chart.name}.png"
        blocks += [f"### {_escape(chart.title)}", f"![{_escape(chart.title)}](<{name}>)"]
    for table in (part.configurations, part.expectations):
        blocks += [] if table is None else _table(table, "###")
    return blocks


def _table(table: Table, level: str) -> list[str]:
    header = [_escape(column.title) for column in table.columns]
    rows = [[_cell(cell.text, cell.note) for cell in row.cells] for row in table.rows]
    widths = [max(3, *(len(row[index]) for row in [header, *rows])) for index in range(len(header))]
    numeric = [column.numeric for column in table.columns]

    def line(texts: list[str]) -> str:
        padded = (
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(texts, widths, numeric, strict=True)
        )
        return "| " + " | ".join(padded) + " |"

    marks = [
        ("-" * (width + 1) + ":" if right else "-" * (width + 2)) for width, right in zip(widths, numeric, strict=True)
    ]
    text = "\n".join([line(header), "|" + "|".join(marks) + "|", *map(line, rows)])
    return [f"{level} {_escape(table.title)}", *([_escape(table.note)] if table.note else []), text]


def _cell(text: str, note: str) -> str:
    return _escape(f"{text} [{note}]" if text and note else text or note)


def _escape(text: str) -> str:
    """Text that no reader of Markdown takes for markup, in one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
