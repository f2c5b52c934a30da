"""Words that are cut one by one and remembered are cut as the tokenizer cuts them together."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import BertTokenizer, PreTrainedTokenizerFast, RobertaTokenizer

from ptv2kit.data.tokens import Subwords
from tests.tiny_backbones import save_tokenizer

ORDINARY = ["The", "rain", "in", "Spain", "ada", "met", "alan", "paris", "yes", "no", "so", "Is", "is"]
ODD = ["", " ", "two words", "don't", "[SEP]", "</s>", "a[MASK]b", "Ünïcödé", "東京", "🙂", "a" * 200, "\u00a0", "x\ny"]


def first_word_alone() -> PreTrainedTokenizerFast:
    """A tokenizer that puts its blank in front of a text's first word alone, as Llama's."""
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.train_from_iterator(["the rain in Spain"] * 3, trainers.BpeTrainer(special_tokens=["<unk>", "<s>"]))
    backend.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A $B", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", pad_token="<s>")


def segment_of_its_own(folder: Path) -> BertTokenizer:
    """A tokenizer whose last special token has another segment than the words, as XLNet's."""
    tokenizer = save_tokenizer("wordpiece", folder)
    assert isinstance(tokenizer, BertTokenizer)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        "$A:0 [SEP]:0 [CLS]:2", "$A:0 $B:1 [CLS]:2", special_tokens=[("[SEP]", 3), ("[CLS]", 2)]
    )
    return tokenizer


def compare(tokenizer: Any, subwords: Subwords, words: list[str], length: int) -> None:
    expected = tokenizer([*words], is_split_into_words=True, truncation="longest_first", max_length=length)
    found = subwords.encode_words(words)
    if not expected["input_ids"]:
        assert (found.ids, found.words) == ((subwords.pad_id,), (None,))
        return
    assert list(found.ids) == expected["input_ids"]
    assert list(found.words) == expected.word_ids()
    assert found.segments == (tuple(expected["token_type_ids"]) if "token_type_ids" in expected else None)
    assert found.truncated == bool(expected.encodings[0].overflowing)


def compare_all(tokenizer: Any) -> None:
    """Short and long inputs in turn, so that what a call leaves behind in the tokenizer would show."""
    drawn = random.Random(3)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    several = {length: Subwords(tokenizer, length) for length in (4, 24, 400)}
    for _ in range(60):
        words = drawn.choices(ORDINARY + ODD, k=drawn.randint(0, 12))
        for length, subwords in several.items():
            compare(tokenizer, subwords, words, length)
        several[4].encode_texts("The rain in Spain and more", None, "longest")


@pytest.mark.parametrize("kind", ["wordpiece", "metaspace", "beginning", "first", "segments"])
def test_words_are_cut_as_by_the_tokenizer_itself(kind: str, tmp_path: Path) -> None:
    if kind == "first":
        compare_all(first_word_alone())
    elif kind == "segments":
        compare_all(segment_of_its_own(tmp_path))
    else:
        compare_all(save_tokenizer(kind, tmp_path))


def test_real_tokenizers_agree_too(shared: Path) -> None:
    compare_all(BertTokenizer(str(shared / "tokenizers" / "bert-large-uncased" / "vocab.txt")))
    folder = shared / "tokenizers" / "roberta-large"
    files = str(folder / "vocab.json"), str(folder / "merges.txt")
    compare_all(RobertaTokenizer(*files, add_prefix_space=True))


def test_a_word_is_cut_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = save_tokenizer("wordpiece", tmp_path)
    subwords = Subwords(tokenizer, 24)
    first = subwords.encode_words(["rain", "in", "rain"])
    monkeypatch.setattr(tokenizer, "_encode_plus", None)
    monkeypatch.setattr(tokenizer, "_tokenizer", None)
    assert subwords.encode_words(["rain", "in", "rain"]) == first
    with pytest.raises((AttributeError, TypeError)):
        subwords.encode_words(["Spain"])
