"""What stands behind the scores: paired differences, confused classes, scores by type, and the worst mistakes."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from scipy.stats import t as student

from ptv2kit.files import is_file
from ptv2kit.report.cells import Cell, Column, Table, make, number, signed, text
from ptv2kit.report.configurations import Configuration, Score, Section
from ptv2kit.report.tables import Headline, headlines, label

_MISTAKES = 20
_MOST_CLASSES = 12
_LONGEST = 300
_CONFIDENCE = 0.95


class _Pair(NamedTuple):
    """P-Tuning v2 and something else on one task, seed by seed."""

    one: Configuration
    other: Configuration
    differences: list[float]


def evidence(section: Section, key: str) -> list[Table]:
    """The tables behind the scores of a section; none of a search, whose entries are no results."""
    if section.group.search:
        return []
    shown = headlines(section.configurations)
    found = [_differences(section, shown, f"{key}-differences")]
    for number_, (task, headline) in enumerate(shown.items()):
        best = _best(section, task, headline)
        if best is not None:
            found += _of_best(best, headline, f"{key}-task-{number_}")
    return [table for table in found if table is not None]


def largest_class(score: Score, split: str) -> float | None:
    """The accuracy of naming the most frequent class of a split always; None where rows have no single class."""
    classes = [line["reference"] for line in _predictions(score, split) if isinstance(line.get("reference"), str)]
    return 100 * max(Counter(classes).values()) / len(classes) if classes else None


def _differences(section: Section, shown: Mapping[str, Headline], key: str) -> Table | None:
    pairs = [pair for task, headline in shown.items() for pair in _pairs(section, task, headline)]
    if not pairs:
        return None
    columns = [
        Column[_Pair]("task", "task", lambda pair: text(pair.one.task_name)),
        Column[_Pair]("one", "method", lambda pair: text(_named(pair.one, pair.other))),
        Column[_Pair]("other", "minus", lambda pair: text(_named(pair.other, pair.one))),
        Column[_Pair]("seeds", "seeds", lambda pair: number(len(pair.differences), "d"), numeric=True),
        Column[_Pair]("difference", "difference", _difference, numeric=True),
        Column[_Pair]("interval", "95 % interval", _interval, numeric=True),
    ]
    note = (
        "Differences of runs with the same seed, which share their training rows: mean, and the interval of Student's "
        "t. An interval that contains 0 shows no difference."
    )
    return make(key, "Paired differences", note, columns, pairs)


def _pairs(section: Section, task: str, headline: Headline) -> Iterator[_Pair]:
    """P-Tuning v2 with every other configuration of a task that has two seeds or more in common with it."""
    items = [item for item in section.configurations if item.task.name == task and not item.joint and item.finished]
    ours = [item for item in items if item.method == "p_tuning_v2" and not item.values.get("init_from")]
    if len(ours) != 1:
        return
    own = _by_seed(ours[0], headline)
    for other in items:
        theirs = _by_seed(other, headline)
        common = [seed for seed in own if seed in theirs]
        if other is not ours[0] and len(common) > 1:
            yield _Pair(ours[0], other, [own[seed] - theirs[seed] for seed in common])


def _by_seed(item: Configuration, headline: Headline) -> dict[int | None, float]:
    values = {score.seed: score.metrics.get(headline.split, {}).get(headline.metric) for score in item.finished}
    return {seed: value for seed, value in values.items() if value is not None}


def _named(item: Configuration, beside: Configuration) -> str:
    return item.method_name if item.method_name != beside.method_name else label(item)


def _difference(pair: _Pair) -> Cell:
    mean = statistics.fmean(pair.differences)
    return Cell(signed(mean), mean)


def _interval(pair: _Pair) -> Cell:
    count, mean = len(pair.differences), statistics.fmean(pair.differences)
    half = float(student.ppf((1 + _CONFIDENCE) / 2, count - 1)) * statistics.stdev(pair.differences) / math.sqrt(count)
    return Cell(f"{signed(mean - half)} to {signed(mean + half)}", 2 * half)


def _best(section: Section, task: str, headline: Headline) -> tuple[Configuration, Score] | None:
    """The configuration with the highest score of a task, and its first run whose predictions are there."""
    items = [item for item in section.configurations if item.task.name == task and headline.of(item) is not None]
    for item in sorted(items, key=lambda item: -(stat.mean if (stat := headline.of(item)) else 0.0)):
        for score in item.finished:
            if next(_predictions(score, headline.split), None) is not None:
                return item, score
    return None


def _of_best(best: tuple[Configuration, Score], headline: Headline, key: str) -> list[Table | None]:
    item, score = best
    lines = list(_predictions(score, headline.split))
    which = f"{label(item)}, seed {score.seed}, {headline.split.replace('_', ' ')}"
    return [
        _confusion(lines, f"{key}-classes", f"Confused classes: {item.task_name}", which),
        _types(score, headline.split, f"{key}-types", f"Scores by type: {item.task_name}", which),
        _mistakes(lines, f"{key}-mistakes", f"Most confident mistakes: {item.task_name}", which),
    ]


def _confusion(lines: Sequence[Mapping[str, Any]], key: str, title: str, which: str) -> Table | None:
    pairs = Counter((line["reference"], line["label"]) for line in lines if _single(line))
    names = sorted({name for pair in pairs for name in pair})
    if not 2 <= len(names) <= _MOST_CLASSES:
        return None
    columns = [Column[str]("right", "right", lambda name: text(name))]
    for found in names:
        columns.append(
            Column(f"found:{found}", found, lambda name, of=found: number(pairs[name, of], "d"), numeric=True)
        )
    return make(key, title, f"Rows: the right class; columns: what was found. Of {which}.", columns, names)


def _types(score: Score, split: str, key: str, title: str, which: str) -> Table | None:
    results = score.entry.results
    several = len(score.entry.tasks) > 1
    found = () if results is None else results.types.get(f"{score.task.name}/{split}" if several else split, ())
    rows = [row for row in found if row.get("support")]
    if not rows:
        return None
    columns = [
        Column[dict[str, Any]]("name", "type", lambda row: text(row["name"])),
        *(
            Column[dict[str, Any]](name, name, lambda row, name=name: number(row[name], ".1f"), numeric=True)
            for name in ("precision", "recall", "f1")
        ),
        Column[dict[str, Any]]("support", "in data", lambda row: number(row["support"], "d"), numeric=True),
    ]
    return make(key, title, f"Of {which}.", columns, sorted(rows, key=lambda row: -row["support"]))


def _mistakes(lines: Sequence[Mapping[str, Any]], key: str, title: str, which: str) -> Table | None:
    wrong = [line for line in lines if line.get("probability") is not None and _is_wrong(line)]
    worst = sorted(wrong, key=lambda line: -float(line["probability"]))[:_MISTAKES]
    if not worst:
        return None
    columns = [
        Column[Mapping[str, Any]]("row", "row", lambda line: text(str(line["location"]).rsplit("/", 1)[-1])),
        Column[Mapping[str, Any]]("right", "right", lambda line: text(_shown(line["reference"], line))),
        Column[Mapping[str, Any]]("found", "found", lambda line: text(_shown(line["label"], line))),
        Column[Mapping[str, Any]]("probability", "p", lambda line: number(float(line["probability"])), numeric=True),
        Column[Mapping[str, Any]]("text", "text", lambda line: text(_text_of(line))),
    ]
    note = f"The wrong answers with the highest probability, {len(worst)} of {len(wrong)} that are wrong. Of {which}."
    return make(key, title, note, columns, worst)


def _single(line: Mapping[str, Any]) -> bool:
    return isinstance(line.get("reference"), str) and isinstance(line.get("label"), str)


def _is_wrong(line: Mapping[str, Any]) -> bool:
    right, found = line["reference"], line["label"]
    if isinstance(found, str) and isinstance(right, list):  # answers: any of the right ones will do
        return found not in right and bool(found or right)
    return right != found


def _shown(value: Any, line: Mapping[str, Any]) -> str:
    """A label in a cell: of tags the spans, or the tags that differ, with their words."""
    if not isinstance(value, list):
        return str(value)
    tags: list[str] = [str(item) for item in value]
    words, both = _words_of(line, len(tags)), (line["label"], line["reference"])
    if not any(tag[:2] in ("B-", "I-") for labels in both if isinstance(labels, list) for tag in labels):
        found, right = both
        if words and len(found) == len(right):
            wrong = [place for place in range(len(tags)) if found[place] != right[place]]
            return _cut("  ".join(f"{words[place]}/{tags[place]}" for place in wrong))
        return " | ".join(dict.fromkeys(tags))
    if tags == ["O"] * len(tags):
        return "no span"
    spans: list[str] = []
    for place, tag in enumerate(tags):
        word = words[place] if len(words) == len(tags) else str(place)
        if tag.startswith("B-"):
            spans.append(f"{tag[2:]}[{word}]")
        elif tag.startswith("I-") and spans:
            spans[-1] = f"{spans[-1][:-1]} {word}]"
    return _cut("  ".join(spans))


def _words_of(line: Mapping[str, Any], count: int) -> list[str]:
    """The words that the tags of a row belong to; none where the labels are not of words."""
    columns = [value for value in line.get("input", {}).values() if isinstance(value, list) and len(value) == count]
    return [str(word) for word in columns[0]] if columns else []


def _text_of(line: Mapping[str, Any]) -> str:
    """What the model read of a row, without numbers such as the place of a predicate."""
    columns = [value for value in line.get("input", {}).values() if isinstance(value, str | list)]
    return _cut(" / ".join(" ".join(map(str, value)) if isinstance(value, list) else value for value in columns))


def _cut(shown: str) -> str:
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"


def _predictions(score: Score, split: str) -> Iterator[Mapping[str, Any]]:
    """The lines of a run's predictions; none where they are not on this machine."""
    run = score.entry.run
    if run is None:
        return
    own = f"{score.task.name}/" if len(score.entry.tasks) > 1 else ""
    path = run / "predictions" / f"{own}{split}.jsonl"
    if is_file(path):
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)
