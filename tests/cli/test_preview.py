"""`ptv2kit preview`: what is shown of each scheme."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ptv2kit.cli.main import main

DATA = "data: {source: jsonl, splits: {train: rows.jsonl, validation: rows.jsonl}}\n"
TAGS = f"task: tags\n{DATA}input: {{words: w, append: {{column: w, at: at}}}}\nlabels: {{scheme: iob2, column: t}}\n"
PAIR = f'task: pair\n{DATA}input: {{text: "{{a}}", pair: "{{b}}"}}\nlabels: {{scheme: classes, column: c}}\n'
CHOICES = (
    f'task: choices\n{DATA}input: {{text: "{{a}}", choices: ["{{b}}", "{{c}}"]}}\n'
    "labels: {scheme: choices, column: n}\n"
)
ANSWER = (
    f'task: answer\n{DATA}input: {{question: "{{a}}", context: "{{b}}", max_length: 10, stride: 1}}\n'
    "labels: {scheme: start_end, text: g, unanswerable: true}\n"
)


@pytest.fixture
def show(tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")

    def shown(task: str, rows: list[dict[str, Any]], *words: str) -> str:
        (tmp_path / "task.yaml").write_text(task)
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert main(["preview", "task.yaml", "--backbone", str(backbone), *words]) == 0
        return capsys.readouterr().out

    return shown


def test_tags_with_what_is_not_scored(show: Any) -> None:
    rows = [{"w": ["ada", "met", "paris"], "t": ["B-PER", "O", "B-LOC"], "at": 1}]
    assert "▒… ([CLS]) ada/B-PER met paris/B-LOC ([SEP]) (met) ([SEP])" in show(TAGS, rows)


def test_what_is_cut_off(show: Any) -> None:
    rows = [{"w": ["ada"] * 12, "t": ["O"] * 11 + ["B-PER"], "at": 0}]
    out = show(TAGS, [*rows, {"w": ["ada"], "t": ["B-PER"], "at": 0}], "--max-length", "9", "-n", "1")
    assert out.count("~ada~") == 12 - (9 - 4)
    assert "[7 sub-words cut off]" in out


def test_a_pair_with_its_class(show: Any) -> None:
    rows = [{"a": "ada met", "b": "in paris", "c": name} for name in ("yes", "no")]
    out = show(PAIR, rows, "--row", "2")
    assert "rows.jsonl:2  →  no" in out
    assert "[CLS] ada met [SEP] in paris [SEP]" in out
    assert "rows.jsonl:1" not in out


def test_choices_with_the_right_one_marked(show: Any) -> None:
    out = show(CHOICES, [{"a": "ada met", "b": "paris", "c": "rome", "n": 1}])
    assert "✗ choice 0: ▒… [CLS] ada met [SEP] paris [SEP]" in out
    assert "✓ choice 1: ▒… [CLS] ada met [SEP] rome [SEP]" in out


def test_windows_with_the_answer_marked(show: Any) -> None:
    rows = [{"a": "met", "b": "ada left for paris in rome for alan", "g": "rome"}]
    out = show(ANSWER, rows)
    assert "→  rome" in out
    assert "window 1 of 2: ▒… ([CLS]) (met) ([SEP]) ada left for paris in rome/answer ([SEP])" in out
    assert "window 2 of 2:" in out


def test_json_has_the_same(show: Any) -> None:
    rows = [{"w": ["ada", "met", "paris"], "t": ["B-PER", "O", "B-LOC"], "at": 1}]
    found = json.loads(show(TAGS, rows, "--json"))
    tokens = found["rows"][0]["inputs"][0]["tokens"]
    assert [(token["text"], token["label"]) for token in tokens if token["scored"]] == [
        ("ada", "B-PER"),
        ("met", ""),
        ("paris", "B-LOC"),
    ]
    assert found["task"] == "tags"


def test_a_row_that_is_not_there(show: Any, capsys: pytest.CaptureFixture[str], backbone: Path) -> None:
    show(PAIR, [{"a": "ada", "b": "met", "c": name} for name in ("yes", "no")])
    assert main(["preview", "task.yaml", "--backbone", str(backbone), "--row", "3"]) == 2
    assert "--row 3: split 'train' has 2 rows" in capsys.readouterr().err
    assert main(["preview", "task.yaml", "--backbone", str(backbone), "--split", "test"]) == 2
    assert "has no split 'test'\n  hint: it has train, validation" in capsys.readouterr().err
