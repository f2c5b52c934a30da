"""What a cell's `cell.json` and a run's folder say, checked as it is read."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ptv2kit.errors import DataError
from ptv2kit.files import is_file, read_json
from ptv2kit.spec.recipe import MEAN, Expectation
from ptv2kit.spec.suite import shown
from ptv2kit.spec.yaml import load_document

CellStatus = Literal["finished", "stopped", "failed", "interrupted", "running", "waiting"]
Metrics = dict[str, dict[str, float]]
"""By split, of several tasks by `task/split`, and name."""
Content = TypeVar("Content", bound=BaseModel)


class _Read(BaseModel):
    """Files of other versions may have more keys, or fewer."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, use_attribute_docstrings=True)


class CellRecord(_Read):
    """What is known of a cell: its worker writes it, everyone reads it."""

    name: str
    case: str = ""
    """Of the suite, empty without cases."""
    settings: dict[str, Any] = Field(default_factory=dict[str, Any])
    """What tells it from the others, by dotted key."""
    status: CellStatus
    """`stopped` by the pruner of a search; `running` in another process."""
    key: str = ""
    """Stands for what decides its outcome; empty for trials, whose study has it."""
    score: float | None = None
    """The first metric on the validation split, of several tasks the highest mean; None if never measured."""
    metrics: Metrics = Field(default_factory=dict[str, dict[str, float]])
    best_epoch: float = 0
    epochs: int = 0
    """That were finished."""
    seconds: float = 0.0
    """Wall time of the training, of all parts of one that was interrupted; of a killed process nothing."""
    trained: int = 0
    """Parameters."""
    run: str = ""
    """Folder of the run, relative to the suite's folder; empty if there is none."""
    error: str = ""
    exit_code: int = 0
    """Of its error, 0 without one."""
    final: bool = False
    """Whether it is a search's best trial, trained once more."""
    killed: bool = False
    """Whether its process was ended from outside; the run is resumed when the cell is tried again."""
    task: str = ""
    metric: str = ""
    session: str = ""

    @property
    def kind(self) -> tuple[str, str]:
        """What the score is of: task and metric; records of version 0.1 have them in their settings and metrics."""
        task = self.task or shown(self.settings.get("task", ""))
        return task, self.metric or next(iter(self.metrics.get("validation", {})), "")

    def results(self) -> Results | None:
        """What the record itself keeps of the results, for a run whose folder is on another machine."""
        if not self.metrics:
            return None
        fields = self.model_dump(include={"status", "best_epoch", "epochs", "seconds", "metrics"})
        return Results(parameters=Parameters(trained=self.trained), **fields)


class Parameters(_Read):
    """Counts of parameters, as in `results.json`."""

    backbone: int = 0
    prompt: int = 0
    trained: int = 0
    share: float | None = None


class Results(_Read):
    """What a report shows of `results.json`."""

    status: str
    parameters: Parameters
    best_epoch: float
    best_epochs: dict[str, float] = Field(default_factory=dict[str, float])
    epochs: int
    seconds: float
    metrics: Metrics
    history: tuple[dict[str, float], ...] = ()
    evaluated: tuple[float, ...] = ()
    """When the scores of `history` were measured, in epochs; empty in runs of version 0.2: at the end of each."""
    expect: tuple[dict[str, Any], ...] = ()
    types: dict[str, tuple[dict[str, Any], ...]] = Field(default_factory=dict[str, tuple[dict[str, Any], ...]])

    def expectations(self) -> tuple[Expectation, ...]:
        """What the run should have reached, without what was found."""
        return tuple(
            Expectation(**{key: value for key, value in item.items() if key != "found"}) for item in self.expect
        )


@final
@dataclass(frozen=True)
class Task:
    """A task of a run; `metric` is its first one, which chooses the epoch."""

    name: str
    metric: str

    def metrics(self, results: Results, *, several: bool) -> Metrics:
        """Its scores at the epoch that was kept, by split and metric."""
        if not several:
            return results.metrics
        start = f"{self.name}/"
        return {split.removeprefix(start): found for split, found in results.metrics.items() if split.startswith(start)}

    def history(self, results: Results, *, several: bool) -> list[float]:
        """Its first metric on the validation split after each epoch; empty if it was not kept."""
        key = f"{self.name}/{self.metric}" if several else self.metric
        assert key != MEAN
        return [values[key] for values in results.history if key in values]


class _Line(_Read):
    """A line of `metrics.jsonl`, of which every kind has other keys."""

    loss: float | None = None
    training_cpu_seconds: float | None = None


@final
@dataclass(frozen=True)
class Logged:
    """What a run logged while it trained.

    Args:
        loss: on training rows at the end: the mean of the last eighth of what was logged, because single steps vary.
        cpu_seconds: processor time of the steps, without evaluations.
    """

    loss: float | None
    cpu_seconds: float | None


@final
@dataclass(frozen=True)
class Run:
    """A run's folder.

    Args:
        values: of its recipe, by dotted key.
        results: None if it has not ended.
        logged: None if it has not ended, or its log was not kept.
    """

    path: Path
    values: Mapping[str, Any]
    tasks: tuple[Task, ...]
    results: Results | None
    logged: Logged | None


def is_run(folder: Path) -> bool:
    """Tell whether a folder is a run's."""
    return is_file(folder / "recipe.resolved.yaml")


def read_run(folder: Path) -> Run:
    """Read a run's folder.

    Raises:
        ConfigError: its recipe or a task cannot be read.
        DataError: `results.json` or `metrics.jsonl` is not what it should be.
    """
    written: Any = load_document(folder / "recipe.resolved.yaml").values
    named = written.get("task", ())
    tasks: list[Task] = []
    for name in [named] if isinstance(named, str) else named:
        values: Any = load_document(folder / str(name)).values
        tasks.append(Task(str(values["task"]), str(values["metrics"][0])))
    path, log = folder / "results.json", folder / "metrics.jsonl"
    if not is_file(path):
        return Run(folder, flatten(written), tuple(tasks), None, None)
    logged = _read_log(log) if is_file(log) else None
    return Run(folder, flatten(written), tuple(tasks), read_file(path, Results), logged)


def _read_log(path: Path) -> Logged:
    lines: list[_Line] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            lines.append(_Line.model_validate_json(line))
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"]
            raise DataError(f"it is not a line of a run's log: {reason}", location=f"{path}:{number}") from error
    losses = [line.loss for line in lines if line.loss is not None]
    seconds = [line.training_cpu_seconds for line in lines if line.training_cpu_seconds is not None]
    last = losses[-max(1, len(losses) // 8) :]
    return Logged(statistics.fmean(last) if last else None, seconds[-1] if seconds else None)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, by dotted key; empty ones are left out."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def read_file(path: Path, kind: type[Content], hint: str = "") -> Content:
    """Read a JSON file.

    Raises:
        DataError: it is not what it should be.
    """
    try:
        return kind.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(f"'{where}': {first['msg']}", location=str(path), hint=hint) from error
    except (OSError, ValueError) as error:
        raise DataError(f"the file cannot be read: {error}", location=str(path), hint=hint) from error
