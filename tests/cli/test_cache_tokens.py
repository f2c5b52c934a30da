"""`train.cache_tokens` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ptv2kit.cli.main import main
from ptv2kit.data import token_cache
from ptv2kit.data.dataset import EncodedSplit
from tests.cli.test_run import Project, project, read_json

__all__ = ["project"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where splits are kept during a test, however small they are."""
    monkeypatch.setattr(token_cache, "LEAST_BYTES", 0)
    monkeypatch.setenv("PTV2KIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


def forbid_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def encoded(*_: object) -> EncodedSplit:
        raise AssertionError("it was encoded again")

    monkeypatch.setattr(token_cache, "encode_split", encoded)


def test_a_later_run_reads_what_the_first_has_encoded(
    project: Project, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert project.run()[0] == 0
    assert len(list(cache.iterdir())) == 1  # both splits have the same rows
    forbid_encoding(monkeypatch)
    assert project.run("train.seed=12", "prompt.length=2")[0] == 0
    assert project.run()[0] == 0
    # Runs of one second stand in any order.
    same = [run for run in project.runs if read_json(run / "results.json")["seed"] == 11]
    first, again = (read_json(run / "results.json") for run in same)
    assert first["history"] == again["history"]
    predictions = [(run / "predictions" / "validation.jsonl").read_text() for run in same]
    assert predictions[0] == predictions[1]


def test_false_neither_writes_nor_reads(project: Project, cache: Path) -> None:
    assert project.run("train.cache_tokens=false")[0] == 0
    assert not cache.exists()
    assert project.run()[0] == 0
    [file] = cache.iterdir()
    file.write_bytes(b"")
    code, _, err = project.run("train.cache_tokens=false")
    assert code == 0
    assert "is made again" not in err
    code, _, err = project.run()
    assert code == 0
    assert f"{file}: warning: this encoded split is made again" in err


def test_it_is_no_part_of_what_was_asked(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    assert project.run()[0] == 0
    assert project.run("train.cache_tokens=false")[0] == 0
    keys = [read_json(run / "provenance.json")["key"] for run in project.runs]
    assert keys[0] == keys[1]
    [run, _] = project.runs
    (run / "results.json").unlink()  # as if it had been ended
    assert main(["run", str(run), "--resume", "train.cache_tokens=false"]) == 0


def test_faults_of_rows_are_told_in_the_same_words(project: Project, cache: Path) -> None:
    lines = (project.folder / "rows.jsonl").read_text()
    (project.folder / "rows.jsonl").write_text(lines + json.dumps({"words": ["ada", "met"], "tags": ["O"]}) + "\n")
    code, _, plain = project.run("train.cache_tokens=false")
    assert code == 3
    assert "rows.jsonl:13: error: 2 words in 'words' but 1 tags in 'tags'" in plain
    for _ in range(2):
        code, _, err = project.run()
        assert (code, err) == (3, plain)
    assert not cache.exists()


def test_a_folder_that_cannot_be_written_does_not_stop_a_run(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PTV2KIT_CACHE", str(tmp_path / "file"))
    code, _, err = project.run()
    assert code == 0
    assert f"{tmp_path / 'file' / 'tokens'}: warning: the encoded split 'train' cannot be kept: Not a directory" in err


def test_the_doctor_says_how_much_is_kept(
    project: Project, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.mkdir(parents=True)
    (cache / "a.json.gz").write_bytes(bytes(3 * 2**20))
    assert main(["doctor", "--json"]) == 0
    folders = json.loads(capsys.readouterr().out)["folders"]
    assert folders["kept tokens"] == f"{cache}, 3.0 MiB (train.cache_tokens)"
    assert folders["kept outputs"] == f"{cache.parent / 'trunk'}, 0.0 MiB (train.cache_trunk: disk)"


def test_the_doctor_of_who_has_no_home(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.chdir(tmp_path)
    for name in ("PTV2KIT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["folders"]["kept tokens"] == "there is no home folder: set PTV2KIT_CACHE"
