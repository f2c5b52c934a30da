"""Places and marks of axes, for the charts of the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from ptv2kit.reporting.report.charts import Chart, Panel, Scale


@final
@dataclass(frozen=True)
class Axis:
    """A range of values that is drawn from one coordinate to another.

    Args:
        low: value at `start`.
        high: value at `end`.
        start: coordinate in pixels.
        end: coordinate in pixels.
        scale: how values are spread.
    """

    low: float
    high: float
    start: float
    end: float
    scale: Scale = "linear"

    def at(self, value: float) -> float:
        """The coordinate of a value."""
        low, high, found = (_spread(number, self.scale) for number in (self.low, self.high, value))
        share = 0.5 if high == low else (found - low) / (high - low)
        return self.start + share * (self.end - self.start)


def score_range(panels: Sequence[Panel], *, from_zero: bool) -> tuple[float, float]:
    """A range that holds every score with its deviation and every published value, and some air."""
    values: list[float] = []
    for panel in panels:
        for series in panel.series:
            for point in series.points:
                spread = point.stat.deviation or 0.0
                values += [point.stat.mean - spread, point.stat.mean + spread]
                values += [] if point.paper is None else [point.paper]
    low, high = min(values), max(values)
    if from_zero:
        return min(low, 0.0), high * 1.08 if high > 0 else 1.0
    air = max(0.08 * (high - low), 0.5)
    return low - air, high + air


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers within a range, about so many."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = min((factor * power for factor in (1, 2, 5, 10)), key=lambda step: abs(step - raw))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def places(chart: Chart, panel: Panel) -> dict[float, str]:
    """Every place of the horizontal axis that a point stands on, with its label."""
    found = {point.x: point.label for series in panel.series for point in series.points}
    if chart.x_label == "layers with a prompt":
        found = {x: f"{x:g}" for x in found}  # 1-8 and 17-24 stand on the same place
    return dict(sorted(found.items()))


def _spread(value: float, scale: Scale) -> float:
    if scale == "linear":
        return value
    return math.log2(value) if scale == "log2" else math.log10(value)
