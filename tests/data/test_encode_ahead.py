"""Rows whose texts are cut into sub-words together give the inputs that they give one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import BertTokenizer, PreTrainedTokenizerBase, RobertaTokenizer

from ptv2kit.data import tokens
from ptv2kit.data.dataset import encode_split
from ptv2kit.data.schemes import build_scheme
from ptv2kit.data.tokens import Subwords
from ptv2kit.errors import DataError
from tests.data.small_tasks import ROWS, SECTIONS, data_of, subwords_of, task_of, tokenizers

__all__ = ["tokenizers"]
TOGETHER = ("classes", "grouped", "labels", "number", "choices", "start_end")
TEXTS = ["", " ", "The rain in Spain " * 9, "don't", "[SEP] </s>", "Ünïcödé 東京 🙂", "a" * 200, "x\ny", "met"]


def unseen(what: str, done: int, rows: int) -> None:
    """Progress that is not looked at."""


@pytest.mark.parametrize("family", ["bert", "gpt2"])
@pytest.mark.parametrize("kind", TOGETHER)
def test_inputs_are_those_of_each_row_alone(
    kind: str, family: str, tokenizers: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(SECTIONS[kind])
    data = data_of(task, ROWS)
    alone = build_scheme(task, subwords_of(tokenizers[family], max_length=task.input.max_length), data.rows)
    expected = [feature for index, row in enumerate(data.rows) for feature in alone.encode(row, index)]
    subwords = subwords_of(tokenizers[family], max_length=task.input.max_length)
    scheme = build_scheme(task, subwords, data.rows)
    calls = 0
    one_call = PreTrainedTokenizerBase.__call__

    def counted(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        return one_call(*args, **options)

    monkeypatch.setattr(PreTrainedTokenizerBase, "__call__", counted)
    assert encode_split(scheme, data, unseen).features == tuple(expected)
    assert any(feature.truncated or feature.row != index for index, feature in enumerate(expected))
    assert calls <= 2


@pytest.mark.parametrize("kind", ["classes", "start_end"])
def test_long_texts_are_cut_in_groups(kind: str, tokenizers: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(SECTIONS[kind])
    data = data_of(task, ROWS)
    whole = build_scheme(task, subwords_of(tokenizers["bert"], max_length=task.input.max_length), ())
    expected = encode_split(whole, data, unseen).features
    sizes: list[int] = []
    name = "_encode_windows" if kind == "start_end" else "_encode_texts"
    one_call = getattr(Subwords, name)

    def counted(subwords: Subwords, texts: list[Any], given: Any) -> Any:
        sizes.append(len(texts))
        return one_call(subwords, texts, given)

    monkeypatch.setattr(tokens, "_MOST_CHARACTERS", 150)
    monkeypatch.setattr(Subwords, name, counted)
    scheme = build_scheme(task, subwords_of(tokenizers["bert"], max_length=task.input.max_length), ())
    assert encode_split(scheme, data, unseen).features == expected
    assert sum(sizes) == len(ROWS)
    assert 2 < len(sizes) < len(ROWS)


def test_a_faulty_row_is_named_and_the_others_are_read(tokenizers: dict[str, Path]) -> None:
    task = task_of({**SECTIONS["classes"], "input": {**SECTIONS["classes"]["input"], "truncate": "pair"}})
    rows = [ROWS[0], {"text": None, "pair": "so", "label": "yes"}, ROWS[3], {**ROWS[0], "text": "ada " * 40}]
    scheme = build_scheme(task, subwords_of(tokenizers["bert"], max_length=12), ())
    with pytest.raises(DataError) as caught:
        encode_split(scheme, data_of(task, rows), unseen)
    assert [problem.location for problem in caught.value.problems] == ["rows.jsonl:2", "rows.jsonl:4"]
    assert "column 'text'" in str(caught.value.problems[0])
    assert "one side of the pair alone fills the 12 sub-words" in str(caught.value.problems[1])


def test_a_question_without_room_is_named(tokenizers: dict[str, Path]) -> None:
    task = task_of({**SECTIONS["start_end"], "input": {**SECTIONS["start_end"]["input"], "question": "{text}"}})
    scheme = build_scheme(task, subwords_of(tokenizers["bert"], max_length=20), ())
    long = {**ROWS[0], "text": "ada met " * 8}
    with pytest.raises(DataError, match=r"rows.jsonl:2: error: the question leaves 1 of 20 sub-words"):
        encode_split(scheme, data_of(task, [ROWS[0], long, ROWS[1]]), unseen)


def test_real_tokenizers_agree(shared: Path) -> None:
    folder = shared / "tokenizers" / "roberta-large"
    kinds = (
        BertTokenizer(str(shared / "tokenizers" / "bert-large-uncased" / "vocab.txt")),
        RobertaTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), add_prefix_space=True),
    )
    pairs = [(text, pair) for text in TEXTS for pair in TEXTS]
    for tokenizer in kinds:
        for length in (8, 24, 400):
            together, alone = Subwords(tokenizer, length), Subwords(tokenizer, length)
            together.encode_texts_ahead([(text, None) for text in TEXTS], "longest")
            for text in TEXTS:
                assert together.encode_texts(text, None, "longest") == alone.encode_texts(text, None, "longest")
            together.encode_texts_ahead(pairs, "longest")
            for text, pair in pairs:
                assert together.encode_texts(text, pair, "longest") == alone.encode_texts(text, pair, "longest")
        together, alone = Subwords(tokenizer, 24), Subwords(tokenizer, 24)
        short = [(question, text) for question in ("who?", "met") for text in TEXTS]
        together.encode_windows_ahead(short, 4)
        for question, text in short:
            assert together.encode_windows(question, text, 4) == alone.encode_windows(question, text, 4)


def assert_as_transformers(tokenizer: Any, length: int) -> None:
    """Inputs are those of the tokenizer's own call, which makes lists of more than is read here."""
    subwords = Subwords(tokenizer, length)
    texts = [text for text in TEXTS if text.strip()]
    for text, pair in [*((text, None) for text in texts), *((text, pair) for text in texts for pair in texts)]:
        sides = [text] if pair is None else [text + subwords._joint, pair]
        expected = tokenizer(*sides, truncation="longest_first", max_length=length)
        found = subwords.encode_texts(text, pair, "longest")
        assert list(found.ids) == expected["input_ids"]
        assert (found.segments and list(found.segments)) == expected.get("token_type_ids")
        assert found.truncated == bool(expected.encodings[0].overflowing)
    for text in texts:
        options = {"truncation": "only_second", "stride": 2, "return_overflowing_tokens": True}
        expected = tokenizer("met" + subwords._joint, text, max_length=length, return_offsets_mapping=True, **options)
        windows = subwords.encode_windows("met", text, 2)
        assert [list(window.encoding.ids) for window in windows] == expected["input_ids"]
        segments = [window.encoding.segments and list(window.encoding.segments) for window in windows]
        assert segments == expected.get("token_type_ids", [None] * len(windows))
        for index, window in enumerate(windows):
            assert [span is not None for span in window.spans] == [side == 1 for side in expected.sequence_ids(index)]


@pytest.mark.parametrize("family", ["bert", "gpt2", "glm"])
def test_inputs_are_those_of_transformers(family: str, tokenizers: dict[str, Path]) -> None:
    for length in (12, 24, 400):
        assert_as_transformers(subwords_of(tokenizers[family])._tokenizer, length)


def test_inputs_of_real_tokenizers_are_those_of_transformers(shared: Path) -> None:
    folder = shared / "tokenizers" / "roberta-large"
    for length in (12, 24, 400):
        assert_as_transformers(BertTokenizer(str(shared / "tokenizers" / "bert-large-uncased" / "vocab.txt")), length)
        assert_as_transformers(RobertaTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")), length)


def test_equal_numbers_are_kept_in_memory_once(shared: Path) -> None:
    tokenizer = BertTokenizer(str(shared / "tokenizers" / "bert-large-uncased" / "vocab.txt"))
    subwords = Subwords(tokenizer, 24)
    first, second = (subwords.encode_texts(text, "rain in spain", "longest") for text in ("so much", "too little"))
    assert first.ids[3:] == second.ids[3:]
    assert all(one is other for one, other in zip(first.ids[3:], second.ids[3:], strict=True))
    assert first.segments is second.segments
    asked = [subwords.encode_windows(question, "It rained in Spain.", 4)[0] for question in ("why?", "where?")]
    assert all(one is other for one, other in zip(*(window.spans for window in asked), strict=True))
