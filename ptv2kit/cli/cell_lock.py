"""Who trains a cell right now, so that nobody else does: a file beside its record, and a sign of life in it."""

from __future__ import annotations

import fcntl
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import final

from ptv2kit.errors import ConfigError
from ptv2kit.files import write_atomically
from ptv2kit.training.owners import is_gone, this_process

BEAT = 2.0
"""Seconds between two writes of how far a cell has come."""
SILENCE = 600.0
"""Seconds without one after which a process of another machine counts as dead; of this machine it is known at once."""


@final
@dataclass(frozen=True)
class Holder:
    """What a lock says.

    Args:
        owner: `<host>:<pid>:<start>` of the process that trains.
        text: how far it has come, for people.
        done: optimizer steps.
        total: of the whole run, 0 if not known yet.
    """

    owner: str
    text: str = ""
    done: int = 0
    total: int = 0

    @property
    def shown(self) -> str:
        """The process, for people."""
        host, pid, _ = self.owner.rsplit(":", 2)
        return f"process {pid} on {host}"


@final
class CellLock:
    """Held while a cell is trained; a thread writes every two seconds that it still is. Use it with `with`.

    Args:
        path: of the lock's file.
        guard: a file that all locks of a suite share; it makes looking and taking one step.
    """

    def __init__(self, path: Path, guard: Path) -> None:
        self._path = path
        self._guard = guard
        self._now = Holder(this_process())
        self._end = threading.Event()
        self._beats = threading.Thread(target=self._beat, name="cell lock", daemon=True)

    @staticmethod
    def take(path: Path, guard: Path) -> CellLock | None:
        """Take the lock of a cell; None if a process that still lives has it.

        Raises:
            ConfigError: the file system has no locks.
        """
        lock = CellLock(path, guard)
        with _guarded(guard):
            if _living(path, guard) is not None:
                return None
            lock._write()
        return lock

    def __enter__(self) -> CellLock:
        self._beats.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end.set()
        self._beats.join()
        with _guarded(self._guard):
            found = read_holder(self._path)
            if found is not None and found.owner == self._now.owner:
                self._path.unlink()

    def say(self, *, text: str | None = None, done: int | None = None, total: int | None = None) -> None:
        """Note how far the training has come; what is left out stays as it was. Written with the next sign of life."""
        now = self._now
        self._now = Holder(
            now.owner,
            now.text if text is None else text,
            now.done if done is None else done,
            now.total if total is None else total,
        )

    def _beat(self) -> None:
        while not self._end.wait(BEAT):
            try:
                self._write()
            except OSError:
                # A full disk ends the training in its own words; until then the next beat may succeed.
                continue

    def _write(self) -> None:
        write_atomically(self._path, json.dumps(asdict(self._now)).encode())


def read_holder(path: Path) -> Holder | None:
    """What the file of a lock says, None if there is none."""
    try:
        return Holder(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def living_holder(path: Path, guard: Path) -> Holder | None:
    """Who trains a cell, None if nobody does or who did is dead."""
    if read_holder(path) is None:
        return None
    with _guarded(guard):
        return _living(path, guard)


def _living(path: Path, guard: Path) -> Holder | None:
    found = read_holder(path)
    if found is None or is_gone(found.owner):
        return None
    try:
        written = path.stat().st_mtime
    except FileNotFoundError:
        return None
    # Both times are the file server's: clocks of machines differ.
    guard.touch()
    own = found.owner.rpartition(":")[0].rpartition(":")[0] == this_process().rpartition(":")[0].rpartition(":")[0]
    return found if own or guard.stat().st_mtime - written < SILENCE else None


@contextmanager
def _guarded(guard: Path) -> Generator[None]:
    """One process at a time, of all that see the file; the system frees it when a process dies."""
    guard.parent.mkdir(parents=True, exist_ok=True)
    with guard.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise ConfigError(
                f"files cannot be locked there: {error.strerror or error}",
                location=str(guard),
                hint="choose a file system with locks for --runs-dir",
            ) from error
        yield
