"""Data that the project has never seen is brought in by YAML alone, and trained from end to end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ptv2kit.cli.main import main

PEOPLE, PLACES = ("ada", "alan"), ("paris", "rome")


def reviews_csv() -> str:
    """Its own columns, a quoted comma, labels as words of another language."""
    lines = ["nummer,satz,urteil"]
    for number, (person, place) in enumerate((a, b) for a in PEOPLE for b in PLACES):
        lines += [f'{number},"{person} met {place}, in {place}",gut', f"{number},{person} left {place},schlecht"]
    return "\n".join(lines) + "\n"


CSV = """task: urteile
data: {source: csv, splits: {train: data.csv, validation: data.csv}}
input: {text: "{satz}", max_length: 16}
labels: {scheme: classes, column: urteil, names: {gut: positive, schlecht: negative}}
metrics: [accuracy, macro_f1]
"""


def names_tsv() -> str:
    """A token a line, the tag first, other tag names, in BILOU, no blank line at the end."""
    sentences = [
        [("U-person", person), ("O", "left"), ("O", "for"), ("B-city", place), ("L-city", place)]
        for person in PEOPLE
        for place in PLACES
    ]
    return "\n\n".join("\n".join(f"{tag}\t{word}" for tag, word in sentence) for sentence in sentences)


TSV = """task: cities
data:
  source: conll
  separator: tab
  columns: {word: 1, entity: 0}
  splits: {train: data.tsv, validation: data.tsv}
input: {words: word, max_length: 16}
labels: {scheme: iob2, column: entity, encoding: iobes, names: {person: PER, city: LOC}}
"""


def questions_jsonl() -> str:
    """An answer as plain text, and some questions without one."""
    rows = [
        {"ask": f"{person} met in", "story": f"{person} left for {place} in {other}", "gold": place}
        for person in PEOPLE
        for place, other in (PLACES, PLACES[::-1])
    ]
    rows.append({"ask": "alan left for", "story": "ada met alan", "gold": None})
    return "".join(json.dumps(row) + "\n" for row in rows)


QA = """task: stories
data: {source: jsonl, splits: {train: data.jsonl, validation: data.jsonl}}
input: {question: "{ask}", context: "{story}", max_length: 12, stride: 2}
labels: {scheme: start_end, text: gold, unanswerable: true}
metrics: [squad_f1, squad_exact_match, squad_best_f1]
"""


def nested_jsonl() -> str:
    """A list of options in each row, two levels down, and the index of the right one."""
    rows = [
        {"doc": {"story": f"{person} met", "quiz": [{"options": options, "right": options.index("paris")}]}}
        for person in PEOPLE
        for options in (list(PLACES), list(PLACES[::-1]))
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


NESTED = """task: quiz
data: {source: jsonl, splits: {train: data.jsonl, validation: data.jsonl}}
expand:
  - {column: doc.quiz, item: question}
  - {column: question.options, item: option}
derive: {verdict: {column: option, map: {paris: capital, rome: eternal}}}
input: {text: "{doc.story} in", pair: "{option}", max_length: 16}
labels: {scheme: classes, column: verdict, names: [eternal, capital], group: {by: "{doc.story}"}}
metrics: [multirc_f1a, accuracy]
"""

CHOICES = """task: where
data: {source: jsonl, splits: {train: data.jsonl, validation: data.jsonl}}
input: {text: "{doc.story} in", choices: ["{doc.quiz.0.options.0}", "{doc.quiz.0.options.1}"], max_length: 16}
labels: {scheme: choices, column: doc.quiz.0.right}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "file", "write", "metric"),
    [
        (CSV, "data.csv", reviews_csv, "accuracy"),
        (TSV, "data.tsv", names_tsv, "span_f1"),
        (QA, "data.jsonl", questions_jsonl, "squad_f1"),
        (NESTED, "data.jsonl", nested_jsonl, "multirc_f1a"),
        (CHOICES, "data.jsonl", nested_jsonl, "accuracy"),
    ],
    ids=["csv classes", "tsv names", "jsonl questions", "nested jsonl", "nested choices"],
)
def test_yaml_is_all_it_takes(
    task: str,
    file: str,
    write: Callable[[], str],
    metric: str,
    backbone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / file).write_text(write())
    (tmp_path / "task.yaml").write_text(task)
    (tmp_path / "recipe.yaml").write_text(
        f"recipe: unseen\ntask: task.yaml\nbackbone: {{name: {backbone}, dropout: 0.0, pooling: mean}}\n"
        "prompt: {length: 4, dropout: 0.0}\ntrain: {epochs: 30, batch_size: 4, learning_rate: 0.05}\n"
    )
    assert main(["validate", "recipe.yaml", "--data"]) == 0
    assert main(["preview", "recipe.yaml", "-n", "1"]) == 0
    capsys.readouterr()
    assert main(["run", "recipe.yaml", "--json", "--quiet"]) == 0
    results = json.loads(capsys.readouterr().out)
    history = [epoch[metric] for epoch in results["history"]]
    assert results["metrics"]["validation"][metric] == max(history)
    [predictions] = tmp_path.glob("runs/unseen/*/predictions/validation.jsonl")
    rows = [json.loads(line) for line in predictions.read_text().splitlines()]
    assert [row["row"] for row in rows] == list(range(len(rows)))
    assert max(history) > 60, "the tiny model can learn this"
