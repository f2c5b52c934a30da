"""Entries that differ only by seed become one configuration, with mean and deviation, beside published values."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

from ptv2kit.report.entries import SEED, Entry, Group
from ptv2kit.report.records import Metrics, Results, Task
from ptv2kit.spec.recipe import Expectation

BACKBONE = "backbone.name"
METHOD = "method"
_METHODS = {
    "p_tuning_v2": "P-Tuning v2",
    "prefix_tuning": "prefix tuning",
    "prompt_tuning": "prompt tuning",
    "p_tuning": "P-tuning",
    "linear_probe": "linear probe",
    "lora": "LoRA",
    "fine_tuning": "fine-tuning",
}
"""As the paper writes them."""


@final
@dataclass(frozen=True)
class Stat:
    """Scores of several seeds; the sample standard deviation (n - 1) is None of a single one."""

    mean: float
    deviation: float | None
    count: int

    @staticmethod
    def of(values: Iterable[float | None]) -> Stat | None:
        """The mean of the values that exist, None without any."""
        found = [value for value in values if value is not None]
        if not found:
            return None
        return Stat(statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else None, len(found))


@final
@dataclass(frozen=True)
class Score:
    """What one run reached on one task."""

    entry: Entry
    task: Task

    @property
    def seed(self) -> int | None:
        """Of the training, None if it is not known."""
        return self.entry.values.get(SEED)

    @cached_property
    def metrics(self) -> Metrics:
        """At the epoch that was kept, by split and metric."""
        results = self.entry.results
        return {} if results is None else self.task.metrics(results, several=len(self.entry.tasks) > 1)

    @cached_property
    def history(self) -> list[float]:
        """The first metric on the validation split after each epoch."""
        results = self.entry.results
        return [] if results is None else self.task.history(results, several=len(self.entry.tasks) > 1)

    @property
    def curve(self) -> list[tuple[float, float]]:
        """Epochs, and the first metric on the validation split after each."""
        results = self.entry.results
        epochs = () if results is None else results.evaluated or tuple(range(1, len(self.history) + 1))
        return list(zip(epochs, self.history, strict=False))

    @property
    def best(self) -> float | None:
        """The highest first metric on the validation split over epochs, or that of the epoch that was kept."""
        return max(self.history, default=self.metrics.get("validation", {}).get(self.task.metric))

    @property
    def last(self) -> float | None:
        """The first metric on the validation split after the last epoch; None if the history was not kept."""
        return self.history[-1] if self.history else None

    @property
    def tests(self) -> dict[str, float]:
        """The first metric on each test split at the epoch that was kept."""
        name = self.task.metric
        return {split: found[name] for split, found in self.metrics.items() if split != "validation" and name in found}

    @property
    def best_epoch(self) -> float | None:
        """The epoch that was kept."""
        results = self.entry.results
        return None if results is None else results.best_epochs.get(self.task.name, results.best_epoch) or None


@final
@dataclass(frozen=True)
class Comparison:
    """A published or earlier value beside ours: the same metric on the same split at the epoch that was kept."""

    expectation: Expectation
    ours: Stat | None

    @property
    def difference(self) -> float | None:
        """Ours minus the other."""
        return None if self.ours is None else self.ours.mean - self.expectation.value

    @property
    def missed(self) -> bool:
        """Whether ours is too low; a released value is only shown."""
        found, wanted = self.difference, self.expectation
        # A mean may differ from its values in the last bit.
        return wanted.origin != "released" and found is not None and found < -wanted.tolerance - 1e-9


@final
@dataclass(frozen=True)
class Configuration:
    """Runs that differ by seed alone, on one of their tasks.

    Args:
        case: of the suite, empty without cases.
        settings: without the seed.
        values: of the recipe of the first of them.
        scores: of every seed, also of those that are missing.
        repeated: runs that do not count because a later one has the same seed.
        labels: what values are called, where the suite says so.
    """

    case: str
    settings: Mapping[str, Any]
    values: Mapping[str, Any]
    task: Task
    scores: tuple[Score, ...]
    repeated: tuple[Entry, ...]
    labels: Mapping[str, str]

    @cached_property
    def finished(self) -> tuple[Score, ...]:
        """The scores that count."""
        return tuple(score for score in self.scores if score.entry.finished)

    @property
    def backbone(self) -> str:
        """Name of the backbone; of a local folder its own name alone."""
        name = str(self.values.get(BACKBONE, "?"))
        return name.rstrip("/").rsplit("/", 1)[-1] if name.startswith(("/", "./", "../")) else name

    @property
    def method(self) -> str:
        """Name of the method."""
        return str(self.values.get(METHOD, "?"))

    @property
    def joint(self) -> bool:
        """Whether this task shared backbone and prompt with others: the first stage of multi-task P-Tuning v2."""
        return len(self.scores[0].entry.tasks) > 1

    @property
    def method_name(self) -> str:
        """The method as the paper writes it, with the stage of multi-task training; or as the suite's labels say."""
        name = self.labels.get(self.method) or _METHODS.get(self.method, self.method)
        if self.joint:
            return f"{name}, joint stage"
        return f"multi-task {name}" if self.values.get("init_from") else name

    @property
    def task_name(self) -> str:
        """The task as the suite's labels call it, else its own name."""
        return self.labels.get(self.task.name, self.task.name)

    @property
    def backbone_name(self) -> str:
        """The backbone as the suite's labels call it, else its own name."""
        return self.labels.get(self.backbone, self.backbone)

    @property
    def best(self) -> Stat | None:
        """The maximum over epochs on the validation split."""
        return Stat.of(score.best for score in self.finished)

    @property
    def last(self) -> Stat | None:
        """After the last epoch, on the validation split."""
        return Stat.of(score.last for score in self.finished)

    def at(self, split: str, metric: str) -> Stat | None:
        """A metric on a split at the epoch that was kept."""
        return Stat.of(score.metrics.get(split, {}).get(metric) for score in self.finished)

    @property
    def tests(self) -> dict[str, Stat]:
        """The first metric on each test split at the epoch that was chosen on the validation split."""
        splits = dict.fromkeys(split for score in self.finished for split in score.tests)
        return {split: stat for split in splits if (stat := self.at(split, self.task.metric)) is not None}

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        """With every value that the runs should reach on this task."""
        wanted = dict.fromkeys(
            expectation
            for score in self.scores
            for expectation in score.entry.expect
            if expectation.task in (None, self.task.name)
        )
        return tuple(Comparison(item, self.at(item.split, item.metric)) for item in wanted)

    def beside(self, origin: str) -> Comparison | None:
        """The comparison with the value of an origin: of the first metric, if there is one."""
        found = [item for item in self.comparisons if item.expectation.origin == origin]
        first = [item for item in found if item.expectation.metric == self.task.metric]
        return next(iter(first or found), None)

    @property
    def status(self) -> str:
        """`finished`, or how many of the seeds are what."""
        counts = Counter(score.entry.status for score in self.scores)
        if len(counts) == 1:
            return next(iter(counts))
        return ", ".join(f"{count} {status}" for status, count in counts.items())

    @property
    def seconds(self) -> float | None:
        """Mean wall time of the training."""
        stat = Stat.of(score.entry.results.seconds for score in self.finished if score.entry.results is not None)
        return None if stat is None else stat.mean

    @property
    def loss(self) -> Stat | None:
        """On training rows at the end, of all tasks of a run together."""
        return Stat.of(score.entry.logged.loss for score in self.finished if score.entry.logged is not None)

    @property
    def cpu_seconds(self) -> float | None:
        """Mean processor time of the training without evaluations."""
        stat = Stat.of(score.entry.logged.cpu_seconds for score in self.finished if score.entry.logged is not None)
        return None if stat is None else stat.mean

    @property
    def results(self) -> Results | None:
        """Those of the first run that has any, for the counts of parameters, which all seeds share."""
        return next((score.entry.results for score in self.scores if score.entry.results is not None), None)


@final
@dataclass(frozen=True)
class Section:
    """A group with its configurations, in its order."""

    group: Group
    configurations: tuple[Configuration, ...]

    @property
    def varied(self) -> list[str]:
        """Keys of settings that have several values, without the seed."""
        keys = dict.fromkeys(key for item in self.configurations for key in item.settings)
        return [key for key in keys if len({json.dumps(item.settings.get(key)) for item in self.configurations}) > 1]

    def with_status(self, *statuses: str) -> list[Entry]:
        """Entries with one of the statuses."""
        return [entry for entry in self.group.entries if entry.status in statuses]

    @property
    def unfinished(self) -> list[Entry]:
        """Entries that were started and have neither ended nor failed."""
        ended = ("finished", "failed", "stopped", "missing")
        return [entry for entry in self.group.entries if entry.status not in ended]


def merge(group: Group) -> Section:
    """Merge the entries of a group that differ by seed alone; of several with one seed the latest finished counts."""
    found: dict[str, list[tuple[Entry, Task]]] = {}
    for entry in group.entries:
        settings = {key: value for key, value in entry.settings.items() if key != SEED}
        name = entry.name if group.search else ""  # the final training has the settings of the best trial
        for task in entry.tasks:
            starts = bool(entry.values.get("init_from"))
            same = [name, entry.case, settings, task.name, task.metric, len(entry.tasks), starts]
            found.setdefault(json.dumps(same, sort_keys=True), []).append((entry, task))
    return Section(group, tuple(_configuration(members, group.labels) for members in found.values()))


def _configuration(members: Sequence[tuple[Entry, Task]], labels: Mapping[str, str]) -> Configuration:
    first, task = members[0]
    counted: dict[Any, Entry] = {}
    repeated: list[Entry] = []
    for entry, _ in members:
        seed = entry.values.get(SEED)
        if seed in counted:
            pair = (counted[seed], entry)
            later = max(pair, key=lambda item: (item.finished, item.run.name if item.run else ""))
            repeated += [other for other in pair if other is not later]
            entry = later
        counted[seed] = entry
    settings = {key: value for key, value in first.settings.items() if key != SEED}
    scores = tuple(Score(entry, task) for entry in counted.values())
    return Configuration(first.case, settings, first.values, task, scores, tuple(repeated), labels)
