"""A run's folder: what was asked for, with what, how it went, what came out. Never overwritten, written atomically."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import platform
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, final

from ptv2kit import __version__
from ptv2kit.errors import ConfigError, visible
from ptv2kit.files import require_plain_file, try_lock, write_atomically
from ptv2kit.machine import allowed_cores

_PACKAGES = ("torch", "transformers", "safetensors", "datasets", "seqeval", "scikit-learn", "pydantic", "omegaconf")


def run_key(content: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits that stand for everything that decides a run's outcome.

    Args:
        content: resolved recipe and task, fingerprints of the data, version of the code.
    """
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def require_writable(root: Path) -> None:
    """Make sure that run folders can be made below `root`, and leave nothing behind.

    Raises:
        ConfigError: a file is in the way, or the disk refuses.
    """
    existing = root.absolute()
    try:
        with contextlib.suppress(FileNotFoundError):
            root.absolute().stat()  # fails if the name is too long, or has letters that this locale cannot write
        while not existing.exists():
            existing = existing.parent
        with tempfile.TemporaryFile(dir=existing):
            pass
    except (OSError, UnicodeEncodeError) as error:
        reason = "this locale cannot write its name" if isinstance(error, UnicodeEncodeError) else error.strerror
        raise ConfigError(
            f"run folders cannot be written below '{root}': {reason or error} ('{existing}')",
            hint="choose another folder with --runs-dir",
        ) from error


@final
@dataclass(frozen=True)
class RunFolder:
    """A folder that was made for one run.

    Args:
        path: `<runs>/<recipe>/<time>-<key>`.
        writes: False in all processes of a training but one: nothing is written then.
    """

    path: Path
    writes: bool = True

    @staticmethod
    def create(root: Path, recipe: str, key: str) -> RunFolder:
        """Make a new folder; a second run within the same second gets a number.

        Raises:
            ConfigError: the folder cannot be made.
        """
        stamp = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{key}"
        number = 1
        while True:
            path = root / recipe / (stamp if number == 1 else f"{stamp}-{number}")
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                number += 1
            except OSError as error:
                raise ConfigError(
                    f"the run folder '{path}' cannot be made: {error.strerror or error}",
                    hint="choose another folder with --runs-dir",
                ) from error
            else:
                return RunFolder(path)

    @contextmanager
    def locked(self) -> Generator[None]:
        """Within the context no other process trains this run; the system ends the lock with its process.

        Raises:
            ConfigError: another process trains it.
        """
        if not self.writes:
            yield
            return
        lock = try_lock(self.path / "checkpoints" / ".lock")
        if lock is None:
            raise ConfigError(
                f"the run '{self.path}' is being trained by another process", hint="wait for it, or end it first"
            )
        try:
            yield
        finally:
            lock.release()

    def require(self) -> None:
        """Make sure that the folder is still there: it may have been deleted while the run trains.

        Raises:
            FileNotFoundError: it is gone.
        """
        if not self.path.is_dir():
            raise FileNotFoundError(errno.ENOENT, "the folder was deleted while the run was training")

    def write_text(self, name: str, text: str) -> Path:
        """Write a file of this folder, whole or not at all."""
        path = self.path / name
        if self.writes:
            self.require()
            # A card is shown by terminals and pages; data keeps what it holds.
            shown = visible(text) if path.suffix == ".md" else text
            write_atomically(path, shown.encode())
        return path

    def write_json(self, name: str, content: Mapping[str, Any]) -> Path:
        """Write a JSON file, whole or not at all."""
        return self.write_text(name, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Add a line to `metrics.jsonl`."""
        self._append("metrics.jsonl", json.dumps(row, allow_nan=False))

    def cut_metrics(self, lines: int) -> None:
        """Keep only the first lines of `metrics.jsonl`: what was written after a checkpoint is written again."""
        path = self.path / "metrics.jsonl"
        if self.writes and path.is_file():
            kept = path.read_text(encoding="utf-8").splitlines(keepends=True)[:lines]
            write_atomically(path, "".join(kept).encode())

    def log(self, message: str) -> None:
        """Add a line with the time (UTC) to `log.txt`."""
        self._append("log.txt", f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {message}")

    def _append(self, name: str, line: str) -> None:
        if self.writes:
            require_plain_file(self.path / name)
            with (self.path / name).open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")


def environment() -> dict[str, Any]:
    """Versions of what a run was made with, and the machine's kind."""
    return {
        "ptv2kit": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": allowed_cores(),
        "packages": {name: version(name) for name in _PACKAGES},
    }
