"""Which charts a suite gets, in the manner of the paper's figures 1, 3 and 4: chosen by what the suite varies."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

from ptv2kit.config.suite import short_names
from ptv2kit.reporting.report.depth import Depths
from ptv2kit.reporting.report.model import BACKBONE, METHOD, Configuration, Section, Stat
from ptv2kit.reporting.report.overview import short_value
from ptv2kit.reporting.report.pivot import Headline, headlines
from ptv2kit.reporting.report.tables import count_text

LENGTH = "prompt.length"
LAYERS = "prompt.layers"
TASK = "task"
MOST_SERIES = 16
"""Lines, or colours of bars, that a chart may have; more cannot be told apart."""
WIDEST_SPAN = 8.0
"""Ratio of the ends from which a numeric axis is logarithmic."""

Scale = Literal["linear", "log2", "log10"]


@final
@dataclass(frozen=True)
class Point:
    """A score in a chart.

    Args:
        x: where it stands; of bars the index of the task.
        stat: ours.
        paper: the paper's value, None if there is none.
    """

    x: float
    label: str
    stat: Stat
    paper: float | None


@final
@dataclass(frozen=True)
class Series:
    """Points that are joined, or bars of one colour.

    Args:
        name: what the legend says.
        points: ascending.
    """

    name: str
    points: tuple[Point, ...]


@final
@dataclass(frozen=True)
class Panel:
    """One of the plots that a chart consists of.

    Args:
        title: above it.
        series: those that have points here; their place among the chart's `names` decides the colour.
    """

    title: str
    y_label: str
    series: tuple[Series, ...]


@final
@dataclass(frozen=True)
class Chart:
    """A chart.

    Args:
        title: above it.
        kind: `line`, `dots` that are not joined, or `bars`.
        names: of all series, in the order of colours.
        panels: at least one.
    """

    name: str
    title: str
    kind: Literal["line", "dots", "bars"]
    x_label: str
    scale: Scale
    names: tuple[str, ...]
    panels: tuple[Panel, ...]


@final
@dataclass(frozen=True)
class _Axis:
    """What a chart has on its horizontal axis."""

    title: str
    label: str
    scale: Scale
    place: Callable[[Configuration], tuple[float, str] | None]
    used: frozenset[str]
    series: Callable[[Configuration], list[str]]


def charts(section: Section) -> list[Chart]:
    """The charts of a section; none without a finished run, or if its runs differ in too many ways for one."""
    return [chart for chart in _charts(section) if chart.panels and len(chart.names) <= MOST_SERIES]


def _charts(section: Section) -> list[Chart]:
    items = [item for item in section.configurations if item.finished]
    if not items:
        return []
    if section.group.search:
        axes = [_numeric_axis(key, f"Score by {key}", key, items) for key in _numeric(section, items)]
        names = [f"{section.group.name}-{'-'.join(axis.used).replace('.', '-')}" for axis in axes]
        return [_chart(section, items, axis, name) for axis, name in zip(axes, names, strict=True)]
    axis = _axis(section, items)
    if axis is None:
        return [_bars(section, items, headlines(items))]
    return [_chart(section, items, axis, section.group.name)]


def _chart(section: Section, items: Sequence[Configuration], axis: _Axis, file_name: str) -> Chart:
    shown = headlines(items)
    pairs = [(item, name) for item in items for name in _series_names(section, item, axis)]
    names = tuple(dict.fromkeys(name for _, name in pairs))
    panels: list[Panel] = []
    for task, headline in shown.items():
        series: list[Series] = []
        for name in names:
            own = [item for item, other in pairs if other == name and item.task.name == task]
            points = [point for item in own if (point := _point(item, axis.place(item), headline))]
            if points:
                series.append(Series(name, tuple(sorted(points, key=lambda point: point.x))))
        if series:
            panels.append(Panel(task, headline.text, tuple(series)))
    if BACKBONE in axis.used and len(panels) > 1:
        panels = [*_mean_panel(panels), *panels]
    kind = "dots" if section.group.search else "line"
    return Chart(file_name, axis.title, kind, axis.label, axis.scale, names, tuple(panels))


def _axis(section: Section, items: Sequence[Configuration]) -> _Axis | None:
    """The first of length, depth, scale and any other number that has several values."""
    varied = [key for key in section.varied if len({json.dumps(item.settings.get(key)) for item in items}) > 1]
    if LENGTH in varied:
        return _numeric_axis(LENGTH, "Score by prompt length", "prompt length", items)
    if LAYERS in varied:
        depths = Depths(items)
        title = "Score by prompt depth"
        return _Axis(title, "layers with a prompt", "linear", depths.place, frozenset({LAYERS}), depths.orders)
    if len({item.backbone for item in items if item.backbone_size}) > 1:
        title = "Score by backbone scale"
        used = frozenset({BACKBONE})
        return _Axis(title, "parameters of the backbone", "log10", _scale_place, used, lambda _: [""])
    numeric = _numeric(section, items)
    return _numeric_axis(numeric[0], f"Score by {numeric[0]}", numeric[0], items) if numeric else None


def _numeric(section: Section, items: Sequence[Configuration]) -> list[str]:
    """Settings that vary and are numbers everywhere."""
    return [key for key in section.varied if all(_is_number(item.settings.get(key)) for item in items)]


def _numeric_axis(key: str, title: str, label: str, items: Sequence[Configuration]) -> _Axis:
    values = [float(item.settings[key]) for item in items if _is_number(item.settings.get(key))]
    scale: Scale = "linear"
    if key == LENGTH:
        scale = "log2"
    elif min(values) > 0 and max(values) >= WIDEST_SPAN * min(values):
        scale = "log10"

    def place(item: Configuration) -> tuple[float, str] | None:
        value = item.settings.get(key)
        return (float(value), f"{value:g}") if value is not None and _is_number(value) else None

    return _Axis(title, label, scale, place, frozenset({key}), lambda _: [""])


def _scale_place(item: Configuration) -> tuple[float, str] | None:
    size = item.backbone_size
    return None if size is None else (float(size), f"{item.backbone.rsplit('/', 1)[-1]} ({count_text(size)})")


def _series_names(section: Section, item: Configuration, axis: _Axis) -> list[str]:
    """The lines that a configuration is on: what it differs in besides task and axis."""
    items = section.configurations
    parts: list[str] = []
    if METHOD not in axis.used and len({other.method for other in items}) > 1:
        parts.append(item.method)
    if BACKBONE not in axis.used and len({other.backbone for other in items}) > 1:
        parts.append(item.backbone.rsplit("/", 1)[-1])
    rest = [key for key in section.varied if key not in {TASK, METHOD, BACKBONE, *axis.used} and key in item.settings]
    if section.group.search:
        rest = []  # every trial has values of its own
        if item.scores[0].entry.name.endswith("final"):
            parts.append("final")
    short = short_names(dict.fromkeys(section.varied))
    parts += [f"{short[key]}={short_value(item.settings[key])}" for key in rest]
    if item.case and _case_matters(items, axis):
        parts.append(item.case)
    return [", ".join([*parts, *([order] if order else [])]) or item.method for order in axis.series(item)]


def _case_matters(items: Sequence[Configuration], axis: _Axis) -> bool:
    """Whether two cases differ in more than their task, backbone and method, and settings."""
    seen: dict[str, str] = {}
    for item in items:
        key = json.dumps([item.task.name, item.backbone, item.method, item.settings], sort_keys=True)
        if seen.setdefault(key, item.case) != item.case:
            return True
    return False


def _bars(section: Section, items: Sequence[Configuration], shown: dict[str, Headline]) -> Chart:
    """A group of bars for each task, a colour for each method or what else differs."""
    everywhere = _Axis("", "", "linear", lambda _: None, frozenset(), lambda _: [""])
    labels = [_series_names(section, item, everywhere)[0] for item in items]
    names = tuple(dict.fromkeys(labels))
    tasks = list(shown)
    series: list[Series] = []
    for name in names:
        own = [item for item, other in zip(items, labels, strict=True) if other == name]
        places = [(item, (float(tasks.index(item.task.name)), item.task.name)) for item in own]
        points = [point for item, place in places if (point := _point(item, place, shown[item.task.name]))]
        if points:
            series.append(Series(name, tuple(points)))
    if not series:
        return Chart(section.group.name, "", "bars", "", "linear", (), ())
    metrics = list(dict.fromkeys(headline.text for headline in shown.values()))
    panel = Panel("", metrics[0] if len(metrics) == 1 else "score", tuple(series))
    return Chart(section.group.name, "Score by task", "bars", "", "linear", names, (panel,))


def _point(item: Configuration, place: tuple[float, str] | None, headline: Headline) -> Point | None:
    stat = headline.of(item)
    if place is None or stat is None:
        return None
    paper = headline.other(item, "paper")
    return Point(*place, stat, None if paper is None else paper.expectation.value)


def _mean_panel(panels: Sequence[Panel]) -> list[Panel]:
    """The mean over tasks, where a line has a point in every one of them; nothing if there is no such line."""
    found: dict[str, dict[tuple[float, str], list[Point]]] = {}
    for panel in panels:
        for series in panel.series:
            for point in series.points:
                found.setdefault(series.name, {}).setdefault((point.x, point.label), []).append(point)
    lines: list[Series] = []
    for name, places in found.items():
        points: list[Point] = []
        for (x, text), own in sorted(places.items()):
            if len(own) == len(panels):
                papers = [point.paper for point in own if point.paper is not None]
                paper = sum(papers) / len(papers) if len(papers) == len(own) else None
                mean = sum(point.stat.mean for point in own) / len(own)
                points.append(Point(x, text, Stat(mean, None, 1), paper))
        if points:
            lines.append(Series(name, tuple(points)))
    return [Panel(f"mean of {len(panels)} tasks", "mean of the tasks' scores", tuple(lines))] if lines else []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
