"""Schemes `labels` and `number`: what is read, answered and scored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, mean_squared_error
from transformers import BertTokenizer

from ptv2kit.data.dataset import encode_split
from ptv2kit.data.rows import Row
from ptv2kit.data.schemes import build_scheme
from ptv2kit.data.schemes.records import Prediction
from ptv2kit.data.tokens import Subwords
from ptv2kit.errors import DataError
from ptv2kit.models.heads import LabelsHead, NumberHead, Pooling
from tests.data.small_tasks import data_of, task_of

LABELS = {"input": {"text": "{text}", "max_length": 16}, "labels": {"scheme": "labels", "column": "tags"}}
NUMBER = {"input": {"text": "{text}", "max_length": 16}, "labels": {"scheme": "number", "column": "size"}}


@pytest.fixture
def subwords(backbone: Any) -> Subwords:
    return Subwords(BertTokenizer.from_pretrained(backbone), 16)


def with_labels(section: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return {**section, "labels": {**section["labels"], **keys}}


@pytest.mark.parametrize(
    ("keys", "value", "found"),
    [
        ({}, ["joy", "fear"], ("fear", "joy")),
        ({}, [], ()),
        ({"separator": ","}, "joy, fear", ("fear", "joy")),
        ({"separator": ","}, "", ()),
        ({"separator": ","}, None, ()),
        ({"names": ["joy", "fear", "anger"]}, [1, 0], ("joy", "fear")),
        ({"names": ["2", "1"]}, [1, 2], ("2", "1")),
        ({"names": {"27": "neutral", "3": "anger"}}, [27], ("neutral",)),
    ],
)
def test_what_labels_are_read(subwords: Subwords, keys: dict[str, Any], value: object, found: tuple[str, ...]) -> None:
    task = task_of(with_labels(LABELS, **keys))
    rows = [Row({"text": "ada met", "tags": value}, "a:1"), Row({"text": "x", "tags": ["joy", "fear"]}, "a:2")]
    scheme = build_scheme(task, subwords, rows)
    [feature] = scheme.encode(rows[0], 0)
    assert feature.reference == found
    assert feature.labels == tuple(int(name in found) for name in scheme.names)
    assert scheme.collate([feature]).labels.dtype == torch.float


@pytest.mark.parametrize(
    ("section", "row", "message"),
    [
        (
            LABELS,
            {"tags": "joy,fear"},
            "Got the text 'joy,fear'\n  hint: set labels.separator",
        ),
        (LABELS, {"tags": [1.5]}, "must be text or an integer. Got 1.5"),
        (with_labels(LABELS, names=["joy", "fear"]), {"tags": ["jo"]}, "did you mean 'joy'?"),
        (with_labels(LABELS, names=["joy", "fear"]), {"tags": [2]}, "has classes 0 to 1"),
        (NUMBER, {"size": "much"}, "must hold a finite number. Got 'much'"),
        (NUMBER, {"size": True}, "must hold a finite number. Got True"),
        (NUMBER, {"size": float("nan")}, "must hold a finite number. Got nan"),
    ],
)
def test_malformed_rows_are_named(
    subwords: Subwords, section: dict[str, Any], row: dict[str, Any], message: str
) -> None:
    names = {} if section is NUMBER else {"names": section["labels"].get("names", ["joy", "fear"])}
    task = task_of(with_labels(section, **names))
    with pytest.raises(DataError) as caught:
        encode_split(build_scheme(task, subwords, ()), data_of(task, [{"text": "ada", **row}]), lambda *_: None)
    assert "rows.jsonl:1" in str(caught.value)
    assert message in str(caught.value)


def test_metrics_equal_scikit_learns(subwords: Subwords) -> None:
    task = task_of(
        with_labels(LABELS, names=["a", "b", "c"]), metrics=["samples_f1", "micro_f1", "macro_f1", "exact_match"]
    )
    scheme = build_scheme(task, subwords, ())
    generator = np.random.default_rng(3)
    right, likely = generator.random((40, 3)) < 0.4, generator.random((40, 3))
    rows = [
        Row({"text": "ada", "tags": [name for name, on in zip("abc", of_row, strict=True) if on]}, "x")
        for of_row in right
    ]
    features = [feature for index, row in enumerate(rows) for feature in scheme.encode(row, index)]
    scores = scheme.score(scheme.decode(features, torch.tensor(likely).logit())).values
    for kind in ("samples", "micro", "macro"):
        expected = 100 * f1_score(right, likely >= 0.5, average=kind, zero_division=0)
        assert scores[f"{kind}_f1"] == pytest.approx(expected), kind
    assert scores["exact_match"] == pytest.approx(100 * (right == (likely >= 0.5)).all(1).mean())


def test_the_best_threshold_is_chosen_and_kept(subwords: Subwords) -> None:
    task = task_of(with_labels(LABELS, names=["a", "b"], threshold="best"), metrics=["micro_f1"])
    scheme = build_scheme(task, subwords, ())
    right: list[tuple[str, ...]] = [("a",), ("a", "b"), (), ("b",)]
    likely = [(0.3, 0.1), (0.35, 0.28), (0.1, 0.2), (0.2, 0.4)]
    features = [
        scheme.encode(Row({"text": "ada", "tags": list(tags)}, "x"), index)[0] for index, tags in enumerate(right)
    ]
    logits = torch.tensor(likely).logit()
    scores = scheme.score(scheme.decode(features, logits))
    assert scores.values == {"micro_f1": 100.0, "threshold": 25.0}
    chosen = scheme.with_scores(scores.values)
    assert [prediction.label for prediction in chosen.decode(features, logits)] == right
    assert chosen.score(chosen.decode(features, logits)).values == {"micro_f1": 100.0}


def test_numbers_are_scored_as_numpy_and_scipy_do(subwords: Subwords) -> None:
    stats = pytest.importorskip("scipy.stats")
    metrics = ["pearson", "spearman", "pearson_spearman", "mse", "rmse"]
    scheme = build_scheme(task_of(NUMBER, metrics=metrics), subwords, ())
    generator = np.random.default_rng(5)
    right = generator.integers(0, 6, 60).astype(float)  # with ties
    found = right + generator.normal(size=60)
    predictions = [
        Prediction(index, float(a), None, float(b)) for index, (a, b) in enumerate(zip(found, right, strict=True))
    ]
    scores = scheme.score(predictions).values
    assert scores["pearson"] == pytest.approx(100 * stats.pearsonr(found, right).statistic)
    assert scores["spearman"] == pytest.approx(100 * stats.spearmanr(found, right).statistic)
    assert scores["pearson_spearman"] == pytest.approx((scores["pearson"] + scores["spearman"]) / 2)
    assert scores["mse"] == pytest.approx(mean_squared_error(right, found))
    assert scores["rmse"] == pytest.approx(scores["mse"] ** 0.5)
    constant = [Prediction(index, 1.0, None, float(index)) for index in range(4)]
    assert scheme.score(constant).values["pearson"] == 0.0


def test_losses_are_the_official_ones_and_leave_unlabelled_rows_out() -> None:
    """The official classes with one label: `MSELoss()(logits.squeeze(), labels.squeeze())`, a mean over the batch."""
    logits, numbers = torch.randn(5, 1), torch.randn(5)
    number = NumberHead(4, 1, 0.0, Pooling("first"))
    official = torch.nn.MSELoss()(logits.squeeze(), numbers.squeeze())
    assert number.loss_sum(logits, numbers) / number.target_count(numbers) == pytest.approx(float(official))
    marks = torch.tensor([[1.0, 0, 1], [0, 0, 0]])
    several = LabelsHead(4, 3, 0.0, Pooling("first"))
    given = torch.randn(2, 3)
    expected = torch.nn.BCEWithLogitsLoss()(given, marks)
    assert several.loss_sum(given, marks) / several.target_count(marks) == pytest.approx(float(expected))
    half = torch.tensor([float("nan")])
    assert number.loss_sum(torch.ones(1, 1), half) == 0
    assert number.target_count(half) == 0


def test_metrics_of_a_named_class(subwords: Subwords) -> None:
    labels = {"scheme": "classes", "column": "label", "names": ["no", "yes"], "positive": "yes"}
    metrics = ["matthews", "f1", "precision", "recall", "micro_f1", "weighted_f1"]
    scheme = build_scheme(task_of({"input": {"text": "{text}"}, "labels": labels}, metrics=metrics), subwords, ())
    pairs = [("yes", "yes"), ("yes", "no"), ("no", "yes"), ("yes", "yes"), ("no", "no")]
    scores = scheme.score([Prediction(i, found, 1.0, right) for i, (found, right) in enumerate(pairs)]).values
    assert (scores["f1"], scores["precision"], scores["recall"]) == pytest.approx((200 / 3,) * 3)
    assert scores["micro_f1"] == 60.0
    assert scores["weighted_f1"] == pytest.approx(60.0)
    assert scores["matthews"] == pytest.approx(100 * (2 * 1 - 1 * 1) / 6)
