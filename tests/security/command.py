"""The command line as a user sees it, for tests that feed it bad files."""

from __future__ import annotations

import contextlib
import io
import os
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, settings

from ptv2kit.cli.main import main

DOCUMENTED = {0, 1, 2, 3, 4, 5}
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
_EXAMPLES = int(os.environ.get("PTV2KIT_FUZZ", "150"))
"""Of the slow tests; 1,500 and more are for a night."""
DEEP = settings(max_examples=_EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


@dataclass(frozen=True)
class Ending:
    """How a command ended."""

    code: int
    out: str
    err: str


def run(*words: str) -> Ending:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    return Ending(code, out.getvalue(), err.getvalue())


def requires_message(ending: Ending, file: Path) -> None:
    """Whatever the file held: a documented code, no traceback, and a message that names the file if it was refused."""
    assert ending.code in DOCUMENTED, ending
    assert "Traceback" not in ending.err + ending.out, ending
    assert "internal error" not in ending.err, ending
    if ending.code:
        assert file.name in ending.err + ending.out, ending
