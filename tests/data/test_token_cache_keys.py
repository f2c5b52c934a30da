"""The name of an encoded split: another one as soon as anything that decides it is another."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, BertTokenizer

from ptv2kit.data import token_cache
from ptv2kit.data.rows import Row
from ptv2kit.data.schemes import build_scheme
from ptv2kit.data.token_cache import ENCODING_VERSION, encoding_key
from ptv2kit.data.tokens import Subwords
from tests.data.small_tasks import CLASSES, ROWS, SECTIONS, data_of, subwords_of, task_of, tokenizers

__all__ = ["tokenizers"]


@pytest.fixture(autouse=True)
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Splits have a key however small they are."""
    monkeypatch.setattr(token_cache, "LEAST_BYTES", 0)


def keyed(section: dict[str, Any], subwords: Subwords, values: list[dict[str, Any]] = ROWS, **keys: Any) -> str:
    task = task_of(section, **keys)
    data = data_of(task, values)
    key = encoding_key(build_scheme(task, subwords, data.rows), task, subwords, data)
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
        keys = {encoding_key(build_scheme(task, subwords, rows), task, subwords, data) for rows in (data.rows, more)}
        assert len(keys) == 2

    def test_another_tokenizer_has_another(self, tokenizers: dict[str, Path], tmp_path: Path) -> None:
        section, bert = SECTIONS["classes"], tokenizers["bert"]
        words = (bert / "vocab.txt").read_text().split("\n")
        (tmp_path / "vocab.txt").write_text("\n".join([*words[:5], *words[5:][::-1]]))
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
        monkeypatch.setattr(token_cache, "ENCODING_VERSION", ENCODING_VERSION + 1)
        assert keyed(SECTIONS["classes"], subwords) != key

    def test_columns_that_json_does_not_know_are_no_obstacle(self, tokenizers: dict[str, Path]) -> None:
        subwords = subwords_of(tokenizers["bert"])
        images = [[{**row, "image": object()} for row in ROWS] for _ in range(2)]
        assert keyed(SECTIONS["classes"], subwords, images[0]) == keyed(SECTIONS["classes"], subwords, images[1])
