"""`ptv2kit new`: what is proposed is valid, reads its own rows, and trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ptv2kit.cli.main import main
from ptv2kit.data.rows import Row
from ptv2kit.data.templates import task_rows
from ptv2kit.spec.load import load_recipe, load_task
from ptv2kit.spec.task import scheme_of
from tests.projects import Project, project, read_json

__all__ = ["project"]
ROOT = Path(__file__).parents[2]
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
    "labels": [
        {"text": f"ada met {where} in rome", "topics": [who, where] if where == "paris" else [who]}
        for who in ("ada", "alan")
        for where in ("paris", "rome", "paris", "met")
    ],
    "number": [{"sentence1": "ada left", "sentence2": f"alan met {n}", "score": n / 4} for n in range(8)],
    "spans": [{"text": "ada left paris", "entities": [[0, 3, "PER"], {"start": 9, "end": 14, "label": "LOC"}]}] * 4,
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
    words = ["--validation", "data/dev.jsonl", "--test", "data/test.jsonl", "--to", "tasks/mine.yaml"]
    assert main(["new", "task", "data/train.jsonl", *words]) == 0
    assert f"scheme {scheme}" in project.capsys.readouterr().out
    task = load_task(project.folder / "tasks" / "mine.yaml").task
    assert task.task == "mine"
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


@pytest.mark.parametrize(("scheme", "like"), [("classes", "sst2"), ("iob2", "wikigold"), ("start_end", "squad")])
def test_a_recipe_for_the_embedded_backbone_is_like_the_shipped_ones(project: Project, scheme: str, like: str) -> None:
    write(project.folder, "rows.jsonl", ROWS[scheme])
    assert main(["new", "task", "rows.jsonl", "--validation", "rows.jsonl"]) == 0
    assert main(["new", "recipe", "rows.yaml", "--to", "new.yaml"]) == 0
    new = load_recipe(project.folder / "new.yaml").recipe
    shipped = load_recipe(ROOT / "recipes" / f"mini-{like}.yaml").recipe
    assert (new.backbone, new.prompt) == (shipped.backbone, shipped.prompt)
    assert new.train.model_copy(update={"epochs": shipped.train.epochs}) == shipped.train


@pytest.mark.parametrize(
    ("rows", "backbone", "expected"),
    [(6, "mini", 8), (5_000, "mini", 3), (40_000, "mini", 1), (5_000, "smollm2", 3), (40_000, "roberta-large", 25)],
)
def test_a_recipe_has_fewer_epochs_for_more_rows(project: Project, rows: int, backbone: str, expected: int) -> None:
    write(project.folder, "rows.jsonl", ROWS["classes"][:1] * rows)
    write(project.folder, "dev.jsonl", ROWS["classes"])
    assert main(["new", "task", "dev.jsonl", "--validation", "dev.jsonl"]) == 0
    project.change("dev.yaml", 'train: "dev.jsonl"', 'train: "rows.jsonl"')
    assert main(["new", "recipe", "dev.yaml", "--backbone", backbone, "--to", "new.yaml"]) == 0
    assert load_recipe(project.folder / "new.yaml").recipe.train.epochs == expected
    assert f"epochs are for {rows:,} rows" in (project.folder / "new.yaml").read_text()


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
        (["tiny.yaml", "--validation", "bare.jsonl", "--name", "x"], 2, "is not a JSON, CSV"),
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


OPTIONS = ["paris", "rome", "met"]


@pytest.mark.parametrize(
    ("row", "line"),
    [
        (
            {"question": "ada left", "choices": {"text": OPTIONS, "label": ["A", "B", "C"]}, "answerKey": "B"},
            "options: choices.text, labels: {scheme: choices, column: answerKey, among: choices.label}",
        ),
        (
            {"question": "ada left", "choices": [{"label": "1", "text": "a"}, {"label": "2", "text": "b"}], "key": "2"},
            'options: "choices.*.text", labels: {scheme: choices, column: key, among: "choices.*.label"}',
        ),
        (
            {"article": "ada left", "options": OPTIONS, "answer": "C"},
            "options: options, labels: {scheme: choices, column: answer, names: [A, B, C]}",
        ),
        (
            {"story": "ada left", "endings": OPTIONS, "label": 2},
            "options: endings, labels: {scheme: choices, column: label}",
        ),
    ],
)
def test_lists_of_options_are_recognised(project: Project, row: dict[str, Any], line: str) -> None:
    write(project.folder, "train.jsonl", [row] * 10)
    assert main(["new", "task", "train.jsonl"]) == 0
    text = (project.folder / "train.yaml").read_text()
    options, labels = line.split(", labels: ")
    assert f"{options}, max_length" in text
    assert f"labels: {labels}" in text
    assert main(["validate", "train.yaml", "--data"]) == 0


def test_a_share_stands_in_for_a_file_that_is_not_there(project: Project) -> None:
    write(project.folder, "train.jsonl", ROWS["classes"] * 5)
    assert main(["new", "task", "train.jsonl", "--test", "25%"]) == 0
    assert 'splits: {train: "train.jsonl", validation: 10%, test: 25%}' in (project.folder / "train.yaml").read_text()
    assert main(["new", "task", "train.jsonl", "--validation", "20", "--name", "other"]) == 3
    assert "hint: --validation 20% keeps a share of the rows for it" in project.capsys.readouterr().err


def test_files_with_a_token_a_line_are_read(project: Project) -> None:
    (project.folder / "train.txt").write_text("ada B-PER\nleft O\n\nparis B-LOC\n\n" * 10)
    assert main(["new", "task", "train.txt"]) == 0
    text = (project.folder / "train.yaml").read_text()
    assert "data: {source: conll, columns: {tokens: 0, tags: -1}, splits:" in text
    assert "names: [LOC, PER]" in text


PLACES = {"subj_start": 0, "subj_end": 0, "obj_start": 2, "obj_end": 2}
PAGE = {"title": ["x"], "sentences": [["ada.", " left."], ["rome."]]}
MADE: dict[str, tuple[list[dict[str, Any]], list[str], str]] = {
    "a relation": (
        [{"token": ["ada", "left", "rome"], **PLACES, "docid": "d", "relation": kind} for kind in ("to", "from") * 8],
        ['{marked: {"column": "token", "marks": [{"start": "subj_start"', '"inclusive": true', "column: relation"],
        "[ada/subj] left [rome/obj]",
    ),
    "a dialogue": (
        [{"dialogue_id": n // 4, "utterance": f"ada met {n}", "act": ("ask", "tell")[n % 2]} for n in range(16)],
        ['{before: {"column": "utterance", "previous": "dialogue_id"}}', 'text: "{before}", pair: "{utterance}"'],
        "",
    ),
    "paragraphs": (
        [{"question": "ada met", "context": PAGE, "answer": "rome"}] * 10,
        ['{context_text: {"column": "context.sentences", "join": "\\n", "within": ""}}', "text: answer"],
        "ada. left.\nrome.",
    ),
    "words": (
        [{"tokens": ["ada", "met", str(number)], "label": ("a", "b")[number % 2]} for number in range(12)],
        ['{tokens_text: {"column": "tokens", "join": " "}}', "names: [a, b]"],
        "ada met 0",
    ),
}


@pytest.mark.parametrize("shape", MADE)
def test_columns_that_have_to_be_made_are_proposed(project: Project, shape: str) -> None:
    rows, lines, made = MADE[shape]
    write(project.folder, "train.jsonl", rows)
    assert main(["new", "task", "train.jsonl"]) == 0
    text = (project.folder / "train.yaml").read_text()
    for line in lines:
        assert line in text
    assert main(["validate", "train.yaml", "--data"]) == 0
    task = load_task(project.folder / "train.yaml").task
    first = next(task_rows(task, [Row(rows[0], "a:1")]))
    assert first.text(next(iter(task.derive))) == made


def test_a_second_file_is_not_expected(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "task", "train.csv", "dev.csv"]) == 2
    err = capsys.readouterr().err
    assert "error: unrecognized arguments: dev.csv" in err
    assert "'ptv2kit VERB --help' shows what may be given" in err


@pytest.mark.parametrize(("rare", "said"), [(1, True), (5, False)])
def test_a_class_that_is_rare_may_count_more(
    rare: int, said: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [f"a text of {number},{'rare' if number < rare else 'usual'}\n" for number in range(12)]
    (tmp_path / "mails.csv").write_text("text,kind\n" + "".join(rows))
    assert main(["new", "task", "mails.csv"]) == 0
    text = (tmp_path / "mails.yaml").read_text()
    assert ("; weights: balanced lets the others count as much in the loss" in text) is said
    assert ("metrics: [macro_f1, accuracy]" in text) is said
    (tmp_path / "mails.yaml").write_text(text.replace("column: kind", "column: kind, weights: balanced"))
    assert main(["validate", "mails.yaml"]) == 0
