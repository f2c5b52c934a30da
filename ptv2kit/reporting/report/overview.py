"""The table of configurations, and what it shares with the table of runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from ptv2kit.config.suite import short_names, shown
from ptv2kit.reporting.report.model import BACKBONE, METHOD, Comparison, Configuration, Section
from ptv2kit.reporting.report.tables import (
    Cell,
    Column,
    Field,
    Table,
    count_text,
    difference_cell,
    make,
    number_cell,
    share_cell,
    stat_cell,
    stat_text,
    text_cell,
)

_OWN_COLUMNS = ("task", BACKBONE, METHOD)
_ORIGINS = {"paper": "paper", "released": "released", "other": "expected"}


def configurations_table(section: Section, key: str) -> Table:
    """Every configuration with its scores by both rules, beside the values of others."""
    items = section.configurations
    fields = [
        _field("task", "task", lambda item: Cell(item.task.name, note=item.task.metric)),
        _field("backbone", "backbone", lambda item: text_cell(item.backbone)),
        _field("method", "method", lambda item: text_cell(item.method)),
        _field("case", "case", lambda item: text_cell(item.case or None)),
        *(_setting_field(name, title) for name, title in setting_columns(section)),
        _number("seeds", "seeds", lambda item: number_cell(len(item.finished) or None, "d")),
        _number("validation_max", "validation, best epoch", lambda item: stat_cell(item.best)),
        *(_test_field(split) for split in dict.fromkeys(split for item in items for split in item.tests)),
        _number("validation_last", "validation, last epoch", lambda item: stat_cell(item.last)),
        *(field for origin, title in _ORIGINS.items() for field in _comparison_fields(origin, title)),
        _number("trained", "trained", lambda item: count_cell(item.trained)),
        _number("share", "share", lambda item: share_cell(item.share)),
        _number("seconds", "time", lambda item: time_cell(item.seconds)),
        _number("best_epoch", "kept epoch", _epochs),
        _field("source", "settings from", lambda item: text_cell(item.scores[0].entry.source or None)),
        _field("status", "status", lambda item: status_cell(item.status)),
    ]
    note = "A row for each configuration; the runs of several seeds are merged to mean ± standard deviation (seeds)."
    return make(key, "Configurations", note, fields, items, _configuration_data)


def expectations_table(section: Section, key: str) -> Table | None:
    """Every value of others beside ours, where a configuration has more than the table of configurations can show."""
    items = [(item, found) for item in section.configurations for found in item.comparisons]
    shown_already = [found for item in section.configurations for origin in _ORIGINS if (found := item.beside(origin))]
    if len(items) == len(shown_already):
        return None
    fields: list[Field[tuple[Configuration, Comparison]]] = [
        Field(Column("name", "configuration"), lambda item: text_cell(label(item[0]))),
        Field(Column("origin", "value of"), lambda item: text_cell(item[1].expectation.origin)),
        Field(Column("split", "split"), lambda item: text_cell(item[1].expectation.split)),
        Field(Column("metric", "metric"), lambda item: text_cell(item[1].expectation.metric)),
        Field(Column("value", "value", numeric=True), lambda item: _value(item[1])),
        Field(Column("ours", "ours", numeric=True), lambda item: stat_cell(item[1].ours)),
        Field(
            Column("difference", "difference", numeric=True),
            lambda item: difference_cell(item[1].difference, missed=item[1].missed),
        ),
    ]
    return make(key, "All values to reach", "", fields, items)


def label(item: Configuration) -> str:
    """A configuration in a line."""
    parts = (item.task.name, item.backbone, item.method, item.case, settings_label(item))
    return ", ".join(part for part in parts if part)


def settings_label(item: Configuration) -> str:
    """The settings that have no column of their own."""
    names = short_names(item.settings)
    return ", ".join(
        f"{names[key]}={short_value(value)}"
        for key, value in item.settings.items()
        if key not in _OWN_COLUMNS and value is not None
    )


def setting_columns(section: Section) -> list[tuple[str, str]]:
    """Keys and labels of the settings that have no column of their own."""
    keys = [key for key in section.varied if key not in _OWN_COLUMNS]
    return list(short_names(dict.fromkeys(keys)).items())


def setting_cell(settings: Mapping[str, Any], name: str) -> Cell:
    """A setting; empty if there is none of that name."""
    if name not in settings:
        return Cell("")
    value = settings[name]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(short_value(value), float(value) if is_number else None)


def short_value(value: Any) -> str:
    """A value of a setting; of a YAML file's path the name alone."""
    text = shown(value)
    return text.rsplit("/", 1)[-1].removesuffix(".yaml") if isinstance(value, str) and text.endswith(".yaml") else text


def split_title(split: str) -> str:
    """The title of the column of a test split."""
    return f"{split.replace('_', ' ')}, epoch chosen on validation"


def count_cell(count: int | None) -> Cell:
    """A number of parameters."""
    return Cell("") if count is None else Cell(count_text(count), count)


def time_cell(seconds: float | None) -> Cell:
    """Seconds as hours, minutes and seconds."""
    if seconds is None:
        return Cell("")
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    short = f"{minutes}:{rest:02}" if seconds >= 10 else f"{seconds:.1f} s"
    return Cell(f"{hours}:{minutes:02}:{rest:02}" if hours else short, seconds)


def status_cell(status: str, note: str = "") -> Cell:
    """What became of a run; anything but `finished` stands out."""
    return Cell(status, note=note, kind="" if status == "finished" else "missing")


def _field(key: str, title: str, fill: Callable[[Configuration], Cell]) -> Field[Configuration]:
    return Field(Column(key, title), fill)


def _number(key: str, title: str, fill: Callable[[Configuration], Cell]) -> Field[Configuration]:
    return Field(Column(key, title, numeric=True), fill)


def _setting_field(name: str, title: str) -> Field[Configuration]:
    return _number(name, title, lambda item: setting_cell(item.settings, name))


def _test_field(split: str) -> Field[Configuration]:
    return _number(split, split_title(split), lambda item: stat_cell(item.tests.get(split)))


def _comparison_fields(origin: str, title: str) -> list[Field[Configuration]]:
    def value(item: Configuration) -> Cell:
        found = item.beside(origin)
        return Cell("") if found is None else _value(found)

    def ours(item: Configuration) -> Cell:
        found = item.beside(origin)
        # Of the first metric the columns of the splits have it.
        return Cell("") if found is None or found.expectation.metric == item.task.metric else stat_cell(found.ours)

    def difference(item: Configuration) -> Cell:
        found = item.beside(origin)
        return Cell("") if found is None else difference_cell(found.difference, missed=found.missed)

    return [
        _number(origin, title, value),
        _number(f"{origin}_ours", "ours of that metric", ours),
        _number(f"{origin}_difference", "difference", difference),
    ]


def _value(found: Comparison) -> Cell:
    expectation = found.expectation
    return Cell(f"{expectation.value:g}", expectation.value, f"{expectation.split} {expectation.metric}")


def _epochs(item: Configuration) -> Cell:
    epochs = [score.best_epoch for score in item.finished if score.best_epoch]
    return Cell(", ".join(map(str, epochs)), min(epochs, default=None))


def _configuration_data(item: Configuration) -> dict[str, str]:
    data = {"configuration": json.dumps(item.settings, ensure_ascii=False), "case": item.case, "task": item.task.name}
    stat = item.best
    if stat is not None:
        data |= {"mean": repr(stat.mean), "deviation": repr(stat.deviation or 0.0), "seeds": str(stat.count)}
        data["text"] = stat_text(stat)
    return data
