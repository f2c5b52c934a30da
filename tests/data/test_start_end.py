"""Scheme `start_end`: windows, targets, the search for the best answer, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from transformers import BertTokenizer

from ptv2kit.data.rows import Row
from ptv2kit.data.schemes import build_scheme
from ptv2kit.data.schemes.base import LabelScheme
from ptv2kit.data.schemes.records import Feature
from ptv2kit.data.tokens import Subwords
from ptv2kit.errors import DataError
from ptv2kit.spec.task import Task

WORDS = ["who", "when", "built", "the", "bridge", "?", "ada", "in", "rome", "and", "it", "fell", ".", "##s", "old", "a"]
CONTEXT = "Ada built the old bridge in Rome. It fell and fell, and Adas bridge fell in Rome."
QUESTION = " who built the bridge? "


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> BertTokenizer:
    vocabulary = tmp_path_factory.mktemp("tokenizer") / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, ","]) + "\n")
    return BertTokenizer(str(vocabulary))


def scheme_of(
    tokenizer: BertTokenizer, max_length: int = 64, stride: int = 3, task: Any = None, **labels: Any
) -> LabelScheme:
    labels = {"column": "answers", **labels}
    spec = TypeAdapter(Task).validate_python(
        {
            **(task or {}),
            "task": "t",
            "data": {"source": "jsonl", "splits": {"train": "a", "validation": "b"}},
            "input": {"question": "{question}", "context": "{context}", "max_length": max_length, "stride": stride},
            "labels": {"scheme": "start_end", **{key: value for key, value in labels.items() if value is not None}},
        }
    )
    return build_scheme(spec, Subwords(tokenizer, max_length), [])


def row(*answers: tuple[str, int], **more: Any) -> Row:
    texts, starts = [text for text, _ in answers], [start for _, start in answers]
    values = {"question": QUESTION, "context": CONTEXT, "answers": {"text": texts, "answer_start": starts}, **more}
    return Row(values, "squad.jsonl:4")


def marked(tokenizer: BertTokenizer, feature: Feature) -> str:
    """The sub-words between the targets."""
    assert isinstance(feature.labels, tuple)
    first, last = feature.labels
    return tokenizer.decode(feature.inputs[0].ids[first : last + 1])


def test_one_window_when_everything_fits(tokenizer: BertTokenizer) -> None:
    [feature] = scheme_of(tokenizer).encode(row(("old bridge", 14)), 0)
    text = tokenizer.decode(feature.inputs[0].ids)
    assert text.startswith("[CLS] who built the bridge? [SEP] ada built the old bridge in rome")
    assert marked(tokenizer, feature) == "old bridge"
    assert feature.reference == ("old bridge",)
    assert not feature.truncated


def test_windows_overlap_and_cover_the_passage(tokenizer: BertTokenizer) -> None:
    features = scheme_of(tokenizer, max_length=16, stride=3).encode(row(("Rome", 28)), 7)
    assert len(features) > 2
    assert {feature.row for feature in features} == {7}
    assert all(feature.length <= 16 for feature in features)
    spans = [[span for span in feature.notes.spans if span is not None] for feature in features]
    for before, after in pairwise(spans):
        assert before[-3:] == after[:3]
    assert spans[0][0] == (0, 3)
    assert spans[-1][-1] == (len(CONTEXT) - 1, len(CONTEXT))
    with_answer = [feature for feature in features if feature.labels != (0, 0)]
    assert with_answer
    assert {marked(tokenizer, feature) for feature in with_answer} == {"rome"}
    assert not any(feature.truncated for feature in features)


def test_an_answer_within_a_word_is_enclosed(tokenizer: BertTokenizer) -> None:
    start = CONTEXT.index("Adas")
    [feature] = scheme_of(tokenizer).encode(row(("das", start + 1)), 0)
    assert marked(tokenizer, feature) == "adas"
    assert feature.reference == ("das",)


def test_an_answer_that_no_window_holds_is_counted(tokenizer: BertTokenizer) -> None:
    features = scheme_of(tokenizer, max_length=16, stride=3).encode(row((CONTEXT, 0)), 0)
    assert all(feature.labels == (0, 0) for feature in features)
    assert all(feature.truncated for feature in features)


def test_columns_of_their_own(tokenizer: BertTokenizer) -> None:
    own = scheme_of(tokenizer, column=None, text="facts.*.answer", start="facts.*.at")
    facts = [{"answer": "Rome", "at": 28}, {"answer": "old bridge", "at": 14}]
    [feature] = own.encode(row(facts=facts), 0)
    assert feature.reference == ("Rome", "old bridge")
    assert marked(tokenizer, feature) == "rome"
    [found] = scheme_of(tokenizer, column=None, text="gold").encode(row(gold="fell"), 0)
    assert found.labels == scheme_of(tokenizer).encode(row(("fell", 37)), 0)[0].labels


@pytest.mark.parametrize(
    ("given_row", "message", "hint"),
    [
        (row(("Roma", 28)), "the answer 'Roma' is not at character 28 of the passage, where 'Rome' stands", "starts"),
        (row(("Rome", -1)), "is not at character -1", "starts"),
        (row(), "column 'answers.text' holds no answer", "labels.unanswerable: true"),
        (row(("", 0)), "an answer must be text. Got ''", ""),
        (row(answers={"text": ["Rome"], "answer_start": []}), "1 texts in 'answers.text' but 0 starts", ""),
        (row(answers={"text": ["Rome"], "answer_start": ["x"]}), "must be a whole number. Got 'x'", ""),
        (row(("Rome", 28), question="who " * 60), "of 64 sub-words to the passage", "lower input.stride"),
    ],
)
def test_what_is_refused(tokenizer: BertTokenizer, given_row: Row, message: str, hint: str) -> None:
    with pytest.raises(DataError) as info:
        scheme_of(tokenizer).encode(given_row, 0)
    [problem] = info.value.problems
    assert message in problem.message
    assert hint in problem.hint
    assert problem.location == "squad.jsonl:4"


def brute_force(feature: Feature, scores: torch.Tensor, longest: int) -> tuple[str, float]:
    """The best pair by trying every one."""
    best = ("", -math.inf)
    for first, opening in enumerate(feature.notes.spans):
        for last, closing in enumerate(feature.notes.spans):
            if opening is not None and closing is not None and 0 <= last - first < longest:
                score = float(scores[first, 0] + scores[last, 1])
                if score > best[1]:
                    best = (CONTEXT[opening[0] : closing[1]], score)
    return best


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), longest=st.integers(1, 12), n_best=st.integers(1, 20))
def test_the_best_answer_over_all_windows(tokenizer: BertTokenizer, seed: int, longest: int, n_best: int) -> None:
    scheme = scheme_of(tokenizer, max_length=16, max_answer_tokens=longest, n_best=n_best, unanswerable=True)
    features = scheme.encode(row(("Rome", 28)), 0)
    length = max(feature.length for feature in features)
    logits = torch.randn(len(features), length, 2, generator=torch.Generator().manual_seed(seed))
    [prediction] = scheme.join(scheme.decode(features, logits))
    expected = max(
        (brute_force(*pair, longest) for pair in zip(features, logits, strict=True)), key=lambda item: item[1]
    )
    null = min(float(scores[0].sum()) for scores in logits)
    assert prediction.score == pytest.approx(null - expected[1], abs=1e-5)
    assert prediction.label == ("" if null > expected[1] else expected[0])
    texts = [item for item in prediction.candidates if item.text]
    assert texts[0].text == expected[0]
    assert [item.score for item in prediction.candidates] == sorted(
        (item.score for item in prediction.candidates), reverse=True
    )
    assert len(texts) <= n_best


def test_the_threshold_decides_about_no_answer(tokenizer: BertTokenizer) -> None:
    logits = torch.zeros(1, 40, 2)
    logits[0, 0] = 1.0  # no answer scores 2
    logits[0, 7, 0] = logits[0, 7, 1] = 0.5  # the best answer scores 1
    found = {}
    for threshold in (0.5, 1.5):
        scheme = scheme_of(tokenizer, unanswerable=True, null_threshold=threshold)
        features = scheme.encode(row(), 0)
        [prediction] = scheme.join(scheme.decode(features, logits[:, : features[0].length]))
        assert prediction.score == pytest.approx(1.0)
        found[threshold] = (prediction.label, scheme.score([prediction]).values["squad_f1"])
    assert found == {0.5: ("", 100.0), 1.5: ("Ada", 0.0)}
    assert "n_best" in prediction.to_json("x")


def test_a_sub_word_of_blanks_is_no_answer(tokenizer: BertTokenizer) -> None:
    scheme = scheme_of(tokenizer, n_best=1)
    [feature] = scheme.encode(row(("Rome", 28)), 0)
    spans = list(feature.notes.spans)
    first = next(position for position, span in enumerate(spans) if span is not None)
    spans[first] = (3, 3)  # byte-level tokenizers have such pieces at double blanks
    odd = replace(feature, notes=replace(feature.notes, spans=tuple(spans)))
    logits = torch.zeros(1, feature.length, 2)
    logits[0, first] = 9.0
    logits[0, first + 1] = 5.0
    [prediction] = scheme.join(scheme.decode([odd], logits))
    assert prediction.label == "built"
    assert prediction.score == pytest.approx(-10.0)


def test_what_is_undefined_on_a_split_is_left_out(tokenizer: BertTokenizer) -> None:
    task = {"metrics": ("squad_f1", "squad_no_answer_accuracy")}
    scheme = scheme_of(tokenizer, unanswerable=True, task=task)
    features = scheme.encode(row(("Rome", 28)), 0)
    predictions = scheme.join(scheme.decode(features, torch.zeros(1, features[0].length, 2)))
    assert list(scheme.score(predictions).values) == ["squad_f1"]


def test_a_long_question_may_stand_before_a_short_passage(tokenizer: BertTokenizer) -> None:
    short = row(("Ada", 0), question="who " * 50, context="Ada built")
    [feature] = scheme_of(tokenizer, max_length=64, stride=20).encode(short, 0)
    assert marked(tokenizer, feature) == "ada"


def test_tables_hold_starts_and_missing_answers_as_texts(tokenizer: BertTokenizer) -> None:
    own = scheme_of(tokenizer, column=None, text="gold", start="at", unanswerable=True)
    [feature] = own.encode(row(gold="Rome", at="28"), 0)
    assert marked(tokenizer, feature) == "rome"
    [empty] = own.encode(row(gold="", at=""), 0)
    assert (empty.reference, empty.labels) == ((), (0, 0))


def test_scores_are_squads(tokenizer: BertTokenizer) -> None:
    scheme = scheme_of(tokenizer)
    features = [scheme.encode(row(("the old bridge", 10), ("bridge", 18)), index)[0] for index in range(2)]
    logits = torch.zeros(2, features[0].length, 2)
    first, last = features[0].labels  # type: ignore[misc]
    logits[0, first, 0] = logits[0, last, 1] = 5.0  # "the old bridge", exactly
    logits[1, first + 1, 0] = logits[1, last, 1] = 5.0  # "old bridge": the article does not count
    values = scheme.score(scheme.join(scheme.decode(features, logits))).values
    assert values == {"squad_f1": 100.0, "squad_exact_match": 100.0}
