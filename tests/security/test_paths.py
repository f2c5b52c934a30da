"""Data paths of a shared task that lead out of its folder, and out of the data root."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.security.command import Ending, run

TASK = """task: shared
data: {source: jsonl, splits: {train: %s, validation: own.jsonl}}
input: {text: "{text}", max_length: 16}
labels: {scheme: classes, column: label, names: [no, yes]}
"""
ROWS = "".join(json.dumps({"text": "a b", "label": name}) + "\n" for name in ("no", "yes", "no"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine: `home` with a project and a download, `root` with data, and a secret beside them."""
    for name in ("home/project/data", "home/download/task", "root/data"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "secret.jsonl").write_text(ROWS)
    (tmp_path / "home" / "download" / "task" / "own.jsonl").write_text(ROWS)
    (tmp_path / "home" / "project" / "data" / "rows.jsonl").write_text(ROWS)
    (tmp_path / "root" / "data" / "rows.jsonl").write_text(ROWS)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PTV2KIT_DATA", raising=False)
    monkeypatch.chdir(tmp_path / "home" / "project")
    return tmp_path


def validated(place: Path, train: str, *words: str) -> Ending:
    task = place / "home" / "download" / "task" / "task.yaml"
    task.write_text(TASK % json.dumps(train))
    ending = run("validate", str(task), "--data", *words)
    assert ending.code == 0, ending
    return ending


def told(ending: Ending, file: Path) -> bool:
    text = f"warning: split 'train' of task 'shared' is read from '{file}', outside its folder"
    assert ("warning" in ending.err) == (text in ending.err), ending
    return text in ending.err


@pytest.mark.parametrize("form", ["../../../secret.jsonl", "{place}/secret.jsonl", "../../../sec*.jsonl", "x/../link"])
def test_what_lies_elsewhere_is_named(place: Path, form: str) -> None:
    folder = place / "home" / "download" / "task"
    (folder / "x").mkdir()
    (folder / "link").symlink_to(place / "secret.jsonl")
    assert told(validated(place, form.format(place=place)), place / "secret.jsonl")


def test_what_lies_beside_the_task_in_the_project_or_under_the_root_is_not(place: Path) -> None:
    secret = place / "secret.jsonl"
    root = ("--data-root", str(place / "root"))
    assert not told(validated(place, "own.jsonl"), secret)
    assert not told(validated(place, "../../project/data/rows.jsonl"), secret)
    assert not told(validated(place, str(place / "root" / "data" / "rows.jsonl"), *root), secret)
    assert not told(validated(place, "data/*.jsonl", *root), secret)


def test_a_link_in_the_data_root_is_the_users_own(place: Path) -> None:
    (place / "store" / "deep").mkdir(parents=True)
    (place / "store" / "deep" / "rows.jsonl").write_text(ROWS)
    (place / "store" / "other.jsonl").write_text(ROWS)
    (place / "root" / "linked").symlink_to(place / "store" / "deep")
    root = ("--data-root", str(place / "root"))
    assert not told(validated(place, "linked/rows.jsonl", *root), place)
    assert told(validated(place, "linked/../other.jsonl", *root), place / "store" / "other.jsonl")


def test_out_of_the_data_root(place: Path) -> None:
    assert told(validated(place, "../secret.jsonl", "--data-root", str(place / "root")), place / "secret.jsonl")


def test_the_working_folder_does_not_count_where_it_is_home(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = place / "home" / "project" / "data" / "rows.jsonl"
    for folder in (place / "home", Path("/")):
        monkeypatch.chdir(folder)
        assert told(validated(place, "../../project/data/rows.jsonl"), rows)


def test_the_words_beside_props_count_too(place: Path) -> None:
    folder = place / "home" / "download" / "task"
    (place / "secret").write_text("ada\nmet\n\n")
    (folder / "a.props").write_text("-\t(A0*)\nmeet\t(V*)\n\n")
    (folder / "a.words").symlink_to(place / "secret")
    task = folder / "task.yaml"
    task.write_text(
        "task: shared\ndata: {source: conll05, splits: {train: a.props, validation: a.props}}\n"
        "input: {words: tokens, max_length: 16}\nlabels: {scheme: iob2, column: tags, names: from_train}\n"
    )
    ending = run("validate", str(task), "--data")
    assert told(ending, place / "secret")


@pytest.mark.parametrize(
    "name", ["hub:../../etc", "hub:a/b/c", "hub:", "hub:a/b@../..", "hub:/etc/passwd", "hub:a\n/b"]
)
def test_names_on_the_hub_are_names(place: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    ending = run("predict", name, str(place / "secret.jsonl"))
    assert ending.code in (2, 3), ending
    assert "internal error" not in ending.err
    assert "Traceback" not in ending.err
