"""`labels.weights`: what classes count in the loss, and that scores do not know it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from transformers import BertTokenizer

from ptv2kit.data.rows import Row
from ptv2kit.data.schemes import build_scheme
from ptv2kit.data.schemes.records import IGNORED
from ptv2kit.data.tokens import Subwords
from ptv2kit.models.heads import LabelsHead, Pooling, SequenceHead
from ptv2kit.training.prepare import build_models
from tests.data.small_tasks import task_of
from tests.projects import Project, project, read_json
from tests.training.tiny import prepare_with

__all__ = ["project"]
TASK = """task: kinds
data: {source: jsonl, splits: {train: kinds.jsonl, validation: kinds.jsonl}}
input: {text: "{text}", max_length: 16}
labels: {scheme: classes, column: kind%s}
"""
STILL = ("train.epochs=1", "prompt.dropout=0", "backbone.dropout=0", "backbone.attention_dropout=0")
KINDS = ["ham"] * 9 + ["spam"] * 2 + ["ad"]


def kinds(folder: Path, labels: str = "", task: str = TASK) -> None:
    rows = [{"text": f"ada met alan {'in paris' * number}", "kind": kind} for number, kind in enumerate(KINDS)]
    (folder / "kinds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "kinds.yaml").write_text(task % labels)
    recipe = (folder / "recipe.yaml").read_text().replace("tiny.yaml", "kinds.yaml")
    (folder / "recipe.yaml").write_text(recipe)


@pytest.fixture
def subwords(backbone: Any) -> Subwords:
    return Subwords(BertTokenizer.from_pretrained(backbone), 16)


def weights_of(subwords: Subwords, labels: dict[str, Any], values: list[Any]) -> tuple[float, ...]:
    task = task_of({"input": {"text": "{text}", "max_length": 16}, "labels": {"column": "kind", **labels}})
    rows = [Row({"text": "ada met", "kind": value}, f"a:{number}") for number, value in enumerate(values)]
    scheme = build_scheme(task, subwords, rows)
    return scheme.loss_weights([feature for row in rows for feature in scheme.encode(row, 0)])


def test_balanced_weights_are_scikit_learns(subwords: Subwords) -> None:
    found = weights_of(subwords, {"scheme": "classes", "weights": "balanced"}, KINDS)
    assert found == pytest.approx(compute_class_weight("balanced", classes=np.array(sorted(set(KINDS))), y=KINDS))
    counted = dict(zip(sorted(set(KINDS)), found, strict=True))
    assert sum(counted[kind] for kind in KINDS) == pytest.approx(len(KINDS))
    listed = {"scheme": "classes", "weights": "balanced", "names": ["new", "ham", "spam", "ad"]}
    assert weights_of(subwords, listed, KINDS) == pytest.approx((1.0, 12 / 27, 12 / 6, 12 / 3))


def test_weights_by_name(subwords: Subwords) -> None:
    given = {"scheme": "classes", "weights": {"spam": 5.0}, "names": ["ham", "spam", "ad"]}
    assert weights_of(subwords, given, KINDS) == (1.0, 5.0, 1.0)
    assert weights_of(subwords, {"scheme": "classes"}, KINDS) == ()


def test_labels_weigh_those_that_are_right(subwords: Subwords) -> None:
    values = [["joy"], [], ["joy", "fear"], ["joy"]]
    named = {"scheme": "labels", "names": ["joy", "fear", "new"]}
    assert weights_of(subwords, {**named, "weights": "balanced"}, values) == pytest.approx((1 / 3, 3.0, 1.0))
    assert weights_of(subwords, {**named, "weights": {"fear": 4}}, values) == (1.0, 4.0, 1.0)


def test_the_loss_is_torchs() -> None:
    logits, labels = torch.randn(6, 3), torch.tensor([0, 2, 1, IGNORED, 2, 0])
    head = SequenceHead(4, 3, 0.0, Pooling("first"))
    head.weigh((0.5, 2.0, 7.0))
    expected = torch.nn.CrossEntropyLoss(torch.tensor([0.5, 2.0, 7.0]), ignore_index=IGNORED)(logits, labels)
    assert head.loss_sum(logits, labels) / head.target_count(labels) == pytest.approx(float(expected))
    head.weigh(())
    assert head.target_count(labels) == 5
    several, marks = LabelsHead(4, 3, 0.0, Pooling("first")), torch.tensor([[1.0, 0, 1], [0, 0, 0]])
    several.weigh((1.0, 3.0, 9.0))
    expected = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 3.0, 9.0]))(logits[:2], marks)
    assert several.loss_sum(logits[:2], marks) / several.target_count(marks) == pytest.approx(float(expected))


@pytest.mark.parametrize(
    ("labels", "code", "message"),
    [
        (", weights: {spma: 3}, names: [ham, spam, ad]", 2, "'labels.weights' has 'spma', which is not a class"),
        (", weights: {spma: 3}", 2, "'labels.weights' has 'spma', which is not a class"),
        (", weights: {spam: 0}", 2, "greater than 0"),
        (", weights: even", 2, "labels.weights"),
    ],
)
def test_what_is_refused(project: Project, labels: str, code: int, message: str) -> None:
    kinds(project.folder, labels)
    found, _, err = project.run()
    assert (found, message in err) == (code, True), err
    assert "spma" not in message or "did you mean 'spam'?" in err


def test_each_of_several_tasks_has_its_own(backbone: Path, task_file: Path) -> None:
    prepared = prepare_with(backbone, task_file)
    size = len(prepared.scheme.names)
    weighted = replace(prepared, weights=(3.0,) * size)
    plain, other, last = build_models([prepared, weighted, replace(prepared, weights=(2.0,) * size)])
    labels = torch.tensor([0, 1, IGNORED])
    assert [model.head.target_count(labels) for model in (plain, other, last)] == [2, 6.0, 4.0]
    assert build_models([weighted])[0].head.target_count(labels) == 6.0


def losses(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def test_equal_weights_are_none(project: Project) -> None:
    """However small: the loss is divided by the weights of a batch, which may add up to less than one row."""
    kinds(project.folder)
    assert project.run(*STILL)[0] == 0
    kinds(project.folder, ", weights: {ham: 0.001, spam: 0.001, ad: 0.001}")
    assert project.run(*STILL)[0] == 0
    plain, weighted = sorted(project.runs, key=lambda run: run.stat().st_mtime_ns)
    assert losses(weighted) == pytest.approx(losses(plain), rel=1e-5)


@pytest.mark.parametrize("scheme", ["classes", "labels"])
def test_a_run(project: Project, scheme: str) -> None:
    """Weights change the training, not what is scored; a row that counts more has the same loss in micro-batches."""
    task = TASK.replace("scheme: classes", f"scheme: {scheme}" + ', separator: ","' * (scheme == "labels"))
    kinds(project.folder, "", task)
    assert project.run(*STILL)[0] == 0
    kinds(project.folder, ", weights: {spam: 20}", task)
    code, _, err = project.run(*STILL)
    assert code == 0, err
    assert "train: weights in the loss: ad 1, ham 1, spam 20" in err
    assert project.run(*STILL, "train.micro_batch_size=1")[0] == 0
    plain, weighted, cut = sorted(project.runs, key=lambda run: run.stat().st_mtime_ns)
    assert losses(weighted)[0] != pytest.approx(losses(plain)[0], rel=1e-3)
    assert losses(cut) == pytest.approx(losses(weighted), rel=1e-5)
    assert "weights" in (weighted / "task.resolved.yaml").read_text()
    code, out, err = project.command("evaluate", str(weighted), "--json")
    assert code == 0, err
    assert json.loads(out)["metrics"] == read_json(weighted / "results.json")["metrics"]["validation"]
