"""Encoded splits on disk: the same features, and other ones as soon as anything that decides them is another."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from ptv2kit.config.recipe import Backbone
from ptv2kit.config.task import AnyTask, Task
from ptv2kit.data import token_cache
from ptv2kit.data.dataset import EncodedSplit, encode_split
from ptv2kit.data.rows import Row
from ptv2kit.data.schemes import build_scheme
from ptv2kit.data.sources import SplitData
from ptv2kit.data.token_cache import encoded_split
from ptv2kit.data.tokens import Subwords
from ptv2kit.errors import DataError
from ptv2kit.models.backbones import find_backbone, load_tokenizer
from tests.tiny_backbones import save_tiny
from tests.training.test_schemes_on_backbones import ROWS, SECTIONS

GROUPED = {
    "input": {"text": "{text}", "max_length": 24},
    "labels": {"scheme": "classes", "column": "label", "group": {"by": "{answer}"}},
}
TASKS = {**SECTIONS, "grouped": GROUPED}

Encode = Callable[..., EncodedSplit]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where encoded rows are kept during a test; few rows are kept too."""
    monkeypatch.setenv("PTV2KIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(token_cache, "FEWEST_ROWS", 1)
    return tmp_path / "cache" / "tokens"


@pytest.fixture
def encode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Encode:
    """Encode the rows; `made` counts how often that was done."""
    backbone = save_tiny(tmp_path, "bert")
    made: list[int] = []

    def counting(*arguments: Any) -> EncodedSplit:
        made.append(1)
        return encode_split(*arguments)

    monkeypatch.setattr(token_cache, "encode_split", counting)

    def encode(
        sections: dict[str, Any],
        rows: list[dict[str, Any]] = ROWS,
        max_length: int = 24,
        own: Path = backbone,
        keep: bool = True,
    ) -> tuple[EncodedSplit, bool]:
        files = {"train": "rows.jsonl", "validation": "rows.jsonl"}
        content = {"task": "t", "data": {"source": "jsonl", "splits": files}, **sections}
        task: AnyTask = TypeAdapter(Task).validate_python(content)
        subwords = Subwords(load_tokenizer(find_backbone(Backbone(name=str(own))), words=True), max_length)
        data = SplitData("train", tuple(Row(row, f"rows.jsonl:{n}") for n, row in enumerate(rows, 1)), "rows", "0")
        made.clear()
        scheme = build_scheme(task, subwords, data.rows)
        return encoded_split(scheme, task, subwords, data, lambda *_: None, keep=keep), bool(made)

    return encode


@pytest.mark.parametrize("scheme", list(TASKS))
def test_what_is_read_is_what_was_written(encode: Encode, scheme: str) -> None:
    length = TASKS[scheme]["input"]["max_length"]
    fresh, made = encode(TASKS[scheme], max_length=length)
    assert made
    again, made = encode(TASKS[scheme], max_length=length)
    assert not made
    assert again.features == fresh.features
    assert [type(feature.notes) for feature in again.features] == [type(feature.notes) for feature in fresh.features]
    if scheme in ("iob2", "start_end", "grouped"):
        assert fresh.features[0].notes is not None


def other_template(sections: dict[str, Any]) -> dict[str, Any]:
    return {"sections": {**sections, "input": {**sections["input"], "text": "{text} in"}}}


def other_row(sections: dict[str, Any]) -> dict[str, Any]:
    return {"rows": [*ROWS[:-1], {**ROWS[-1], "text": "alan"}]}


def fewer_rows(sections: dict[str, Any]) -> dict[str, Any]:
    return {"rows": ROWS[:-1]}


def shorter(sections: dict[str, Any]) -> dict[str, Any]:
    return {"max_length": 12}


@pytest.mark.parametrize("change", [other_template, other_row, fewer_rows, shorter])
def test_anything_else_is_made_anew(encode: Encode, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    encode(SECTIONS["classes"])
    assert not encode(SECTIONS["classes"])[1]
    arguments = {"sections": SECTIONS["classes"], **change(SECTIONS["classes"])}
    assert encode(**arguments)[1]
    assert not encode(**arguments)[1]
    assert not encode(SECTIONS["classes"])[1]


def test_other_names_of_labels_are_made_anew(encode: Encode) -> None:
    names = {"input": SECTIONS["classes"]["input"], "labels": {"scheme": "classes", "column": "label"}}
    for order in (["true", "false"], ["false", "true"]):
        assert encode({**names, "labels": {**names["labels"], "names": order}})[1]


def test_another_vocabulary_is_another_name(encode: Encode, tmp_path: Path) -> None:
    for name in ("other", "changed", "copied"):
        (tmp_path / name).mkdir()
    encode(SECTIONS["classes"])
    assert encode(SECTIONS["classes"], own=save_tiny(tmp_path / "other", "roberta"))[1]
    changed = save_tiny(tmp_path / "changed", "bert")
    tokenizer = json.loads((changed / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["ada"], vocabulary["alan"] = vocabulary["alan"], vocabulary["ada"]
    (changed / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert encode(SECTIONS["classes"], own=changed)[1]
    copied = save_tiny(tmp_path / "copied", "bert")
    assert not encode(SECTIONS["classes"], own=copied)[1], "a folder's name does not count"


@pytest.mark.parametrize("damage", [b"", b"no checksum", None])
def test_a_damaged_file_is_named_and_made_again(
    encode: Encode, folder: Path, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    fresh, _ = encode(SECTIONS["classes"])
    [path] = folder.iterdir()
    path.write_bytes(path.read_bytes()[:-10] if damage is None else damage)
    again, made = encode(SECTIONS["classes"])
    assert made
    assert again.features == fresh.features
    assert f"the encoded rows in {path} are made again: they do not match their checksum" in caplog.text
    assert not encode(SECTIONS["classes"])[1]


def test_a_folder_that_cannot_be_written_is_a_warning(
    encode: Encode, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.parent.mkdir()
    folder.write_text("in the way")
    split, made = encode(SECTIONS["classes"])
    assert made
    assert len(split.features) == len(ROWS)
    assert f"the encoded rows are not kept in {folder}" in caplog.text


def test_rows_with_faults_are_not_kept(encode: Encode, folder: Path) -> None:
    for _ in range(2):
        with pytest.raises(DataError, match=r"no column 'text'"):
            encode(SECTIONS["classes"], rows=[*ROWS, {"yes": "", "label": True}])
    assert not folder.exists()


def test_few_rows_or_the_recipe_keep_nothing(encode: Encode, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert encode(SECTIONS["classes"], keep=False)[1]
    monkeypatch.setattr(token_cache, "FEWEST_ROWS", len(ROWS) + 1)
    assert encode(SECTIONS["classes"])[1]
    assert not folder.exists()
    assert not os.environ["PTV2KIT_CACHE"].startswith(str(Path.home() / ".cache"))
