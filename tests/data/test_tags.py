"""Scheme `tags`: a class for each word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ptv2kit.data.dataset import encode_split
from ptv2kit.data.schemes import build_scheme
from ptv2kit.data.schemes.base import LabelScheme
from ptv2kit.data.schemes.records import IGNORED, Prediction
from ptv2kit.errors import DataError
from tests.data.small_tasks import SECTIONS, data_of, subwords_of, task_of, tokenizers

__all__ = ["tokenizers"]
ROWS: list[dict[str, Any]] = [
    {"words": ["ada", "met", "alan"], "pos": ["PROPN", "VERB", "PROPN"]},
    {"words": ["so", "met", "ada", "alan", "in", "paris"], "pos": ["ADV", "VERB", "PROPN", "PROPN", "ADP", "PROPN"]},
]


def scheme_of(tokenizer: Path, max_length: int = 12, rows: list[dict[str, Any]] = ROWS, **labels: Any) -> LabelScheme:
    labels = {"scheme": "tags", "column": "pos", **labels}
    task = task_of({"input": {"words": "words", "max_length": max_length}, "labels": labels, "metrics": METRICS})
    return build_scheme(task, subwords_of(tokenizer, max_length=max_length), data_of(task, rows).rows)


METRICS = ["token_accuracy", "macro_f1", "weighted_f1"]


def rows_of(values: list[dict[str, Any]]) -> Any:
    return data_of(task_of(SECTIONS["tags"]), values).rows


def test_each_word_has_its_class_at_its_first_sub_word(tokenizers: dict[str, Path]) -> None:
    scheme = scheme_of(tokenizers["bert"])
    assert scheme.names == scheme.kinds == ("ADP", "ADV", "PROPN", "VERB")
    [feature] = scheme.encode(rows_of(ROWS)[0], 0)
    scored = [label for label in feature.labels if label != IGNORED]
    assert [scheme.names[label] for label in scored] == ROWS[0]["pos"]
    assert scheme.counted(feature.reference) == ROWS[0]["pos"]
    logits = torch.zeros(1, len(feature.labels), 4)
    logits[0, :, 3] = 1
    [found] = scheme.decode([feature], logits)
    answer = scheme.answer(rows_of(ROWS)[0], found)
    assert (answer["label"], answer["words"]) == (["VERB"] * 3, ["ada", "met", "alan"])
    assert "spans" not in answer


def test_a_word_behind_the_cut_has_no_tag_and_is_wrong(tokenizers: dict[str, Path]) -> None:
    scheme = scheme_of(tokenizers["bert"], 8, [{"words": ["ada", "met"] * 20, "pos": ["PROPN", "VERB"] * 20}])
    [feature] = scheme.encode(rows_of([{"words": ["ada", "met"] * 20, "pos": ["PROPN", "VERB"] * 20}])[0], 0)
    assert feature.truncated
    logits = torch.zeros(1, 8, 2)
    logits[0, :, 0] = 1
    [found] = scheme.decode([feature], logits)
    kept = sum(tag == "PROPN" for tag in found.label)
    assert found.label == ("PROPN",) * kept + ("",) * (40 - kept)
    assert scheme.score([found]).values["token_accuracy"] == pytest.approx(100 * -(-kept // 2) / 40)


@pytest.mark.parametrize(
    ("names", "tags", "expected"),
    [
        (["NOUN", "VERB"], [1, 0, 1], ("VERB", "NOUN", "VERB")),
        ({"0": "NOUN", "1": "VERB", "2": "VERB"}, [2, 0, 1], ("VERB", "NOUN", "VERB")),
        ({"NN": "NOUN", "NNS": "NOUN", "VB": "VERB"}, ["NNS", "VB", "NN"], ("NOUN", "VERB", "NOUN")),
        ("from_train", [2, 0, 1], ("2", "0", "1")),
    ],
)
def test_tags_are_read_as_names_numbers_or_mapped(
    tokenizers: dict[str, Path], names: Any, tags: list[Any], expected: tuple[str, ...]
) -> None:
    values = [{"words": ["ada", "met", "alan"], "pos": tags}]
    scheme = scheme_of(tokenizers["bert"], rows=values, names=names)
    assert scheme.encode(rows_of(values)[0], 0)[0].reference == expected


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"words": ["ada", "met"], "pos": ["NOUN", "VREB"]}, "tag 2 of 2, 'VREB', is not in 'labels.names'"),
        ({"words": ["ada"], "pos": ["NOUN", "VERB"]}, "1 words in 'words' but 2 tags in 'pos'"),
        ({"words": ["ada"], "pos": [7]}, "column 'pos' holds 7, but 'labels.names' has classes 0 to 1"),
        ({"words": ["ada"], "pos": "NOUN"}, "column 'pos'"),
    ],
)
def test_malformed_tags_are_errors_with_the_row(tokenizers: dict[str, Path], row: dict[str, Any], message: str) -> None:
    scheme = scheme_of(tokenizers["bert"], names=["NOUN", "VERB"])
    with pytest.raises(DataError) as caught:
        scheme.encode(rows_of([row])[0], 0)
    assert message in str(caught.value)
    assert "rows.jsonl:1" in str(caught.value)
    assert message.startswith("tag") == ("did you mean 'VERB'" in str(caught.value))


def test_one_tag_for_all_words_is_an_error(tokenizers: dict[str, Path]) -> None:
    with pytest.raises(DataError, match="of the training split holds fewer than two tags"):
        scheme_of(tokenizers["bert"], rows=[{"words": ["ada"], "pos": ["NOUN"]}])


def test_scores_are_those_of_counting(tokenizers: dict[str, Path]) -> None:
    scheme = scheme_of(tokenizers["bert"])
    pairs = [(("VERB", "VERB", "PROPN"), ("PROPN", "VERB", "PROPN")), (("ADV", "VERB"), ("ADV", "X"))]
    scores = scheme.score([Prediction(row, found, 1.0, right) for row, (found, right) in enumerate(pairs)])
    assert scores.values["token_accuracy"] == pytest.approx(60)
    f1 = {"PROPN": 2 / 3, "VERB": 0.5, "ADV": 1, "X": 0}  # ADP neither occurs nor is found, X was never seen
    assert scores.values["macro_f1"] == pytest.approx(100 * sum(f1.values()) / 4)
    assert scores.values["weighted_f1"] == pytest.approx(100 * (2 * 2 / 3 + 0.5 + 1 + 0) / 5)
    assert {row.name: row.f1 for row in scores.types if row.name != "ADP"} == pytest.approx(
        {name: 100 * value for name, value in f1.items()}
    )
    assert scores.counts["token_accuracy"] == "5 words"


def test_the_targets_are_those_of_spans_with_the_same_tags(tokenizers: dict[str, Path]) -> None:
    """The loss is one cross-entropy over the same positions, so that only what is scored differs."""
    words = {"input": {"words": "words", "max_length": 8}}
    spans = task_of({**words, "labels": {"scheme": "iob2", "column": "tags", "names": ["PER", "LOC"]}})
    names = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    tags = task_of({**words, "labels": {"scheme": "tags", "column": "tags", "names": names}})
    rows = [{"words": ["ada", "met", "alan", *["so"] * 9], "tags": ["B-PER", "O", "B-PER", *["O"] * 8, "B-LOC"]}]
    found = [
        encode_split(build_scheme(task, subwords_of(tokenizers["bert"], max_length=8), ()), data_of(task, rows), print)
        for task in (spans, tags)
    ]
    assert found[0].features == found[1].features
