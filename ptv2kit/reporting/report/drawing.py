"""Charts as small SVG images within the page. Colours are those of the page, so that light and dark both work."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from ptv2kit.reporting.report.axes import Axis, places, score_range, ticks
from ptv2kit.reporting.report.charts import Chart, Panel, Point
from ptv2kit.reporting.report.tables import stat_text

COLOURS = 8
"""Colours of the page, `--series-0` and on; further series take them again with other marks."""
_WIDTH, _HEIGHT = 380, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 14, 42, 54
_BAR, _GAP = 30, 26
_LABEL_WIDTH = 6.2


def legend(chart: Chart) -> str:
    """Names of the series with their colours and marks."""
    items: list[str] = []
    for index, name in enumerate(chart.names):
        shape = (
            '<rect class="fill" x="3" y="2" width="12" height="12"/>'
            if chart.kind == "bars"
            else f'<line x1="0" y1="8" x2="18" y2="8" {_dash(index)}/>{_mark(index, 9, 8)}'
        )
        image = f'<svg width="18" height="16" aria-hidden="true" class="{_series(index)}">{shape}</svg>'
        items.append(f"<li>{image} {escape(name)}</li>")
    if any(point.paper is not None for panel in chart.panels for series in panel.series for point in series.points):
        image = '<svg width="18" height="16" aria-hidden="true"><path class="paper" d="M9 2l6 6-6 6-6-6z"/></svg>'
        items.append(f"<li>{image} the paper&#8217;s value</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'


def draw(chart: Chart, panel: Panel) -> str:
    """One plot as an `<svg>` element."""
    return _draw_bars(chart, panel) if chart.kind == "bars" else _draw_points(chart, panel)


def _draw_points(chart: Chart, panel: Panel) -> str:
    found = places(chart, panel)
    xs = list(found)
    low, high = xs[0], xs[-1]
    horizontal = Axis(low, high, _LEFT + 22, _WIDTH - _RIGHT - 22, chart.scale)
    bottom, top = score_range([panel], from_zero=False)
    vertical = Axis(bottom, top, _HEIGHT - _BOTTOM, _TOP)
    parts = [*_frame(panel, vertical, _WIDTH), *_place_labels(chart, found, horizontal)]
    for series in panel.series:
        index = chart.names.index(series.name)
        coordinates = [(horizontal.at(point.x), vertical.at(point.stat.mean)) for point in series.points]
        body: list[str] = []
        if chart.kind == "line" and len(coordinates) > 1:
            joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in coordinates)
            body.append(f'<polyline points="{joined}" {_dash(index)}/>')
        for point, (x, y) in zip(series.points, coordinates, strict=True):
            body.append(_paper(point, x, vertical))
            body.append(_point(series.name, point, _error_bar(point, x, vertical) + _mark(index, x, y), x, y))
        parts.append(f'<g class="{_series(index)}">{"".join(body)}</g>')
    return _svg(chart, panel, parts, _WIDTH, horizontal_label=chart.x_label)


def _draw_bars(chart: Chart, panel: Panel) -> str:
    """Groups of bars; only those that are there take room."""
    groups: dict[str, list[tuple[int, str, Point]]] = {}
    for series in panel.series:
        for point in series.points:
            groups.setdefault(point.label, []).append((chart.names.index(series.name), series.name, point))
    count = sum(map(len, groups.values()))
    width = _LEFT + _RIGHT + _GAP * len(groups) + _BAR * count
    width = max(width, _LEFT + _RIGHT + sum(round(_LABEL_WIDTH * len(name)) + _GAP for name in groups))
    bottom, top = score_range([panel], from_zero=True)
    vertical = Axis(bottom, top, _HEIGHT - _BOTTOM, _TOP)
    parts = _frame(panel, vertical, width)
    base, x = vertical.at(0.0), float(_LEFT)
    for name, members in sorted(groups.items(), key=lambda item: item[1][0][2].x):
        room = max(_BAR * len(members) + _GAP, round(_LABEL_WIDTH * len(name)) + _GAP)
        left = x + (room - _BAR * len(members)) / 2
        parts.append(f'<text x="{x + room / 2:.1f}" y="{_HEIGHT - _BOTTOM + 18}" class="middle">{escape(name)}</text>')
        for order, (index, series, point) in enumerate(members):
            start, y = left + _BAR * order, vertical.at(point.stat.mean)
            centre = start + _BAR / 2
            shape = (
                f'<rect class="fill" x="{start + 2:.1f}" y="{min(y, base):.1f}" width="{_BAR - 4}" '
                f'height="{abs(base - y):.1f}"/>{_error_bar(point, centre, vertical, "on-bar ")}'
            )
            spread = vertical.at(point.stat.mean + (point.stat.deviation or 0.0))
            value = f'<text x="{centre:.1f}" y="{spread - 4:.1f}" class="middle value">{point.stat.mean:.1f}</text>'
            body = _point(series, point, shape, centre, y) + value + _paper(point, centre, vertical, "on-bar ")
            parts.append(f'<g class="{_series(index)}">{body}</g>')
        x += room
    return _svg(chart, panel, parts, width, horizontal_label="")


def _svg(chart: Chart, panel: Panel, parts: Iterable[str], width: float, *, horizontal_label: str) -> str:
    title = ": ".join(text for text in (chart.title, panel.title) if text)
    middle = (_LEFT + width - _RIGHT) / 2
    labels = f'<text x="{middle:.1f}" y="{_HEIGHT - 8}" class="middle axis-label">{escape(horizontal_label)}</text>'
    return (
        f'<svg class="chart" role="group" aria-label="{escape(title)}" width="{width:g}" height="{_HEIGHT}" '
        f'viewBox="0 0 {width:g} {_HEIGHT}">{"".join(parts)}{labels}</svg>'
    )


def _frame(panel: Panel, vertical: Axis, width: float) -> list[str]:
    """Lines and marks of the vertical axis, what it measures, and the plot's title."""
    parts = [
        f'<text x="{_LEFT}" y="14" class="panel-title">{escape(panel.title)}</text>',
        f'<text x="{_LEFT}" y="30" class="axis-label">{escape(panel.y_label)}</text>',
    ]
    for value in ticks(vertical.low, vertical.high):
        y = vertical.at(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{width - _RIGHT:g}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" class="end">{value:g}</text>')
    return parts


def _place_labels(chart: Chart, found: dict[float, str], horizontal: Axis) -> list[str]:
    """Labels of the horizontal axis, as many as do not touch; each point has its own where one hovers over it."""
    parts: list[str] = []
    y = _HEIGHT - _BOTTOM
    free = 0.0
    for value, label in found.items():
        x = horizontal.at(value)
        shown = label.replace(")", "").rsplit("(", 1)[-1]
        half = _LABEL_WIDTH * len(shown) / 2
        parts.append(f'<line class="tick" x1="{x:.1f}" y1="{y}" x2="{x:.1f}" y2="{y + 4}"/>')
        if x - half >= free:
            parts.append(f'<text x="{x:.1f}" y="{y + 18}" class="middle">{escape(shown)}</text>')
            free = x + half + 4
    return parts


def _point(name: str, point: Point, shape: str, x: float, y: float) -> str:
    """A mark that says its value where one hovers over it, and to programs."""
    stat = point.stat
    paper = "" if point.paper is None else f"; paper {point.paper:g}"
    text = f"{name}, {point.label}: {stat_text(stat)}{paper}"
    return (
        f'<g class="point" data-series="{escape(name)}" data-x="{point.x!r}" data-mean="{stat.mean!r}" '
        f'data-seeds="{stat.count}"><title>{escape(text)}</title>'
        f'<circle class="target" cx="{x:.1f}" cy="{y:.1f}" r="11"/>{shape}</g>'
    )


def _paper(point: Point, x: float, vertical: Axis, kind: str = "") -> str:
    if point.paper is None:
        return ""
    y = vertical.at(point.paper)
    return (
        f'<path class="{kind}paper" d="M{x:.1f} {y - 5:.1f}l5 5-5 5-5-5z"><title>paper: {point.paper:g}</title></path>'
    )


def _error_bar(point: Point, x: float, vertical: Axis, kind: str = "") -> str:
    if point.stat.deviation is None:
        return ""
    low, high = (vertical.at(point.stat.mean + sign * point.stat.deviation) for sign in (-1, 1))
    lines = f"M{x:.1f} {low:.1f}V{high:.1f}M{x - 4:.1f} {low:.1f}h8M{x - 4:.1f} {high:.1f}h8"
    return f'<path class="{kind}error" d="{lines}"/>'


def _mark(index: int, x: float, y: float) -> str:
    """A shape, so that series can be told apart without colour."""
    match index % 4:
        case 0:
            return f'<circle class="fill" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
        case 1:
            return f'<rect class="fill" x="{x - 3.6:.1f}" y="{y - 3.6:.1f}" width="7.2" height="7.2"/>'
        case 2:
            return f'<path class="fill" d="M{x:.1f} {y - 5:.1f}l4.6 8.4h-9.2z"/>'
        case _:
            return f'<path class="fill" d="M{x:.1f} {y + 5:.1f}l4.6-8.4h-9.2z"/>'


def _dash(index: int) -> str:
    patterns = ("", "6 3", "2 3", "8 3 2 3")
    pattern = patterns[index // 2 % len(patterns)]
    return f'stroke-dasharray="{pattern}"' if pattern else ""


def _series(index: int) -> str:
    return f"series-{index % COLOURS}"
