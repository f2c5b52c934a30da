"""Who trains a cell right now, so that nobody else does: a file beside its record, and a sign of life in it."""

from __future__ import annotations

import errno
import fcntl
import json
import re
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import final

from ptv2kit.errors import ConfigError, DataError, ProjectError
from ptv2kit.files import write_atomically
from ptv2kit.training.owners import is_gone, this_process

BEAT = 2.0
"""Seconds between two writes of how far a cell has come."""
_STALE_READS = 4
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
        pids: within which the pid counts: containers with their host's network have its name, but pids of their own.
    """

    owner: str
    text: str = ""
    done: int = 0
    total: int = 0
    pids: str = ""

    @property
    def here(self) -> bool:
        """Whether this process can see if the holder lives."""
        return self.owner.rsplit(":", 2)[0] == this_process().rsplit(":", 2)[0] and self.pids in ("", _pids())

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
        self._now = Holder(this_process(), pids=_pids())
        self._end = threading.Event()
        self._beats = threading.Thread(target=self._beat, name="cell lock", daemon=True)

    @staticmethod
    def take(path: Path, guard: Path) -> CellLock | None:
        """Take the lock of a cell; None if a process that still lives has it.

        Raises:
            ConfigError: the file system has no locks.
        """
        lock = CellLock(path, guard)
        with guarded(guard):
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
        with guarded(self._guard):
            found = read_holder(self._path)
            if found is not None and found.owner == self._now.owner:
                self._path.unlink()

    def say(self, *, text: str | None = None, done: int | None = None, total: int | None = None) -> None:
        """Note how far the training has come; what is left out stays as it was. Written with the next sign of life."""
        now = self._now
        self._now = replace(
            now,
            text=now.text if text is None else text,
            done=now.done if done is None else done,
            total=now.total if total is None else total,
        )

    def _beat(self) -> None:
        while not self._end.wait(BEAT):
            try:
                with guarded(self._guard):
                    found = read_holder(self._path)
                    if found is not None and found.owner != self._now.owner:
                        return  # this process was silent for so long that another one took the cell
                    self._write()
            except (OSError, ProjectError):
                # A full disk ends the training in its own words; until then the next beat may succeed.
                continue

    def _write(self) -> None:
        write_atomically(self._path, json.dumps(asdict(self._now)).encode())


def read_holder(path: Path) -> Holder | None:
    """What the file of a lock says, None if there is none.

    Raises:
        DataError: the file is not what it should be.
    """
    try:
        holder = Holder(**json.loads(_text(path)))
        if not re.fullmatch(r".+:\d+:.*", str(holder.owner)):
            raise ValueError(f"expected the owner as host:pid:start. Got {holder.owner!r}")
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise DataError(
            f"this is no lock of a cell: {error}", location=str(path), hint="delete it if nothing trains the cell"
        ) from error
    return holder


def _text(path: Path) -> str:
    """The content of a file that another machine may replace at this moment, which NFS calls a stale handle."""
    for _ in range(_STALE_READS):
        try:
            return path.read_text(encoding="utf-8")
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
    return path.read_text(encoding="utf-8")


def seems_held(path: Path) -> bool:
    """Whether somebody trains a cell, as far as can be said without writing a file: clocks of machines may differ.

    Raises:
        DataError: the file is not what it should be.
    """
    found = read_holder(path)
    if found is None or found.here:
        return found is not None and not is_gone(found.owner)
    try:
        return time.time() - path.stat().st_mtime < SILENCE
    except FileNotFoundError:
        return False


def living_holder(path: Path, guard: Path) -> Holder | None:
    """Who trains a cell, None if nobody does or who did is dead."""
    if read_holder(path) is None:
        return None
    with guarded(guard):
        return _living(path, guard)


def _living(path: Path, guard: Path) -> Holder | None:
    found = read_holder(path)
    if found is None or found.here:
        return None if found is None or is_gone(found.owner) else found
    try:
        written = path.stat().st_mtime
    except FileNotFoundError:
        return None
    # Both times are the file server's: clocks of machines differ.
    guard.touch()
    return found if guard.stat().st_mtime - written < SILENCE else None


def _pids() -> str:
    """The name space of this process's pid; empty where there are none."""
    path = Path("/proc/self/ns/pid")
    return str(path.readlink()) if path.is_symlink() else ""


@contextmanager
def guarded(guard: Path) -> Generator[None]:
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
