"""Tables as Markdown and HTML both show them: columns, and cells with a text and, where there is one, a number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar, final

from ptv2kit.reporting.report.model import Stat

MINUS = "\N{MINUS SIGN}"
PLUS_MINUS = "\N{PLUS-MINUS SIGN}"
Item = TypeVar("Item")


@final
@dataclass(frozen=True)
class Column:
    """A column.

    Args:
        key: stable name, for programs.
        numeric: aligned to the right, and sorted by number.
    """

    key: str
    title: str
    numeric: bool = False


@final
@dataclass(frozen=True)
class Cell:
    """A cell.

    Args:
        value: the number behind it, in full.
        note: more on it, shown beneath in small type.
        kind: empty, or how it stands out: `good`, `bad` or `missing`.
    """

    text: str
    value: float | None = None
    note: str = ""
    kind: str = ""


@final
@dataclass(frozen=True)
class Row:
    """A row.

    Args:
        cells: one for each column.
        data: what a program needs to find it, by name.
    """

    cells: tuple[Cell, ...]
    data: Mapping[str, str] = field(default_factory=dict[str, str])


@final
@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        key: unique on the page; letters, digits and `-`.
        title: above it.
        note: a sentence on how to read it, may be empty.
        columns: the first one names the row.
        rows: as many cells each as there are columns.
    """

    key: str
    title: str
    note: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    def __post_init__(self) -> None:
        assert all(len(row.cells) == len(self.columns) for row in self.rows)


@final
@dataclass(frozen=True)
class Field(Generic[Item]):
    """How a column is filled."""

    column: Column
    cell: Callable[[Item], Cell]


def text_cell(value: object) -> Cell:
    """Anything as text; None is empty."""
    return Cell("" if value is None else str(value))


def number_cell(value: float | None, form: str = ".2f") -> Cell:
    """A number, empty if there is none."""
    return Cell("") if value is None else Cell(f"{value:{form}}".replace("-", MINUS), value)


def stat_cell(stat: Stat | None) -> Cell:
    """Mean, deviation and seeds: `74.31 ± 0.42 (3)`."""
    return Cell("") if stat is None else Cell(stat_text(stat), stat.mean)


def stat_text(stat: Stat) -> str:
    """Mean, and of several seeds the deviation and their number."""
    mean = f"{stat.mean:.2f}".replace("-", MINUS)
    return mean if stat.deviation is None else f"{mean} {PLUS_MINUS} {stat.deviation:.2f} ({stat.count})"


def difference_cell(value: float | None, *, missed: bool = False) -> Cell:
    """A difference with its sign."""
    if value is None:
        return Cell("")
    # A missed value stands out by a word too, for those who do not see the colour.
    note = "missed" if missed else ""
    return Cell(signed(value), value, note, "bad" if missed else "good" if round(value, 2) >= 0 else "")


def signed(value: float) -> str:
    """With two decimals and a sign."""
    return f"{value:+.2f}".replace("-", MINUS)


def share_cell(share: float | None) -> Cell:
    """A share as percent, with three significant digits."""
    return Cell("") if share is None else Cell(f"{100 * share:.3g} %", share)


def count_text(count: float) -> str:
    """A count in short: `335M`, `1.2k`."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:g}"


def make(
    key: str,
    title: str,
    note: str,
    fields: Sequence[Field[Item]],
    items: Sequence[Item],
    data: Callable[[Item], Mapping[str, str]] | None = None,
) -> Table:
    """A table from items; columns that are empty in every row are left out, unless they are the first."""
    filled = [[field.cell(item) for field in fields] for item in items]
    kept = [
        index
        for index, _ in enumerate(fields)
        if index == 0 or any(cells[index].text or cells[index].note for cells in filled)
    ]
    rows = tuple(
        Row(tuple(cells[index] for index in kept), {} if data is None else data(item))
        for item, cells in zip(items, filled, strict=True)
    )
    return Table(key, title, note, tuple(fields[index].column for index in kept), rows)
