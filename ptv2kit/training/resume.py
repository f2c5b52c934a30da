"""`--resume`: which run is resumed, and whether it is still the same run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from ptv2kit.errors import ConfigError, DataError
from ptv2kit.files import read_json
from ptv2kit.training.checkpoint import Checkpoints
from ptv2kit.training.state import TrainingState

if TYPE_CHECKING:
    from rich.console import Console

CHANGEABLE = ("train.epochs", "train.patience", "train.micro_batch_size", "train.eval_batch_size", "deepspeed")
"""Keys that may change when a run is resumed, if the user accepts it."""

_DEFAULT = "\0"
"""Stands for a key that a request leaves out; no value of a recipe or task is this text."""


@final
@dataclass(frozen=True)
class ResumePoint:
    """A run that is resumed.

    Args:
        state: of its training; None: it was ended before the first checkpoint.
        extra: what was kept with the state.
    """

    folder: Path
    state: TrainingState | None
    extra: Mapping[str, Any]


def unfinished_run(runs: Path) -> Path:
    """The newest run below `runs` that has not ended.

    Raises:
        ConfigError: there is none.
    """
    folders = sorted(runs.iterdir()) if runs.is_dir() else []
    for folder in reversed(folders):
        if (folder / "recipe.resolved.yaml").is_file() and not is_finished(folder):
            return folder
    raise ConfigError(
        f"there is no unfinished run in '{runs}' to resume",
        hint="leave --resume out to start one, or give the run's folder instead of the recipe",
    )


def is_finished(folder: Path) -> bool:
    """Whether a run has ended on its own; one that was interrupted has not.

    Raises:
        DataError: its results cannot be read.
    """
    path = folder / "results.json"
    if not path.is_file():
        return False
    results: Any = read_json(path)
    if not isinstance(results, dict) or "status" not in results:
        raise DataError("this is not a file of results: expected an object with 'status'", location=str(path))
    return results["status"] in ("finished", "stopped")


def find_resume_point(
    folder: Path, request: Mapping[str, Any], accepted: Sequence[str], messages: Console
) -> ResumePoint:
    """The newest whole checkpoint of a run, after what it is good for was compared with what is asked.

    Args:
        request: from `request_of`.
        accepted: keys that may differ.

    Raises:
        ConfigError: keys differ that may not, or were not accepted; all of them are named.
        DataError: no checkpoint is whole.
    """
    unknown = [key for key in accepted if key not in CHANGEABLE]
    if unknown:
        raise ConfigError(f"--accept {unknown[0]}: a run cannot resume with it changed", hint=_changeable())
    found = Checkpoints(folder / "checkpoints", keep=1).latest()
    if found is None:
        messages.print(f"{folder} has no checkpoint yet: it starts anew", soft_wrap=True)
        return ResumePoint(folder, None, {})
    state, extra, damaged = found
    for problem in damaged:
        messages.print(f"{problem.location}: {problem.message}; the one before it is taken", soft_wrap=True)
    lines, losses = extra.get("lines", 0), extra.get("losses", [])
    if not isinstance(lines, int) or not isinstance(losses, list):
        raise DataError("'lines' or 'losses' of the newest checkpoint are malformed", location=str(folder))
    differing = list(_differences(extra.get("request"), request))
    refused = [line for key, line in differing if not any(_covers(each, key) for each in accepted)]
    if refused:
        raise ConfigError(
            f"the run '{folder}' was started with other settings:\n" + "\n".join(f"  {line}" for line in refused),
            hint=f"take them back; {_changeable()}",
        )
    for _, line in differing:
        messages.print(f"resuming with {line}", soft_wrap=True)
    return ResumePoint(folder, state, extra)


def _changeable() -> str:
    return f"what may be changed with --accept KEY: {', '.join(CHANGEABLE)}"


def _covers(accepted: str, key: str) -> bool:
    return key == f"recipe.{accepted}" or key.startswith(f"recipe.{accepted}.")


def _differences(old: Any, new: Any, key: str = "") -> list[tuple[str, str]]:
    """Each key whose values differ, with a line for people."""
    sections = [value for value in (old, new) if isinstance(value, dict)]
    if len(sections) == 2 or (sections and _DEFAULT in (old, new)):
        old, new = ({} if value == _DEFAULT else value for value in (old, new))
        return [
            difference
            for name in dict.fromkeys([*old, *new])
            for difference in _differences(
                old.get(name, _DEFAULT), new.get(name, _DEFAULT), f"{key}.{name}" if key else str(name)
            )
        ]
    # What is asked now was never written as JSON, which has no tuples.
    if json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True):
        return []
    before, now = ("its default" if value == _DEFAULT else json.dumps(value) for value in (old, new))
    return [(key, f"{key.removeprefix('recipe.')}: {before} → {now}")]
