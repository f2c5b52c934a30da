"""ptv2kit: P-Tuning v2 from YAML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptv2kit.training.from_python import TrainedRun
    from ptv2kit.training.load_run import LoadedRun
    from ptv2kit.training.load_together import LoadedRuns

__version__ = "0.2.0"


def train(
    recipe: str | Path,
    /,
    *,
    rows: Mapping[str, Iterable[Mapping[str, Any]]] | None = None,
    data_root: str | Path | None = None,
    runs_dir: str | Path = "runs",
    resume: bool = False,
    verbose: bool = False,
    **settings: Any,
) -> TrainedRun:
    """Train a recipe as `ptv2kit run` does: `ptv2kit.train("quickstart", **{"train.seed": 12}).scores`.

    Args:
        recipe: a file, or the name of a shipped one.
        rows: instead of the task's files, by split: `train`, and `validation` (else a tenth of `train`) and `test`;
            such as a list of mappings, a pandas table, or a split of `datasets`. They are kept below `runs_dir`, so
            that the run can be resumed and scored again.
        data_root: folder in which data files are looked up first.
        runs_dir: gets the folder of the run.
        resume: continue the recipe's newest unfinished run instead of starting a new one.
        verbose: show notes and progress on stderr; otherwise nothing is printed.
        settings: values that replace those of the file, by dotted key, such as `**{"train.epochs": 3}`.

    Raises:
        ConfigError: the recipe is wrong, or asks for several processes.
        DataError: the data or the backbone could not be loaded, or rows are malformed or hold what JSON has not.
        TrainingError: the loss is not finite, or the disk refuses.
        InterruptedRunError: Ctrl-C; what was kept is in the run's folder.
    """
    from ptv2kit.training.from_python import train

    return train(recipe, settings, rows, data_root=data_root, runs_dir=runs_dir, resume=resume, verbose=verbose)


def load(run: str | Path, task: str | None = None, device: str = "auto") -> LoadedRun:
    """A trained run that can predict: `ptv2kit.load("runs/quickstart/…").predict(["Ada met Alan in Paris ."])`.

    Args:
        run: its folder, or `hub:user/name`.
        task: which one of several.
        device: `auto`, `cpu`, `cuda` or `mps`.

    Raises:
        ConfigError: this is not the folder of a run, or it cannot be used so.
        DataError: a file of it is torn, or its backbone could not be loaded.
    """
    from ptv2kit.exchange.hub import find_run
    from ptv2kit.training.load_run import load_run

    return load_run(find_run(str(run)), task, device)


def load_together(runs: Mapping[str, str | Path], device: str = "auto") -> LoadedRuns:
    """Several runs on one backbone, which is loaded once; rows of all of them share forward passes.

    `ptv2kit.load_together({"mood": "runs/a/…", "who": "runs/b/…"}).predict([("mood", "A joy."), ("who", "Ada left")])`

    Args:
        runs: folder of each, or `hub:user/name`, by the name that it is to have; of a run with several tasks, each is
            called `name.task`.
        device: `auto`, `cpu`, `cuda` or `mps`.

    Raises:
        ConfigError: one is not the folder of a run, or has another backbone than the others.
        DataError: a file of one is torn, or the backbone could not be loaded.
    """
    from ptv2kit.exchange.hub import find_run
    from ptv2kit.training.load_together import load_together

    return load_together({name: find_run(str(run)) for name, run in runs.items()}, device)
