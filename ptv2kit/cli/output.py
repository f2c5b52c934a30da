"""Printing data and messages without what a label or a file name could smuggle into the terminal."""

from __future__ import annotations

import sys
from typing import IO

from ptv2kit.errors import visible


def show(*texts: object, end: str = "\n", file: IO[str] | None = None, flush: bool = False) -> None:
    """Print texts with control characters shown instead of sent."""
    print(visible(" ".join(map(str, texts))), end=end, file=sys.stdout if file is None else file, flush=flush)
