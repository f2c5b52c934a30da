"""`ptv2kit validate --data`: what is found in the rows of a task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ptv2kit.cli.main import main
from ptv2kit.data.tokens import Subwords

DATA = "data: {source: jsonl, splits: {train: train.jsonl, validation: validation.jsonl}}\n"
TAGS = f"task: tags\n{DATA}input: {{words: w, max_length: 8}}\nlabels: {{scheme: iob2, column: t}}\n"
ANSWER = (
    f'task: answer\n{DATA}input: {{question: "{{q}}", context: "{{c}}", max_length: 9, stride: 1}}\n'
    "labels: {scheme: start_end, text: g, unanswerable: true}\n"
)


@pytest.fixture
def check(tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def checked(task: str, train: list[Any], validation: list[Any], *words: str) -> tuple[int, str, str]:
        (tmp_path / "task.yaml").write_text(task)
        for name, rows in (("train", train), ("validation", validation)):
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        code = main(["validate", "task.yaml", "--data", "--backbone", str(backbone), *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return checked


def words(text: str, tags: str) -> dict[str, Any]:
    return {"w": text.split(), "t": tags.split()}


TRAIN = [words("ada met alan", "B-PER O B-PER"), words("ada met alan", "B-PER O B-PER"), words("rome", "B-LOC")]


def test_counts_lengths_labels_and_what_two_splits_share(check: Any) -> None:
    validation = [words("rome", "B-LOC"), words("ada " * 9, "O " * 8 + "B-DATE")]
    code, out, _ = check(TAGS, TRAIN, validation, "--json")
    assert code == 0
    [report] = json.loads(out)["files"]
    train, other = report["splits"]
    assert report["max_length"] == 8
    assert (train["rows"], train["labels"], train["repeated"]) == (3, {"PER": 4, "LOC": 1}, 1)
    assert train["lengths"] == {"p50": 5, "p90": 5, "p99": 5, "p100": 5}
    assert (other["leaked"], other["unseen"], other["too_long"], other["truncated"]) == (1, ["DATE"], 1, 1)
    assert other["lengths"]["p100"] == 11


def test_texts_are_cut_in_batches(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    one_call = Subwords._encode

    def counted(subwords: Subwords, texts: list[Any], **options: Any) -> Any:
        sizes.append(len(texts))
        return one_call(subwords, texts, **options)

    monkeypatch.setattr(Subwords, "_encode", counted)
    task = f'task: texts\n{DATA}input: {{text: "{{x}}", max_length: 8}}\nlabels: {{scheme: classes, column: y}}\n'
    rows = [{"x": "ada met " * number, "y": "ab"[number % 2]} for number in range(1, 9)]
    code, out, _ = check(task, rows, rows[:3], "--json")
    assert code == 0
    assert [split["rows"] for split in json.loads(out)["files"][0]["splits"]] == [8, 3]
    assert sizes == [8, 8, 3, 3]  # with the limit of length, and without


def test_malformed_rows_are_named_and_end_with_3(check: Any) -> None:
    bad = [words("ada met", "B-PER I-LOC"), words("ada met", "B-PER"), words("rome", "B-LOC")]
    code, out, err = check(TAGS, TRAIN, bad)
    assert code == 3
    assert "validation.jsonl:1: error: tag 2 of 2, 'I-LOC', is not IOB2: it continues no LOC span" in err
    assert "validation.jsonl:2: error: 2 words in 'w' but 1 tags in 't'" in err
    assert "malformed" in out
    code, out, _ = check(TAGS, TRAIN, bad, "--json")
    assert code == 3
    report = json.loads(out)
    assert not report["ok"]
    assert [fault["location"] for fault in report["files"][0]["splits"][1]["problems"]] == [
        "validation.jsonl:1",
        "validation.jsonl:2",
    ]


def test_a_malformed_training_row_hides_no_other(check: Any) -> None:
    bad = [words("ada met", "B-PER O"), words("", ""), words("rome", "B-LOC O")]
    code, _, err = check(TAGS, bad, TRAIN)
    assert code == 3
    assert "train.jsonl:2: error: column 'w' must hold a list of words. Got an empty list" in err
    assert "train.jsonl:3: error: 1 words in 'w' but 2 tags in 't'" in err


def test_a_data_root_that_is_not_there(check: Any) -> None:
    code, _, err = check(TAGS, TRAIN, TRAIN, "--data-root", "nowhere")
    assert (code, "the data root 'nowhere' is not a folder" in err) == (2, True)


def test_missing_files_of_all_splits_are_named(check: Any) -> None:
    task = TAGS.replace("train.jsonl", "gone.jsonl").replace("validation.jsonl", "lost.jsonl")
    code, _, err = check(task, TRAIN, TRAIN)
    assert code == 3
    assert "'gone.jsonl'" in err
    assert "'lost.jsonl'" in err


def test_rows_that_differ_only_beyond_max_length_are_not_the_same(check: Any) -> None:
    rows = [words("ada " * 8 + end, "O " * 8 + "B-PER") for end in ("met", "left")]
    _, out, _ = check(TAGS, [rows[0]], [rows[1]], "--json")
    assert json.loads(out)["files"][0]["splits"][1]["leaked"] == 0


def test_answers_that_no_window_holds(check: Any) -> None:
    story = "ada left for paris in rome for alan"
    train = [{"q": "met", "c": story, "g": "paris"}, {"q": "met", "c": story, "g": story}, {"q": "in", "c": story}]
    train[2]["g"] = None  # type: ignore[assignment]
    code, out, _ = check(ANSWER, train, train, "--json")
    assert code == 0
    split = json.loads(out)["files"][0]["splits"][0]
    assert split["labels"] == {"answer": 2, "no answer": 1}
    assert split["truncated"] == 1
    assert split["inputs"] > split["rows"] == 3


def test_tables_for_people(check: Any) -> None:
    code, out, _ = check(TAGS, TRAIN, TRAIN)
    assert code == 0
    assert "longer than max_length 8" in out
    assert "80.0% ████" in out


def test_missing_files_are_named(check: Any, tmp_path: Path) -> None:
    code, _, err = check(TAGS.replace("train.jsonl", "gone.jsonl"), TRAIN, TRAIN)
    assert code == 3
    assert "file 'gone.jsonl' of split 'train' was not found" in err


def test_a_recipe_whose_inputs_have_no_positions(
    check: Any, backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check(TAGS.replace("max_length: 8", "max_length: 62"), TRAIN, TRAIN)
    (tmp_path / "recipe.yaml").write_text(
        f"recipe: r\ntask: task.yaml\nbackbone: {{name: {backbone}}}\nprompt: {{length: 4}}\n"
        "train: {epochs: 1, learning_rate: 1e-3}\n"
    )
    assert main(["validate", "recipe.yaml"]) == 0
    assert main(["validate", "recipe.yaml", "--data"]) == 2
    assert "max_length 62 + prompt length 4 exceed the 64 positions" in capsys.readouterr().err
