"""Imports of heavy modules in less time."""

from __future__ import annotations

import gc
import sys
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def without_collections(module: str) -> Generator[None]:
    """Import a module within a `with` block, without Python's garbage collector if it was not imported before.

    torch and transformers make a million objects that stay until the end. The collector would look at all of them
    again and again, while they are imported, while rows are read, and when the process ends: a third of the time of a
    short command. What exists at the end of the block is therefore left out of all later collections.
    """
    if module in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
