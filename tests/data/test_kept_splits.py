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
from pydantic import TypeAdapter
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerBase

from ptv2kit.config.task import TASK_SECTIONS, AnyTask, Task
from ptv2kit.data import kept_splits
from ptv2kit.data.dataset import EncodedSplit, encode_split
from ptv2kit.data.kept_splits import ENCODING_VERSION, kept_split, split_key
from ptv2kit.data.rows import Row
from ptv2kit.data.schemes import build_scheme
from ptv2kit.data.sources import SplitData
from ptv2kit.data.templates import task_rows
from ptv2kit.data.tokens import Filling, Subwords
from ptv2kit.errors import DataError
from ptv2kit.models.glm.tiny import tiny_folder
from tests.tiny_language_models import save_language_tokenizer

TASKS: TypeAdapter[AnyTask] = TypeAdapter(Task)
ROWS: list[dict[str, Any]] = [
    {"text": f"{who} met alan, so " * more, "pair": f"is it {where}?", "label": "yes" if who == "ada" else "no"}
    | {"words": [who, *["met"] * more, where], "tags": ["B-PER", *["O"] * more, "B-LOC"], "verb": more}
    | {"story": f"{who} is so " + "the maybe " * 4 * more + f"in {where}.", "answer": where, "group": "ä“1”"}
    | {"one": f"so {where}", "two": "left", "right": more % 2, "golds": ["paris", "rome"]}
    for who in ("ada", "alan")
    for where in ("paris", "rome")
    for more in (1, 2, 3)
]
CLASSES = {"scheme": "classes", "column": "label", "names": ["no", "yes"]}
CLOZE: dict[str, Any] = {
    "input": {"text": "{pair} {text} {mask}", "max_length": 16},
    "labels": CLASSES,
    "head": "verbalizer",
    "verbalizer": {"no": " no", "yes": [" yes", " so"]},
}
SECTIONS: dict[str, dict[str, Any]] = {
    "classes": {"input": {"text": "{text}", "pair": "{pair}", "max_length": 12}, "labels": CLASSES},
    "grouped": {
        "input": {"text": "{text}", "max_length": 12},
        "labels": {**CLASSES, "group": {"by": "{group}", "candidate": "{one}", "golds": "golds"}},
    },
    "choices": {
        "input": {"text": "{text}", "choices": ["{one}", "{two}"], "max_length": 16},
        "labels": {"scheme": "choices", "column": "right"},
    },
    "iob2": {"input": {"words": "words", "max_length": 8}, "labels": {"scheme": "iob2", "column": "tags"}},
    "roles": {
        "input": {"words": "words", "append": {"column": "words", "at": "verb"}, "max_length": 8},
        "labels": {"scheme": "iob2", "column": "tags", "names": {"PER": "A0", "LOC": "A1"}},
        "metrics": ["srl_f1"],
    },
    "start_end": {
        "input": {"question": "is it so?", "context": "{story}", "max_length": 20, "stride": 4},
        "labels": {"scheme": "start_end", "text": "answer"},
    },
    "cloze": CLOZE,
    "cloze choices": {
        "input": {"text": "{text} {mask}", "max_length": 24},
        "labels": {"scheme": "choices", "column": "right"},
        "head": "verbalizer",
    },
    "cloze of several tokens": {**CLOZE, "verbalizer_tokens": "any", "verbalizer": {"no": " no", "yes": " ada is so"}},
}
SECTIONS["cloze choices"]["input"]["choices"] = ["{one}", "{two}"]
FILLINGS: dict[Filling, str] = {"masks": "bert", "continuation": "gpt2", "blank": "glm"}


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders by family."""
    folders = {family: tmp_path_factory.mktemp(family) for family in ("bert", "gpt2")}
    for family, folder in folders.items():
        save_language_tokenizer(family, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("glm")))
        return {**folders, "glm": tiny_folder()}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where splits are kept during a test, however small they are."""
    monkeypatch.setattr(kept_splits, "LEAST_BYTES", 0)
    monkeypatch.setenv("PTV2KIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "encoded"


def subwords_of(folder: Path, filling: Filling = "masks", max_length: int = 24) -> Subwords:
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Subwords(tokenizer, max_length, filling)


def task_of(section: dict[str, Any], **keys: Any) -> AnyTask:
    data = {"source": "jsonl", "splits": {"train": "a", "validation": "b"}}
    return TASKS.validate_python({"task": "t", "data": data, **section, **keys})


def data_of(task: AnyTask, values: list[dict[str, Any]]) -> SplitData:
    plain = [Row(value, f"rows.jsonl:{number}") for number, value in enumerate(values, 1)]
    return SplitData("train", tuple(task_rows(task, plain)), "rows.jsonl", "")


def silent(*_: object) -> None: ...


def kept(section: dict[str, Any], subwords: Subwords, values: list[dict[str, Any]] = ROWS, **keys: Any) -> EncodedSplit:
    task = task_of(section, **keys)
    data = data_of(task, values)
    return kept_split(task, build_scheme(task, subwords, data.rows), subwords, data, silent)


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

    monkeypatch.setattr(kept_splits, "encode_split", encoded)


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


DIGESTS = {}


@pytest.mark.parametrize("name", SECTIONS)
def test_who_changes_the_encoding_raises_its_version(name: str, tokenizers: dict[str, Path]) -> None:
    """If this fails, raise ENCODING_VERSION, or files of the version before are taken for what they no longer are."""
    subwords = subwords_of(tokenizers["bert"], max_length=SECTIONS[name]["input"]["max_length"])
    digest = hashlib.sha256(repr(fresh(SECTIONS[name], subwords).features).encode()).hexdigest()[:16]
    assert (ENCODING_VERSION, digest) == (1, DIGESTS[name])


def keyed(section: dict[str, Any], subwords: Subwords, values: list[dict[str, Any]] = ROWS, **keys: Any) -> str:
    task = task_of(section, **keys)
    data = data_of(task, values)
    key = split_key(task, build_scheme(task, subwords, data.rows), subwords, data.rows)
    assert key is not None
    return key


class TestKey:
    """What makes another file, and what does not."""

    @pytest.mark.parametrize(
        ("name", "section", "change"),
        [
            ("classes", "input", {"text": "{text}."}),
            ("classes", "input", {"text": "{pair}", "pair": "{text}"}),
            ("classes", "input", {"truncate": "text"}),
            ("classes", "labels", {"names": ["yes", "no"]}),
            ("classes", "labels", {"names": {"yes": "no", "no": "yes"}}),
            ("classes", "labels", {"group": {"by": "{group}"}}),
            ("choices", "input", {"choices": ["{two}", "{one}"]}),
            ("choices", "labels", {"names": ["first", "second"]}),
            ("iob2", "input", {"append": {"column": "words", "at": "verb"}}),
            ("roles", "input", {"append": {"column": "words", "at": "verb", "separator": "so"}}),
            ("roles", "labels", {"names": {"PER": "A1", "LOC": "A0"}}),
            ("iob2", "labels", {"encoding": "iob1"}),
            ("start_end", "input", {"stride": 3}),
            ("start_end", "labels", {"unanswerable": True}),
            ("cloze", "verbalizer", {"yes": " is"}),
        ],
    )
    def test_an_edited_task_has_another(
        self, tokenizers: dict[str, Path], name: str, section: str, change: dict[str, Any]
    ) -> None:
        subwords = subwords_of(tokenizers["bert"])
        edited = {**SECTIONS[name], section: {**SECTIONS[name][section], **change}}
        assert keyed(edited, subwords) != keyed(SECTIONS[name], subwords)

    def test_the_order_of_names_counts_as_it_is_that_of_classes(self, tokenizers: dict[str, Path]) -> None:
        section, subwords = SECTIONS["classes"], subwords_of(tokenizers["bert"])
        one, other = (
            {**section, "labels": {**CLASSES, "names": dict(names)}}
            for names in ([("no", "A"), ("yes", "B")], [("yes", "B"), ("no", "A")])
        )
        assert keyed(one, subwords) != keyed(other, subwords)

    def test_what_does_not_reach_the_features_does_not_count(self, tokenizers: dict[str, Path], tmp_path: Path) -> None:
        section = SECTIONS["classes"]
        key = keyed(section, subwords_of(tokenizers["bert"]))
        moved = subwords_of(shutil.copytree(tokenizers["bert"], tmp_path / "moved"))
        moved.encode_texts("ada met", "alan", "pair")  # leaves its settings in the tokenizer
        files = {"source": "jsonl", "splits": {"train": "elsewhere", "validation": "b"}}
        renamed = {"task": "other", "version": 2, "description": "d", "metrics": ["macro_f1"], "data": files}
        assert keyed(section, moved, **renamed) == key

    @pytest.mark.parametrize(
        "change",
        [
            lambda rows: [*rows, rows[0]],
            lambda rows: rows[1:],
            lambda rows: rows[::-1],
            lambda rows: [{**rows[0], "text": rows[0]["text"] + "."}, *rows[1:]],
            lambda rows: [{**rows[0], "label": 1}, *rows[1:]],
        ],
        ids=["one more", "one less", "order", "text", "label"],
    )
    def test_other_rows_have_another(self, tokenizers: dict[str, Path], change: Any) -> None:
        subwords = subwords_of(tokenizers["bert"])
        assert keyed(SECTIONS["classes"], subwords, change(ROWS)) != keyed(SECTIONS["classes"], subwords)

    def test_derived_columns_and_left_out_rows_count(self, tokenizers: dict[str, Path]) -> None:
        section, subwords = SECTIONS["classes"], subwords_of(tokenizers["bert"])
        keys = {
            keyed(section, subwords),
            keyed(section, subwords, where={"label": ["yes"]}),
            keyed(section, subwords, derive={"more": {"column": "label", "map": {"yes": "so", "no": "no"}}}),
        }
        assert len(keys) == 3

    def test_classes_that_were_found_elsewhere_count(self, tokenizers: dict[str, Path]) -> None:
        """A validation split is encoded with the classes of the training split."""
        section = {**SECTIONS["classes"], "labels": {**CLASSES, "names": "from_train"}}
        task, subwords = task_of(section), subwords_of(tokenizers["bert"])
        data = data_of(task, ROWS)
        more = (*data.rows, Row({**ROWS[0], "label": "maybe"}, "rows.jsonl:13"))
        keys = {split_key(task, build_scheme(task, subwords, rows), subwords, data.rows) for rows in (data.rows, more)}
        assert len(keys) == 2

    def test_another_tokenizer_has_another(self, tokenizers: dict[str, Path], tmp_path: Path) -> None:
        folder = tmp_path / "edited"
        folder.mkdir()
        save_language_tokenizer("bert", folder)
        words = (folder / "vocab.txt").read_text().split("\n")
        words[words.index("ada")], words[words.index("alan")] = "alan", "ada"
        (tmp_path / "vocab.txt").write_text("\n".join(words))
        section = SECTIONS["classes"]
        bert = tokenizers["bert"]
        cut_left = AutoTokenizer.from_pretrained(bert)
        cut_left.truncation_side = "left"
        special = AutoTokenizer.from_pretrained(bert)
        special.add_special_tokens({"additional_special_tokens": ["so"]})
        every = [
            subwords_of(bert),
            subwords_of(bert, max_length=23),
            subwords_of(bert, "continuation"),
            subwords_of(tokenizers["gpt2"]),
            Subwords(BertTokenizer(str(tmp_path / "vocab.txt")), 24),
            Subwords(BertTokenizer(str(bert / "vocab.txt"), do_lower_case=False), 24),
            Subwords(cut_left, 24),
            Subwords(special, 24),
        ]
        assert len({keyed(section, subwords) for subwords in every}) == len(every)

    def test_so_does_another_version_of_the_code(
        self, tokenizers: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        subwords = subwords_of(tokenizers["bert"])
        key = keyed(SECTIONS["classes"], subwords)
        monkeypatch.setattr(kept_splits, "ENCODING_VERSION", ENCODING_VERSION + 1)
        assert keyed(SECTIONS["classes"], subwords) != key

    def test_columns_that_json_does_not_know_are_no_obstacle(self, tokenizers: dict[str, Path]) -> None:
        subwords = subwords_of(tokenizers["bert"])
        images = [[{**row, "image": object()} for row in ROWS] for _ in range(2)]
        assert keyed(SECTIONS["classes"], subwords, images[0]) == keyed(SECTIONS["classes"], subwords, images[1])


def test_an_edited_template_is_never_answered_with_the_old_rows(tokenizers: dict[str, Path], cache: Path) -> None:
    subwords = subwords_of(tokenizers["bert"])
    first = kept(SECTIONS["classes"], subwords)
    edited = {**SECTIONS["classes"], "input": {"text": "{pair}", "max_length": 12}}
    second = kept(edited, subwords)
    assert len(files(cache)) == 2
    assert second.features == fresh(edited, subwords).features
    assert second.features != first.features


def test_a_few_rows_are_not_kept(
    tokenizers: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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

        monkeypatch.setattr(kept_splits, "write_atomically", refuse)
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
