"""Settings that contradict each other are found before anything is read, each at its line and column."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptv2kit.errors import ConfigError
from ptv2kit.spec.load import load_recipe, load_task

DATA = "data: {source: jsonl, splits: {train: a, validation: b}}\n"
CLASSES = f'task: t\n{DATA}input: {{text: "{{a}}"}}\nlabels: {{scheme: classes, column: c, names: [no, yes]}}\n'
CHOICES = (
    f'task: t\n{DATA}input: {{text: "{{a}}", choices: ["{{b}}", "{{c}}"]}}\nlabels: {{scheme: choices, column: c}}\n'
)
TAGS = f"task: t\n{DATA}input: {{words: w}}\nlabels: {{scheme: iob2, column: c}}\n"
ANSWER = (
    f'task: t\n{DATA}input: {{question: "{{q}}", context: "{{c}}"}}\nlabels: {{scheme: start_end, column: answers}}\n'
)


def problems_of(path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(ConfigError) as info:
        load_task(path)
    return str(info.value).replace(f"{path.parent}/", "")


@pytest.mark.parametrize(
    ("task", "old", "new", "message"),
    [
        (
            CLASSES,
            "names: [no, yes]}",
            "names: [no, yes]}\nmetrics: [multirc_f1a]",
            ":5:11: error: metric 'multirc_f1a' needs 'labels.group'",
        ),
        (
            CLASSES,
            "names: [no, yes]}",
            'names: [no, yes], group: {by: "{q}"}}\nmetrics: [record_f1]',
            ":5:11: error: metric 'record_f1' needs 'labels.group.candidate' and 'labels.group.golds'",
        ),
        (CLASSES, ", names: [no, yes]}", ', group: {by: "{q}"}}', "'labels.group' needs 'labels.names'"),
        (CHOICES, '"{c}"]', '"{b}"]', ":3:31: error: 'input.choices' has the same choice twice"),
        (CHOICES, '"{c}"]', '"c"]', ":3:39: error: 'input.choices[1]' names no column, such as '{choice1}'"),
        (CHOICES, "column: c}", "column: c, names: [a, b, c]}", "'labels.names' has 3 names for 2 choices"),
        (CHOICES, "column: c}", "column: c, names: [a]}", "'labels.names' has 1 names for 2 choices"),
        (CLASSES, "task: t", 'task: t\ndistinct: "id"', ":2:11: error: 'distinct' names no column, such as '{id}'"),
        (
            CLASSES,
            "names: [no, yes]}",
            "names: [no, yes], group: {by: q}}",
            "'labels.group.by' names no column, such as '{idx}'",
        ),
        (
            CLASSES,
            "task: t",
            'task: t\nderive: {x: {text: "{a}", replace: {"": "-"}}}',
            "'derive.x.replace' replaces an empty text",
        ),
        (
            CLASSES,
            "task: t",
            "task: t\nexpand: [{column: q, item: x}, {column: x, item: x}]",
            "'expand' makes the column 'x' twice",
        ),
        (
            CLASSES,
            "task: t",
            "task: t\nexpand: [{column: q, item: x}]\nderive: {x: {column: q, split: s}}",
            "'derive' makes the column 'x', which 'expand' has made",
        ),
        (
            ANSWER,
            "answers}",
            "answers, unanswerable: true}\nmetrics: [squad_no_answer_accuracy]",
            "the first metric chooses the best epoch; 'squad_no_answer_accuracy' cannot",
        ),
        (TAGS, "column: c}", "column: c, names: [B-PER]}", "'labels.names' lists span types; 'B-PER' is a tag"),
        (TAGS, "column: c}", "column: c, names: {O: PER}}", "'labels.names' lists span types; 'O' is a tag"),
        (
            ANSWER,
            'context: "{c}"}',
            'context: "{c}", stride: 384}',
            "'input.stride' must be less than 'input.max_length' (384), found 384",
        ),
        (ANSWER, '"{q}"', '"why?"', ":3:19: error: 'input.question' names no column, such as '{question}'"),
        (ANSWER, "column: answers", "column: answers, text: t", "'labels' must have either 'column' or 'text'"),
        (ANSWER, ", column: answers", "", "'labels' must have either 'column' or 'text'"),
        (ANSWER, "column: answers", "column: answers, start: s", "'labels.start' needs 'labels.text'"),
        (
            ANSWER,
            "answers}",
            "answers}\nmetrics: [squad_best_f1]",
            "metric 'squad_best_f1' needs 'labels.unanswerable: true'",
        ),
        (
            ANSWER,
            "answers}",
            "answers, null_threshold: 2.0}",
            "'labels.null_threshold' needs 'labels.unanswerable: true'",
        ),
        (
            ANSWER,
            "answers}",
            "answers, unanswerable: true}\nmetrics: [squad_best_f1_threshold]",
            "the first metric chooses the best epoch; 'squad_best_f1_threshold' cannot",
        ),
        (
            TAGS,
            "source: jsonl",
            "source: gold_conll, layout: propbank, unit: sentence",
            "'data.unit' is sentence, but the propbank layout has no named entities",
        ),
    ],
)
def test_contradictions_of_a_task(tmp_path: Path, task: str, old: str, new: str, message: str) -> None:
    load = tmp_path / "whole.yaml"
    load.write_text(task)
    load_task(load)
    assert old in task
    assert message in problems_of(tmp_path / "t.yaml", task.replace(old, new))


def test_limits_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(CLASSES.replace("yes]}", 'yes], group: {by: "{q}"}}\nmetrics: [multirc_f1a]'))
    (tmp_path / "r.yaml").write_text(
        "recipe: r\ntask: t.yaml\nbackbone: {name: mini}\ntrain: {epochs: 1, learning_rate: 1e-3}\n"
        "limit: {train: 5, validation: 5, test: 5}\n"
    )
    with pytest.raises(ConfigError) as info:
        load_recipe(tmp_path / "r.yaml")
    assert "'limit.validation' would tear apart the groups that task 't' scores together" in str(info.value)
    assert "'limit.test' is set, but task 't' has no test split" in str(info.value)
    assert "limit.train" not in str(info.value)
    (tmp_path / "r.yaml").write_text((tmp_path / "r.yaml").read_text().replace("train: 5", "train: 5 per class"))
    with pytest.raises(ConfigError) as info:
        load_recipe(tmp_path / "r.yaml")
    assert "'limit.train' is '5 per class', but task 't' has no class for each row" in str(info.value)


def test_a_recipe_that_makes_windows_shorter_than_their_overlap(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(ANSWER)
    (tmp_path / "r.yaml").write_text(
        "recipe: r\ntask: t.yaml\nbackbone: {name: mini}\ntrain: {epochs: 1, learning_rate: 1e-3, max_length: 128}\n"
    )
    with pytest.raises(ConfigError, match=r":4:53: error: 'train.max_length' \(128\) must be more than 'input.stride'"):
        load_recipe(tmp_path / "r.yaml")


def test_a_mark_without_its_word(tmp_path: Path) -> None:
    text = CLASSES.replace("task: t", "task: t\nderive: {m: {column: a, word: i, mark: no}}")
    assert "'derive.m.mark': needs '{word}' where the word stands" in problems_of(tmp_path / "t.yaml", text)
