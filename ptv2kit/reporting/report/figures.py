"""Charts as figures for a paper: PNG and SVG by matplotlib. The same numbers give the same bytes."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

from ptv2kit.errors import ConfigError
from ptv2kit.reporting.report.axes import places, score_range
from ptv2kit.reporting.report.charts import Chart, Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#0b62b0", "#b3470b", "#1c7a4a", "#8d3a9e", "#a8154c", "#5a6b00", "#3d4f5c", "#00707d")
_MARKS = ("o", "s", "^", "v")
_LINES = ("-", "--", ":", "-.")
_ACROSS = 4


def require_matplotlib() -> None:
    """Make sure that the extra `report` is installed.

    Raises:
        ConfigError: it is not.
    """
    try:
        import matplotlib  # noqa: F401 # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        raise ConfigError(
            "the figures of a report need matplotlib, which is not installed", hint="pip install 'ptv2kit[report]'"
        ) from error


def figure_files(chart: Chart) -> dict[str, bytes]:
    """The chart as `<name>.png` (150 dots an inch) and `<name>.svg`."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    across = min(_ACROSS, len(chart.panels))
    down = math.ceil(len(chart.panels) / across)
    settings: Any = {"svg.hashsalt": "ptv2kit", "font.size": 8.0, "axes.titlesize": 8.0}
    files: dict[str, bytes] = {}
    with matplotlib.rc_context(settings):
        bars = sum(len(series.points) for series in chart.panels[0].series) if chart.kind == "bars" else 0
        size = (max(5.0, 1.5 + 0.32 * bars), 3.4) if bars else (3.1 * across, 2.6 * down + 0.4)
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        for index, panel in enumerate(chart.panels):
            axes = figure.add_subplot(down, across, index + 1)
            if chart.kind == "bars":
                _draw_bars(axes, chart, panel)
            else:
                _draw_points(axes, chart, panel)
            axes.set_title(_plain("\n".join(text for text in (panel.title, panel.y_label) if text)), loc="left")
            axes.grid(visible=True, axis="y", linewidth=0.4, alpha=0.6)
            axes.set_axisbelow(True)
        handles: dict[str, Any] = {}
        for axes in figure.axes:
            found, names = axes.get_legend_handles_labels()
            handles |= {name: handle for name, handle in zip(names, found, strict=True) if name not in handles}
        order = [name for name in (*map(_plain, chart.names), "paper") if name in handles]
        figure.legend(
            [handles[name] for name in order],
            order,
            loc="outside lower center",
            ncols=min(4, len(order)),
            frameon=False,
        )
        # Without a date and a version, the same numbers give the same files.
        for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
            content = io.BytesIO()
            figure.savefig(content, format=kind, dpi=150, metadata=metadata)
            files[f"{chart.name}.{kind}"] = content.getvalue()
    return files


def _draw_points(axes: Axes, chart: Chart, panel: Panel) -> None:
    for series in panel.series:
        index = chart.names.index(series.name)
        colour = _COLOURS[index % len(_COLOURS)]
        xs = [point.x for point in series.points]
        axes.errorbar(
            xs,
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
        published = [(point.x, point.paper) for point in series.points if point.paper is not None]
        if published:
            _draw_paper(axes, [x for x, _ in published], [value for _, value in published], colour)
    if chart.scale == "log2":
        axes.set_xscale("log", base=2)
    elif chart.scale == "log10":
        axes.set_xscale("log")
    found = places(chart, panel)
    axes.set_xticks(list(found), [_plain(label.replace(" (", "\n(")) for label in found.values()])
    axes.minorticks_off()
    axes.set_xlabel(_plain(chart.x_label))
    axes.set_ylim(*score_range([panel], from_zero=False))


def _draw_bars(axes: Axes, chart: Chart, panel: Panel) -> None:
    labels = list(dict.fromkeys(point.label for series in panel.series for point in series.points))
    members: dict[str, list[str]] = {
        label: [series.name for series in panel.series if any(point.label == label for point in series.points)]
        for label in labels
    }
    starts: dict[str, float] = {}
    right = 0.0
    for label in labels:
        starts[label] = right
        right += len(members[label]) + 1.0
    for series in panel.series:
        index = chart.names.index(series.name)
        xs = [starts[point.label] + members[point.label].index(series.name) for point in series.points]
        axes.bar(
            xs,
            [point.stat.mean for point in series.points],
            width=0.85,
            yerr=[point.stat.deviation or 0.0 for point in series.points],
            label=_plain(series.name),
            color=_COLOURS[index % len(_COLOURS)],
            capsize=2,
            error_kw={"linewidth": 0.8},
        )
        for x, point in zip(xs, series.points, strict=True):
            top = point.stat.mean + (point.stat.deviation or 0.0)
            axes.annotate(f"{point.stat.mean:.1f}", (x, top), (0, 2), textcoords="offset points", ha="center", size=6)
            if point.paper is not None:
                _draw_paper(axes, [x], [point.paper], "black")
    centres = [starts[label] + (len(members[label]) - 1) / 2 for label in labels]
    axes.set_xticks(centres, [_plain(label) for label in labels])
    axes.set_ylim(*score_range([panel], from_zero=True))


def _draw_paper(axes: Axes, xs: list[float], values: list[float], colour: str) -> None:
    axes.plot(
        xs, values, marker="D", markersize=5, linestyle="none", color=colour, markerfacecolor="none", label="paper"
    )


def _plain(text: str) -> str:
    """Text as it is: matplotlib reads `$` as the begin of a formula."""
    return text.replace("$", r"\$")
