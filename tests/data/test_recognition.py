"""Files as people have them: which format `ptv2kit new task` finds, and that the task it writes reads the rows."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pandas
import pytest

from ptv2kit.cli.main import main
from ptv2kit.data.proposals.recognition import find_files
from ptv2kit.data.sources import read_split
from ptv2kit.errors import DataError
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


def test_a_folder_has_a_file_for_each_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    Path("mine/notes.md").write_text("x")
    assert main(["new", "task", "mine"]) == 3
    assert "mine: error: this is a folder without a file that is called train" in capsys.readouterr().err
    Path("mine/Train.csv").write_text(table(","))
    assert main(["new", "task", "mine", "--to", "one.yaml"]) == 0
    for name in ("dev.csv", "valid.csv", "test.v2.csv", "other.csv"):
        Path("mine", name).write_text(table(","))
    assert main(["new", "task", "mine"]) == 0
    assert main(["new", "task", "mine", "--validation", "20%", "--to", "share.yaml"]) == 0
    found = {name: load_task(Path(f"{name}.yaml")).task.data.splits for name in ("one", "mine", "share")}
    assert found["one"].by_name() == {"train": "mine/Train.csv", "validation": "10%"}
    files = {"train": "mine/Train.csv", "validation": "mine/valid.csv", "test": "mine/test.v2.csv"}
    assert found["mine"].by_name() == files
    assert found["share"].by_name() == {**files, "validation": "20%"}
    Path("mine/Train.csv").unlink()
    capsys.readouterr()
    assert main(["new", "task", "mine", "--to", "none.yaml"]) == 3
    assert "the folder has dev.csv, other.csv, test.v2.csv, valid.csv" in capsys.readouterr().err


def test_documents_have_a_file_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, (text, label) in enumerate(TEXTS):
        for name, words in (
            (f"reviews/train/{label}/{number}.txt", text),
            (f"reviews/test/{label}/{number}.txt", text),
        ):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text(words, encoding="cp1252")
        Path("people").mkdir(exist_ok=True)
        Path(f"people/{number}.txt").write_text("Anna saw\nBonn")
        Path(f"people/{number}.ann").write_text("T1\tPER 0 4\tAnna\n")
    files = {"train": "reviews/train/*/*.txt", "validation": "10%", "test": "reviews/test/*/*.txt"}
    inside = {**files, "test": "10%"}
    for name, splits, scheme in (
        ("reviews", files, "classes"),
        ("reviews/train", {"train": "reviews/train/*/*.txt", "validation": "10%"}, "classes"),
        ("people", {"train": "people/*.ann", "validation": "10%"}, "spans"),
        ("reviews/train/*/*.txt --test 10%", inside, "classes"),
    ):
        Path("task.yaml").unlink(missing_ok=True)
        assert main(["new", "task", *name.split(), "--to", "task.yaml"]) == 0, capsys.readouterr().err
        task = load_task(Path("task.yaml")).task
        assert scheme_of(task) == scheme
        assert task.data.splits.by_name() == splits
        rows = read_split(task, "train", task_path=Path("task.yaml"), data_root=None).rows
        assert len(rows) == (10 if splits is inside else 11), "two tenths are kept from training, or one"
        assert scheme == "spans" or {row.value("label") for row in rows} == {"hoch", "niedrig"}
        assert "\ufffd" not in str(rows)


SNLI = [f"snli_1.0_{split}.{ending}" for split in ("train", "dev", "test") for ending in ("jsonl", "txt")]
UD = [f"en_ewt-ud-{split}.{ending}" for split in ("train", "dev", "test") for ending in ("conllu", "txt")]


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ([*SNLI, "README.txt"], ["snli_1.0_train.jsonl", "snli_1.0_dev.jsonl", "snli_1.0_test.jsonl"]),
        ([*UD, "stats.xml"], ["en_ewt-ud-train.conllu", "en_ewt-ud-dev.conllu", "en_ewt-ud-test.conllu"]),
        (["train-v1.1.json", "dev-v1.1.json"], ["train-v1.1.json", "dev-v1.1.json", None]),
        (["eng.train", "eng.testa", "eng.testb", "metadata"], ["eng.train", "eng.testa", "eng.testb"]),
        (["SICK_train.txt", "SICK_test_v2.txt", "readme.txt"], ["SICK_train.txt", None, "SICK_test_v2.txt"]),
        (["m_train.jsonl", "m_dev_matched.jsonl", "m_dev_mismatched.jsonl"], ["m_train.jsonl", None, None]),
        (["wnut17train.conll", "emerging.dev.conll"], ["wnut17train.conll", "emerging.dev.conll", None]),
        (
            ["dataset_infos.json", *(f"data/{part}-of-00002.parquet" for part in ("train-00000", "train-00001"))],
            ["data/train-*.parquet", None, None],
        ),
        (["20news-train/a/60", "20news-test/a/61"], ["20news-train/*/[0-9]*", None, "20news-test/*/[0-9]*"]),
        (["README", "imdbEr.txt", "train/neg/0_3.txt", "test/neg/0_2.txt"], ["train/*/*.txt", None, "test/*/*.txt"]),
        (["reviews.csv", "notes/a/b.txt"], ["reviews.csv", None, None]),
        (["a_train.csv", "b_train.csv"], None),
        (["training_guidelines.txt", "reviews.csv"], None),
        (["restrained.csv", "pretrain.csv"], None),
        (["train/1/2.png", "test/1/2.png"], None),
    ],
)  # fmt: skip
def test_the_splits_of_published_folders_are_found(
    files: list[str], found: list[str | None] | None, tmp_path: Path
) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("x")
    if found is None:
        with pytest.raises(DataError, match="this is a folder without a file that is called train"):
            find_files(tmp_path)
        return
    splits = dict(zip(("train", "validation", "test"), found, strict=True))
    assert find_files(tmp_path) == {name: str(tmp_path / file) for name, file in splits.items() if file is not None}


def test_texts_whose_names_are_numbers_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in 20 Newsgroups, of which a few are not UTF-8."""
    monkeypatch.chdir(tmp_path)
    for number in range(24):
        path = Path("news-train", ("alt.atheism", "sci.space")[number % 2], str(50_000 + number))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"caf\xe9 {number}" if number == 12 else f"tea {number}", encoding="cp1252")
    assert main(["new", "task", ".", "--to", "news.yaml"]) == 0
    assert "# Look at it: the file is not UTF-8 and is read as cp1252" in Path("news.yaml").read_text()
    rows = read_split(load_task(Path("news.yaml")).task, "train", task_path=Path("news.yaml"), data_root=None).rows
    assert {row.value("label") for row in rows} == {"alt.atheism", "sci.space"}
    assert len(rows) == 22


@pytest.mark.parametrize(
    ("test", "kept"),
    [(("neg", "pos"), ["neg", "pos"]), (("neg", "pos", "unsup"), None), (("neg",), None), (("bad", "good"), None)],
)
def test_texts_of_which_only_the_training_rows_have_the_class_are_left_out(
    test: tuple[str, ...],
    kept: list[str] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """IMDB as it is published has 50,000 texts without a class in `train/unsup`."""
    monkeypatch.chdir(tmp_path)
    folders = [*(f"train/{name}" for name in ("neg", "pos", "unsup")), *(f"test/{name}" for name in test)]
    for folder in folders:
        for number in range(8):
            path = Path("aclImdb", folder, f"{number}_7.txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"a film of {folder} for {number}")
    assert main(["new", "task", "aclImdb"]) == 0
    task = load_task(Path("aclImdb.yaml")).task
    assert task.labels.model_dump()["names"] == tuple(kept or ("neg", "pos", "unsup"))
    assert task.where.get("label") == (None if kept is None else tuple(kept))
    names = {row.value("label") for row in read_split(task, "train", task_path=Path("x"), data_root=None).rows}
    assert names == set(kept or ("neg", "pos", "unsup"))
    assert ("'unsup' are left out: no other split has that folder" in capsys.readouterr().out) is (kept is not None)
    assert main(["validate", "aclImdb.yaml"]) == 0


BARE = [{"text": "a film"}, {"text": "b", "label": None}, {"text": "c", "label": -1}, {"text": "d", "label": ""}]
LABELLED = {"text": "x", "label": "hoch"}


def test_labels_that_are_made_of_a_column_and_rows_that_cannot_be_read_are_no_lack_of_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    row = json.dumps({"sentence": "anna saw bonn", "word_labels": "B-PER O B-LOC"}) + "\n"
    for name, content in (("train", row * 9), ("dev", row), ("test", "{\n")):
        Path(f"mine/{name}.jsonl").write_text(content)
    assert main(["new", "task", "mine"]) == 0
    task = load_task(Path("mine.yaml")).task
    assert task.labels.model_dump()["column"] in task.derive
    assert task.data.splits.by_name() == {
        name: f"mine/{file}.jsonl" for name, file in (("train", "train"), ("validation", "dev"), ("test", "test"))
    }


def test_old_corpora_are_known_by_what_is_in_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("eng.train", "eng.testa"):
        Path(name).write_text("-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nleft VBZ B-VP O\n\n" * 5)
    assert main(["new", "task", ".", "--to", "task.yaml"]) == 0
    task = load_task(Path("task.yaml")).task
    assert (scheme_of(task), task.data.splits.by_name()) == ("iob2", {"train": "eng.train", "validation": "eng.testa"})


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
@pytest.mark.parametrize(
    ("dev", "test", "left_out"),
    [
        ([LABELLED], BARE[:1], ["test"]),
        ([LABELLED], BARE[1:2], ["test"]),
        (BARE[2:], BARE, ["dev", "test"]),
        ([*BARE, LABELLED], [LABELLED], []),
    ],
)
def test_a_file_without_labels_is_no_split(
    dev: list[dict[str, Any]],
    test: list[dict[str, Any]],
    left_out: list[str],
    ending: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As the test rows of GLUE and of competitions."""
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    for name, rows in (
        ("train", [{"text": text, "label": label} for text, label in TEXTS]),
        ("dev", dev),
        ("test", test),
    ):
        table, file = pandas.DataFrame(rows), f"mine/{name}.{ending}"
        table.to_csv(file, index=False) if ending == "csv" else table.to_json(file, orient="records", lines=True)
    assert main(["new", "task", "mine"]) == 0
    splits = {"train": f"mine/train.{ending}", "validation": "10%" if "dev" in left_out else f"mine/dev.{ending}"}
    splits |= {} if "test" in left_out else {"test": f"mine/test.{ending}"}
    found = load_task(Path("mine.yaml")).task.data.splits.by_name()
    assert list(found.items()) == list(splits.items())
    assert "splits: {train: " in Path("mine.yaml").read_text()
    files = " and ".join(f"'mine/{name}.{ending}'" for name in left_out)
    assert (f"look at it: there are no labels in {files}, so" in capsys.readouterr().out) is bool(left_out)
    Path("mine.yaml").unlink()
    assert main(["new", "task", "mine", "--test", f"mine/test.{ending}"]) == 0
    assert "test" in load_task(Path("mine.yaml")).task.data.splits.by_name(), "it was asked for"


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
