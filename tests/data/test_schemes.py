"""Encoding, decoding and scoring of each label scheme."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from transformers import BertTokenizer

from ptv2kit.data.batching import grouped_batches, sorted_batches
from ptv2kit.data.dataset import encode_split
from ptv2kit.data.rows import Row
from ptv2kit.data.schemes import build_scheme
from ptv2kit.data.schemes.base import LabelScheme
from ptv2kit.data.schemes.records import IGNORED, Prediction
from ptv2kit.data.sources import SplitData
from ptv2kit.data.tokens import Subwords
from ptv2kit.errors import DataError
from ptv2kit.spec.task import Task

WORDS = [
    *["the", "quick", "brown", "fox", "jump", "##s", "##ed", "over", "lazy", "dog", "in", "new", "york", "city"],
    *["ada", "love", "##lace", "is", "it", "true", "yes", "no"],
]
TASKS: TypeAdapter[Any] = TypeAdapter(Task)
SOURCE = {"source": "jsonl", "splits": {"train": "a", "validation": "b"}}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> BertTokenizer:
    vocabulary = tmp_path_factory.mktemp("tokenizer") / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]) + "\n")
    return BertTokenizer(str(vocabulary))


def rows(*values: dict[str, Any]) -> list[Row]:
    return [Row(value, f"data.jsonl:{number}") for number, value in enumerate(values, 1)]


def classes(tokenizer: BertTokenizer, train: list[Row], max_length: int = 32, **labels: Any) -> LabelScheme:
    task = TASKS.validate_python(
        {
            "task": "t",
            "data": SOURCE,
            "input": {"text": "{a}", "pair": "{b}", "truncate": "pair"},
            "labels": {"scheme": "classes", "column": "label", **labels},
            "metrics": ["accuracy", "macro_f1"],
        }
    )
    return build_scheme(task, Subwords(tokenizer, max_length), train)


def tags(tokenizer: BertTokenizer, train: list[Row], max_length: int = 32, **labels: Any) -> LabelScheme:
    task = TASKS.validate_python(
        {
            "task": "t",
            "data": SOURCE,
            "input": {"words": "words"},
            "labels": {"scheme": "iob2", "column": "tags", **labels},
            "metrics": ["span_f1", "token_accuracy"],
        }
    )
    return build_scheme(task, Subwords(tokenizer, max_length), train)


def test_a_pair_is_encoded_as_the_tokenizer_does_it(tokenizer: BertTokenizer) -> None:
    [row] = rows({"a": "the quick fox", "b": "is it true", "label": "yes"})
    scheme = classes(tokenizer, [row], names=["no", "yes"])
    feature = scheme.encode(row, 0)[0]
    expected = tokenizer("the quick fox", "is it true")
    assert list(feature.inputs[0].ids) == expected["input_ids"]
    assert list(feature.inputs[0].segments or ()) == expected["token_type_ids"]
    assert (feature.labels, feature.reference, feature.truncated) == (1, "yes", False)


def test_only_the_side_that_the_task_names_is_shortened(tokenizer: BertTokenizer) -> None:
    [row] = rows({"a": "the quick fox", "b": "is it true " * 9, "label": "yes"})
    feature = classes(tokenizer, [row], max_length=10, names=["no", "yes"]).encode(row, 0)[0]
    assert tokenizer.decode(feature.inputs[0].ids) == "[CLS] the quick fox [SEP] is it true is [SEP]"
    assert feature.truncated


@pytest.mark.parametrize(
    ("names", "value", "expected"),
    [
        (["no", "yes"], "yes", "yes"),
        (["no", "yes"], 1, "yes"),
        (["no", "yes"], True, "yes"),
        ({"0": "no", "1": "yes"}, "1", "yes"),
        ({"0": "no", "1": "yes"}, 1, "yes"),
        ({"false": "no", "true": "yes"}, True, "yes"),
        ("from_train", "yes", "yes"),
        ("from_train", 7, "7"),
    ],
)
def test_labels_are_read_in_every_documented_form(
    tokenizer: BertTokenizer, names: Any, value: object, expected: str
) -> None:
    train = rows({"a": "x", "b": "y", "label": value}, {"a": "x", "b": "y", "label": "other"})
    scheme = classes(tokenizer, train, names=names)
    feature = scheme.encode(train[0], 0)[0]
    assert feature.reference == expected
    assert scheme.names[feature.labels] == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "yess",
            "data.jsonl:1: error: label 'yess' in column 'label' is not in 'labels.names'\n  hint: did you mean 'yes'?",
        ),
        (
            2,
            "data.jsonl:1: error: column 'label' holds 2, but 'labels.names' has classes 0 to 1\n"
            "  hint: integers count from 0; if the data counts from 1, map its values to names: "
            '{"1": no, "2": yes}',
        ),
        (
            5,
            "data.jsonl:1: error: column 'label' holds 5, but 'labels.names' has classes 0 to 1\n"
            '  hint: integers count from 0; map the values of the data to names: {"0": no, "1": yes}',
        ),
        (None, "data.jsonl:1: error: a label must be text, an integer or a boolean. Got None"),
    ],
)
def test_a_label_that_is_none_of_the_names_is_an_error(tokenizer: BertTokenizer, value: object, message: str) -> None:
    [row] = rows({"a": "x", "b": "y", "label": value})
    with pytest.raises(DataError) as caught:
        classes(tokenizer, [row], names=["no", "yes"]).encode(row, 0)[0]
    assert str(caught.value) == message


def test_a_class_that_train_lacks_is_kept_as_reference_but_not_trained(tokenizer: BertTokenizer) -> None:
    train = rows({"a": "x", "b": "y", "label": "no"}, {"a": "x", "b": "y", "label": "yes"})
    [odd] = rows({"a": "x", "b": "y", "label": "perhaps"})
    feature = classes(tokenizer, train).encode(odd, 0)[0]
    assert (feature.labels, feature.reference) == (IGNORED, "perhaps")


def test_words_are_labelled_at_their_first_sub_word(tokenizer: BertTokenizer) -> None:
    train = rows({"words": ["Ada", "Lovelace", "jumps"], "tags": ["B-PER", "I-PER", "O"]})
    scheme = tags(tokenizer, train)
    assert scheme.names == ("O", "B-PER", "I-PER")
    feature = scheme.encode(train[0], 0)[0]
    assert tokenizer.convert_ids_to_tokens(list(feature.inputs[0].ids)) == [
        "[CLS]", "ada", "love", "##lace", "jump", "##s", "[SEP]"
    ]  # fmt: skip
    assert feature.labels == (IGNORED, 1, 2, IGNORED, 0, IGNORED, IGNORED)
    assert feature.notes == (1, 2, 4)


def test_words_beyond_max_length_are_predicted_outside_and_count_as_missed(tokenizer: BertTokenizer) -> None:
    train = rows({"words": ["the", "dog", "Ada"], "tags": ["O", "O", "B-PER"]})
    scheme = tags(tokenizer, train, max_length=4)
    feature = scheme.encode(train[0], 0)[0]
    assert feature.truncated
    assert feature.notes == (1, 2, -1)
    batch = scheme.collate([feature])
    [prediction] = scheme.decode([feature], torch.zeros(1, 4, 3).index_fill(2, torch.tensor(1), 9.0))
    assert prediction.label == ("B-PER", "B-PER", "O")
    assert batch.labels.tolist() == [[IGNORED, 0, 0, IGNORED]]
    assert scheme.score([prediction]).values["span_f1"] == 0.0


@pytest.mark.parametrize(
    ("row_tags", "message"),
    [
        (["O", "I-PER"], "tag 2 of 2, 'I-PER', is not IOB2: it continues no PER span, the tag before it is 'O'"),
        (
            ["B-LOC", "I-PER"],
            "tag 2 of 2, 'I-PER', is not IOB2: it continues no PER span, the tag before it is 'B-LOC'",
        ),
        (["O", "S-PER"], "tag 2 of 2, 'S-PER', is not IOB2"),
        (["O", "PER"], "tag 2 of 2, 'PER', is not IOB2"),
        (["O", "B-ORG"], "span type 'ORG' of tag 2 is not in 'labels.names'"),
        (["O"], "2 words in 'words' but 1 tags in 'tags'"),
    ],
)
def test_malformed_tags_are_errors_with_the_row(tokenizer: BertTokenizer, row_tags: list[str], message: str) -> None:
    [row] = rows({"words": ["the", "dog"], "tags": row_tags})
    scheme = tags(tokenizer, [row], names=["PER", "LOC"])
    with pytest.raises(DataError) as caught:
        scheme.encode(row, 0)[0]
    assert str(caught.value).startswith(f"data.jsonl:1: error: {message}")


def test_all_bad_rows_of_a_split_are_reported_at_once(tokenizer: BertTokenizer) -> None:
    good = {"words": ["the", "dog"], "tags": ["O", "B-PER"]}
    data = rows(*[good, {"words": ["the"], "tags": ["I-PER"]}, good] * 9, *[{"words": ["a"], "tags": []}] * 20)
    seen: list[tuple[str, int, int]] = []
    scheme = tags(tokenizer, data[:1])
    with pytest.raises(DataError) as caught:
        encode_split(scheme, SplitData("train", tuple(data), "data.jsonl", ""), lambda *at: seen.append(at))
    locations = [problem.location for problem in caught.value.problems]
    assert locations[:3] == ["data.jsonl:2", "data.jsonl:5", "data.jsonl:8"]
    assert len(locations) == 21
    assert str(caught.value.problems[-1]) == "data.jsonl: error: and 9 more"
    assert seen[-1] == ("encoding train", len(data), len(data))


def test_span_f1_is_seqevals_strict_iob2(tokenizer: BertTokenizer) -> None:
    train = rows({"words": ["the", "dog", "fox"], "tags": ["B-PER", "I-PER", "B-LOC"]})
    scheme = tags(tokenizer, train)
    right = ("B-PER", "I-PER", "B-LOC", "O")
    found = ("B-PER", "I-PER", "I-LOC", "O")  # I-LOC opens no span in strict mode
    scores = scheme.score([Prediction(0, found, 1.0, right)])
    assert scores.values["span_f1"] == pytest.approx(100 * 2 / 3)
    assert scores.values["token_accuracy"] == 75.0
    assert scores.counts["token_accuracy"] == "4 words"  # the spans of the other metrics are two
    assert {type(value) for value in scores.values.values()} == {float}  # NumPy's numbers are no JSON
    assert {row.name: (row.f1, row.support) for row in scores.types} == {"LOC": (0.0, 1), "PER": (100.0, 1)}


def test_nothing_found_and_nothing_to_find_is_a_score_of_zero(tokenizer: BertTokenizer) -> None:
    scheme = tags(tokenizer, rows({"words": ["the"], "tags": ["B-PER"]}))
    assert scheme.score([Prediction(0, ("O",), 1.0, ("O",))]).values["span_f1"] == 0.0


TAGS = st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"])


def spans(sequence: tuple[str, ...]) -> set[tuple[str, int, int]]:
    """Spans of strict IOB2 by an independent route: a span opens at B- and runs over the I- of its type."""
    found: set[tuple[str, int, int]] = set()
    for start, tag in enumerate(sequence):
        if tag.startswith("B-"):
            end = start + 1
            while end < len(sequence) and sequence[end] == "I-" + tag[2:]:
                end += 1
            found.add((tag[2:], start, end))
    return found


@given(st.lists(st.lists(st.tuples(TAGS, TAGS), min_size=1, max_size=8), min_size=1, max_size=5))
def test_span_f1_equals_counting_spans(tokenizer: BertTokenizer, pairs: list[list[tuple[str, str]]]) -> None:
    scheme = tags(tokenizer, rows({"words": ["the"], "tags": ["B-PER"]}), names=["PER", "LOC"])
    predictions = [
        Prediction(index, tuple(found for found, _ in row), 1.0, tuple(right for _, right in row))
        for index, row in enumerate(pairs)
    ]
    hits = sum(len(spans(p.label) & spans(p.reference)) for p in predictions)
    total = sum(len(spans(p.label)) + len(spans(p.reference)) for p in predictions)
    assert scheme.score(predictions).values["span_f1"] == pytest.approx(200 * hits / total if total else 0.0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=20))
def test_class_metrics_equal_counting(tokenizer: BertTokenizer, pairs: list[tuple[str, str]]) -> None:
    scheme = classes(tokenizer, [], names=["a", "b", "c"])
    values = scheme.score([Prediction(i, found, 1.0, right) for i, (found, right) in enumerate(pairs)]).values
    assert values["accuracy"] == pytest.approx(100 * sum(found == right for found, right in pairs) / len(pairs))
    f1 = []
    for name in {name for pair in pairs for name in pair}:
        hits = sum(found == right == name for found, right in pairs)
        f1.append(200 * hits / sum((found == name) + (right == name) for found, right in pairs))
    assert values["macro_f1"] == pytest.approx(sum(f1) / len(f1))


@given(st.lists(st.integers(1, 90), max_size=200), st.integers(1, 9), st.integers(0, 5))
def test_batches_hold_each_row_once_and_repeat_with_the_seed(lengths: list[int], size: int, seed: int) -> None:
    for batches in (grouped_batches(lengths, size, seed), sorted_batches(lengths, size)):
        assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
        assert sum(len(batch) < size for batch in batches) <= max(1, -(-len(lengths) // (50 * size)))
    assert grouped_batches(lengths, size, seed) == grouped_batches(lengths, size, seed)


def test_grouping_leaves_little_padding() -> None:
    lengths = [1 + (37 * row) % 100 for row in range(1000)]
    padded = sum(len(batch) * max(lengths[row] for row in batch) for batch in grouped_batches(lengths, 10, 0))
    assert padded < 1.1 * sum(lengths)


def test_real_vocabulary_and_roberta_need_no_space_before_the_first_word(shared: Path, tmp_path: Path) -> None:
    from transformers import RobertaTokenizer

    folder = shared / "tokenizers" / "roberta-large"
    roberta = RobertaTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), add_prefix_space=True)
    [row] = rows({"words": ["Paris", "is", "Paris"], "tags": ["B-LOC", "O", "B-LOC"]})
    feature = tags(roberta, [row]).encode(row, 0)[0]
    first, _, last = (feature.inputs[0].ids[anchor] for anchor in feature.notes)
    assert first == last
    assert feature.inputs[0].segments is None
