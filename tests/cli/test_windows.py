"""What Windows lacks, taken away on Linux: POSIX signals, descriptors of folders, deleting a file that is open.

That nothing else is called that Windows lacks is what pyright says with `--pythonplatform Windows` (`just types`).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_resume import assert_equal_runs, at_step, uninterrupted
from tests.projects import Project, project

__all__ = ["project"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads which files are open from /proc")


def in_use(path: str) -> bool:
    """Whether this process has a file open or mapped."""
    name = os.path.realpath(path)
    descriptors = [f"/proc/self/fd/{each}" for each in os.listdir("/proc/self/fd")]  # noqa: PTH208
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    return name in {os.path.realpath(each) for each in descriptors} or f" {name}\n" in maps


@pytest.fixture
def like_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    really_open = os.open

    def open_file(path: Any, flags: int, *args: Any, **keywords: Any) -> int:
        if not flags & os.O_TMPFILE and not keywords and Path(path).is_dir():
            raise PermissionError(13, "Permission denied", str(path))
        return really_open(path, flags, *args, **keywords)

    def only_closed(really: Callable[..., None]) -> Callable[..., None]:
        def act(*paths: Any, **keywords: Any) -> None:
            for path in paths:
                if isinstance(path, str | Path) and in_use(str(path)):
                    raise PermissionError(13, "The process cannot access the file", str(path))
            really(*paths, **keywords)

        return act

    monkeypatch.setattr(os, "open", open_file)
    for name in ("unlink", "remove", "rename", "replace"):
        monkeypatch.setattr(os, name, only_closed(getattr(os, name)))
    for name in ("SIGHUP", "SIGUSR1"):
        monkeypatch.delattr(signal, name)


@pytest.mark.usefixtures("like_windows")
def test_a_run_is_interrupted_and_resumed(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = uninterrupted(project)
    with monkeypatch.context() as patch:
        at_step(patch, 3, lambda: os.kill(os.getpid(), signal.SIGINT))
        assert project.run("train.checkpoint_steps=1", "train.keep_checkpoints=1")[0] == 130
    [run] = project.runs
    code, _, err = project.run("--resume")
    assert code == 0, err
    assert_equal_runs(run, whole)
