"""Cells, columns and tables of a report: a text with the number behind it, so that Markdown and HTML show the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, final

from ptv2kit.report.configurations import Stat
from ptv2kit.spec.suite import shown

MINUS = "\N{MINUS SIGN}"
Item = TypeVar("Item")


@final
@dataclass(frozen=True)
class Cell:
    """A cell.

    Args:
        value: the number behind it, in full.
        note: more on it, shown beneath in small type.
        kind: empty, or how it stands out: `good`, `bad` or `missing`.
    """

    text: str = ""
    value: float | None = None
    note: str = ""
    kind: str = ""


@final
@dataclass(frozen=True)
class Column(Generic[Item]):
    """A column and how it is filled.

    Args:
        key: stable name, for programs.
        numeric: aligned to the right, and sorted by number.
    """

    key: str
    title: str
    fill: Callable[[Item], Cell]
    numeric: bool = False


@final
@dataclass(frozen=True)
class Row:
    """A row: a cell for each column, and what a program needs to find it."""

    cells: tuple[Cell, ...]
    data: Mapping[str, str] = field(default_factory=dict[str, str])


@final
@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        key: unique on the page; letters, digits and `-`.
        note: a sentence on how to read it, may be empty.
        columns: key, title and whether it is numeric; the first one names the row.
    """

    key: str
    title: str
    note: str
    columns: tuple[tuple[str, str, bool], ...]
    rows: tuple[Row, ...]


def make(
    key: str,
    title: str,
    note: str,
    columns: Sequence[Column[Item]],
    items: Sequence[Item],
    data: Callable[[Item], Mapping[str, str]] = lambda _: {},
) -> Table:
    """Fill a table with items; columns that are empty in every row are left out, unless they are the first."""
    filled = [[column.fill(item) for column in columns] for item in items]
    kept = [index for index in range(len(columns)) if not index or any(row[index] != Cell() for row in filled)]
    rows = tuple(Row(tuple(row[index] for index in kept), data(item)) for item, row in zip(items, filled, strict=True))
    heads = tuple((columns[index].key, columns[index].title, columns[index].numeric) for index in kept)
    return Table(key, title, note, heads, rows)


def aligned(lines: Sequence[Sequence[str]], numeric: Iterable[bool]) -> str:
    """A header and rows as a table of Markdown; numeric columns are aligned to the right."""
    right = list(numeric)
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    padded = [
        [
            text.rjust(width) if flush else text.ljust(width)
            for text, width, flush in zip(line, widths, right, strict=True)
        ]
        for line in lines
    ]
    rule = ["-" * (width + 1) + (":" if flush else "-") for width, flush in zip(widths, right, strict=True)]
    shown = ["| " + " | ".join(line) + " |" for line in padded]
    return "\n".join([shown[0], "|" + "|".join(rule) + "|", *shown[1:]])


def short_value(value: Any) -> str:
    """A value of a setting; of a YAML file's path the name alone."""
    found = shown(value)
    return (
        found.rsplit("/", 1)[-1].removesuffix(".yaml") if isinstance(value, str) and found.endswith(".yaml") else found
    )


def is_number(value: Any) -> bool:
    """Tell numbers from truth values, which Python counts among them."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def text(value: object) -> Cell:
    """Anything as text; None is empty."""
    return Cell("" if value is None else str(value))


def number(value: float | None, form: str = ".2f") -> Cell:
    """A number, empty if there is none."""
    return Cell() if value is None else Cell(f"{value:{form}}".replace("-", MINUS), value)


def stat_text(stat: Stat) -> str:
    """Mean, and of several seeds the deviation and their number: `74.31 ± 0.42 (3)`."""
    mean = f"{stat.mean:.2f}".replace("-", MINUS)
    return mean if stat.deviation is None else f"{mean} ± {stat.deviation:.2f} ({stat.count})"


def stat_cell(stat: Stat | None) -> Cell:
    """Scores of several seeds."""
    return Cell() if stat is None else Cell(stat_text(stat), stat.mean)


def signed(value: float) -> str:
    """With two decimals and a sign."""
    return f"{value:+.2f}".replace("-", MINUS)


def count_text(count: float) -> str:
    """A count in short: `335M`, `1.2k`."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:g}"
