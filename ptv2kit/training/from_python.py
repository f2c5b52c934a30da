"""Training from Python: `ptv2kit.train`, and the trained run that it returns."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, final

from rich.console import Console

from ptv2kit.data.unlabelled import rows_in_memory
from ptv2kit.errors import ConfigError, DataError, TrainingError
from ptv2kit.files import write_atomically
from ptv2kit.models.checkpoints import silence_libraries
from ptv2kit.spec.catalog import find_file
from ptv2kit.spec.load import ResolvedRecipe, file_kind, load_recipe
from ptv2kit.spec.merge import Override, Setting
from ptv2kit.spec.sources import JsonlSource, Splits
from ptv2kit.training.load_run import LoadedRun, load_run
from ptv2kit.training.results import Outcome
from ptv2kit.training.resume import unfinished_run
from ptv2kit.training.run import Resume, train_recipe
from ptv2kit.training.signals import STOPPED

_ROWS = ".rows"
"""Folder below that of the runs which keeps rows that were given in memory."""


@final
@dataclass(frozen=True, repr=False)
class TrainedRun:
    """A run that `ptv2kit.train` has finished.

    Args:
        folder: what was written: `results.json`, `prompt/`, `predictions/`, the resolved YAML, the log.
        outcome: everything that is reported of the run; `outcome.to_json()` is `results.json`.
    """

    folder: Path
    outcome: Outcome

    def __repr__(self) -> str:
        return f"TrainedRun({str(self.folder)!r}, {self.scores})"

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """Each metric by split, such as `{"validation": {"span_f1": 84.9}}`; of several tasks by `task/split`."""
        return {split: dict(scores.values) for split, scores in self.outcome.scores.items()}

    @property
    def score(self) -> float | None:
        """The first metric on the validation split, which chose the best epoch."""
        return self.outcome.score

    @property
    def missed(self) -> list[str]:
        """A sentence for each value of the recipe's `expect` that was not reached."""
        return self.outcome.missed()

    @cached_property
    def _loaded(self) -> LoadedRun:
        return self.load()

    def load(self, task: str | None = None, device: str = "auto") -> LoadedRun:
        """Load the run with its best prompt; see `ptv2kit.load`."""
        return load_run(self.folder, task, device)

    def predict(self, rows: Iterable[Mapping[str, Any] | str], batch_size: int | None = None) -> list[dict[str, Any]]:
        """Answer rows with the best prompt; see `LoadedRun.predict`. The model is loaded at the first call and kept.

        Raises:
            ConfigError: the run has several tasks; `load(task)` chooses one.
            DataError: rows lack a column, or one is of the wrong kind; all of them are named.
        """
        return self._loaded.predict(rows, batch_size)

    def evaluate(self, rows: Iterable[Mapping[str, Any]], batch_size: int | None = None) -> dict[str, float]:
        """Score rows with labels with the best prompt; see `LoadedRun.evaluate`. Errors as of `predict`."""
        return self._loaded.evaluate(rows, batch_size)


def train(
    recipe: str | Path,
    settings: Mapping[str, Any],
    rows: Mapping[str, Iterable[Mapping[str, Any]]] | None = None,
    *,
    data_root: str | Path | None,
    runs_dir: str | Path,
    resume: bool,
    verbose: bool,
) -> TrainedRun:
    """Train a recipe in this process; see `ptv2kit.train`."""
    silence_libraries()
    path = find_file(recipe, ["recipe"])
    kind = file_kind(path)
    if kind != "recipe":
        hint = "ptv2kit.train takes one recipe; 'ptv2kit run' runs suites" if kind == "suite" else "give a recipe"
        raise ConfigError(f"'{recipe}' is a {kind}", hint=hint)
    given = [
        Setting(key, _plain(value), Override(f"{key}={value!r}", source="argument of ptv2kit.train"))
        for key, value in settings.items()
    ]
    resolved = load_recipe(path, given)
    wanted = resolved.recipe.distributed
    if wanted.hostfile is not None or (wanted.gpus != "auto" and wanted.gpus > 1):
        raise ConfigError(
            "the recipe asks for several processes, and ptv2kit.train is one",
            hint=f"run it in a terminal: ptv2kit run {path}; or set distributed.gpus to 1",
        )
    runs = Path(runs_dir)
    if rows is not None:
        resolved = _with_rows(resolved, rows, runs / _ROWS)
    folder, outcome = train_recipe(
        resolved,
        data_root=None if data_root is None else Path(data_root),
        runs_dir=runs,
        messages=Console(file=sys.stderr, quiet=not verbose, highlight=False, markup=False, emoji=False),
        overrides=[str(setting) for setting in given],
        resume=Resume(unfinished_run(runs / resolved.recipe.recipe)) if resume else None,
    )
    if outcome.status in STOPPED:
        where = f"the best prompt so far is in '{folder.path / 'prompt'}'"
        hint = "ptv2kit.train(…, resume=True) continues it"
        raise STOPPED[outcome.status](f"{outcome.status.replace('_', ' ')}; {where}", hint=hint)
    return TrainedRun(folder.path, outcome)


def _with_rows(
    resolved: ResolvedRecipe, rows: Mapping[str, Iterable[Mapping[str, Any]]], folder: Path
) -> ResolvedRecipe:
    """The recipe with a task that reads these rows, which are written below `folder`, named by what they hold.

    Raises:
        ConfigError: the recipe has several tasks, or a split is not one of theirs.
        DataError: a row holds what JSON has not.
        TrainingError: they cannot be written.
    """
    if len(resolved.tasks) > 1:
        raise ConfigError("rows are of one task, and the recipe has several", hint="write a file for each, and a task")
    odd = [split for split in rows if split not in ("train", "validation", "test")]
    if odd or "train" not in rows:
        raise ConfigError(f"rows has {', '.join(rows) or 'nothing'}", hint="expected train, and validation and test")
    texts = {split: "".join(_lines(split, given)) for split, given in rows.items()}
    place = folder.absolute() / hashlib.sha256("\0".join(map(str, texts.items())).encode()).hexdigest()[:12]
    splits = {"validation": "10%"}
    for split, text in texts.items():
        splits[split] = str(place / f"{split}.jsonl")
        try:
            place.mkdir(parents=True, exist_ok=True)
            write_atomically(Path(splits[split]), text.encode())
        except OSError as error:
            raise TrainingError(f"cannot be written: {error.strerror}", location=splits[split]) from error
    of_task, share = Splits.model_validate(splits), resolved.recipe.train.select_on
    source = JsonlSource(source="jsonl", splits=of_task if share is None else of_task.selecting_on(share))
    task = replace(resolved.task, task=resolved.task.task.model_copy(update={"data": source}))
    return replace(resolved, tasks=(task,))


def _lines(split: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A line of JSON for each row."""
    for number, row in enumerate(rows_in_memory(rows), start=1):
        location = f"{split}: row {number}"
        if not isinstance(row, Mapping):
            raise DataError(f"expected a mapping of columns. Got {type(row).__name__}", location=location)
        try:
            yield json.dumps(dict(row), ensure_ascii=False, allow_nan=False) + "\n"
        except (TypeError, ValueError) as error:
            raise DataError(f"not a mapping of what JSON has: {error}", location=location) from error


def _plain(value: Any) -> Any:
    """What YAML would have given: lists for tuples, texts for paths."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value
