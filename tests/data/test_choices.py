"""Scheme `choices`: encoding, decoding, scoring, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from transformers import BertTokenizer

from ptv2kit.data.rows import Row
from ptv2kit.data.schemes import build_scheme
from ptv2kit.data.schemes.base import LabelScheme
from ptv2kit.data.templates import task_rows
from ptv2kit.data.tokens import Subwords
from ptv2kit.errors import DataError
from ptv2kit.spec.task import Task

WORDS = ["it", "rained", "because", "so", "we", "left", "clouds", "came", "sun"]
ROW = {"premise": "it rained", "choice1": "clouds came", "choice2": "we left", "question": "cause", "label": 0}
TASK: dict[str, Any] = {
    "task": "t",
    "data": {"source": "jsonl", "splits": {"train": "a", "validation": "b"}},
    "derive": {"joiner": {"column": "question", "map": {"cause": "because", "effect": "so"}}},
    "input": {"text": "{premise} {joiner}", "choices": ["{choice1}", "{choice2}"], "max_length": 16},
    "labels": {"scheme": "choices", "column": "label"},
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> BertTokenizer:
    vocabulary = tmp_path_factory.mktemp("tokenizer") / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]) + "\n")
    return BertTokenizer(str(vocabulary))


def scheme_of(tokenizer: BertTokenizer, max_length: int = 16, **labels: Any) -> LabelScheme:
    task = TypeAdapter(Task).validate_python({**TASK, "labels": {**TASK["labels"], **labels}})
    return build_scheme(task, Subwords(tokenizer, max_length), [])


def rows(*values: dict[str, Any]) -> list[Row]:
    task = TypeAdapter(Task).validate_python(TASK)
    return list(task_rows(task, [Row(value, f"copa.jsonl:{number}") for number, value in enumerate(values, 1)]))


def test_each_choice_is_a_pair_with_the_text(tokenizer: BertTokenizer) -> None:
    [feature] = scheme_of(tokenizer).encode(rows(ROW)[0], 0)
    assert [tokenizer.decode(encoding.ids) for encoding in feature.inputs] == [
        "[CLS] it rained because [SEP] clouds came [SEP]",
        "[CLS] it rained because [SEP] we left [SEP]",
    ]
    assert (feature.labels, feature.reference, feature.truncated) == (0, "0", False)


def test_a_batch_holds_the_choices_of_a_row_one_after_the_other(tokenizer: BertTokenizer) -> None:
    scheme = scheme_of(tokenizer)
    features = [
        feature
        for index, row in enumerate(rows(ROW, {**ROW, "question": "effect", "choice2": "sun", "label": 1}))
        for feature in scheme.encode(row, index)
    ]
    batch = scheme.collate(features)
    assert batch.input_ids.shape == batch.attention_mask.shape == (4, 8)
    assert batch.labels.tolist() == [0, 1]
    assert [
        tokenizer.decode(ids[mask.bool()]) for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True)
    ][2:] == ["[CLS] it rained so [SEP] clouds came [SEP]", "[CLS] it rained so [SEP] sun [SEP]"]


def test_the_highest_score_is_chosen(tokenizer: BertTokenizer) -> None:
    scheme = scheme_of(tokenizer)
    features = [scheme.encode(row, index)[0] for index, row in enumerate(rows(ROW, ROW))]
    predictions = scheme.join(scheme.decode(features, torch.tensor([[0.0, 2.0], [3.0, 1.0]])))
    assert [prediction.label for prediction in predictions] == ["1", "0"]
    assert predictions[0].probability == pytest.approx(torch.tensor([0.0, 2.0]).softmax(0)[1].item())
    assert scheme.score(predictions).values == {"accuracy": 50.0}


def test_labels_may_have_names_or_be_digits(tokenizer: BertTokenizer) -> None:
    named = scheme_of(tokenizer, names=("A", "B"))
    assert named.encode(rows({**ROW, "label": "B"})[0], 0)[0].labels == 1
    assert named.encode(rows({**ROW, "label": 0})[0], 0)[0].reference == "A"
    assert scheme_of(tokenizer).encode(rows({**ROW, "label": "1"})[0], 0)[0].labels == 1


@pytest.mark.parametrize(
    ("label", "names", "message"),
    [
        (2, None, "column 'label' holds 2, but the choices are 0 to 1"),
        (-1, None, "must hold a whole number from 0 on. Got the number -1"),
        (True, None, "must hold a whole number from 0 on. Got true"),
        ("C", ("A", "B"), "label 'C' in column 'label' is not in 'labels.names'"),
    ],
)
def test_wrong_labels(tokenizer: BertTokenizer, label: Any, names: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as info:
        scheme_of(tokenizer, names=names).encode(rows({**ROW, "label": label})[0], 0)
    assert info.value.problems[0].location == "copa.jsonl:1"


def test_a_choice_that_is_cut_off_is_counted(tokenizer: BertTokenizer) -> None:
    [feature] = scheme_of(tokenizer, max_length=7).encode(rows(ROW)[0], 0)
    assert feature.truncated
    assert feature.length == 7
