"""Tables in the manner of the paper's: a row for each backbone and method, a column for each task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from ptv2kit.reporting.report.model import Comparison, Configuration, Section, Stat
from ptv2kit.reporting.report.overview import settings_label
from ptv2kit.reporting.report.tables import MINUS, Cell, Column, Row, Table, signed, stat_text

MISSING = "missing"


@final
@dataclass(frozen=True)
class Headline:
    """Which score of a task is shown where there is room for one.

    Args:
        split: that is scored.
    """

    metric: str
    split: str

    @property
    def text(self) -> str:
        """In words, with the rule that chose the epoch."""
        rule = "best epoch" if self.split == "validation" else "epoch chosen on validation"
        return f"{self.metric}, {self.split.replace('_', ' ')}, {rule}"

    def of(self, item: Configuration) -> Stat | None:
        """Ours."""
        if self.split == "validation" and self.metric == item.task.metric:
            return item.best
        return item.at(self.split, self.metric)

    def other(self, item: Configuration, origin: str) -> Comparison | None:
        """The value of an origin for the same metric and split."""
        for found in item.comparisons:
            wanted = found.expectation
            if (wanted.origin, wanted.metric, wanted.split) == (origin, self.metric, self.split):
                return found
        return None


def headlines(items: Sequence[Configuration]) -> dict[str, Headline]:
    """The score that is shown of each task: what the paper has, else that on the test split, else on validation.

    What the paper has is passed over where runs have finished and none has measured it.
    """
    found: dict[str, Headline] = {}
    for task in dict.fromkeys(item.task.name for item in items):
        own = [item for item in items if item.task.name == task]
        finished = any(item.finished for item in own)
        published = [
            compared.expectation
            for origin in ("paper", "released")
            for item in own
            if (compared := item.beside(origin)) is not None and (compared.ours or not finished)
        ]
        tests = [split for item in own for split in item.tests]
        if published:
            found[task] = Headline(published[0].metric, published[0].split)
        else:
            found[task] = Headline(own[0].task.metric, tests[0] if tests else "validation")
    return found


def pivot_table(section: Section, key: str) -> Table | None:
    """Backbones and methods by tasks; None of one task, of a search, and where most of the table would be empty."""
    items = section.configurations
    shown = headlines(items)
    names = _row_names(items)
    if section.group.search or len(shown) < 2 or 2 * len(items) < len(set(names)) * len(shown):
        return None
    rows: list[Row] = []
    for name in dict.fromkeys(names):
        own = {item.task.name: item for item, other in zip(items, names, strict=True) if other == name}
        texts = tuple(Cell(part) for part in name)
        cells = tuple(_cell(own.get(task), headline) for task, headline in shown.items())
        rows.append(Row((*texts, *cells), {"row": " ".join(name)}))
    # A column of labels that says the same in every row, or nothing, is left out.
    kept = [index for index in range(len(_LABELS)) if index == 0 or len({row.cells[index].text for row in rows}) > 1]
    columns = [_LABELS[index] for index in kept]
    columns += [Column(f"task:{task}", f"{task} ({headline.text})", numeric=True) for task, headline in shown.items()]
    count = len(_LABELS)
    rows = [Row((*(row.cells[index] for index in kept), *row.cells[count:]), row.data) for row in rows]
    note = "Ours; beneath it the paper's and the released value where they are known, and how ours differs."
    return Table(key, "Scores by task", note, tuple(columns), tuple(rows))


_LABELS = (Column("backbone", "backbone"), Column("method", "method"), Column("other", "settings"))


def _row_names(items: Sequence[Configuration]) -> list[tuple[str, str, str]]:
    """Backbone, method, and as much of case and settings as is needed to tell rows apart within a task."""
    plain = [(item.backbone, item.method, "") for item in items]
    cased = [(item.backbone, item.method, item.case) for item in items]
    full = [
        (item.backbone, item.method, ", ".join(part for part in (item.case, settings_label(item)) if part))
        for item in items
    ]
    for names in (plain, cased):
        keys = [(name, item.task.name) for name, item in zip(names, items, strict=True)]
        if len(set(keys)) == len(keys):
            return names
    return full


def _cell(item: Configuration | None, headline: Headline) -> Cell:
    if item is None:
        return Cell(MINUS)
    stat = headline.of(item)
    notes: list[str] = []
    for origin in ("paper", "released"):
        other = headline.other(item, origin)
        if other is not None:
            against = "" if other.difference is None else f" ({signed(other.difference)})"
            notes.append(f"{origin} {other.expectation.value:g}{against}")
    missed = any(compared.missed for compared in item.comparisons)
    if stat is None:
        return Cell(MISSING if item.status == MISSING else item.status, None, "; ".join(notes), "missing")
    if item.status != "finished":
        notes.append(item.status)
    return Cell(stat_text(stat), stat.mean, "; ".join(notes), "bad" if missed else "")
