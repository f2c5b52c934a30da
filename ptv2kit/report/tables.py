"""The tables of a report: configurations, their values beside others, runs, and scores by task."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from ptv2kit.report.cells import (
    MINUS,
    Cell,
    Column,
    Table,
    count_text,
    is_number,
    make,
    number,
    short_value,
    signed,
    stat_cell,
    stat_text,
    text,
)
from ptv2kit.report.configurations import BACKBONE, METHOD, Comparison, Configuration, Score, Section, Stat
from ptv2kit.report.records import Results
from ptv2kit.spec.suite import short_names

Item = TypeVar("Item")
_OWN_COLUMNS = ("task", BACKBONE, METHOD, "init_from")
_ORIGINS = {"paper": "paper", "released": "released", "other": "expected"}


def configurations_table(section: Section, key: str) -> Table:
    """Every configuration with its scores by both rules, beside the values of others."""
    items = section.configurations
    splits = dict.fromkeys(split for item in items for split in item.tests)
    columns: list[Column[Configuration]] = [
        Column("task", "task", lambda item: Cell(item.task_name, note=item.task.metric)),
        Column("backbone", "backbone", lambda item: text(item.backbone_name)),
        Column("method", "method", lambda item: text(item.method_name)),
        Column("case", "case", lambda item: text(item.labels.get(item.case, item.case))),
        *(_setting(name, title, lambda item: item.settings) for name, title in _settings(section)),
        Column("seeds", "seeds", lambda item: number(len(item.finished) or None, "d"), numeric=True),
        Column("validation_max", "validation, best epoch", lambda item: stat_cell(item.best), numeric=True),
        *(_test(split, lambda item, split: stat_cell(item.tests.get(split))) for split in splits),
        Column("validation_last", "validation, last epoch", lambda item: stat_cell(item.last), numeric=True),
        *(column for origin, title in _ORIGINS.items() for column in _comparison(origin, title)),
        Column("trained", "trained", lambda item: _trained(item.results), numeric=True),
        Column("share", "share", lambda item: _share(item.results and item.results.parameters.share), numeric=True),
        Column("loss", "training loss", lambda item: stat_cell(item.loss), numeric=True),
        Column("seconds", "time", lambda item: _time(item.seconds), numeric=True),
        Column("cpu_seconds", "CPU time of steps", lambda item: _time(item.cpu_seconds), numeric=True),
        Column("best_epoch", "kept epoch", _kept_epochs, numeric=True),
        Column("source", "settings from", lambda item: text(item.scores[0].entry.source)),
        Column("status", "status", lambda item: _status(item.status)),
    ]
    note = (
        "A row for each configuration; the runs of several seeds are merged to mean ± standard deviation (seeds). "
        "The training loss is the mean of the last eighth of what was logged."
    )

    def data(item: Configuration) -> dict[str, str]:
        settings = json.dumps(item.settings, ensure_ascii=False)
        found = {"configuration": settings, "case": item.case, "task": item.task.name}
        if (stat := item.best) is not None:
            found |= {"mean": repr(stat.mean), "deviation": repr(stat.deviation or 0.0), "seeds": str(stat.count)}
            found["text"] = stat_text(stat)
        return found

    return make(key, "Configurations", note, columns, items, data)


def expectations_table(section: Section, key: str) -> Table | None:
    """Every value of others beside ours, where a configuration has more than the table of configurations can show."""
    items = [(item, found) for item in section.configurations for found in item.comparisons]
    if len(items) == sum(item.beside(origin) is not None for item in section.configurations for origin in _ORIGINS):
        return None
    columns: list[Column[tuple[Configuration, Comparison]]] = [
        Column("name", "configuration", lambda item: text(label(item[0]))),
        Column("origin", "value of", lambda item: text(item[1].expectation.origin)),
        Column("split", "split", lambda item: text(item[1].expectation.split)),
        Column("metric", "metric", lambda item: text(item[1].expectation.metric)),
        Column("value", "value", lambda item: _value(item[1]), numeric=True),
        Column("ours", "ours", lambda item: stat_cell(item[1].ours), numeric=True),
        Column("difference", "difference", lambda item: _difference(item[1]), numeric=True),
    ]
    return make(key, "All values to reach", "", columns, items)


def runs_table(sections: Sequence[Section]) -> Table:
    """One row for each task of each run, and for what is missing; the group has a column if there are several."""
    items = [
        _Run(section, item, score) for section in sections for item in section.configurations for score in item.scores
    ]
    settings = dict(pair for section in sections for pair in _settings(section))
    splits = dict.fromkeys(split for item in items for split in item.score.tests)
    columns: list[Column[_Run]] = [
        Column("run", "run", lambda item: text(item.score.entry.name)),
        Column("suite", "suite", lambda item: text(item.section.group.name if len(sections) > 1 else "")),
        Column("task", "task", lambda item: text(item.configuration.task_name)),
        Column("backbone", "backbone", lambda item: text(item.configuration.backbone_name)),
        Column("method", "method", lambda item: text(item.configuration.method_name)),
        Column("case", "case", lambda item: text(item.score.entry.case)),
        *(_setting(name, title, lambda item: item.score.entry.settings) for name, title in settings.items()),
        Column("seed", "seed", lambda item: number(item.score.seed, "d"), numeric=True),
        Column("metric", "metric", lambda item: text(item.configuration.task.metric)),
        Column("validation_max", "validation, best epoch", lambda item: number(item.score.best), numeric=True),
        *(_test(split, lambda item, split: number(item.score.tests.get(split))) for split in splits),
        Column("validation_last", "validation, last epoch", lambda item: number(item.score.last), numeric=True),
        Column("best_epoch", "kept epoch", lambda item: number(item.score.best_epoch, "g"), numeric=True),
        Column("epochs", "epochs", lambda item: number(item.results and item.results.epochs, "d"), numeric=True),
        Column("trained", "trained", lambda item: _trained(item.results), numeric=True),
        Column("seconds", "time", lambda item: _time(item.results and item.results.seconds), numeric=True),
        Column("status", "status", _run_status),
    ]

    def data(item: _Run) -> dict[str, str]:
        entry = item.score.entry
        folder = "" if entry.run is None else entry.run.as_posix()
        return {"run": folder, "name": entry.name, "suite": item.section.group.name, "status": entry.status}

    return make(
        "runs", "All runs", "Runs that have not finished are shown and do not count in any mean.", columns, items, data
    )


class _Run(NamedTuple):
    """A row of the table of runs."""

    section: Section
    configuration: Configuration
    score: Score

    @property
    def results(self) -> Results | None:
        return self.score.entry.results


class Headline(NamedTuple):
    """Which score of a task is shown where there is room for one."""

    metric: str
    split: str

    @property
    def text(self) -> str:
        """In words, with the rule that chose the epoch."""
        rule = "best epoch" if self.split == "validation" else "epoch chosen on validation"
        return f"{self.metric}, {self.split.replace('_', ' ')}, {rule}"

    def of(self, item: Configuration) -> Stat | None:
        """Ours."""
        is_best = self == (item.task.metric, "validation")
        return item.best if is_best else item.at(self.split, self.metric)

    def other(self, item: Configuration, origin: str) -> Comparison | None:
        """The value of an origin for the same metric and split."""
        wanted = (origin, self.metric, self.split)
        found = ((each, each.expectation) for each in item.comparisons)
        return next((each for each, other in found if (other.origin, other.metric, other.split) == wanted), None)


def headlines(items: Sequence[Configuration]) -> dict[str, Headline]:
    """The score of each task that is shown: of what the paper has, else on the test split, else on the validation one.

    A published score that no finished run has measured is not taken.
    """
    found: dict[str, Headline] = {}
    for task in dict.fromkeys(item.task.name for item in items):
        own = [item for item in items if item.task.name == task]
        finished = any(item.finished for item in own)
        published = [
            compared.expectation
            for origin in ("paper", "released")
            for item in own
            if (compared := item.beside(origin)) is not None and (compared.ours or not finished)
        ]
        tests = [split for item in own for split in item.tests]
        if published:
            found[task] = Headline(published[0].metric, published[0].split)
        else:
            found[task] = Headline(own[0].task.metric, tests[0] if tests else "validation")
    return found


def pivot_table(section: Section, key: str) -> Table | None:
    """A table like the paper's, backbones and methods by tasks.

    None of one task, of a search, and where most of the table would be empty.
    """
    items = section.configurations
    tasks = headlines(items)
    names = _row_names(items)
    if section.group.search or len(tasks) < 2 or 2 * len(items) < len(set(names)) * len(tasks):
        return None
    by_row: dict[tuple[str, str, str], dict[str, Configuration]] = {}
    for item, name in zip(items, names, strict=True):
        by_row.setdefault(name, {})[item.task.name] = item
    # A column of labels that says the same in every row, or nothing, is left out.
    labels = [
        Column[tuple[str, str, str]](name, title, lambda row, index=index: text(row[index]))
        for index, (name, title) in enumerate((("backbone",) * 2, ("method",) * 2, ("other", "settings")))
        if index == 0 or len({row[index] for row in by_row}) > 1
    ]
    scores = [
        Column[tuple[str, str, str]](
            f"task:{task}",
            f"{section.group.labels.get(task, task)} ({headline.text})",
            lambda row, task=task, headline=headline: _pivot_cell(by_row[row].get(task), headline),
            numeric=True,
        )
        for task, headline in tasks.items()
    ]
    note = "Ours; beneath it the paper's and the released value where they are known, and how ours differs."
    return make(key, "Scores by task", note, [*labels, *scores], list(by_row), lambda row: {"row": " ".join(row)})


def _row_names(items: Sequence[Configuration]) -> list[tuple[str, str, str]]:
    """Backbone, method, and as much of case and settings as is needed to tell rows apart within a task."""
    plain = [(item.backbone_name, item.method_name, "") for item in items]
    cased = [(item.backbone_name, item.method_name, _case(item)) for item in items]
    for names in (plain, cased):
        if len({(name, item.task.name) for name, item in zip(names, items, strict=True)}) == len(items):
            return names
    return [
        (item.backbone_name, item.method_name, ", ".join(part for part in (_case(item), settings_label(item)) if part))
        for item in items
    ]


def _pivot_cell(item: Configuration | None, headline: Headline) -> Cell:
    if item is None:
        return Cell(MINUS)
    stat = headline.of(item)
    notes: list[str] = []
    if (exact := item.at(headline.split, "squad_exact_match")) is not None and headline.metric != "squad_exact_match":
        notes.append(f"exact match {exact.mean:.1f}")
    for origin in ("paper", "released"):
        if (other := headline.other(item, origin)) is not None:
            against = "" if other.difference is None else f" ({signed(other.difference)})"
            notes.append(f"{origin} {other.expectation.value:g}{against}")
    if stat is None:
        return Cell(item.status, None, "; ".join(notes), "missing")
    notes += [item.status] if item.status != "finished" else []
    missed = any(compared.missed for compared in item.comparisons)
    return Cell(stat_text(stat), stat.mean, "; ".join(notes), "bad" if missed else "")


def label(item: Configuration) -> str:
    """A configuration in a line."""
    parts = (item.task_name, item.backbone_name, item.method_name, _case(item), settings_label(item))
    return ", ".join(part for part in parts if part)


def _case(item: Configuration) -> str:
    """The case of a configuration, empty where it only repeats the method."""
    return "" if item.case == item.method else item.labels.get(item.case, item.case)


def settings_label(item: Configuration) -> str:
    """The settings that have no column of their own."""
    return ", ".join(
        f"{item.labels.get(key, name)}={short_value(item.settings[key])}"
        for key, name in short_names(item.settings).items()
        if key not in _OWN_COLUMNS and item.settings[key] is not None
    )


def _settings(section: Section) -> list[tuple[str, str]]:
    """Keys and labels of the settings that have no column of their own."""
    names = short_names(dict.fromkeys(key for key in section.varied if key not in _OWN_COLUMNS))
    return [(key, section.group.labels.get(key, name)) for key, name in names.items()]


def _setting(key: str, title: str, settings: Callable[[Item], Mapping[str, Any]]) -> Column[Item]:
    def fill(item: Item) -> Cell:
        if key not in settings(item):
            return Cell()
        value = settings(item)[key]
        return Cell(short_value(value), float(value) if is_number(value) else None)

    return Column(key, title, fill, numeric=True)


def _test(split: str, fill: Callable[[Item, str], Cell]) -> Column[Item]:
    title = f"{split.replace('_', ' ')}, epoch chosen on validation"
    return Column(split, title, lambda item: fill(item, split), numeric=True)


def _comparison(origin: str, title: str) -> list[Column[Configuration]]:
    def value(item: Configuration) -> Cell:
        return Cell() if (found := item.beside(origin)) is None else _value(found)

    def ours(item: Configuration) -> Cell:
        found = item.beside(origin)
        # Of the first metric the columns of the splits have it.
        return Cell() if found is None or found.expectation.metric == item.task.metric else stat_cell(found.ours)

    def difference(item: Configuration) -> Cell:
        return Cell() if (found := item.beside(origin)) is None else _difference(found)

    return [
        Column(origin, title, value, numeric=True),
        Column(f"{origin}_ours", "ours of that metric", ours, numeric=True),
        Column(f"{origin}_difference", "difference", difference, numeric=True),
    ]


def _value(found: Comparison) -> Cell:
    expectation = found.expectation
    return Cell(f"{expectation.value:g}", expectation.value, f"{expectation.split} {expectation.metric}")


def _difference(found: Comparison) -> Cell:
    value = found.difference
    if value is None:
        return Cell()
    # A missed value stands out by a word too, for those who do not see the colour.
    kind = "bad" if found.missed else "good" if round(value, 2) >= 0 else ""
    return Cell(signed(value), value, "missed" if found.missed else "", kind)


def _trained(results: Results | None) -> Cell:
    return Cell() if results is None else Cell(count_text(results.parameters.trained), results.parameters.trained)


def _share(share: float | None) -> Cell:
    return Cell() if share is None else Cell(f"{100 * share:.3g} %", share)


def _time(seconds: float | None) -> Cell:
    """Seconds as hours, minutes and seconds."""
    if seconds is None:
        return Cell()
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    short = f"{minutes}:{rest:02}" if seconds >= 10 else f"{seconds:.1f} s"
    return Cell(f"{hours}:{minutes:02}:{rest:02}" if hours else short, seconds)


def _status(status: str, note: str = "") -> Cell:
    """What became of a run; anything but `finished` stands out."""
    return Cell(status, note=note, kind="" if status == "finished" else "missing")


def _run_status(item: _Run) -> Cell:
    return _status(item.score.entry.status, "other values than the suite's" if item.score.entry.changed else "")


def _kept_epochs(item: Configuration) -> Cell:
    epochs = [score.best_epoch for score in item.finished if score.best_epoch]
    return Cell(", ".join(f"{epoch:g}" for epoch in epochs), min(epochs, default=None))
