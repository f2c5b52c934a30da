"""Experiment trackers receive losses, scores and settings of a training. Off by default."""

from __future__ import annotations

import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

from ptv2kit.data.schemes.records import Scores
from ptv2kit.errors import ConfigError
from ptv2kit.spec.recipe import TrackerName
from ptv2kit.training.state import LogEntry, Step

PROJECT = "ptv2kit"
_EVERY = 10
_OWN = ("tensorboard", "wandb", "trackio")
"""Those that continue in the same run when a training is resumed, which accelerate's do not."""


class Tracker(ABC):
    """Where metrics are sent to."""

    @abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Values after an optimizer step."""

    @abstractmethod
    def close(self, summary: Mapping[str, float]) -> None:
        """The end, with the best values; empty if the training failed."""


def require_trackers(names: Sequence[str]) -> None:
    """Make sure, before anything costly, that the packages are installed.

    Raises:
        ConfigError: one is not.
    """
    for name in names:
        if name in _OWN:
            missing, hint = [name], f"pip install 'ptv2kit[{name}]'"
        else:
            missing, hint = ["accelerate", name], f"pip install 'accelerate>=1.15' {name.replace('_', '-')}"
        for package in missing:
            if importlib.util.find_spec(package) is None:
                raise ConfigError(f"trackers: '{package}' is not installed", hint=hint)


@contextmanager
def tracking(
    names: Sequence[TrackerName], folder: Path, settings: Mapping[str, Any], step: int
) -> Generator[TrackerEvents]:
    """Start the trackers, or let them continue the run of this folder, and end them with the context.

    Args:
        folder: of the run; its name and its parent's name the run.
        step: the last one of a run that is resumed, else 0.

    Raises:
        ConfigError: a tracker cannot start.
    """
    events = TrackerEvents([_open(name, folder, settings, step) for name in names], step)
    try:
        yield events
    finally:
        events.close()


def _open(name: TrackerName, folder: Path, settings: Mapping[str, Any], step: int) -> Tracker:
    try:
        match name:
            case "tensorboard":
                return _TensorBoard(folder, settings, step)
            case "wandb":
                return _WeightsAndBiases(folder, settings)
            case "trackio":
                return _Trackio(folder, settings)
            case _:
                return _OfAccelerate(name, folder, settings)
    except Exception as error:  # each has errors of its own, such as for a missing login
        reason = str(error).strip().split("\n", 1)[0]
        raise ConfigError(f"trackers: {name} cannot start: {type(error).__name__}: {reason}") from error


@final
class _TensorBoard(Tracker):
    """Event files in `tensorboard/` of the run's folder."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], step: int) -> None:
        tensorboard: Any = importlib.import_module("torch.utils.tensorboard")
        # What was logged after the checkpoint that the run is resumed from happens again.
        self._writer = tensorboard.SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        self._settings = flat(settings)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self, summary: Mapping[str, float]) -> None:
        if summary:
            plain = {
                name: value for name, value in self._settings.items() if isinstance(value, str | bool | int | float)
            }
            self._writer.add_hparams(plain, {f"best/{name}": value for name, value in summary.items()}, run_name=".")
        self._writer.close()


@final
class _WeightsAndBiases(Tracker):
    """A run of the project `ptv2kit`; `WANDB_MODE=offline` keeps it in the run's folder."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        wandb: Any = importlib.import_module("wandb")
        self._run = wandb.init(
            project=PROJECT,
            group=folder.parent.name,
            name=_name(folder),
            id=_name(folder),
            resume="allow",
            dir=str(folder),
            config=dict(settings),
            settings=wandb.Settings(silent=True, console="off"),
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self, summary: Mapping[str, float]) -> None:
        for name, value in summary.items():
            self._run.summary[f"best/{name}"] = value
        self._run.finish(exit_code=0 if summary else 1)


@final
class _Trackio(Tracker):
    """A run of the local project `ptv2kit`; `trackio show` shows it."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._trackio: Any = importlib.import_module("trackio")
        self._trackio.init(
            project=PROJECT, name=_name(folder), group=folder.parent.name, config=flat(settings), resume="allow"
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._trackio.log(dict(values), step=step)

    def close(self, summary: Mapping[str, float]) -> None:
        if summary:
            self._trackio.log({f"best/{name}": value for name, value in summary.items()})
        self._trackio.finish()


@final
class _OfAccelerate(Tracker):
    """Any other tracker that accelerate knows; its own variables and files say where it keeps a run."""

    def __init__(self, name: TrackerName, folder: Path, settings: Mapping[str, Any]) -> None:
        library: Any = importlib.import_module("accelerate.tracking")
        given: dict[str, Any] = {"run_name": _name(folder)}
        if name == "mlflow":
            given["experiment_name"] = PROJECT
        elif name == "aim":
            given["logging_dir"] = str(folder)
        self._tracker = library.LOGGER_TYPE_TO_CLASS[name](**given)
        self._tracker.start()
        self._tracker.store_init_configuration(flat(settings))
        self._step = 0

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._step = step
        self._tracker.log(dict(values), step=step)

    def close(self, summary: Mapping[str, float]) -> None:
        if summary:
            self._tracker.log({f"best/{name}": value for name, value in summary.items()}, step=self._step)
        self._tracker.finish()


@final
class TrackerEvents:
    """Passes a training's events on to trackers.

    Args:
        trackers: none, one or several.
        step: the last one of a run that is resumed.
    """

    def __init__(self, trackers: Sequence[Tracker], step: int = 0) -> None:
        self._trackers = trackers
        self._step = step
        self._summary: dict[str, float] = {}

    def log(self, row: LogEntry) -> None:
        """Pass on every tenth step, the last one, and the metrics of each epoch."""
        if not isinstance(row, Step):
            self._log(
                {**{f"validation/{name}": value for name, value in row.values.items()}, "epoch": float(row.epoch)}
            )
            return
        self._step = row.step
        if row.step % _EVERY == 0 or row.step == row.total_steps:
            self._log({"train/loss": row.loss, "train/learning_rate": row.learning_rate, "epoch": row.epoch})

    def summarize(self, scores: Mapping[str, Scores]) -> None:
        """What the trackers receive at the end: the scores of the best epoch, by split."""
        self._summary = {
            f"{split}/{name}": value for split, of_split in scores.items() for name, value in of_split.values.items()
        }

    def close(self) -> None:
        """The end; see `Tracker.close`."""
        for tracker in self._trackers:
            tracker.close(self._summary)

    def _log(self, values: Mapping[str, float]) -> None:
        for tracker in self._trackers:
            tracker.log(self._step, values)


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key; lists become text."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value if isinstance(value, str | bool | int | float | None) else str(value)
    return found


def _name(folder: Path) -> str:
    """Of a run; the key in a folder's name makes it unique."""
    return f"{folder.parent.name}-{folder.name}"
