"""What a report needs of a run's folder and of a cell's record, checked as it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ptv2kit.config.recipe import MEAN, Expectation
from ptv2kit.config.yaml import load_document
from ptv2kit.errors import DataError
from ptv2kit.files import is_file, read_json

_LAX = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)
Content = TypeVar("Content", bound=BaseModel)


class Parameters(BaseModel):
    """Counts of parameters, as in `results.json`."""

    model_config = _LAX
    backbone: int = 0
    prompt: int = 0
    trained: int = 0
    share: float | None = None


class Results(BaseModel):
    """What a report shows of `results.json`. Files of earlier versions lack some keys."""

    model_config = _LAX
    status: str
    parameters: Parameters
    best_epoch: int
    best_epochs: dict[str, int] = Field(default_factory=dict[str, int])
    epochs: int
    seconds: float
    metrics: dict[str, dict[str, float]]
    history: tuple[dict[str, float], ...] = ()
    expect: tuple[dict[str, Any], ...] = ()

    def expectations(self) -> tuple[Expectation, ...]:
        """What the run should have reached, without what was found."""
        return tuple(
            Expectation(**{key: value for key, value in item.items() if key != "found"}) for item in self.expect
        )


class Record(BaseModel):
    """What a report shows of a cell's `cell.json`."""

    model_config = _LAX
    name: str
    case: str = ""
    settings: dict[str, Any] = Field(default_factory=dict[str, Any])
    status: str
    metrics: dict[str, dict[str, float]] = Field(default_factory=dict[str, dict[str, float]])
    best_epoch: int = 0
    epochs: int = 0
    seconds: float = 0.0
    trained: int = 0
    run: str = ""
    error: str = ""

    def results(self) -> Results | None:
        """What the record itself keeps of the results, for a run whose folder is on another machine."""
        if not self.metrics:
            return None
        return Results(
            status=self.status,
            parameters=Parameters(trained=self.trained),
            best_epoch=self.best_epoch,
            epochs=self.epochs,
            seconds=self.seconds,
            metrics=self.metrics,
        )


@final
@dataclass(frozen=True)
class TaskFacts:
    """A task of a run.

    Args:
        metric: the first of its metrics, which chooses the epoch.
    """

    name: str
    metric: str


@final
@dataclass(frozen=True)
class RunFacts:
    """A run's folder.

    Args:
        values: of its recipe, by dotted key.
        results: None if it has not ended.
    """

    path: Path
    values: Mapping[str, Any]
    tasks: tuple[TaskFacts, ...]
    results: Results | None


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's."""
    return is_file(folder / "recipe.resolved.yaml")


def read_run(folder: Path) -> RunFacts:
    """Read a run's folder.

    Raises:
        ConfigError: its recipe or a task cannot be read.
        DataError: `results.json` is not what it should be.
    """
    written: Any = load_document(folder / "recipe.resolved.yaml").values
    values = flatten(written)
    named = written.get("task", ())
    tasks = tuple(_task(folder / str(name)) for name in ([named] if isinstance(named, str) else named))
    path = folder / "results.json"
    return RunFacts(folder, values, tasks, _read(path, Results) if is_file(path) else None)


def read_record(path: Path) -> Record:
    """Read a cell's `cell.json`.

    Raises:
        DataError: it is not what it should be.
    """
    return _read(path, Record)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, by dotted key; empty ones are left out."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def task_metrics(results: Results, task: TaskFacts, *, several: bool) -> dict[str, dict[str, float]]:
    """The scores of one task at the epoch that was kept, by split and metric."""
    if not several:
        return results.metrics
    start = f"{task.name}/"
    return {split.removeprefix(start): found for split, found in results.metrics.items() if split.startswith(start)}


def task_history(results: Results, task: TaskFacts, *, several: bool) -> list[float]:
    """The first metric of one task on the validation split after each epoch; empty if it was not kept."""
    key = f"{task.name}/{task.metric}" if several else task.metric
    assert key != MEAN
    return [values[key] for values in results.history if key in values]


def _task(path: Path) -> TaskFacts:
    values: Any = load_document(path).values
    return TaskFacts(str(values["task"]), str(values["metrics"][0]))


def _read(path: Path, kind: type[Content]) -> Content:
    try:
        return kind.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(f"'{where}': {first['msg']}", location=str(path)) from error
    except (OSError, ValueError) as error:
        raise DataError(f"the file cannot be read: {error}", location=str(path)) from error
