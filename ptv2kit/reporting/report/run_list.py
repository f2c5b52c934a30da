"""The table of all runs: one row for each task of each run, and for what is missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from ptv2kit.reporting.report.model import Configuration, Score, Section
from ptv2kit.reporting.report.overview import (
    count_cell,
    setting_cell,
    setting_columns,
    split_title,
    status_cell,
    time_cell,
)
from ptv2kit.reporting.report.read import Results
from ptv2kit.reporting.report.tables import Cell, Column, Field, Table, make, number_cell, text_cell


@final
@dataclass(frozen=True)
class _Run:
    """A row."""

    section: Section
    configuration: Configuration
    score: Score

    @property
    def results(self) -> Results | None:
        return self.score.entry.results


def runs_table(sections: Sequence[Section]) -> Table:
    """Every run of every group; the group has a column if there are several."""
    items = [
        _Run(section, item, score) for section in sections for item in section.configurations for score in item.scores
    ]
    settings = dict(pair for section in sections for pair in setting_columns(section))
    splits = dict.fromkeys(split for item in items for split in item.score.tests)
    fields = [
        _field("run", "run", lambda item: text_cell(item.score.entry.name)),
        *([_field("suite", "suite", lambda item: text_cell(item.section.group.name))] if len(sections) > 1 else []),
        _field("task", "task", lambda item: text_cell(item.configuration.task.name)),
        _field("backbone", "backbone", lambda item: text_cell(item.configuration.backbone)),
        _field("method", "method", lambda item: text_cell(item.configuration.method)),
        _field("case", "case", lambda item: text_cell(item.score.entry.case or None)),
        *(_setting_field(name, title) for name, title in settings.items()),
        _number("seed", "seed", lambda item: number_cell(item.score.seed, "d")),
        _field("metric", "metric", lambda item: text_cell(item.configuration.task.metric)),
        _number("validation_max", "validation, best epoch", lambda item: number_cell(item.score.best)),
        *(_test_field(split) for split in splits),
        _number("validation_last", "validation, last epoch", lambda item: number_cell(item.score.last)),
        _number("best_epoch", "kept epoch", lambda item: number_cell(item.score.best_epoch, "d")),
        _number("epochs", "epochs", _epochs),
        _number("trained", "trained", _trained),
        _number("seconds", "time", lambda item: time_cell(None if item.results is None else item.results.seconds)),
        _field("status", "status", _status),
    ]
    note = "Runs that have not finished are shown and do not count in any mean."
    return make("runs", "All runs", note, fields, items, _data)


def _field(key: str, title: str, fill: Callable[[_Run], Cell]) -> Field[_Run]:
    return Field(Column(key, title), fill)


def _number(key: str, title: str, fill: Callable[[_Run], Cell]) -> Field[_Run]:
    return Field(Column(key, title, numeric=True), fill)


def _setting_field(name: str, title: str) -> Field[_Run]:
    return _number(name, title, lambda item: setting_cell(item.score.entry.settings, name))


def _test_field(split: str) -> Field[_Run]:
    return _number(split, split_title(split), lambda item: number_cell(item.score.tests.get(split)))


def _epochs(item: _Run) -> Cell:
    return number_cell(None if item.results is None else item.results.epochs, "d")


def _trained(item: _Run) -> Cell:
    return count_cell(None if item.results is None else item.results.parameters.trained)


def _status(item: _Run) -> Cell:
    entry = item.score.entry
    return status_cell(entry.status, "other values than the suite's" if entry.changed else "")


def _data(item: _Run) -> dict[str, str]:
    entry = item.score.entry
    folder = "" if entry.run is None else entry.run.as_posix()
    return {"run": folder, "name": entry.name, "suite": item.section.group.name, "status": entry.status}
