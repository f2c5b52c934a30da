"""The report as one HTML file that needs nothing else: style, script and charts are within it."""

from __future__ import annotations

from html import escape
from importlib.resources import files

from ptv2kit.reporting.report.drawing import draw, legend
from ptv2kit.reporting.report.tables import Cell, Column, Row, Table
from ptv2kit.reporting.report.words import GENERATED, Part, Report, chart_table

# Nothing is loaded and no form is sent, whatever a label may contain.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def page(report: Report) -> str:
    """The whole page."""
    folder = files("ptv2kit.reporting.report")
    style, script = (folder.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    parts = "".join(_part(part, index) for index, part in enumerate(report.parts))
    rules = "".join(f"<p>{escape(text)}</p>" for text in report.rules)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{escape(report.title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(report.title)}</h1>\n{_contents(report)}{parts}"
        f'<section id="rules"><h2>How the scores are chosen</h2>{rules}</section>\n'
        f'<section id="all-runs">{_table(report.runs, "h2")}</section>\n</main>\n'
        f"<footer>{escape(GENERATED)}</footer>\n<script>\n{script}</script>\n</body>\n</html>\n"
    )


def _contents(report: Report) -> str:
    links = [f'<a href="#part-{index}">{escape(part.title)}</a>' for index, part in enumerate(report.parts)]
    links += ['<a href="#rules">How the scores are chosen</a>', '<a href="#all-runs">All runs</a>']
    return f'<nav aria-label="Contents">{" ".join(links)}</nav>\n'


def _part(part: Part, index: int) -> str:
    group = part.section.group
    texts = "".join(f"<p>{escape(text)}</p>" for text in (group.description, part.summary, *group.notes) if text)
    problems = "".join(_problem(title, found) for title, found in part.problems)
    shown = [_table(part.pivot, "h3")] if part.pivot is not None else []
    for number, chart in enumerate(part.charts):
        panels = "".join(f'<div class="panel">{draw(chart, panel)}</div>' for panel in chart.panels)
        values = _table(chart_table(chart, f"part-{index}-chart-{number}"), "")
        shown.append(
            f'<figure class="charts"><figcaption><h3>{escape(chart.title)}</h3></figcaption>{legend(chart)}'
            f'<div class="panels">{panels}</div>'
            f"<details><summary>Values of the chart</summary>{values}</details></figure>"
        )
    shown += [_table(table, "h3") for table in (part.configurations, part.expectations) if table is not None]
    return (
        f'<section id="part-{index}" data-suite="{escape(group.name)}"><h2>{escape(part.title)}</h2>'
        f"{texts}{problems}{''.join(shown)}</section>\n"
    )


def _problem(title: str, found: tuple[tuple[str, str], ...]) -> str:
    items = "".join(
        f"<li><code>{escape(name)}</code>{': ' if reason else ''}{escape(reason)}</li>" for name, reason in found
    )
    is_open = " open" if len(found) <= 8 else ""
    summary = f"<summary>{escape(title)} ({len(found)})</summary>"
    return f'<details class="problem"{is_open}>{summary}<ul>{items}</ul></details>'


def _table(table: Table, level: str) -> str:
    heads = "".join(_head(column) for column in table.columns)
    rows = "\n".join(_row(table, row) for row in table.rows)
    title = f"<{level}>{escape(table.title)}</{level}>" if level else ""
    note = f"<p>{escape(table.note)}</p>" if table.note else ""
    name = escape(table.title)
    return (
        f'{title}{note}<div class="scroll" tabindex="0" role="region" aria-label="{name}">'
        f'<table id="{escape(table.key)}" class="sortable"><caption>{name}</caption>'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>\n"
    )


def _head(column: Column) -> str:
    numeric = ' class="number"' if column.numeric else ""
    button = f'<button type="button">{escape(column.title)}</button>'
    return f'<th scope="col" data-key="{escape(column.key)}"{numeric}>{button}</th>'


def _row(table: Table, row: Row) -> str:
    data = "".join(f' data-{name}="{escape(value)}"' for name, value in row.data.items())
    cells = "".join(
        _cell(column, cell, is_head=index == 0)
        for index, (column, cell) in enumerate(zip(table.columns, row.cells, strict=True))
    )
    return f"<tr{data}>{cells}</tr>"


def _cell(column: Column, cell: Cell, *, is_head: bool) -> str:
    classes = " ".join(name for name in ("number" if column.numeric else "", cell.kind) if name)
    shown = f' class="{classes}"' if classes else ""
    value = "" if cell.value is None else f' data-value="{cell.value!r}"'
    note = f"<small>{escape(cell.note)}</small>" if cell.note else ""
    tag, scope = ("th", ' scope="row"') if is_head else ("td", "")
    return f'<{tag}{scope} data-key="{escape(column.key)}"{shown}{value}>{escape(cell.text)}{note}</{tag}>'
