"""Charts as PNG, SVG and PDF, by matplotlib. The same numbers give the same bytes."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

from ptv2kit.report.charts import EPOCHS, Chart, Panel, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#0b62b0", "#b3470b", "#1c7a4a", "#8d3a9e", "#a8154c", "#5a6b00", "#3d4f5c", "#00707d")
_MARKS = ("o", "s", "^", "v")
_LINES = ("-", "--", ":", "-.")
_ACROSS = 4
_TITLE = 44  # letters in a line
_HATCHES = ("///", "...", "xxx")


def draw(chart: Chart) -> dict[str, bytes]:
    """The chart as `<name>.png` (150 dots an inch), `<name>.svg` and `<name>.pdf`."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    across = min(_ACROSS, len(chart.panels))
    down = math.ceil(len(chart.panels) / across)
    settings: Any = {"svg.hashsalt": f"ptv2kit {chart.name}", "font.size": 8.0, "axes.titlesize": 8.0}
    files: dict[str, bytes] = {}
    with matplotlib.rc_context(settings):
        bars = sum(len(series.points) for series in chart.panels[0].series) if chart.kind == "bars" else 0
        size = (max(5.0, 1.5 + 0.4 * bars), 3.6) if bars else (max(5.0, 3.1 * across), 2.6 * down + 0.4)
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        for index, panel in enumerate(chart.panels):
            axes = figure.add_subplot(down, across, index + 1)
            (_draw_bars if chart.kind == "bars" else _draw_points)(axes, chart, panel)
            lowest = axes.get_ylim()[0] if chart.kind == "bars" else 0.0
            measure = f"{panel.y_label}, from {lowest:g} up" if lowest else panel.y_label
            titles = [fill(text, _TITLE) for text in (panel.title, measure) if text]
            axes.set_title(_plain("\n".join(titles)), loc="left")
            axes.grid(visible=True, axis="y", linewidth=0.4, alpha=0.6)
            axes.set_axisbelow(True)
        handles: dict[str, Any] = {}
        for axes in figure.axes:
            found, names = axes.get_legend_handles_labels()
            handles |= {name: handle for name, handle in zip(names, found, strict=True) if name not in handles}
        order = [name for name in (*map(_plain, chart.names), "paper") if name in handles]
        drawn = [handles[name] for name in order]
        # As many columns as the longest name leaves room for: a legend that is too wide is cut off at both sides.
        columns = int(size[0] / (0.45 + 0.065 * max(map(len, order), default=1)))
        where = "outside upper center" if chart.missing else "outside lower center"  # what is missing is said below
        figure.legend(drawn, order, loc=where, ncols=max(1, min(columns, len(order))), frameon=False)
        if chart.missing:
            figure.supxlabel(_plain(fill(f"no score: {'; '.join(chart.missing)}", int(size[0] * 16))), size=6.5)
        # Without a date and a version, the same numbers give the same files.
        for kind, metadata in (
            ("png", {"Software": None}),
            ("svg", {"Date": None, "Creator": None}),
            ("pdf", {"CreationDate": None, "Creator": None, "Producer": None}),
        ):
            content = io.BytesIO()
            figure.savefig(content, format=kind, dpi=150, metadata=metadata)
            files[f"{chart.name}.{kind}"] = content.getvalue()
    return files


def _draw_points(axes: Axes, chart: Chart, panel: Panel) -> None:
    places: dict[float, str] = {}
    for series in panel.series:
        index = chart.names.index(series.name)
        colour = _COLOURS[index % len(_COLOURS)]
        places |= {point.x: point.label for point in series.points}
        axes.errorbar(
            [_beside(point.x, index, chart, panel) for point in series.points],
            [point.stat.mean for point in series.points],
            yerr=[point.stat.deviation or 0.0 for point in series.points],
            label=_plain(series.name),
            color=colour,
            marker=_MARKS[index % len(_MARKS)],
            linestyle=_LINES[index // 2 % len(_LINES)] if chart.kind == "line" else "none",
            markersize=4,
            linewidth=1.2,
            capsize=2,
        )
        for point in series.points:
            _draw_paper(axes, point.x, point, colour)
    if chart.scale != "linear":
        axes.set_xscale("log", base=2 if chart.scale == "log2" else 10)
    if chart.x_label == EPOCHS:
        axes.set_xlabel(_plain(chart.x_label))
        axes.margins(y=0.1)
        return
    if chart.x_label == "layers with a prompt":
        places = {x: f"{x:g}" for x in places}  # 1-8 and 17-24 are at the same place
    axes.set_xticks(sorted(places), [_plain(places[x].replace(" (", "\n(")) for x in sorted(places)])
    axes.minorticks_off()
    axes.set_xlabel(_plain(chart.x_label))
    axes.margins(y=0.1)


def _draw_bars(axes: Axes, chart: Chart, panel: Panel) -> None:
    """Groups of bars, one a task; a group has room for the bars that it has."""
    groups: dict[str, list[tuple[str, Point]]] = {}
    for series in panel.series:
        for point in series.points:
            groups.setdefault(point.label, []).append((series.name, point))
    left, centres = 0.0, list[float]()
    drawn = [point for members in groups.values() for _, point in members]
    lowest = _start(drawn)
    highest = max(point.stat.mean + (point.stat.deviation or 0.0) for point in drawn)
    for members in groups.values():
        for order, (name, point) in enumerate(members):
            x, spread = left + order, point.stat.deviation or 0.0
            again, index = divmod(chart.names.index(name), len(_COLOURS))
            colour = _COLOURS[index]
            bars: Any = {"label": _plain(name), "color": colour, "capsize": 2, "error_kw": {"linewidth": 0.8}}
            if again:  # a colour that another method has already
                bars |= {"hatch": _HATCHES[(again - 1) % len(_HATCHES)], "edgecolor": "white", "linewidth": 0}
            axes.bar([x], [point.stat.mean], 0.85, yerr=[spread] if spread else None, **bars)
            # At the foot, where neither the deviation nor the paper's mark can cover it; above a bar that is too short.
            short = point.stat.mean - lowest < 0.16 * (highest - lowest)
            at: tuple[float, float] = (x, point.stat.mean + spread if short else lowest)
            look: Any = {"rotation": 90, "color": colour if short else "white", "weight": "bold", "size": 7}
            if again and not short:
                look["bbox"] = {"facecolor": colour, "edgecolor": "none", "pad": 1.0}
            axes.annotate(
                f"{point.stat.mean:.1f}", at, (0, 3), textcoords="offset points", ha="center", va="bottom", **look
            )
            _draw_paper(axes, x, point, "black")
        centres.append(left + (len(members) - 1) / 2)
        left += len(members) + 1.0
        if chart.chance.get(members[0][1].label) is not None:
            ends = (left - len(members) - 1.5, left - 1.5)
            height = chart.chance[members[0][1].label]
            axes.plot(ends, (height, height), "k--", linewidth=1.0, label="largest class")
    axes.set_xticks(centres, [_plain(name) for name in groups])
    axes.margins(y=0.1)
    axes.set_ylim(bottom=lowest)


def _start(points: Sequence[Point]) -> float:
    """Where the axis of bars begins: at 0, or at a round number well below the lowest of high ones."""
    lowest = min(value for point in points for value in (point.stat.mean, point.paper) if value is not None)
    return 0.0 if lowest < 40 else 10.0 * math.floor((lowest - 10) / 10)


def _beside(x: float, index: int, chart: Chart, panel: Panel) -> float:
    """The place of a point, a little to the side for each series, so that their deviations do not hide each other."""
    places = sorted({point.x for series in panel.series for point in series.points})
    shift = (index - (len(chart.names) - 1) / 2) * 0.012
    if len(places) < 2 or len(panel.series) < 2:
        return x
    if chart.scale == "linear":
        return x + shift * (places[-1] - places[0])
    return x * (places[-1] / places[0]) ** shift


def _draw_paper(axes: Axes, x: float, point: Point, colour: str) -> None:
    if point.paper is not None:
        axes.plot([x], [point.paper], "D", markersize=5, color=colour, markerfacecolor="none", label="paper")


def _plain(text: str) -> str:
    """Text as it is: matplotlib reads `$` as the begin of a formula."""
    return text.replace("$", r"\$")
