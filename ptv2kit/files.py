"""Looking for files, locking them, and writing them so that a part of one is never found."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from ptv2kit.errors import ConfigError, DataError, Problem

_LFS_POINTER = b"version https://git-lfs"
_ZIP = b"PK\x03\x04"
_COPY_AGAIN = "copy or download it again"


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader finds the old content or the new one, never a part of it. Makes missing folders.

    Raises:
        OSError: the disk is full or the folder is not writable; the old content is still there.
    """
    with whole_file(path) as file:
        file.write(content)


@contextmanager
def whole_file(path: Path) -> Generator[IO[bytes]]:
    """A file that is written within the context, and has its name when that ends without an error.

    Raises:
        OSError: as of `write_atomically`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not the process's number alone: two machines may share a folder.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _keep_name(path.parent)


def link_atomically(source: Path, target: Path) -> None:
    """Let `target` be the same file as `source`, or a copy where the file system has no hard links.

    Raises:
        OSError: the disk is full or the folder is not writable; the old content of `target` is still there.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and target.samefile(source):
        return
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        temporary.hardlink_to(source)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        write_atomically(target, source.read_bytes())
        return
    try:
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    _keep_name(target.parent)


def _keep_name(folder: Path) -> None:
    """Have the new name of a file survive a loss of power."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders, and a folder may be closed to readers: the file itself is whole
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems have no such call; the file itself is whole there too.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)


def cache_folder() -> Path:
    """What may be deleted and is then made again: `$PTV2KIT_CACHE`, else `ptv2kit` in the user's cache folder.

    Raises:
        OSError: neither is set, and the home folder is unknown.
    """
    own, user = os.environ.get("PTV2KIT_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(own).expanduser() if own else Path(user or Path.home() / ".cache") / "ptv2kit"
    except RuntimeError as error:
        raise FileNotFoundError(errno.ENOENT, "there is no home folder") from error


def parse_json(text: str) -> Any:
    """JSON as plain values.

    Raises:
        ValueError: it is not JSON, or nested too deeply to be read.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error


def require_plain_file(path: Path) -> None:
    """Make sure that reading or writing a file comes to an end: a named pipe in a folder would wait for ever.

    Raises:
        OSError: there is something else of this name.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is not a plain file")


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        DataError: it cannot be read, or is not JSON.
    """
    try:
        require_plain_file(path)
        return parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", location=str(path)) from error
    except ValueError as error:
        raise DataError(f"it is not valid JSON: {error}", location=str(path)) from error


def weights_fault(path: Path) -> Problem | None:
    """Say what a file of tensors is instead, for libraries whose own message does not help.

    Returns:
        What is wrong, as the end of a sentence about the file; None if nothing is known to be wrong.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(64)
        if start.startswith(_LFS_POINTER):
            return Problem("is a Git LFS pointer, not the weights themselves", hint="run 'git lfs pull' in its folder")
        if path.suffix == ".safetensors":
            length = int.from_bytes(start[:8], "little")
            if size < 8 or length > size - 8:
                return Problem(f"is cut off: it has {size:,} bytes, fewer than its header needs", hint=_COPY_AGAIN)
            return None
        if start.startswith(_ZIP) and not zipfile.is_zipfile(path):
            return Problem(f"is cut off: it has {size:,} bytes, and its end is missing", hint=_COPY_AGAIN)
    if size == 0:
        return Problem("is empty", hint=_COPY_AGAIN)
    return None


def is_file(path: Path) -> bool:
    """Whether a file is there; a name that no file can have is not."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Whether a folder is there; a name that no folder can have is not."""
    try:
        return path.is_dir()
    except OSError:
        return False


def try_lock(path: Path) -> FileLock | None:
    """Take a lock, which the system frees when this process ends, however; None if another process has it.

    Raises:
        ConfigError: the file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return None
    except (OSError, NotImplementedError) as error:
        raise ConfigError(
            f"files cannot be locked: {error}", location=str(path), hint="choose another disk with --runs-dir"
        ) from error
    return lock


def is_locked(path: Path) -> bool:
    """Whether a process holds a lock.

    Raises:
        ConfigError: the file system has no locks.
    """
    if not path.is_file():
        return False
    lock = try_lock(path)
    if lock is not None:
        lock.release()
    return lock is None


def made_folder(name: str, what: str, write: Callable[[Path], None]) -> Path:
    """A folder in the user's cache that is made when it is first asked for, whole or not at all.

    Args:
        name: of the folder; with a version of what is written.
        what: is kept there, for errors.
        write: fills a new folder.

    Raises:
        ConfigError: the cache folder cannot be written.
    """
    hint = "set PTV2KIT_CACHE to a folder that can be written"
    try:
        root = cache_folder()
        target = root / name
        if target.is_dir():
            return target
    except OSError as error:
        raise ConfigError(f"{what} has no folder: {error.strerror}", hint="set PTV2KIT_CACHE") from error
    try:
        root.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=root, prefix=f".{name}-"))
        try:
            write(unfinished)
            unfinished.rename(target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        if target.is_dir():  # another process was faster
            return target
        raise ConfigError(f"{what} cannot be kept in '{root}': {error.strerror or error}", hint=hint) from error
    return target
