"""ptv2kit: P-Tuning v2 from YAML."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ptv2kit.training.load_run import LoadedRun

__version__ = "0.1.0"


def load(run: str | Path, task: str | None = None, device: str = "auto") -> LoadedRun:
    """A trained run that can predict: `ptv2kit.load("runs/quickstart/…").predict(["Ada met Alan in Paris ."])`.

    Args:
        run: its folder, or `hub:user/name`.
        task: which one of several.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        ConfigError: this is no folder of a run, or it cannot be used so.
        DataError: a file of it is torn, or its backbone cannot be had.
    """
    from ptv2kit.training.hub_runs import find_run
    from ptv2kit.training.load_run import load_run

    return load_run(find_run(str(run)), task, device)
