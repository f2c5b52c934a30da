"""Tables and progress on the terminal, by rich; `output.show` is for verbs that answer without loading it."""

from __future__ import annotations

from typing import Any, final

from rich.console import Console
from rich.text import Text

from ptv2kit.errors import visible


def open_console(*, stderr: bool = False, quiet: bool = False, width: int | None = None) -> Console:
    """A console without markup in texts, which shows control characters instead of sending them."""
    return _Console(stderr=stderr, quiet=quiet, width=width, highlight=False, markup=False, emoji=False)


@final
class _Console(Console):
    def render_str(self, text: str, **options: Any) -> Text:
        """Every text, also of a table's cell, comes through here before it is drawn."""
        return super().render_str(visible(text), **options)
