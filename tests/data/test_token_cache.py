"""Encoded splits on disk: equal to fresh ones, never stale, and never in the way."""

from __future__ import annotations

import errno
import gzip
import hashlib
import logging
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from ptv2kit.config.task import TASK_SECTIONS
from ptv2kit.data import token_cache
from ptv2kit.data.dataset import EncodedSplit, encode_split
from ptv2kit.data.schemes import build_scheme
from ptv2kit.data.token_cache import ENCODING_VERSION, encoded_split
from ptv2kit.data.tokens import Filling, Subwords
from ptv2kit.errors import DataError
from tests.data.small_tasks import CLASSES, FILLINGS, ROWS, SECTIONS, data_of, subwords_of, task_of, tokenizers

__all__ = ["tokenizers"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where splits are kept during a test, however small they are."""
    monkeypatch.setattr(token_cache, "LEAST_BYTES", 0)
    monkeypatch.setenv("PTV2KIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


def silent(*_: object) -> None: ...


def kept(section: dict[str, Any], subwords: Subwords, values: list[dict[str, Any]] = ROWS, **keys: Any) -> EncodedSplit:
    task = task_of(section, **keys)
    data = data_of(task, values)
    return encoded_split(build_scheme(task, subwords, data.rows), task, subwords, data, silent, keep=True)


def fresh(section: dict[str, Any], subwords: Subwords) -> EncodedSplit:
    task = task_of(section)
    data = data_of(task, ROWS)
    return encode_split(build_scheme(task, subwords, data.rows), data, silent)


def files(cache: Path) -> list[Path]:
    return sorted(cache.iterdir())


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What users are told; other libraries say what they like."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("ptv2kit")]


def forbid_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def encoded(*_: object) -> EncodedSplit:
        raise AssertionError("it was encoded again")

    monkeypatch.setattr(token_cache, "encode_split", encoded)


def test_every_scheme_is_tried() -> None:
    assert {section["labels"]["scheme"] for section in SECTIONS.values()} == TASK_SECTIONS.keys()


@pytest.mark.parametrize("filling", FILLINGS)
@pytest.mark.parametrize("name", SECTIONS)
def test_what_is_read_equals_what_is_encoded(
    name: str,
    filling: Filling,
    tokenizers: dict[str, Path],
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    section = SECTIONS[name]
    max_length = section["input"]["max_length"] * (4 if FILLINGS[filling] != "bert" else 1)  # letters, not words
    if FILLINGS[filling] == "glm" and section.get("head") == "verbalizer":
        section = {**section, "verbalizer_tokens": "any"}
    subwords = subwords_of(tokenizers[FILLINGS[filling]], filling, max_length)
    expected = fresh(section, subwords)
    assert kept(section, subwords).features == expected.features
    assert len(files(cache)) == 1
    forbid_encoding(monkeypatch)
    found = kept(section, subwords_of(tokenizers[FILLINGS[filling]], filling, max_length))
    assert found == expected
    assert repr(found.features) == repr(expected.features)  # True is not 1, a list is no tuple
    assert not warned(caplog)


DIGESTS = {
    "classes": "dc4baecbabb013a8",
    "grouped": "30abcf4181c2156e",
    "choices": "6cb26b54a0bfbfe5",
    "iob2": "a0b948b10abb7fd4",
    "roles": "fb29cda38ccc5db0",
    "start_end": "7b4ff2ae8b346f4c",
    "cloze": "d3478b77731df4a1",
    "cloze choices": "c873873eb9d2cbc5",
    "cloze of several tokens": "e037dbfa2d0d0992",
}
"""Of the features of `ROWS`, for version 1."""


@pytest.mark.parametrize("name", SECTIONS)
def test_who_changes_the_encoding_raises_its_version(name: str, tokenizers: dict[str, Path]) -> None:
    """If this fails, raise ENCODING_VERSION, or files of the version before are taken for what they no longer are."""
    subwords = subwords_of(tokenizers["bert"], max_length=SECTIONS[name]["input"]["max_length"])
    digest = hashlib.sha256(repr(fresh(SECTIONS[name], subwords).features).encode()).hexdigest()[:16]
    assert (ENCODING_VERSION, digest) == (1, DIGESTS[name])


def test_an_edited_template_is_never_answered_with_the_old_rows(tokenizers: dict[str, Path], cache: Path) -> None:
    subwords = subwords_of(tokenizers["bert"])
    first = kept(SECTIONS["classes"], subwords)
    edited = {**SECTIONS["classes"], "input": {"text": "{pair}", "max_length": 12}}
    second = kept(edited, subwords)
    assert len(files(cache)) == 2
    assert second.features == fresh(edited, subwords).features
    assert second.features != first.features


def test_a_few_rows_are_not_kept(tokenizers: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("PTV2KIT_CACHE", str(cache.parent))
    subwords = subwords_of(tokenizers["bert"])
    assert kept(SECTIONS["classes"], subwords).features == fresh(SECTIONS["classes"], subwords).features
    assert not cache.exists()


@pytest.mark.parametrize("name", ["classes", "start_end", "cloze"])
@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "plain", "longer", "body", "header", "version", "deep"])
def test_a_damaged_file_is_named_and_made_again(
    name: str, damage: str, tokenizers: dict[str, Path], cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    subwords = subwords_of(tokenizers["bert"])
    expected = kept(SECTIONS[name], subwords)
    [path] = files(cache)
    content = path.read_bytes()
    plain = gzip.decompress(content)
    header, _, body = plain.partition(b"\n")
    middle = len(content) // 2
    damaged = {
        "empty": b"",
        "cut": content[:-9],
        "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "plain": plain,
        "longer": content + b"more",
        "body": gzip.compress(header + b"\n" + body.replace(b"1", b"2")),
        "header": gzip.compress(b"[]\n" + body),
        "version": gzip.compress(header.replace(b'"format_version": 1', b'"format_version": 0') + b"\n" + body),
        "deep": gzip.compress(b"[" * 100_000),
    }
    path.write_bytes(damaged[damage])
    assert kept(SECTIONS[name], subwords).features == expected.features
    [line] = warned(caplog)
    assert line.startswith(f"{path}: warning: this encoded split is made again: ")
    assert path.read_bytes() == content
    assert kept(SECTIONS[name], subwords).features == expected.features
    assert len(warned(caplog)) == 1


@pytest.mark.parametrize("body", [b"[]", b"{}\n[]", b'[{"row": 0}]\n[null]', b"[]\n[null]", b"\xff\n[]"])
def test_what_is_forged_with_its_checksum_is_not_believed(
    body: bytes, tokenizers: dict[str, Path], cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    subwords = subwords_of(tokenizers["bert"])
    expected = kept(SECTIONS["classes"], subwords)
    [path] = files(cache)
    header = f'{{"format": "ptv2kit-encoded", "format_version": 1, "sha256": "{hashlib.sha256(body).hexdigest()}"}}\n'
    path.write_bytes(gzip.compress(header.encode() + body))
    assert kept(SECTIONS["classes"], subwords).features == expected.features
    assert "is made again" in warned(caplog)[0]


class TestFolder:
    """One that cannot be written costs time and nothing else."""

    def encode(self, tokenizers: dict[str, Path], caplog: pytest.LogCaptureFixture) -> str:
        """The one warning."""
        subwords = subwords_of(tokenizers["bert"])
        assert kept(SECTIONS["classes"], subwords).features == fresh(SECTIONS["classes"], subwords).features
        [line] = warned(caplog)
        assert line.endswith("; set PTV2KIT_CACHE to another folder, or train.cache_tokens to false")
        return line

    def test_a_file_in_its_place(
        self, tokenizers: dict[str, Path], cache: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        cache.parent.write_text("")
        line = self.encode(tokenizers, caplog)
        assert line.startswith(f"{cache}: warning: the encoded split 'train' cannot be kept: Not a directory")

    @pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
    def test_read_only(self, tokenizers: dict[str, Path], cache: Path, caplog: pytest.LogCaptureFixture) -> None:
        cache.mkdir(parents=True)
        cache.chmod(0o500)
        try:
            assert "cannot be kept: Permission denied" in self.encode(tokenizers, caplog)
        finally:
            cache.chmod(0o700)

    @pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC])
    def test_a_disk_that_refuses(
        self,
        number: int,
        tokenizers: dict[str, Path],
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def refuse(path: Path, content: bytes) -> None:
            raise OSError(number, os.strerror(number), str(path))

        monkeypatch.setattr(token_cache, "write_atomically", refuse)
        assert f"cannot be kept: {os.strerror(number)}" in self.encode(tokenizers, caplog)

    def test_no_home(
        self, tokenizers: dict[str, Path], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def nobody() -> Path:
            raise RuntimeError("Could not determine home directory.")

        for name in ("PTV2KIT_CACHE", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        subwords = subwords_of(tokenizers["bert"])
        monkeypatch.setattr(Path, "home", nobody)
        assert kept(SECTIONS["classes"], subwords).features == fresh(SECTIONS["classes"], subwords).features
        assert "cannot be kept: there is no home folder" in warned(caplog)[0]

    def test_a_file_that_may_not_be_read(
        self,
        tokenizers: dict[str, Path],
        cache: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        subwords = subwords_of(tokenizers["bert"])
        expected = kept(SECTIONS["classes"], subwords)
        [path] = files(cache)
        path.unlink()
        path.mkdir()
        assert kept(SECTIONS["classes"], subwords).features == expected.features
        again, not_kept = warned(caplog)
        assert "is made again: " in again
        assert "cannot be kept: Is a directory" in not_kept


def test_half_a_surrogate_pair_is_not_kept(
    tokenizers: dict[str, Path], cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    section = {**SECTIONS["classes"], "labels": {**CLASSES, "names": "from_train"}}
    values = [{**row, "label": "\ud83d" if row["label"] == "no" else "yes"} for row in ROWS]
    split = kept(section, subwords_of(tokenizers["bert"]), values)
    assert {feature.reference for feature in split.features} == {"yes", "\ud83d"}
    assert "cannot be kept" in warned(caplog)[0]
    assert not cache.exists()


def test_faults_of_rows_are_the_same_each_time_and_keep_nothing(tokenizers: dict[str, Path], cache: Path) -> None:
    subwords = subwords_of(tokenizers["bert"])
    values = [*ROWS, {**ROWS[0], "label": "perhaps"}]
    task = task_of(SECTIONS["classes"])
    data = data_of(task, values)
    with pytest.raises(DataError) as expected:
        encode_split(build_scheme(task, subwords, data.rows), data, silent)
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            kept(SECTIONS["classes"], subwords, values)
        assert caught.value.problems == expected.value.problems
        assert caught.value.problems[0].location == "rows.jsonl:13"
        assert not cache.exists()


def test_several_may_write_and_read_at_one_time(
    tokenizers: dict[str, Path], cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = fresh(SECTIONS["classes"], subwords_of(tokenizers["bert"])).features
    caplog.set_level(logging.WARNING)
    found: list[bool] = []
    turn = threading.Barrier(4)

    def encode() -> None:
        subwords = subwords_of(tokenizers["bert"])
        for _ in range(10):
            if turn.wait() == 0:
                shutil.rmtree(cache, ignore_errors=True)
            turn.wait()
            found.append(kept(SECTIONS["classes"], subwords).features == expected)

    threads = [threading.Thread(target=encode) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 40
    assert not warned(caplog)
    [path] = files(cache)  # and nothing unfinished beside it
    assert path.name.endswith(".json.gz")
