"""What is to be set before torch and transformers are imported: they load in less time, and share a processor."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager

from ptv2kit.machine import collector_paused


def let_threads_sleep() -> None:
    """Let threads of a computation that wait for each other sleep after some microseconds; for a torch that is not
    imported yet, and unless the environment says how they wait.

    By default they try for a millisecond and more. If other work keeps one of the cores busy, the others then wait at
    each operation for a thread that the system does not run, and a run takes twenty times as long. So few tries cost
    nothing where the cores are free.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "10000"


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
    with collector_paused():
        try:
            yield
        finally:
            gc.freeze()
