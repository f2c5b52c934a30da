"""Tables and progress on the terminal, by rich; `output.show` is for verbs that answer without loading it."""

from __future__ import annotations

from typing import Any, final

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ptv2kit.cli.output import show
from ptv2kit.errors import visible

_WIDE = 10_000


def open_console(*, stderr: bool = False, quiet: bool = False, width: int | None = None) -> Console:
    """A console without markup in texts, which shows control characters instead of sending them."""
    return _Console(stderr=stderr, quiet=quiet, width=width, highlight=False, markup=False, emoji=False)


@final
class _Console(Console):
    def render_str(self, text: str, **options: Any) -> Text:
        """Every text, also of a table's cell, comes through here before it is drawn."""
        return super().render_str(visible(text), **options)


def print_table(console: Console, table: Table, *, header: bool = True) -> None:
    """Draw a table on a terminal that is wide enough; else print one row a line, its columns separated by tabs.

    Args:
        header: whether the plain form begins with the names of the columns.
    """
    for column in table.columns:
        column.no_wrap = column.header != "description"  # the only text that may be cut into lines
    needed = Measurement.get(console, console.options.update_width(_WIDE), table).minimum
    if console.is_terminal and needed <= console.width:
        console.print(table)
        return
    rows = [[str(column.header) for column in table.columns]] if header else []
    rows += [list(row) for row in zip(*(map(str, column.cells) for column in table.columns), strict=True)]
    for line in [*([str(table.title)] if table.title else []), *map("\t".join, rows)]:
        show(line, file=console.file)
