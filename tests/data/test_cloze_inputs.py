"""Rows as cloze inputs: where the mask is, what is shortened, and the official GLM's own inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from transformers import BertTokenizer, PreTrainedTokenizerBase, RobertaTokenizer

from ptv2kit.data.rows import Row
from ptv2kit.data.schemes import build_scheme
from ptv2kit.data.schemes.base import LabelScheme
from ptv2kit.data.schemes.records import Feature
from ptv2kit.data.sources import read_split
from ptv2kit.data.templates import task_rows
from ptv2kit.data.tokens import Filling, Subwords
from ptv2kit.errors import ConfigError, DataError
from ptv2kit.models.glm.tokenizer import build_tokenizer
from ptv2kit.spec.load import load_task
from ptv2kit.spec.task import Task
from tests.tiny_language_models import save_language_tokenizer

TASKS = Path(__file__).parents[2] / "tasks"
SOURCE = {"source": "jsonl", "splits": {"train": "a", "validation": "b"}}


def scheme_for(
    tokenizer: PreTrainedTokenizerBase, text: str, max_length: int = 64, filling: Filling = "masks", **keys: Any
) -> LabelScheme:
    task: dict[str, Any] = {
        "task": "t",
        "data": SOURCE,
        "input": {"text": text, "max_length": 64, **keys.pop("input", {})},
        "labels": {"scheme": "classes", "column": "label", "names": ["no", "yes"]},
        "head": "verbalizer",
        "verbalizer": {"no": " no", "yes": " yes"},
    }
    validated = TypeAdapter(Task).validate_python({**task, **keys})
    return build_scheme(validated, Subwords(tokenizer, max_length, filling), [])


def encoded(scheme: LabelScheme, **columns: str) -> Feature:
    [feature] = scheme.encode(Row({"label": "yes", **columns}, "data.jsonl:1"), 0)
    return feature


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PreTrainedTokenizerBase]:
    families = ("bert", "roberta", "deberta-v2", "gpt2", "llama")
    return {family: save_language_tokenizer(family, tmp_path_factory.mktemp(family)) for family in families}


@pytest.fixture(scope="module")
def bert(tokenizers: dict[str, PreTrainedTokenizerBase]) -> PreTrainedTokenizerBase:
    return tokenizers["bert"]


def masked(tokenizer: PreTrainedTokenizerBase, feature: Feature) -> list[list[int]]:
    """Where each input has masks."""
    return [
        [index for index, number in enumerate(encoding.ids) if number == tokenizer.mask_token_id]
        for encoding in feature.inputs
    ]


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta-v2"])
def test_what_fits_is_read_as_the_tokenizer_reads_a_text_with_its_mask(
    family: str, tokenizers: dict[str, PreTrainedTokenizerBase]
) -> None:
    tokenizer = tokenizers[family]
    scheme = scheme_for(tokenizer, "{a}? {mask}.", input={"pair": "{b}, so"})
    feature = encoded(scheme, a="ada met alan", b="is it so")
    expected = tokenizer(f"ada met alan? {tokenizer.mask_token}.", "is it so, so")
    assert list(feature.inputs[0].ids) == expected["input_ids"]
    if feature.inputs[0].segments is not None:
        assert list(feature.inputs[0].segments) == expected["token_type_ids"]
    assert feature.inputs[0].cloze is not None
    assert [[*answer.places] for answer in feature.inputs[0].cloze.answers] == masked(tokenizer, feature)
    assert not feature.truncated


def test_a_mask_in_the_data_is_not_the_one_that_is_scored(bert: PreTrainedTokenizerBase) -> None:
    feature = encoded(scheme_for(bert, "{a} {mask} [MASK]"), a="[MASK] is [MASK]")
    assert masked(bert, feature) == [[1, 3, 4, 5]]
    assert feature.inputs[0].cloze is not None
    assert feature.inputs[0].cloze.answers[0].places == (4,)


def test_the_longer_side_is_cut_and_never_what_the_template_says(bert: PreTrainedTokenizerBase) -> None:
    scheme = scheme_for(bert, "is it {a}? {mask}.", max_length=16, input={"pair": "so {b}."})
    feature = encoded(scheme, a="ada met", b="the a no " * 9)
    assert bert.decode(feature.inputs[0].ids) == "[CLS] is it ada met? [MASK]. [SEP] so the a no the. [SEP]"
    assert feature.truncated


@pytest.mark.parametrize(("side", "left"), [("text", "ada [MASK] no no no"), ("pair", "ada ada ada [MASK] no")])
def test_only_the_named_side_is_cut(side: str, left: str, bert: PreTrainedTokenizerBase) -> None:
    scheme = scheme_for(bert, "{a} {mask}", max_length=8, input={"pair": "{b}", "truncate": side})
    tokens = bert.convert_ids_to_tokens(list(encoded(scheme, a="ada ada ada", b="no no no").inputs[0].ids))
    assert [token for token in tokens if token not in ("[CLS]", "[SEP]")] == left.split()


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "roberta", "deberta-v2", "gpt2", "llama"])
@given(
    first=st.lists(st.sampled_from(["ada", "met", "alan", "no"]), max_size=30),
    second=st.lists(st.sampled_from(["is", "it", "so", "[MASK]", "paris."]), max_size=30),
    max_length=st.integers(20, 60),
    several=st.booleans(),
)
def test_the_mask_is_never_cut_off(
    family: str,
    first: list[str],
    second: list[str],
    max_length: int,
    several: bool,
    tokenizers: dict[str, PreTrainedTokenizerBase],
) -> None:
    tokenizer = tokenizers[family]
    causal = family in ("gpt2", "llama")
    keys: dict[str, Any] = {"filling": "continuation"} if causal else {}
    if several:
        keys |= {"verbalizer": {"no": " no", "yes": " yes yes yes"}, "verbalizer_tokens": "any"}
    text, pair = ("{a}", "{b} so {mask}") if causal else ("{a} {mask}", "so {b}")
    scheme = scheme_for(tokenizer, text, max_length, input={"pair": pair}, **keys)
    feature = encoded(scheme, a=" ".join(first), b=" ".join(second))
    for encoding in feature.inputs:
        assert len(encoding.ids) <= max_length
        assert encoding.cloze is not None
        for answer in encoding.cloze.answers:
            assert answer.places[-1] < len(encoding.ids)
            around = tokenizer.decode([encoding.ids[place] for place in answer.places[:1]]).strip()
            assert around == ("so" if causal else tokenizer.mask_token)
            if not causal:
                assert all(encoding.ids[place] == tokenizer.mask_token_id for place in answer.places)


def test_a_template_that_does_not_fit_is_an_error_of_the_row(bert: PreTrainedTokenizerBase) -> None:
    scheme = scheme_for(bert, "is it so is it so is it so {a} {mask}", max_length=9)
    with pytest.raises(DataError) as caught:
        encoded(scheme, a="ada")
    assert "data.jsonl:1: error: the input is 3 tokens longer than the 9 allowed" in str(caught.value)


def test_words_of_the_same_number_of_tokens_share_an_input(bert: PreTrainedTokenizerBase) -> None:
    words = {"no": [" no", " no no"], "yes": [" yes", " yes yes", " so so so"]}
    scheme = scheme_for(bert, "{a} {mask} .", verbalizer=words, verbalizer_tokens="any")
    assert scheme.unit == "answers"
    feature = encoded(scheme, a="ada")
    assert masked(bert, feature) == [[2], [2, 3], [2, 3, 4]]
    found = {
        answer.number: (answer.places, bert.decode(answer.ids))
        for encoding in feature.inputs
        if encoding.cloze is not None
        for answer in encoding.cloze.answers
    }
    assert found == {
        0: ((2,), "no"),
        1: ((2, 3), "no no"),
        2: ((2,), "yes"),
        3: ((2, 3), "yes yes"),
        4: ((2, 3, 4), "so so so"),
    }
    batch = scheme.collate([feature, feature])
    assert batch.cloze["answer_places"].tolist()[:5] == [
        *([2, 0, 0], [9, 10, 0], [2, 0, 0], [9, 10, 0]),
        [16, 17, 18],
    ]
    assert batch.cloze["answer_ids"][5].tolist() == [bert.convert_tokens_to_ids("no"), -100, -100]
    assert batch.input_ids.shape == (6, 7)
    flat = batch.input_ids.flatten()
    scored = batch.cloze["answer_ids"] >= 0
    assert set(flat[batch.cloze["answer_places"][scored]].tolist()) == {bert.mask_token_id}


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_decoder_goes_on_with_the_text(family: str, tokenizers: dict[str, PreTrainedTokenizerBase]) -> None:
    tokenizer = tokenizers[family]
    words = {"no": " no", "yes": " yes yes"}
    scheme = scheme_for(tokenizer, "{a}? so {mask}", filling="continuation", verbalizer=words, verbalizer_tokens="any")
    feature = encoded(scheme, a="is it")
    context = tokenizer("is it? so")["input_ids"]
    both = tokenizer("is it? so yes yes")["input_ids"]
    assert [list(encoding.ids) for encoding in feature.inputs] == [context, both[:-1]]
    answers = [encoding.cloze.answers[0] for encoding in feature.inputs if encoding.cloze is not None]
    assert [answer.places for answer in answers] == [(len(context) - 1,), (len(context) - 1, len(context))]
    assert [*context, *answers[1].ids] == both


@pytest.mark.parametrize("text", ["{mask} {a}", "{a} {mask}."])
def test_a_decoder_cannot_fill_a_mask_before_the_end(text: str, tokenizers: dict[str, PreTrainedTokenizerBase]) -> None:
    with pytest.raises(ConfigError) as caught:
        scheme_for(tokenizers["gpt2"], text, filling="continuation")
    assert caught.value.problems[0].message == "a decoder continues a text: '{mask}' must stand at the input's end"
    with pytest.raises(ConfigError, match="must stand at the input's end"):
        scheme_for(tokenizers["gpt2"], "{a} {mask}", filling="continuation", input={"pair": "{b}"})


def test_an_encoder_without_a_mask_token_cannot_fill_one(tokenizers: dict[str, PreTrainedTokenizerBase]) -> None:
    with pytest.raises(ConfigError, match="the backbone's tokenizer has no mask token"):
        scheme_for(tokenizers["gpt2"], "{a} {mask}")


def test_classes_from_the_training_rows_must_have_words(bert: PreTrainedTokenizerBase) -> None:
    task = TypeAdapter(Task).validate_python(
        {
            "task": "t",
            "data": SOURCE,
            "input": {"text": "{a} {mask}"},
            "labels": {"scheme": "classes", "column": "label"},
            "head": "verbalizer",
            "verbalizer": {"no": " no", "yess": " yes"},
        }
    )
    rows = [Row({"a": "x", "label": label}, "data.jsonl:1") for label in ("no", "yes")]
    with pytest.raises(ConfigError) as caught:
        build_scheme(task, Subwords(bert, 32), rows)
    assert [str(problem) for problem in caught.value.problems] == [
        "error: 'verbalizer' has a word for 'yess', which is not a class\n  hint: did you mean 'yes'?",
        "error: 'verbalizer' has no word for the class 'yes'",
    ]


def test_choices_that_must_be_one_token_are_refused_by_row(bert: PreTrainedTokenizerBase) -> None:
    task = TypeAdapter(Task).validate_python(
        {
            "task": "t",
            "data": SOURCE,
            "input": {"text": "{a} {mask}", "choices": ["{b}", "{c}"]},
            "labels": {"scheme": "choices", "column": "label"},
            "head": "verbalizer",
            "verbalizer_tokens": "one",
        }
    )
    scheme = build_scheme(task, Subwords(bert, 32), [])
    row = {"a": "ada", "b": "yes", "label": 0}
    assert scheme.encode(Row({**row, "c": "no"}, "data.jsonl:1"), 0)
    with pytest.raises(DataError, match="the choice 'no no' is 2 tokens in this vocabulary: 'no', 'no'"):
        scheme.encode(Row({**row, "c": "no no"}, "data.jsonl:2"), 1)
    with pytest.raises(DataError, match="the answer ' ' has no token"):
        scheme.encode(Row({**row, "c": " "}, "data.jsonl:3"), 2)


# The official examples as the data sets have them
OFFICIAL: dict[str, dict[str, Any]] = {
    "rte": {"hypothesis": "The museum has grown.", "premise": "The museum opened a new wing on Friday.", "label": 0},
    "cb": {
        "hypothesis": "they would move",
        "premise": "A: I doubt it. B: Do you think they'd move? A: Not really.",
        "label": 1,
    },
    "boolq": {
        "question": "do glaciers move",
        "passage": "Glaciers -- A glacier is a persistent body of dense ice that moves under its own weight.",
        "label": 1,
    },
    "copa": {
        "premise": "The ground was wet in the morning.",
        "choice1": "the sun came out",  # the official code lowers the first letter
        "choice2": "it rained overnight",
        "question": "cause",
        "label": 1,
    },
}
CLASS_ORDER = {"boolq": ["no", "yes"], "rte": ["entailment", "not_entailment"]}


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_tasks_that_come_along_give_glm_the_official_inputs(name: str, shared: Path) -> None:
    golden = json.loads((shared / "parity" / "glm" / "tokenization.json").read_text())
    pattern = 4 if name == "boolq" else 0
    [expected] = [
        row
        for row in golden["cloze"]
        if (row["task"], row["pattern_id"], row["continuous_prompt"]) == (name, pattern, False)
    ][:1]
    tokenizer = build_tokenizer(shared / "tokenizers/gpt2/vocab.json", shared / "tokenizers/gpt2/merges.txt")
    task = load_task(TASKS / f"{name}_cloze.yaml").task
    scheme = build_scheme(task, Subwords(tokenizer, 256, "blank"), [])
    [row] = task_rows(task, [Row(OFFICIAL[name], "data.jsonl:1")])
    inputs = scheme.encode(row, 0)[0].inputs
    if name == "copa":
        assert [list(encoding.ids) for encoding in inputs] == expected["input_ids"]
        assert [[list(line) for line in encoding.cloze.positions] for encoding in inputs] == expected["position_ids"]
        assert [list(encoding.cloze.answers[0].ids) for encoding in inputs] == expected["target_ids"]
        assert [encoding.cloze.context for encoding in inputs] == expected["sep"]
        return
    [encoding] = inputs
    assert encoding.cloze is not None
    assert list(encoding.ids) == expected["input_ids"]
    assert [list(line) for line in encoding.cloze.positions or ()] == expected["position_ids"]
    assert encoding.cloze.context == expected["sep"] == encoding.cloze.answers[0].places[0]
    by_class = {label: words[0][0] for label, words in zip(scheme.names, scheme.words, strict=True)}
    names = expected["label_list"]
    as_ours = {"false": "no", "true": "yes"}
    assert [by_class[as_ours.get(str(label).lower(), label)] for label in names] == expected["target_ids"]


def test_long_rows_are_shortened_like_the_official_ones(shared: Path) -> None:
    golden = json.loads((shared / "parity" / "glm" / "tokenization.json").read_text())
    tokenizer = build_tokenizer(shared / "tokenizers/gpt2/vocab.json", shared / "tokenizers/gpt2/merges.txt")
    task = load_task(TASKS / "rte_cloze.yaml").task
    found = [row for row in golden["truncation"] if row["task"] == "rte"]
    assert found
    for expected in found:
        texts = {"premise": expected["example"]["text_a"], "hypothesis": expected["example"]["text_b"], "label": 0}
        scheme = build_scheme(task, Subwords(tokenizer, expected["seq_length"], "blank"), [])
        [row] = task_rows(task, [Row(texts, "data.jsonl:1")])
        [feature] = scheme.encode(row, 0)
        assert list(feature.inputs[0].ids) == expected["cloze"]["input_ids"]
        assert feature.truncated


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rte", "boolq", "cb", "copa", "sst2"])
@pytest.mark.parametrize("kind", ["bert", "roberta", "glm"])
def test_real_rows_of_the_tasks_that_come_along(name: str, kind: str, shared: Path) -> None:
    folder = shared / "tokenizers"
    filling: Filling = "blank" if kind == "glm" else "masks"
    if kind == "bert":
        tokenizer: PreTrainedTokenizerBase = BertTokenizer(str(folder / "bert-large-uncased" / "vocab.txt"))
    elif kind == "roberta":
        files = [str(folder / "roberta-large" / file) for file in ("vocab.json", "merges.txt")]
        tokenizer = RobertaTokenizer(*files)
    else:
        tokenizer = build_tokenizer(folder / "gpt2/vocab.json", folder / "gpt2/merges.txt")
    resolved = load_task(TASKS / f"{name}_cloze.yaml")
    rows = read_split(resolved.task, "validation", task_path=resolved.path, data_root=shared / "data").rows[:40]
    scheme = build_scheme(resolved.task, Subwords(tokenizer, 100, filling), [])
    features = [feature for index, row in enumerate(rows) for feature in scheme.encode(row, index)]
    mask = tokenizer.mask_token_id
    assert all(mask in encoding.ids and len(encoding.ids) <= 100 for each in features for encoding in each.inputs)
    batch = scheme.collate(features)
    assert len(batch.labels) == len(rows)
    if name == "copa":
        assert batch.cloze["answer_places"].shape == batch.cloze["answer_ids"].shape
        assert len(batch.cloze["answer_ids"]) == 2 * len(rows)
    else:
        assert scheme.unit == "words"
        assert batch.cloze["answer_places"].shape == (len(rows), 1)
