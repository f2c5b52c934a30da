"""The tokenizer of the original GLM against the official one, and on words that are already split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, GPT2Tokenizer

from ptv2kit.errors import DataError
from ptv2kit.models.glm.tokenizer import build_tokenizer

SPECIAL = ("<|startofpiece|>", "<|endofpiece|>", "[CLS]", "[MASK]", "[SEP]", "[UNK]", "[gMASK]", "[sMASK]")


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, Any]:
    return json.loads((shared / "parity" / "glm" / "tokenization.json").read_text())


@pytest.fixture(scope="module")
def built(shared: Path) -> GPT2Tokenizer:
    return build_tokenizer(shared / "tokenizers/gpt2/vocab.json", shared / "tokenizers/gpt2/merges.txt")


@pytest.fixture(scope="module")
def saved(built: GPT2Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("glm")
    built.save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "original_glm"}')
    return folder


@pytest.fixture(scope="module", params=["built", "loaded"])
def tokenizer(request: pytest.FixtureRequest, built: GPT2Tokenizer, saved: Path) -> Any:
    return built if request.param == "built" else AutoTokenizer.from_pretrained(saved)


def tiny_vocabulary(folder: Path, size: int = 119) -> tuple[Path, Path]:
    """A vocabulary of single bytes whose `<|endoftext|>` has the id `size`."""
    letters = [chr(code) for code in [*range(33, 127), *range(161, 173), *range(174, 256)]]
    ids = {token: number for number, token in enumerate(["Ġ", *letters][:size])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({**ids, "<|endoftext|>": size}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder / "vocab.json", folder / "merges.txt"


def test_special_ids_are_the_official_ones(tokenizer: Any, golden: dict[str, Any]) -> None:
    ids = golden["special_ids"]
    named = {
        "eos": tokenizer.eos_token_id,
        "pad": tokenizer.pad_token_id,
        "cls": tokenizer.cls_token_id,
        "mask": tokenizer.mask_token_id,
        "sep": tokenizer.sep_token_id,
        "unk": tokenizer.unk_token_id,
        **{
            name: tokenizer.convert_tokens_to_ids(token)
            for name, token in {
                "sop": "<|startofpiece|>",
                "eop": "<|endofpiece|>",
                "gmask": "[gMASK]",
                "smask": "[sMASK]",
            }.items()
        },
    }
    assert named == ids
    assert len(tokenizer) == golden["num_tokens"]
    assert tokenizer.is_fast
    assert tokenizer.padding_side == "right"


def test_texts_are_cut_as_by_the_official_tokenizer(tokenizer: Any, golden: dict[str, Any]) -> None:
    assert len(golden["encode"]) == 16
    for row in golden["encode"]:
        assert tokenizer(row["text"], add_special_tokens=False).input_ids == row["ids"], row["text"]


def classifier_texts(golden: dict[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """What the official classifier encoder makes of the goldens' examples."""
    rows: dict[str, dict[str, Any]] = golden["examples"]
    texts = {task: [(rows[task]["text_a"], rows[task]["text_b"])] for task in ("rte", "cb", "boolq")}
    texts["wic"] = [(f"bank: {rows['wic']['text_a']}", rows["wic"]["text_b"])]
    texts["multirc"] = [(rows["multirc"]["text_a"], "What did Tom buy? answer: Apples and bread")]
    texts["copa"] = [
        (f"{rows['copa']['text_a']} because", rows["copa"]["meta"][name]) for name in ("choice1", "choice2")
    ]
    texts["wsc"] = [(rows["wsc"]["text_a"].replace("himself", "*himself*"), "Mark")]
    return texts


def test_pairs_get_the_official_special_tokens(tokenizer: Any, golden: dict[str, Any]) -> None:
    rows = {row["task"]: row for row in golden["classifier"]}
    for task, pairs in classifier_texts(golden).items():
        ids = rows[task]["input_ids"]
        expected = ids if isinstance(ids[0], list) else [ids]
        assert [tokenizer(*pair).input_ids for pair in pairs] == expected, task
    # ReCoRD's encoder joins the ids of query and entity without a blank, which no text of its own does.
    record, example = rows["record"], golden["examples"]["record"]
    for entity, ids in zip(example["meta"]["candidates"], record["input_ids"], strict=True):
        query = tokenizer(example["text_a"], example["text_b"]).input_ids
        assert [*query[:-1], *tokenizer(entity, add_special_tokens=False).input_ids, query[-1]] == ids


def test_a_long_text_loses_its_end(tokenizer: Any, golden: dict[str, Any]) -> None:
    # The official encoder cuts the end of the whole, so that in these rows [SEP] and the second text are gone.
    for row in golden["truncation"]:
        text, length = row["example"]["text_a"], row["seq_length"]
        assert tokenizer(text, truncation=True, max_length=length).input_ids == row["classifier"]["input_ids"]


def test_a_pair_that_is_too_long_keeps_its_separator(tokenizer: Any) -> None:
    ids = tokenizer("word " * 50, "short claim.", truncation="only_first", max_length=16).input_ids
    assert (len(ids), ids[0], ids[-1]) == (16, tokenizer.cls_token_id, tokenizer.eos_token_id)
    assert ids[-5:-1] == [tokenizer.sep_token_id, *tokenizer("short claim.", add_special_tokens=False).input_ids]


def test_a_batch_is_padded_as_by_the_published_code(tokenizer: Any, golden: dict[str, Any]) -> None:
    mixin = golden["hf_mixin"]
    batch = tokenizer(mixin["texts"], padding=True)
    assert {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask} == mixin["encode"]
    for texts, ids in zip(mixin["choices"], mixin["multiple_choice"]["choice_ids"], strict=True):
        assert tokenizer(texts, add_special_tokens=False).input_ids == ids


def test_words_that_are_split_are_cut_as_within_a_sentence(shared: Path, saved: Path) -> None:
    loaded = AutoTokenizer.from_pretrained(saved, add_prefix_space=True)
    built = build_tokenizer(
        shared / "tokenizers/gpt2/vocab.json", shared / "tokenizers/gpt2/merges.txt", add_prefix_space=True
    )
    words = ["Ada", "Lovelace's", "engine", "[MASK]", "🙂"]
    for tokenizer in (loaded, built):
        encoding = tokenizer(words, is_split_into_words=True)
        whole = tokenizer(" Ada Lovelace's engine [MASK] 🙂")
        assert encoding.input_ids == whole.input_ids
        index = encoding.word_ids()
        assert index[0] is index[-1] is None
        assert [word for position, word in enumerate(index) if word is not None and word != index[position - 1]] == [
            0,
            1,
            2,
            3,
            4,
        ]


def test_offsets_start_at_letters(tokenizer: Any) -> None:
    text = "ice of the north"
    offsets = tokenizer("What?", text, return_offsets_mapping=True)
    spans = [
        text[start:end]
        for (start, end), side in zip(offsets.offset_mapping, offsets.sequence_ids(), strict=True)
        if side == 1
    ]
    assert spans == ["ice", "of", "the", "north"]


def test_ids_follow_the_vocabulary_whatever_its_size(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(*tiny_vocabulary(tmp_path))
    assert tokenizer.eos_token_id == 119
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL)) == list(range(120, 128))
    tokenizer.save_pretrained(tmp_path / "saved")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert loaded.convert_tokens_to_ids(list(SPECIAL)) == list(range(120, 128))


def test_the_published_tokenizer_config_is_not_read(tmp_path: Path) -> None:
    tiny_vocabulary(tmp_path)
    published = {
        "tokenizer_class": "GLMGPT2Tokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_glm.GLMGPT2Tokenizer", None]},
        "cls_token": "[NONE]",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(published))
    (tmp_path / "tokenization_glm.py").write_text("raise RuntimeError('hub code was run')\n")
    tokenizer = build_tokenizer(tmp_path / "vocab.json", tmp_path / "merges.txt")
    tokenizer.save_pretrained(tmp_path / "saved")
    written = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert (written["tokenizer_class"], written["cls_token"], "auto_map" in written) == (
        "GPT2Tokenizer",
        "[CLS]",
        False,
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.json", "{", "it is not valid JSON"),
        ("vocab.json", '["a"]', "expected one JSON object from tokens to ids"),
        ("vocab.json", '{"a": true, "<|endoftext|>": 1}', "expected one JSON object from tokens to ids"),
        ("vocab.json", '{"a": 0, "<|endoftext|>": 2}', "the ids of its 2 entries are not 0 to 1"),
        ("vocab.json", '{"<|endoftext|>": 0, "a": 1}', "its last id, 1, is not that of"),
        ("merges.txt", "#version: 0.2\na b c\n", r"merges\.txt:2: error: expected two sub-words"),
        ("merges.txt", "! zz\n", r"merges\.txt:1: error: expected two sub-words"),
    ],
)
def test_a_malformed_file_is_an_error(tmp_path: Path, name: str, content: str, message: str) -> None:
    files = tiny_vocabulary(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        build_tokenizer(*files)
