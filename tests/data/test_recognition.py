"""Files as people have them: which format `ptv2kit new task` finds, and that the task it writes reads the rows."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from ptv2kit.cli.main import main
from ptv2kit.data.sources import read_split
from ptv2kit.spec.load import load_task
from ptv2kit.spec.task import scheme_of

TEXTS = [("Die Rechnung ist falsch, bitte prüfen", "hoch"), ("Alles gut", "niedrig"), ("Wo bleibt es?", "hoch")] * 4
ROWS = [{"text": text, "label": label} for text, label in TEXTS]
ANSWER = {"text": "on the Rhine", "answer_start": 10}
PARAGRAPH = {"context": "Bonn lies on the Rhine", "qas": [{"id": "1", "question": "Where?", "answers": [ANSWER]}]}
SQUAD = {"version": "1.1", "data": [{"title": "Bonn", "paragraphs": [PARAGRAPH, PARAGRAPH]}]}


def table(delimiter: str, header: str = "text{}label", quote: str = '"') -> str:
    lines = [f"{quote}{text}{quote}{delimiter}{label}" for text, label in TEXTS]
    return "\n".join([*([header.format(delimiter)] if header else []), *lines]) + "\n"


def exported(number: int, text: str, result: list[dict[str, Any]]) -> dict[str, Any]:
    """A row as Label Studio exports it."""
    made = {"id": number, "completed_by": number % 2, "result": result, "was_cancelled": False, "lead_time": 3.2}
    about = {"created_at": "2024-01-01", "updated_at": f"2024-01-{number}", "updated_by": number % 2, "drafts": []}
    return {"id": number, "annotations": [made], "data": {"text": text, "box": "a b"}, "meta": {}, **about}


def marked(value: dict[str, Any]) -> dict[str, Any]:
    return {"id": "x", "from_name": "a", "to_name": "text", "type": "labels", "value": value}


MARKED = [
    exported(n, text, [marked({"start": 0, "end": 3, "text": text[:3], "labels": ["WORD"]})] if n % 4 else [])
    for n, (text, _) in enumerate(TEXTS)
]
CHOSEN = [exported(n, text, [marked({"choices": [label]})]) for n, (text, label) in enumerate(TEXTS)]
SEVERAL = [exported(n, text, [marked({"choices": [label, "new"]})]) for n, (text, label) in enumerate(TEXTS)]
INFERENCE = "".join(
    json.dumps({"gold_label": label, "sentence1": f"it is {n}", "sentence2": f"so {n}"}) + "\n"
    for n, label in enumerate(["neutral", "-", "entailment", "contradiction"] * 5)
)
WORDS = "".join(f"Sentence: {number},Bonn,B-geo\n,sleeps,O\n" for number in range(1, 12))

FILES: dict[str, tuple[str | bytes, str, dict[str, Any], int]] = {
    # file: content, scheme, what the source says besides its kind and splits, rows
    "semicolon.csv": (table(";"), "classes", {"source": "csv", "delimiter": ";"}, 12),
    "excel.csv": (
        table(";", quote="").replace("\n", "\r\n").encode("cp1252"),
        "classes",
        {"source": "csv", "delimiter": ";", "encoding": "cp1252"},
        12,
    ),
    "tabs.csv": (table("\t", quote=""), "classes", {"source": "csv", "delimiter": "\t"}, 12),
    "bars.txt": (table("|", quote=""), "classes", {"source": "tsv", "delimiter": "|"}, 12),
    "commas.tsv": (table(","), "classes", {"source": "tsv", "delimiter": ",", "quoting": True}, 12),
    "quotes.tsv": (table("\t"), "classes", {"source": "tsv", "quoting": True}, 12),
    "speech.csv": (
        'text,label\nhe said "no" to me,a\nyes it is,b\nno no,a\n"so" he said,b\n',
        "classes",
        {"source": "csv", "quoting": False},
        4,
    ),
    "no_header.csv": (table(",", ""), "classes", {"source": "csv", "columns": ["column1", "column2"]}, 12),
    "numbers.csv": ("3,wrong bill\n5,all good\n3,very late\n" * 4, "classes", {"columns": ["column1", "column2"]}, 12),
    "pandas.csv": (",0,1\n" + "".join(f'{n},"{t}",{of}\n' for n, (t, of) in enumerate(TEXTS)), "classes", {}, 12),
    "more_columns.csv": ("v1,v2,,\n" + "ham,see you,,\nspam,win now,,\n,,,\n" * 4, "classes", {"source": "csv"}, 8),
    "array.json": (json.dumps(ROWS, indent=1), "classes", {"source": "jsonl"}, 12),
    "lines.json": ("".join(json.dumps(row) + "\n" for row in ROWS), "classes", {"source": "jsonl"}, 12),
    "lines.ndjson": ("".join(json.dumps(row) + "\n" for row in ROWS), "classes", {"source": "jsonl"}, 12),
    "wrapped.json": (json.dumps({"version": 1, "data": ROWS}), "classes", {"records": "data"}, 12),
    "nested.json": (
        json.dumps({"nlu": {"notes": [{}], "common": ROWS}, "x": [1] * 20}, indent=1),
        "classes",
        {"records": "nlu.common"},
        12,
    ),
    "unicode.txt": (table("\t", quote="").encode("utf-16"), "classes", {"source": "tsv", "encoding": "utf-16"}, 12),
    "squad.json": (json.dumps(SQUAD), "start_end", {"source": "squad"}, 2),
    "squad_lines.json": (json.dumps(SQUAD, indent=2), "start_end", {"source": "squad"}, 2),
    "words.csv": ("Sentence #,Word,Tag\n" + WORDS, "iob2", {"source": "csv", "sentence": "Sentence #"}, 11),
    "tags.tsv": ("Bonn\tB-LOC\nsleeps\tO\n\n" * 8, "iob2", {"columns": {"tokens": 0, "tags": -1}}, 8),
    "universal.iob2": (
        "# sent_id = 1\n# text = x\n1\tin Bonn\tB-LOC\t-\t-\n2\tthere\tO\t-\t-\n\n" * 8,
        "iob2",
        {"columns": {"tokens": 1, "tags": 2}, "separator": "tab", "comment": "# "},
        8,
    ),
    "ud.conllu": (
        "# sent_id = 1\n"
        "1-2\tDon't\t_\t_\t_\t_\t_\t_\t_\t_\n"
        "1\tDo\tdo\tAUX\tVB\t_\t3\taux\t_\t_\n"
        "2\tn't\tnot\tPART\tRB\t_\t3\tadvmod\t_\t_\n"
        "2.1\tyou\t_\tPRON\tPRP\t_\t_\t_\t_\t_\n"
        "3\tgo\tgo\tVERB\tVB\t_\t0\troot\t_\t_\n\n" * 8,
        "tags",
        {
            "columns": {"tokens": 1, "upos": 3, "xpos": 4, "deprels": 7},
            "separator": "tab",
            "comment": "#",
            "numbered": True,
        },
        8,
    ),
    "parts.conll": ("Bonn PROPN\nsleeps VERB\n\n" * 8, "tags", {"columns": {"tokens": 0, "tags": -1}}, 8),
    "parts.csv": ("words,pos\n" + "Bonn sleeps,PROPN VERB\n" * 8, "tags", {}, 8),
    "blanks.csv": ("text, label\n" + '"see you, now", ham\nwin it, spam\n' * 6, "classes", {"source": "csv"}, 12),
    "styles.txt": ("张 B_NAME\n大 M_NAME\n伟 E_NAME\n在 O\n\n" * 8, "iob2", {"source": "conll"}, 8),
    "latin.bio": ("Köln B-LOC\nschläft O\n\n".encode("latin-1") * 8, "iob2", {"encoding": "cp1252"}, 8),
    "listed.csv": ("tokens,ner\n" + '"[\'Bonn\', ""isn\'t""]","[\'B-LOC\', \'O\']"\n' * 8, "iob2", {}, 8),
    "spaced.csv": ("words,tags\n" + "Bonn sleeps,B-LOC O\n" * 8, "iob2", {}, 8),
    "spans.csv": ("text,entities\n" + "Bonn sleeps,\"[(0, 4, 'LOC')]\"\n" * 8, "spans", {}, 8),
    "numbered.jsonl": ('{"tokens": ["Bonn", "sleeps"], "ner": [1, 0]}\n' * 8, "iob2", {}, 8),
    "mappings.jsonl": (  # as many as there are words, and not tags
        "".join(
            f'{{"w": ["a"], "marks": [{{"b": 1}}], "text": "Bonn sleeps", "label": "{n % 2}"}}\n' for n in range(8)
        ),
        "classes",
        {},
        8,
    ),
    "many.csv": (
        "text,category\n" + "".join(f"ask for thing {n % 80},kind_{n % 80}\n" for n in range(240)),
        "classes",
        {"source": "csv"},
        240,
    ),
    "flags.csv": ("text,toxic,rude\n" + "go away now,1,1\nhow are you,0,0\nyou are bad,0,1\n" * 4, "labels", {}, 12),
    "labels.txt": (
        "".join(f"__label__{label} {text}\n" for text, label in TEXTS),
        "classes",
        {"source": "fasttext"},
        12,
    ),
    "labels.txt.gz": (
        gzip.compress(b"__label__a it is so\n__label__b it is not\n" * 4),
        "classes",
        {"source": "fasttext"},
        8,
    ),
    "cooking.train": (
        "__label__sauce __label__cheese How much does it take\n__label__food How long\n" * 4,
        "labels",
        {"source": "fasttext"},
        8,
    ),
    "studio.json": (json.dumps(MARKED), "spans", {"source": "jsonl"}, 12),
    "studio_choice.json": (json.dumps(CHOSEN), "classes", {"source": "jsonl"}, 12),
    "studio_choices.json": (json.dumps(SEVERAL), "labels", {"source": "jsonl"}, 12),
    "fields.json": (
        json.dumps(
            [
                {"in": {"text": text, "kind": f"k{n % 2}"}, "out": {"label": label}}
                for n, (text, label) in enumerate(TEXTS)
            ]
        ),
        "classes",
        {"source": "jsonl"},
        12,
    ),
    "unknown.jsonl": (INFERENCE, "classes", {"source": "jsonl"}, 15),
    "overlap.jsonl": ('{"text": "Bonn am Rhein", "spans": [[0, 4, "A"], [0, 13, "B"]]}\n' * 8, "spans", {}, 8),
    "inside.jsonl": (
        '{"comment": "by someone who writes a lot here", "text": "Bonn", "spans": [[0, 4, "A"]]}\n' * 4
        + '{"comment": "short", "text": "so we went to Bonn", "spans": [[14, 18, "A"]]}\n' * 4,
        "spans",
        {},
        8,
    ),
    "outside.jsonl": (
        "".join(f'{{"text": "so few", "places": [[0, 40, "A"]], "label": "{"ab"[n % 2]}"}}\n' for n in range(8)),
        "classes",
        {},
        8,
    ),
    "within.jsonl": ('{"text": "in Bonner Hof ", "spans": [[3, 7, "A"], [10, 14, "B"]]}\n' * 8, "spans", {}, 8),
    "prodigy.jsonl": (
        "".join(
            json.dumps({"text": "Bonn sleeps", "spans": [{"start": 0, "end": 4, "label": "LOC"}], "answer": answer})
            + "\n"
            for answer in ("accept", "reject", "accept", "ignore") * 3
        ),
        "spans",
        {},
        6,
    ),
    "verdicts.jsonl": (
        "".join(json.dumps({"text": f"a joy {n}", "answer": ("accept", "reject")[n % 2]}) + "\n" for n in range(12)),
        "classes",
        {},
        12,
    ),
    "types.jsonl": ('{"tokens": ["Bonn", "an", "Rhein"], "ner": [2, 0, 1]}\n' * 8, "iob2", {}, 8),
    "several.csv": ("text,tags\n" + 'go away now,"rude, old"\nhow are you,kind\nfine day,old\n' * 4, "labels", {}, 12),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_recognised(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content, scheme, says, count = FILES[name]
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main(["new", "task", name, "--validation", name, "--to", "task.yaml"]) == 0, capsys.readouterr().err
    task = load_task(Path("task.yaml")).task
    found = task.data.model_dump(mode="json", exclude_defaults=True)
    assert scheme_of(task) == scheme
    assert {key: found.get(key) for key in says} == says
    assert set(found) - {"source", "splits", "columns"} == set(says) - {"source", "columns"}
    rows = read_split(task, "train", task_path=Path("task.yaml"), data_root=None).rows
    assert len(rows) == count
    assert "Ã" not in str(rows)
    read = [column for column in task.input_columns() if column not in task.derive]
    assert all(rows[0].value(column) for column in read)


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("flags.csv", [["toxic", "rude"], [], ["rude"]]),
        ("listed.csv", [["B-LOC", "O"]] * 3),
        ("spans.csv", [[[0, 4, "LOC"]]] * 3),
        ("spaced.csv", [["B-LOC", "O"]] * 3),
        ("ud.conllu", [["AUX", "PART", "VERB"]] * 3),
        ("blanks.csv", ["ham", "spam", "ham"]),
        ("unknown.jsonl", ["neutral", "entailment", "contradiction"]),
        ("labels.txt", ["hoch", "niedrig", "hoch"]),
        ("cooking.train", [["sauce", "cheese"], ["food"], ["sauce", "cheese"]]),
        (
            "studio.json",
            [[], *[[{"start": 0, "end": 3, "text": text[:3], "labels": ["WORD"]}] for text, _ in TEXTS[1:3]]],
        ),
        ("studio_choice.json", ["hoch", "niedrig", "hoch"]),
        ("studio_choices.json", [["hoch", "new"], ["niedrig", "new"], ["hoch", "new"]]),
        ("fields.json", ["hoch", "niedrig", "hoch"]),
    ],
)
def test_columns_are_made(name: str, labels: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(str(FILES[name][0]))
    assert main(["new", "task", name, "--validation", name, "--to", "task.yaml"]) == 0
    task = load_task(Path("task.yaml")).task
    rows = read_split(task, "train", task_path=Path("task.yaml"), data_root=None).rows
    column = task.labels.model_dump()["column"]
    assert (column in task.derive) == name.startswith(("flags", "listed", "spans", "spaced"))
    assert [row.value(column) for row in rows[:3]] == labels


@pytest.mark.parametrize(
    ("labels", "kept"), [((-1, 0, 1, 2), 3), ((-1, 0, 1), 3), ((0, 1, 2), 3), (("+", "-", "0"), 3)]
)
def test_minus_one_is_a_class_beside_zero_and_one_only(
    labels: tuple[int | str, ...], kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"text": f"it is {n}", "label": labels[n % len(labels)]} for n in range(24)]
    Path("x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["new", "task", "x.jsonl"]) == 0
    task = load_task(Path("x.yaml")).task
    assert task.logits() == ("sequence", kept)
    assert bool(task.where) == (len(labels) == 4)


@pytest.mark.parametrize(
    ("name", "text", "keys"),
    [
        ("inside.jsonl", "text", {}),
        ("within.jsonl", "text", {"misaligned": "widen"}),
        ("overlap.jsonl", "text", {"overlapping": "longest"}),
    ],
)
def test_what_spans_need_is_proposed(
    name: str, text: str, keys: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(str(FILES[name][0]))
    assert main(["new", "task", name, "--to", "task.yaml"]) == 0
    task = load_task(Path("task.yaml")).task
    assert task.input_columns() == [text]
    labels = task.labels.model_dump()
    assert {"misaligned": labels["misaligned"], "overlapping": labels["overlapping"]} == {
        "misaligned": "error",
        "overlapping": "error",
        **keys,
    }
    assert main(["validate", "task.yaml", "--data"]) == 0


def test_numbers_that_are_types_are_no_iob2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("types.jsonl").write_text(str(FILES["types.jsonl"][0]))
    assert main(["new", "task", "types.jsonl"]) == 0
    labels = load_task(Path("types.yaml")).task.labels.model_dump()
    assert labels["encoding"] == "io"
    assert labels["names"] == {"0": "O", "1": "I-1", "2": "I-2"}
    assert main(["validate", "types.yaml", "--data"]) == 0


def test_data_sets_that_the_library_has_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = datasets.ClassLabel(names=["bad", "good"])
    features = datasets.Features({"text": datasets.Value("string"), "label": names})
    rows = datasets.Dataset.from_dict({"text": ["so bad", "so good"] * 10, "label": [0, 1] * 10}, features=features)
    rows.save_to_disk("one")
    datasets.DatasetDict({"train": rows, "validation": rows, "test": rows}).save_to_disk("several")
    for name, validation, count in (("one", "10%", 18), ("several", "validation", 20)):
        assert main(["new", "task", name]) == 0, capsys.readouterr().err
        task = load_task(Path(f"{name}.yaml")).task
        assert task.labels.model_dump()["names"] == ("bad", "good")
        assert task.data.splits.by_name() == {"train": "train", "validation": validation}
        read = read_split(task, "train", task_path=Path(f"{name}.yaml"), data_root=None)
        assert [row.value("label") for row in read.rows[:2]] == ["bad", "good"]
        assert len(read.rows) == count


def test_a_malformed_row_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.csv").write_text(table(";") * 2 + "one;two;three\n")
    assert main(["new", "task", "x.csv"]) == 3
    assert "x.csv:27: error: expected 2 fields (text, label). Got 3" in capsys.readouterr().err


def test_what_one_should_look_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, said in (
        ("excel.csv", "the file is not UTF-8 and is read as cp1252"),
        ("no_header.csv", "no header line, so its columns are called column1, column2; --columns names them"),
        ("numbered.jsonl", "the tags are numbers: write the right tag of each in 'labels.names'"),
    ):
        content = FILES[name][0]
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
        assert main(["new", "task", name]) == 0
        assert said in capsys.readouterr().out
        assert said in Path(name).with_suffix(".yaml").read_text()
    assert main(["new", "task", "no_header.csv", "--columns", "message, verdict", "--to", "named.yaml"]) == 0
    task = load_task(Path("named.yaml")).task
    assert task.input_columns() == ["message"]
    assert "look at it" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "words", "message"),
    [
        ("sheet.xlsx", "", [], "hint: save the sheet as CSV"),
        ("x.dat", "", [], "is not a JSON, CSV, TSV, Parquet or CoNLL file by its name"),
        ("x.txt", "it was fun\nit was not, no\n", [], "is neither a table nor a file with a word and its tag"),
        ("x.json", json.dumps({"data": [["a", "b"]]}), [], "the file is one JSON object, with lists in 'data'"),
        ("columns.json", json.dumps({"text": {"0": "a b"}, "label": {"0": "c"}}), [], "is one JSON object. Expected"),
        ("index.json", json.dumps({"0": {"text": "a b"}, "1": {"text": "c"}}), [], "orient='records', lines=True"),
        ("y.json", json.dumps({"text": ["a"], "label": ["b"]}, indent=1), [], "with lists in 'text', 'label'"),
        ("x.jsonl", json.dumps(ROWS[0]), ["--columns", "a,b"], "--columns names the columns of a table"),
        ("none.csv", None, [], "none.csv: error: there is no such file"),
        ("no/body", None, [], "hub:no/body: error: the data set cannot be loaded"),
        ("x.csv", "a,b\n1,2\n", ["--columns", "a"], "x.csv:1: error: expected 1 field (a). Got 2"),
    ],
)
def test_what_is_not_recognised(
    name: str,
    content: str | None,
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).write_text(content)
    assert main(["new", "task", name, *words, "--to", "task.yaml"]) in (2, 3)
    assert message in capsys.readouterr().err
    assert not Path("task.yaml").exists()
