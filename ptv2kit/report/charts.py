"""Which charts a suite gets, like the paper's figures 1, 3 and 4: chosen by what the suite varies."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, final

from ptv2kit.report.cells import count_text, is_number, short_value
from ptv2kit.report.configurations import BACKBONE, METHOD, Configuration, Section, Stat
from ptv2kit.report.evidence import largest_class
from ptv2kit.report.tables import Headline, headlines
from ptv2kit.spec.suite import short_names

LENGTH = "prompt.length"
LAYERS = "prompt.layers"
TASK = "task"
_MOST_MISSING = 8
MOST_SERIES = 16
"""Lines, or colours of bars, that a chart may have; more cannot be told apart."""
WIDEST_SPAN = 8.0
"""Ratio of the ends from which a numeric axis is logarithmic."""
EPOCHS = "epochs of training"
FROM_BELOW = "ascending (from the first layer)"
FROM_ABOVE = "descending (from the last layer)"
_RANGE = re.compile(r"(\d+)-(\d+)")

Scale = Literal["linear", "log2", "log10"]


@final
@dataclass(frozen=True)
class Point:
    """A score in a chart; `x` of bars is the index of the task, `paper` None if the paper has no value."""

    x: float
    label: str
    stat: Stat
    paper: float | None


@final
@dataclass(frozen=True)
class Series:
    """Points that are joined, in ascending order, or bars of one colour."""

    name: str
    points: tuple[Point, ...]


@final
@dataclass(frozen=True)
class Panel:
    """One of the plots of a chart; the place of a series among the chart's `names` decides its colour."""

    title: str
    y_label: str
    series: tuple[Series, ...]


@final
@dataclass(frozen=True)
class Chart:
    """A chart: `line`, `dots` that are not joined, or `bars`; `names` are all series in the order of colours.

    Args:
        chance: of bars, by the task's label, the accuracy of naming the largest class always.
        missing: what has no score, in words.
    """

    name: str
    title: str
    kind: Literal["line", "dots", "bars"]
    x_label: str
    scale: Scale
    names: tuple[str, ...]
    panels: tuple[Panel, ...]
    chance: Mapping[str, float] = field(default_factory=dict[str, float])
    missing: tuple[str, ...] = ()


@final
@dataclass(frozen=True)
class _Axis:
    """What a chart has on its horizontal axis: where a configuration is on it, and on which lines."""

    title: str = ""
    label: str = ""
    scale: Scale = "linear"
    place: Callable[[Configuration], tuple[float, str] | None] = lambda _: None
    used: str = ""
    lines: Callable[[Configuration], list[str]] = lambda _: [""]


def charts(section: Section) -> list[Chart]:
    """The charts of a section; none without a finished run, or if its runs differ in too many ways for one."""
    items = [item for item in section.configurations if item.finished]
    # The joint stage of multi-task training is a step on the way; the paper has no column of it.
    items = [item for item in items if not item.joint] or items
    if not items:
        found: list[Chart] = []
    elif section.group.search:
        axes = [_numeric_axis(key, f"Score by {key}", key, items) for key in _numeric(section, items)]
        found = [_chart(section, items, axis, f"{section.group.name}-{axis.used.replace('.', '-')}") for axis in axes]
    elif (axis := _axis(section, items)) is not None:
        found = [_chart(section, items, axis, section.group.name)]
    else:
        found = [_bars(section, items, headlines(items))]
    if items and not section.group.search:
        found.append(_curves(section, items))
    return [chart for chart in found if chart.panels and len(chart.names) <= MOST_SERIES]


def _axis(section: Section, items: Sequence[Configuration]) -> _Axis | None:
    """The first of length, depth, scale and any other number that has several values."""
    varied = [key for key in section.varied if len({json.dumps(item.settings.get(key)) for item in items}) > 1]
    if LENGTH in varied:
        return _numeric_axis(LENGTH, "Score by prompt length", "prompt length", items)
    if LAYERS in varied:
        return _depth_axis(items)
    if len({item.backbone for item in items if _size(item)}) > 1:

        def place(item: Configuration) -> tuple[float, str] | None:
            size = _size(item)
            return (float(size), f"{item.backbone_name.rsplit('/', 1)[-1]} ({count_text(size)})") if size else None

        return _Axis("Score by backbone scale", "parameters of the backbone", "log10", place, BACKBONE)
    numeric = _numeric(section, items)
    return _numeric_axis(numeric[0], f"Score by {numeric[0]}", numeric[0], items) if numeric else None


def _size(item: Configuration) -> int:
    """Parameters of the backbone, 0 if they are not known."""
    return 0 if item.results is None else item.results.parameters.backbone


def _numeric(section: Section, items: Sequence[Configuration]) -> list[str]:
    """Settings that vary and are numbers everywhere."""
    return [key for key in section.varied if all(is_number(item.settings.get(key)) for item in items)]


def _numeric_axis(key: str, title: str, axis_label: str, items: Sequence[Configuration]) -> _Axis:
    values = [float(item.settings[key]) for item in items if is_number(item.settings.get(key))]
    wide = min(values) > 0 and max(values) >= WIDEST_SPAN * min(values)
    scale: Scale = "log2" if key == LENGTH else "log10" if wide else "linear"

    def place(item: Configuration) -> tuple[float, str] | None:
        value: Any = item.settings.get(key)
        return (float(value), f"{value:g}") if is_number(value) else None

    return _Axis(title, axis_label, scale, place, key)


def _depth_axis(items: Sequence[Configuration]) -> _Axis:
    """How many layers have a prompt, and from which end."""
    totals: dict[str, int | None] = {}
    for backbone in dict.fromkeys(item.backbone for item in items):
        totals[backbone] = _layer_count([item for item in items if item.backbone == backbone])

    def place(item: Configuration) -> tuple[float, str] | None:
        layers: Any = item.settings.get(LAYERS)
        covered = _covered(layers, totals[item.backbone])
        if covered is None:
            return None
        return float(len(covered)), layers if isinstance(layers, str) else ",".join(map(str, layers))

    def lines(item: Configuration) -> list[str]:
        """From below, from above, both if all layers are covered, or neither."""
        total = totals[item.backbone]
        covered = _covered(item.settings.get(LAYERS), total)
        if covered is None or total is None:
            return ["layers"]
        count = len(covered)
        orders = [FROM_BELOW] if covered == list(range(1, count + 1)) else []
        orders += [FROM_ABOVE] if covered == list(range(total - count + 1, total + 1)) else []
        return orders or ["other layers"]

    return _Axis("Score by prompt depth", "layers with a prompt", "linear", place, LAYERS, lines)


def _covered(layers: Any, total: int | None) -> list[int] | None:
    """The layers, from 1; None if that depends on a total that is not known."""
    if isinstance(layers, list | tuple):
        return sorted(int(number) for number in layers)
    written = str(layers)
    if (match := _RANGE.fullmatch(written)) is not None:
        return list(range(int(match[1]), int(match[2]) + 1))
    if total is None:
        return None
    if written == "all":
        return list(range(1, total + 1))
    number = int(written.removesuffix("..").removeprefix("-"))
    return list(range(total - number + 1 if written.startswith("-") else number, total + 1))


def _layer_count(items: Sequence[Configuration]) -> int | None:
    """Layers of a backbone, which results do not say: by the parameters of its prompts, or the last layer named.

    The prompt of a layer has as many parameters as that of any other if the length is the same and no network makes it.
    """

    def prompt(item: Configuration) -> int:
        plain = item.method == "p_tuning_v2" and item.values.get("prompt.reparameterization") in ("auto", "none")
        return item.results.parameters.prompt if plain and item.results is not None else 0

    def own_count(layers: Any) -> int:
        if isinstance(layers, str) and layers.startswith("-"):
            return int(layers.removeprefix("-").removesuffix(".."))
        return len(_covered(layers, None) or ())

    for whole in (item for item in items if item.settings.get(LAYERS) == "all" and prompt(item)):
        for part in items:
            count = own_count(part.settings.get(LAYERS))
            same_length = whole.values.get(LENGTH) == part.values.get(LENGTH)
            if count and same_length and prompt(part):
                return round(prompt(whole) * count / prompt(part))
    ends = [covered[-1] for item in items if (covered := _covered(item.settings.get(LAYERS), None))]
    return max(ends, default=None)


def _chart(section: Section, items: Sequence[Configuration], axis: _Axis, file_name: str) -> Chart:
    pairs = [(item, name) for item in items for name in _series_names(section, item, axis)]
    names = tuple(dict.fromkeys(name for _, name in pairs))
    panels: list[Panel] = []
    for task, headline in headlines(items).items():
        series: list[Series] = []
        for name in names:
            own = [item for item, other in pairs if other == name and item.task.name == task]
            points = [point for item in own if (point := _point(item, axis.place(item), headline))]
            if points:
                series.append(Series(name, tuple(sorted(points, key=lambda point: point.x))))
        if series:
            panels.append(Panel(section.group.labels.get(task, task), headline.text, tuple(series)))
    if axis.used == BACKBONE and len(panels) > 1:
        panels = [*_mean_panel(panels), *panels]
    kind = "dots" if section.group.search else "line"
    return Chart(file_name, axis.title, kind, axis.label, axis.scale, names, tuple(panels))


def _series_names(section: Section, item: Configuration, axis: _Axis) -> list[str]:
    """The lines that a configuration is on: what it differs in besides task and axis."""
    items = [other for other in section.configurations if other.joint == item.joint]
    parts: list[str] = []
    if axis.used != METHOD and len({other.method_name for other in items}) > 1:
        parts.append(item.method_name)
    if axis.used != BACKBONE and len({other.backbone for other in items}) > 1:
        parts.append(item.backbone_name.rsplit("/", 1)[-1])
    if not section.group.search:  # there every trial has values of its own
        short = short_names(dict.fromkeys(section.varied))
        rest = [
            key
            for key in section.varied
            if key not in {TASK, METHOD, BACKBONE, "init_from", axis.used} and key in item.settings
        ]
        labels = section.group.labels
        parts += [f"{labels.get(key, short[key])}={short_value(item.settings[key])}" for key in rest]
    elif item.scores[0].entry.name.endswith("final"):
        parts.append("final")
    if item.case in _told_by_name(items):
        parts.append(section.group.labels.get(item.case, item.case))
    return [", ".join([*parts, *([line] if line else [])]) or item.method_name for line in axis.lines(item)]


def _told_by_name(items: Sequence[Configuration]) -> set[str]:
    """The cases that on some task only their name tells from another; on every task they are called alike then."""
    cases: dict[str, set[str]] = {}
    for item in items:
        alike = repr((item.task.name, item.backbone, item.method_name, sorted(item.settings.items())))
        cases.setdefault(alike, set()).add(item.case)
    return {case for group in cases.values() if len(group) > 1 for case in group if case}


def _bars(section: Section, items: Sequence[Configuration], shown: dict[str, Headline]) -> Chart:
    """A group of bars for each task, a colour for each method or what else differs."""
    labels = [_series_names(section, item, _Axis())[0] for item in items]
    names = tuple(dict.fromkeys(labels))
    tasks = list(shown)
    series: list[Series] = []
    for name in names:
        own = [item for item, other in zip(items, labels, strict=True) if other == name]
        places = [(item, (float(tasks.index(item.task.name)), item.task_name)) for item in own]
        points = [point for item, place in places if (point := _point(item, place, shown[item.task.name]))]
        if points:
            series.append(Series(name, tuple(points)))
    metrics = list(dict.fromkeys(headline.text for headline in shown.values()))
    panel = Panel("", metrics[0] if len(metrics) == 1 else "score", tuple(series))
    chance = {item.task_name: _chance(item, shown[item.task.name]) for item in items}
    here = {(name, point.label) for own in series for name, point in ((own.name, p) for p in own.points)}
    wanted = dict.fromkeys((name, item.task_name) for item in items for name in names)
    missing = [f"{name} on {task}" for name, task in wanted if (name, task) not in here]
    if len(missing) > _MOST_MISSING:
        missing[_MOST_MISSING:] = [f"and {len(missing) - _MOST_MISSING} more"]
    return Chart(
        section.group.name,
        "Score by task",
        "bars",
        "",
        "linear",
        names,
        (panel,) if series else (),
        {task: value for task, value in chance.items() if value is not None},
        tuple(missing),
    )


def _chance(item: Configuration, headline: Headline) -> float | None:
    """The accuracy of naming the largest class always, None where another metric is shown."""
    return largest_class(item.finished[0], headline.split) if headline.metric == "accuracy" else None


def _curves(section: Section, items: Sequence[Configuration]) -> Chart:
    """What each configuration has reached on the rows that choose the epoch, by epochs; means over seeds."""
    labels = [_series_names(section, item, _Axis())[0] for item in items]
    names = tuple(dict.fromkeys(labels))
    panels: list[Panel] = []
    for task in dict.fromkeys(item.task.name for item in items):
        series: list[Series] = []
        for name in names:
            own = [item for item, other in zip(items, labels, strict=True) if other == name and item.task.name == task]
            by_epoch: dict[float, list[float]] = {}
            for score in (score for item in own for score in item.finished):
                for epoch, value in score.curve:
                    by_epoch.setdefault(epoch, []).append(value)
            points = [(epoch, Stat.of(values)) for epoch, values in sorted(by_epoch.items())]
            drawn = tuple(Point(epoch, f"{epoch:g}", stat, None) for epoch, stat in points if stat is not None)
            if len(drawn) > 1:
                series.append(Series(name, drawn))
        metric = next(item.task.metric for item in items if item.task.name == task)
        if series:
            panels.append(Panel(section.group.labels.get(task, task), f"{metric}, validation", tuple(series)))
    title = "Score while training"
    return Chart(f"{section.group.name}-curves", title, "line", EPOCHS, "linear", names, tuple(panels))


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
        for (x, point_label), own in sorted(places.items()):
            if len(own) == len(panels):
                papers = [point.paper for point in own if point.paper is not None]
                paper = sum(papers) / len(papers) if len(papers) == len(own) else None
                mean = sum(point.stat.mean for point in own) / len(own)
                points.append(Point(x, point_label, Stat(mean, None, 1), paper))
        if points:
            lines.append(Series(name, tuple(points)))
    return [Panel(f"mean of {len(panels)} tasks", "mean of the tasks' scores", tuple(lines))] if lines else []
