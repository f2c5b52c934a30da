"""Folders as data sets are published: which files `ptv2kit new task` takes for which split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas
import pytest

from ptv2kit.cli.main import main
from ptv2kit.data.proposals.recognition import find_files, find_split_names
from ptv2kit.data.sources import read_split
from ptv2kit.errors import DataError
from ptv2kit.spec.load import load_task
from ptv2kit.spec.task import scheme_of
from tests.data.test_recognition import TEXTS, table


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
MNLI = ["train.tsv", *(f"{split}_{kind}.tsv" for split in ("dev", "test") for kind in ("matched", "mismatched"))]
UD = [f"en_ewt-ud-{split}.{ending}" for split in ("train", "dev", "test") for ending in ("conllu", "txt")]


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ([*SNLI, "README.txt"], ["snli_1.0_train.jsonl", "snli_1.0_dev.jsonl", "snli_1.0_test.jsonl"]),
        ([*UD, "stats.xml"], ["en_ewt-ud-train.conllu", "en_ewt-ud-dev.conllu", "en_ewt-ud-test.conllu"]),
        (["train-v1.1.json", "dev-v1.1.json"], ["train-v1.1.json", "dev-v1.1.json", None]),
        (["eng.train", "eng.testa", "eng.testb", "metadata"], ["eng.train", "eng.testa", "eng.testb"]),
        (["SICK_train.txt", "SICK_test_v2.txt", "readme.txt"], ["SICK_train.txt", None, "SICK_test_v2.txt"]),
        (["m_train.txt", "m_dev_matched.txt", "m_dev_mismatched.txt"], ["m_train.txt", "m_dev_matched.txt", None]),
        (MNLI, ["train.tsv", "dev_matched.tsv", "test_matched.tsv"]),
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
    assert find_files(tmp_path).splits == {
        name: str(tmp_path / file) for name, file in splits.items() if file is not None
    }


@pytest.mark.parametrize("beginning", ["", "m_"])
def test_files_that_could_be_a_split_too_are_named(
    beginning: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    for name in MNLI:
        Path("mine", f"{beginning}{name}").write_text(table("\t"))
    other = f"mine/{beginning}dev_mismatched.tsv"
    assert main(["new", "task", "mine"]) == 0
    out = capsys.readouterr().out
    assert f"look at it: '{other}' is not used: --test takes one" in out
    assert f"# Look at it: '{other}' is not used" in Path("mine.yaml").read_text()
    assert load_task(Path("mine.yaml")).task.data.splits.by_name() == {
        "train": f"mine/{beginning}train.tsv",
        "validation": f"mine/{beginning}dev_matched.tsv",
        "test": f"mine/{beginning}test_matched.tsv",
    }
    assert main(["new", "task", "mine", "--test", other, "--to", "other.yaml"]) == 0
    assert f"'{other}' is not used" not in capsys.readouterr().out
    assert load_task(Path("other.yaml")).task.data.splits.by_name()["test"] == other


def test_the_names_of_splits_that_begin_like_a_usual_one() -> None:
    names = ["train", "validation_mismatched", "validation_matched", "test_matched", "trained_on", "devices"]
    assert find_split_names(names) == (
        {"train": "train", "validation": "validation_matched", "test": "test_matched"},
        ("validation_mismatched",),
    )


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
    files = {"train": "mine/train.jsonl", "validation": "mine/dev.jsonl", "test": "mine/test.jsonl"}
    assert task.data.splits.by_name() == files
    Path("mine/test.jsonl").rename("mine/test.jsonl.gz")  # which is no gzip
    assert main(["new", "task", "mine", "--to", "damaged.yaml"]) == 0
    assert load_task(Path("damaged.yaml")).task.data.splits.by_name() == {**files, "test": "mine/test.jsonl.gz"}


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
