"""`ptv2kit predict` and `ptv2kit evaluate`, and the same from Python."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

import ptv2kit
from ptv2kit.cli.main import main
from ptv2kit.data.tokens import Subwords
from ptv2kit.errors import ConfigError, DataError
from tests.projects import Project, project, read_json

__all__ = ["project"]
CLASSES = """task: tiny
data: {source: jsonl, splits: {train: rows.jsonl, validation: rows.jsonl}}
derive: {joiner: {column: kind, map: {a: in, b: for}}, right: {column: answer, among: rights}}
input: {text: "{who} {joiner}", pair: "{where}", max_length: 16}
labels: {scheme: classes, column: right, names: [no, yes], group: {by: "{group}"}}
"""
CHOICES = """task: tiny
data: {source: jsonl, splits: {train: rows.jsonl, validation: rows.jsonl}}
input: {text: "{who} met", choices: ["{one}", "{two}"], max_length: 16}
labels: {scheme: choices, column: label}
metrics: [accuracy]
"""
ANSWERS = """task: tiny
data: {source: jsonl, splits: {train: rows.jsonl, validation: rows.jsonl}}
input: {question: "{question}", context: "{context}", max_length: 12, stride: 2}
labels: {scheme: start_end, text: answer, unanswerable: true}
metrics: [squad_f1]
"""


def write(project: Project, task: str, rows: list[dict[str, Any]]) -> Path:
    """Train a task for an epoch; its run."""
    (project.folder / "tiny.yaml").write_text(task)
    (project.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert project.run("train.epochs=1")[0] == 0
    [run] = project.runs
    return run


def answers(project: Project, run: Path, *words: str) -> list[dict[str, Any]]:
    assert main(["predict", str(run), *words, "--json"]) == 0
    return [json.loads(line) for line in project.capsys.readouterr().out.splitlines()]


def kept(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "predictions" / "validation.jsonl").read_text().splitlines()]


def without(rows: list[dict[str, Any]], *columns: str) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in columns} for row in rows]


def check(project: Project, run: Path, rows: list[dict[str, Any]], *labels: str) -> list[dict[str, Any]]:
    """Rows without labels are answered as those with labels were in training, also a few at a time and from Python."""
    bare = without(rows, *labels)
    (project.folder / "bare.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bare))
    found = answers(project, run, "bare.jsonl", "--batch-size", "3")
    assert [row["location"] for row in found] == [f"bare.jsonl:{number + 1}" for number in range(len(rows))]
    assert [row["label"] for row in found] == [row["label"] for row in kept(run)]
    assert [row["probability"] for row in found] == pytest.approx([row["probability"] for row in kept(run)], abs=1e-5)
    from_python = ptv2kit.load(run).predict(bare, batch_size=2)
    assert [row["label"] for row in from_python] == [row["label"] for row in found]
    return found


def test_classes(project: Project) -> None:
    rows = [
        {"who": who, "where": where, "kind": kind, "group": 1, "answer": where, "rights": ["paris"]}
        for who in ("ada", "alan")
        for where in ("paris", "rome")
        for kind in "ab"
    ]
    found = check(project, write(project, CLASSES, rows), rows, "answer", "rights", "group")
    for row in found:
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert row["probability"] == max(row["probabilities"].values()) == row["probabilities"][row["label"]]


def test_the_items_before_a_faulty_one_are_answered(project: Project) -> None:
    task = """task: tiny
data: {source: jsonl, splits: {train: rows.jsonl, validation: rows.jsonl}}
expand: [{column: parts, item: part}]
derive: {joiner: {column: part.kind, map: {a: in, b: for}}}
input: {text: "{part.who} {joiner}", max_length: 16}
labels: {scheme: classes, column: part.label, names: [no, yes]}
"""
    parts = [{"who": "ada", "kind": kind, "label": label} for kind, label in (("a", "no"), ("b", "yes"), ("a", "yes"))]
    run = write(project, task, [{"parts": parts}])
    faulty = {"parts": [parts[0], {"who": "ada", "kind": "c"}, parts[1]]}
    (project.folder / "new.jsonl").write_text(json.dumps(faulty) + "\n" + json.dumps({"parts": parts[:1]}) + "\n")
    project.capsys.readouterr()
    assert main(["predict", str(run), "new.jsonl", "--json"]) == 3
    found = [json.loads(line) for line in project.capsys.readouterr().out.splitlines()]
    assert ["error" if "error" in row else "label" for row in found] == ["label", "error", "label"]


def test_the_texts_of_a_few_batches_are_cut_together(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"who": who, "where": "paris", "kind": kind, "group": 1, "answer": "paris", "rights": ["paris"]}
        for who in ("ada", "alan")
        for kind in "ab"
    ]
    loaded = ptv2kit.load(write(project, CLASSES, rows))
    together: list[int] = []
    ahead = Subwords.encode_texts_ahead

    def record(self: Subwords, texts: Sequence[tuple[str, str | None]], shorten: Any) -> None:
        together.append(len(texts))
        ahead(self, texts, shorten)

    monkeypatch.setattr(Subwords, "encode_texts_ahead", record)
    found = loaded.predict([*rows, *rows, rows[0]], batch_size=1)
    assert together == [8, 1]
    assert [row["label"] for row in found[:4]] == [row["label"] for row in found[4:8]]


def test_choices(project: Project) -> None:
    rows = [
        {"who": who, "one": one, "two": two, "label": int(two == "ada")}
        for who, one, two in (("ada", "alan", "ada"), ("alan", "ada", "alan"), ("ada", "ada", "alan"))
    ]
    found = check(project, write(project, CHOICES, rows), rows, "label")
    assert [row["text"] for row in found] == [
        row["two"] if answer["label"] == "1" else row["one"] for row, answer in zip(rows, found, strict=True)
    ]


def test_answers(project: Project) -> None:
    context = "ada met alan in paris . alan left for rome . ada left paris for rome"
    rows = [
        {"question": "ada met in", "context": context, "answer": "paris"},
        {"question": "alan left for", "context": context, "answer": []},
    ]
    found = check(project, write(project, ANSWERS, rows), rows, "answer")
    for row in found:
        assert row["label"] == ("" if row["start"] is None else context[row["start"] : row["end"]])
        assert any(item["text"] == "" for item in row["n_best"])
        best = next(item for item in row["n_best"] if item["text"])
        assert context[best["start"] :].startswith(best["text"])


def test_spans_of_words_and_of_texts(project: Project) -> None:
    assert project.run()[0] == 0
    [run] = project.runs
    rows = [json.loads(line) for line in (project.folder / "rows.jsonl").read_text().splitlines()]
    found = check(project, run, rows, "tags")
    for row in found:
        text = " ".join(row["words"])
        assert [span["words"] for span in row["spans"]]
        assert all(text[span["start"] : span["end"]] == span["text"] for span in row["spans"])
        assert all(row["label"][span["words"][0]] == f"B-{span['type']}" for span in row["spans"])
    text = "  ada met ada  in paris"
    (project.folder / "texts.txt").write_text(f"{text}\n\nalan left rome\n")
    plain = answers(project, run, "texts.txt")
    assert [row["location"] for row in plain] == ["texts.txt:1", "texts.txt:3"]
    assert [(span["type"], text[span["start"] : span["end"]]) for span in plain[0]["spans"]] == [
        (span["type"], span["text"]) for span in plain[0]["spans"]
    ]
    assert plain[0]["label"] == found[0]["label"]
    assert plain == answers(project, run, "texts.txt", "--format", "text")
    assert ptv2kit.load(run).predict([text])[0]["spans"] == plain[0]["spans"]
    assert main(["predict", str(run), "texts.txt"]) == 0
    assert project.capsys.readouterr().out.startswith("texts.txt:1: PER[ada] ")
    listed = [["ada", "met", "ada", "in", "paris"], ["alan", "left", "rome"]]
    for name, written in (
        ("bare.conll", "ada\nmet\nada\nin\nparis\n\nalan\nleft\nrome\n"),
        ("tagged.bio", "ada B-PER\nmet O\nada B-PER\nin O\nparis B-LOC\n\nalan O\nleft O\nrome O\n"),
        ("rows.json", json.dumps([{"words": words} for words in listed])),
    ):
        (project.folder / name).write_text(written)
        assert [row["label"] for row in answers(project, run, name)] == [row["label"] for row in plain]
    pyarrow.parquet.write_table(pyarrow.table({"words": listed}), project.folder / "rows.parquet")
    assert [row["label"] for row in answers(project, run, "rows.parquet")] == [row["label"] for row in plain]
    (project.folder / "table.csv").write_text("id,words\n7,ada met ada in paris\n8\n9,alan left rome\n")
    assert main(["predict", str(run), "table.csv", "--json"]) == 3
    captured = project.capsys.readouterr()
    assert [json.loads(line)["label"] for line in captured.out.splitlines()] == [row["label"] for row in plain]
    assert "table.csv:3: error: expected 2 fields (id, words). Got 1" in captured.err
    assert "1 of 3 rows could not be answered" in captured.err


def test_a_table_is_read_as_the_task_says(project: Project) -> None:
    task = "task: tiny\ndata: {source: csv, delimiter: ';', splits: {train: rows.csv, validation: rows.csv}}\n"
    task += 'input: {text: "{who}", max_length: 16}\nlabels: {scheme: classes, column: label}\n'
    (project.folder / "tiny.yaml").write_text(task)
    (project.folder / "rows.csv").write_text("who;label\nada, left;yes\nalan;no\nada;no\nalan, left;yes\n")
    assert project.run("train.epochs=1")[0] == 0
    [run] = project.runs
    (project.folder / "new.csv").write_text("number;who\n1;ada, left\n")
    [answer] = answers(project, run, "new.csv")
    [same] = ptv2kit.load(run).predict([{"who": "ada, left"}])
    assert answer["probabilities"] == same["probabilities"]


def test_rows_are_written_with_their_answers(project: Project) -> None:
    rows = [
        {"who": who, "kind": kind, "answer": "paris", "rights": ["paris"], "group": 1} for who in "xy" for kind in "ab"
    ]
    task = CLASSES.replace(', pair: "{where}"', "")
    run = write(project, task, rows)
    given = [{"who": "x", "kind": "a", "note": 'said "no", left', "stars": 4}, {"who": "y"}, {"who": "y", "kind": "b"}]
    (project.folder / "given.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))

    assert main(["predict", str(run), "given.jsonl", "--to", "out/found.jsonl"]) == 3
    captured = project.capsys.readouterr()
    assert captured.out == ""
    assert "given.jsonl:2: error: no column 'kind'" in captured.err
    found = [json.loads(line) for line in (project.folder / "out/found.jsonl").read_text().splitlines()]
    assert [without([row], "prediction", "error")[0] for row in found] == given
    assert found[1]["error"] == "no column 'kind'"
    (project.folder / "good.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (given[0], given[2])))
    printed = without(answers(project, run, "good.jsonl"), "location")
    assert [found[0]["prediction"], found[2]["prediction"]] == printed

    assert main(["predict", str(run), "given.jsonl", "--to", "found.csv"]) == 3
    with (project.folder / "found.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    label, probability = printed[0]["label"], str(printed[0]["probability"])
    added = {"prediction": label, "probability": probability}
    assert table[0] == {"who": "x", "kind": "a", "note": given[0]["note"], "stars": "4", **added}
    assert [table[1][name] for name in ("who", "kind", "prediction", "probability")] == ["y", "", "", ""]
    assert table[2]["prediction"] == printed[1]["label"]


def test_spans_stand_in_a_table_as_json(project: Project) -> None:
    assert project.run("train.epochs=1")[0] == 0
    [run] = project.runs
    (project.folder / "texts.txt").write_text("ada met ada in paris\n")
    [printed] = answers(project, run, "texts.txt")
    assert main(["predict", str(run), "texts.txt", "--to", "found.tsv", "--quiet"]) == 0
    [header, line] = (project.folder / "found.tsv").read_text().splitlines()
    assert header == "words\tprediction\tprobability"
    [[text, spans, _]] = csv.reader([line], delimiter="\t")
    assert text == "ada met ada in paris"
    assert json.loads(spans) == printed["spans"]


def test_spans_stand_in_parquet_as_structs(project: Project) -> None:
    assert project.run("train.epochs=1")[0] == 0
    [run] = project.runs
    rows = [{"words": ["ada", "met", "ada", "in", "paris"]}, {"words": ["ada"]}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), project.folder / "texts.parquet")
    printed = answers(project, run, "texts.parquet")
    assert main(["predict", str(run), "texts.parquet", "--to", "found.parquet", "--quiet"]) == 0
    assert pyarrow.parquet.read_table(project.folder / "found.parquet").to_pylist() == [
        {**row, "prediction": found["spans"], "probability": found["probability"]}
        for row, found in zip(rows, printed, strict=True)
    ]


def test_a_file_of_answers_is_whole_or_as_it_was(project: Project) -> None:
    assert project.run("train.epochs=1")[0] == 0
    [run] = project.runs
    (project.folder / "found.csv").write_text("before")
    for lines, message in (
        (
            '{"words": ["ada"]}\n{"words": ["ada"], "more": 1}\n',
            "rows.json:2: error: column 'more' is not in the first row",
        ),
        ('{"words": ["ada"], "probability": 1}\n', "rows.json:1: error: the rows have a column 'probability' already"),
    ):
        (project.folder / "rows.json").write_text(lines)
        assert main(["predict", str(run), "rows.json", "--to", "found.csv"]) == 3
        assert message in project.capsys.readouterr().err
        assert (project.folder / "found.csv").read_text() == "before"
    for name, code, message in (
        ("found.xlsx", 2, "--to 'found.xlsx' does not end in .csv, .tsv, .parquet or .jsonl"),
        ("texts.txt/found.csv", 1, "texts.txt/found.csv: error: cannot be written: "),
    ):
        (project.folder / "texts.txt").write_text("ada\n")
        assert main(["predict", str(run), "rows.json", "--to", name]) == code
        assert message in project.capsys.readouterr().err
    assert not list(project.folder.glob(".*.tmp"))


def test_rows_that_fail_are_named_and_the_rest_goes_on(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    assert project.run("train.epochs=1")[0] == 0
    [run] = project.runs
    lines = ['{"words": ["ada", "left"]}', "{", '{"word": 1}', '{"words": []}', '{"words": "alan met ada"}']

    def ask(*words: str) -> tuple[int, list[dict[str, Any]], str]:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(lines).encode())))
        project.capsys.readouterr()
        code = main(["predict", str(run), "-", "--json", *words])
        captured = project.capsys.readouterr()
        return code, [json.loads(line) for line in captured.out.splitlines()], captured.err

    code, found, err = ask()
    assert code == 3
    assert [row["location"] for row in found if "label" in row] == ["<stdin>:1", "<stdin>:5"]
    assert {row["location"]: row["error"] for row in found if "error" in row} == {
        "<stdin>:3": "no column 'words'",
        "<stdin>:4": "column 'words' must hold a list of words. Got an empty list",
    }
    assert "<stdin>:2: error: not JSON" in err
    assert "hint: did you mean 'word'?" in err
    assert "3 of 5 rows could not be answered" in err
    code, found, err = ask("--strict")
    assert code == 3
    assert "<stdin>:2: error: not JSON" in err
    assert "<stdin>:3" not in err


def test_what_cannot_be_answered_is_refused(project: Project) -> None:
    rows = [
        {"who": "ada", "one": "alan", "two": "ada", "label": 1},
        {"who": "ada", "one": "ada", "two": "ada", "label": 0},
    ]
    run = write(project, CHOICES, rows)
    (project.folder / "texts.txt").write_text("ada\n")
    (project.folder / "empty.jsonl").write_text("\n")
    for words, code, message in (
        (["texts.txt"], 2, "a file of plain text or words is one column, but task 'tiny' reads who, one, two"),
        (["empty.jsonl"], 3, "there is no row"),
        (["none.jsonl"], 3, "there is no such file"),
        (["recipe.yaml"], 2, "does not tell its format"),
        (["-", "--format", "csv"], 2, "standard input cannot be read as csv"),
        (["rows.jsonl", "--batch-size", "0"], 2, "--batch-size must be at least 1"),
        (["rows.jsonl", "--task", "tinny"], 2, "has no task 'tinny'"),
    ):
        assert main(["predict", str(run), *words]) == code
        assert message in project.capsys.readouterr().err
    loaded = ptv2kit.load(run)
    with pytest.raises(ConfigError, match="reads who, one, two"):
        loaded.predict(["ada"])
    with pytest.raises(DataError, match="row 2: error: no column 'two'"):
        loaded.predict([rows[0], {"who": "ada", "one": "ada"}])


def test_evaluate_gives_the_scores_of_the_run(project: Project) -> None:
    project.change("tiny.yaml", "validation: rows.jsonl", "validation: rows.jsonl, test: rows.jsonl")
    assert project.run("limit.validation=5")[0] == 0
    [run] = project.runs
    project.capsys.readouterr()
    for split, count in (("validation", 5), ("test", 12)):
        assert main(["evaluate", str(run), "--split", split, "--json", "--predictions", "found.jsonl"]) == 0
        facts = json.loads(project.capsys.readouterr().out)
        assert facts["rows"] == count
        assert facts["metrics"] == pytest.approx(read_json(run / "results.json")["metrics"][split])
        lines = [json.loads(line) for line in (project.folder / "found.jsonl").read_text().splitlines()]
        before = [json.loads(line) for line in (run / "predictions" / f"{split}.jsonl").read_text().splitlines()]
        assert [line["label"] for line in lines] == [line["label"] for line in before]
    assert main(["evaluate", str(run)]) == 0
    assert "tiny: validation, 5 rows" in project.capsys.readouterr().out
    (project.folder / "other.jsonl").write_text('{"words": ["ada", "left"], "tags": ["B-LOC", "O"]}\n')
    (project.folder / "other.json").write_text('[{"words": ["ada", "left"], "tags": ["B-LOC", "O"]}]')
    (project.folder / "other.conll").write_text("ada B-LOC\nleft O\n\n")
    for name in ("other.jsonl", "other.json", "other.conll"):
        assert main(["evaluate", str(run), "--data", name, "--json"]) == 0
        facts = json.loads(project.capsys.readouterr().out)
        assert (facts["rows"], facts["split"]) == (1, "file")
        assert facts["metrics"]["span_f1"] < 100
    for words, code, message in (
        (["--split", "tests"], 2, "did you mean 'test'?"),
        (["--split", "test", "--data", "other.jsonl"], 2, "cannot both be given"),
        (["--data", "none.jsonl"], 3, "there is no such file"),
        (["--predictions", "recipe.yaml/found.jsonl"], 1, "cannot be written"),
    ):
        assert main(["evaluate", str(run), *words]) == code
        assert message in project.capsys.readouterr().err
