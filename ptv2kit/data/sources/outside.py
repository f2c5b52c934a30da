"""Says so when a task file makes us read what is neither beside it nor in the project nor under the data root."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

_LOGGER = logging.getLogger(__name__)


def files_outside(files: Iterable[Path], *, task_path: Path, data_root: Path | None) -> list[Path]:
    """The files that are neither below the folder of the task file, the working folder nor the data root, as they
    really are. The working folder does not count where it holds the user's home.

    A path leaves by `..`, by being absolute, or by a symbolic link beside the task file. What a link within the data
    root points at counts as being there, because the user who gives the root has made it.
    """
    own = [task_path.parent, *_working_folder(), *([] if data_root is None else [data_root])]
    folders = [folder.resolve() for folder in own]
    return [
        path.resolve()
        for path in files
        if not any(path.resolve().is_relative_to(folder) for folder in folders)
        and not (data_root is not None and _is_written_in(path, data_root))
    ]


def tell_outside(files: Iterable[Path], *, task: str, split: str, task_path: Path, data_root: Path | None) -> None:
    """Warn, in one line of the log `ptv2kit`, that a split is read from elsewhere; the command line shows it."""
    outside = files_outside(files, task_path=task_path, data_root=data_root)
    if outside:
        more = f" and {len(outside) - 1} more" if len(outside) > 1 else ""
        _LOGGER.warning(
            "%s: warning: split '%s' of task '%s' is read from '%s'%s, outside its folder%s",
            task_path,
            split,
            task,
            outside[0],
            more,
            " and the working folder" if data_root is None else ", the working folder and the data root",
        )


def _working_folder() -> list[Path]:
    """The working folder, or nothing if it holds far more than a project."""
    here = Path.cwd()
    try:
        return [] if Path.home().resolve().is_relative_to(here) else [here]
    except RuntimeError:  # the home folder is unknown
        return []


def _is_written_in(path: Path, folder: Path) -> bool:
    """Whether the path as it is written goes down from the folder. `..` behind a link would leave elsewhere."""
    own, above = path.absolute().parts, folder.absolute().parts
    return own[: len(above)] == above and ".." not in own[len(above) :]
