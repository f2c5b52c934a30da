"""`ptv2kit new`: what is proposed is valid, reads its own rows, and trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ptv2kit.cli.main import main
from ptv2kit.spec.load import load_task
from ptv2kit.spec.task import scheme_of
from tests.cli.test_run import Project, project, read_json

__all__ = ["project"]
PASSAGE = "ada met alan in paris"
ROWS: dict[str, list[dict[str, Any]]] = {
    "classes": [
        {"id": number, "premise": "ada left", "hypothesis": "alan met ada", "label": ("no", "yes")[number % 2]}
        for number in range(8)
    ],
    "choices": [
        {"premise": "ada left", "choice1": "paris", "choice2": "rome", "label": number % 2} for number in range(8)
    ],
    "iob2": [{"tokens": ["ada", "in", "paris"], "ner": ["B-PER", "O", "B-true"], "other": ["x", "y"]}] * 4,
    "start_end": [
        {"question": "ada met", "context": PASSAGE, "answers": {"text": ["alan"], "answer_start": [8]}},
        {"question": "ada left", "context": PASSAGE, "answers": {"text": [], "answer_start": []}},
    ],
}


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("scheme", ROWS)
def test_what_is_proposed_trains(project: Project, backbone: Path, scheme: str) -> None:
    (project.folder / "data").mkdir()
    for split in ("train", "dev", "test"):
        write(project.folder / "data", f"{split}.jsonl", ROWS[scheme])
    words = ["--validation", "data/dev.jsonl", "--test", "data/test.jsonl", "--name", "mine", "--to", "tasks/mine.yaml"]
    assert main(["new", "task", "data/train.jsonl", *words]) == 0
    assert f"scheme {scheme}" in project.capsys.readouterr().out
    task = load_task(project.folder / "tasks" / "mine.yaml").task
    assert scheme_of(task) == scheme
    assert set(task.data.splits.by_name()) == {"train", "validation", "test"}
    assert main(["validate", "tasks/mine.yaml", "--data", "--backbone", str(backbone)]) == 0
    if scheme == "start_end":  # the tiny backbone has 64 positions
        project.change("tasks/mine.yaml", "max_length: 384, stride: 128", "max_length: 24, stride: 4")
    assert main(["new", "recipe", "tasks/mine.yaml", "--backbone", str(backbone), "--name", "first"]) == 0
    assert main(["run", "first.yaml", "train.epochs=1", "train.max_length=24", "prompt.length=2", "--json"]) == 0
    out = project.capsys.readouterr().out
    results = json.loads(out[out.index("{") :])
    assert set(results["metrics"]) == {"validation", "test"}
    assert read_json(Path(results["run"]) / "results.json")["status"] == "finished"


def test_tables_numbers_and_encodings(project: Project) -> None:
    (project.folder / "reviews.csv").write_text(
        'text,stars\n"good, really",1\nbad,0\nfine,1\nawful,0\n"so, so",1\nno,0\n'
    )
    assert main(["new", "task", "reviews.csv", "--validation", "reviews.csv"]) == 0
    out = project.capsys.readouterr().out
    assert "look at it: the classes are numbers" in out
    task = load_task(project.folder / "reviews.yaml").task
    assert task.labels.model_dump()["names"] == {"0": "class_0", "1": "class_1"}
    assert main(["validate", "reviews.yaml", "--data", "--backbone", str(project.folder / "none")]) != 0
    for tags, encoding in (
        (["I-A", "O", "I-A"], "iob1"),
        (["S-A", "O", "S-A"], "iobes"),
        (["B-A", "I-A", "O"], "iob2"),
    ):
        write(project.folder, f"{encoding}.jsonl", [{"w": ["a", "b", "c"], "t": tags}])
        assert main(["new", "task", f"{encoding}.jsonl", "--validation", f"{encoding}.jsonl"]) == 0
        assert load_task(project.folder / f"{encoding}.yaml").task.labels.model_dump()["encoding"] == encoding


def test_an_answer_may_be_a_text_that_stands_in_the_passage(project: Project) -> None:
    rows = [{"query": "ada met", "story": PASSAGE, "who": who} for who in ("alan", "paris", "")]
    write(project.folder, "who.jsonl", rows)
    assert main(["new", "task", "who.jsonl", "--validation", "who.jsonl"]) == 0
    labels = load_task(project.folder / "who.yaml").task.labels.model_dump()
    assert (labels["text"], labels["unanswerable"]) == ("who", True)


def test_what_cannot_be_proposed_is_refused(project: Project) -> None:
    write(project.folder, "bare.jsonl", [{"x": 1.5, "y": [1]}])
    (project.folder / "empty.csv").write_text("a,b\n")
    for words, code, message in (
        (["bare.jsonl", "--validation", "bare.jsonl"], 3, "no label scheme is recognised in the columns x, y"),
        (["empty.csv", "--validation", "empty.csv"], 3, "the file has no rows"),
        (["none.jsonl", "--validation", "bare.jsonl"], 3, "there is no such file"),
        (["bare.jsonl", "--validation", "none.jsonl"], 3, "there is no such file"),
        (["tiny.yaml", "--validation", "bare.jsonl", "--name", "x"], 2, "is not a JSON Lines"),
        (["bare.jsonl", "--validation", "bare.jsonl", "--to", "tiny.yaml"], 2, "'tiny.yaml' exists"),
    ):
        assert main(["new", "task", *words]) == code
        assert message in project.capsys.readouterr().err
    assert main(["new", "recipe", "tiny.yaml", "--to", "recipe.yaml"]) == 2


@pytest.mark.parametrize(
    ("name", "scheme"),
    [("rte", "classes"), ("copa", "choices"), ("wikigold", "iob2"), ("squad", "start_end"), ("sst2", "classes")],
)
def test_real_data_is_recognised(shared: Path, project: Project, name: str, scheme: str) -> None:
    folder = shared / "data" / name
    words = [str(folder / "train.jsonl.gz"), "--validation", str(folder / "validation.jsonl.gz"), "--name", name]
    assert main(["new", "task", *words]) == 0
    assert scheme_of(load_task(project.folder / f"{name}.yaml").task) == scheme
