"""A process that takes part in a search, for tests that need several or kill one.

Usage: python -m tests.suites.study_process STORAGE TRIALS SAMPLER SECONDS
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptv2kit.spec.suite import Parameter, Search
from ptv2kit.suites.study import SharedSearch, TrialOutcome
from ptv2kit.training.state import Log

SPACE = {"x": Parameter(low=0.0, high=1.0, step=0.25), "y": Parameter(values=(1, 2))}


def search_with(storage: str, trials: int | None, sampler: str) -> SharedSearch:
    """The study of these tests."""
    settings = Search.model_validate({"trials": trials, "sampler": sampler, "space": SPACE, "storage": storage})
    return SharedSearch(settings, "test", Path(storage.removeprefix("sqlite:///")))


def main() -> None:
    """Take part; each trial takes some time and says so."""
    storage, trials, sampler, seconds = sys.argv[1:]

    def objective(number: int, settings: Mapping[str, Any], _: Log) -> TrialOutcome:
        print(f"trial {number}", flush=True)
        time.sleep(float(seconds))
        return TrialOutcome("finished", settings["x"] * settings["y"], {})

    search_with(storage, None if sampler == "grid" else int(trials), sampler).run(objective)


if __name__ == "__main__":
    main()
