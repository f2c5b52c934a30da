"""The training loop."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from ptv2kit.data.dataset import EncodedSplit
from ptv2kit.data.prefetch import OneAhead
from ptv2kit.data.schemes.records import Batch
from ptv2kit.errors import TrainingError
from ptv2kit.spec.recipe import Limit, Train
from ptv2kit.training import evaluate, trainer
from ptv2kit.training.optimization import build_optimizer, rate_factor
from ptv2kit.training.parts import TaskPart
from ptv2kit.training.prepare import Prepared
from ptv2kit.training.state import Evaluated, LogEntry, TrainingState
from ptv2kit.training.trainer import Trainer, TrainingResult, seed_everything
from tests.training.tiny import Kept, prepare_with


class Recorder:
    """Keeps every event and what the training keeps; raises `fault` when the given step is reached."""

    def __init__(self, fault: BaseException | None = None, at: int = 0) -> None:
        self.steps: list[tuple[float, float]] = []
        self.evaluations: list[tuple[float, bool]] = []
        self.spent: list[tuple[float, float]] = []
        self.keeper = Kept()
        self._fault, self._at = fault, at

    @property
    def kept(self) -> list[tuple[dict[str, torch.Tensor], float]]:
        return [(tensors, epoch) for _, tensors, epoch in self.keeper.bests]

    def log(self, row: LogEntry) -> None:
        if isinstance(row, Evaluated):
            self.evaluations.append((row.epoch, row.best))
            self.spent.append(row.trained)
            return
        self.steps.append((row.loss, row.learning_rate))
        if self._fault is not None and row.step == self._at:
            raise self._fault

    def progress(self, done: int, total: int) -> None:
        assert 0 < done <= total


def train(prepared: Prepared, recorder: Recorder, start: TrainingState | None = None) -> tuple[TrainingResult, Any]:
    seed_everything(prepared.recipe.train.seed)
    model = prepared.build_model()
    splits = prepared.splits
    trainer = Trainer(
        [TaskPart("tiny", model, prepared.scheme, splits["train"], splits["validation"])],
        prepared.recipe.train,
        prepared.device,
        recorder.keeper,
        log=recorder.log,
        progress=recorder.progress,
        start=start,
    )
    return trainer.train(), model


def test_it_learns_and_keeps_the_best_epoch(backbone: Path, task_file: Path) -> None:
    recorder = Recorder()
    prepared = prepare_with(backbone, task_file, epochs=12)
    before = {name: value.clone() for name, value in prepared.build_model().backbone.state_dict().items()}
    result, model = train(prepared, recorder)
    assert result.tasks[0].scores is not None
    assert result.tasks[0].scores.values["span_f1"] == 100.0
    assert recorder.steps[-1][0] < 0.2 * recorder.steps[0][0]
    assert result.best_epoch == max(epoch for epoch, best in recorder.evaluations if best)
    assert recorder.kept[-1][1] == result.best_epoch
    for name, value in model.backbone.state_dict().items():
        torch.testing.assert_close(value, before[name], atol=0, rtol=0)


def test_a_frozen_backbone_in_bf16_trains_a_prompt_in_fp32(backbone: Path, task_file: Path) -> None:
    recorder = Recorder()
    result, model = train(prepare_with(backbone, task_file, dtype="bf16", epochs=12), recorder)
    assert {parameter.dtype for parameter in model.backbone.parameters()} == {torch.bfloat16}
    assert {tensor.dtype for tensor in recorder.kept[-1][0].values()} == {torch.float32}
    assert result.tasks[0].scores is not None
    assert result.tasks[0].scores.values["span_f1"] > 90


def test_the_same_seed_gives_the_same_tensors_and_another_seed_does_not(backbone: Path, task_file: Path) -> None:
    runs = [Recorder(), Recorder(), Recorder()]
    for recorder, seed in zip(runs, (1, 1, 2), strict=True):
        train(prepare_with(backbone, task_file, seed=seed), recorder)
    assert runs[0].steps == runs[1].steps != runs[2].steps
    for name, value in runs[0].kept[0][0].items():
        assert torch.equal(value, runs[1].kept[0][0][name])


@pytest.mark.parametrize("micro", [1, 3])
def test_accumulated_micro_batches_equal_the_whole_batch(backbone: Path, task_file: Path, micro: int) -> None:
    """Rows of unequal length: the mean is over the tokens of the whole batch."""
    still = {"dropout": 0.0}
    whole, parts = Recorder(), Recorder()
    for recorder, size in ((whole, "auto"), (parts, micro)):
        prepared = prepare_with(backbone, task_file, prompt=still, micro_batch_size=size, epochs=2)
        prepared.spec.config.hidden_dropout_prob = prepared.spec.config.attention_probs_dropout_prob = 0.0
        train(prepared, recorder)
    assert [loss for loss, _ in whole.steps] == pytest.approx([loss for loss, _ in parts.steps], abs=1e-5)


def test_patience_ends_the_training(backbone: Path, task_file: Path) -> None:
    result, _ = train(prepare_with(backbone, task_file, epochs=40, patience=2), Recorder())
    assert result.epochs == result.best_epoch + 2 < 40


def test_ctrl_c_keeps_what_is_there(backbone: Path, task_file: Path) -> None:
    early = Recorder(KeyboardInterrupt(), at=2)
    result, _ = train(prepare_with(backbone, task_file), early)
    assert (result.ending, result.tasks[0].scores, [epoch for _, epoch in early.kept]) == ("interrupted", None, [0])
    late = Recorder(KeyboardInterrupt(), at=5)
    result, _ = train(prepare_with(backbone, task_file), late)
    assert (result.ending, result.best_epoch, [epoch for _, epoch in late.kept]) == ("interrupted", 1, [1])


@pytest.mark.parametrize("batch_size", [4, 12])
def test_divergence_stops_and_keeps_no_tensors_that_are_no_numbers(
    backbone: Path, task_file: Path, batch_size: int
) -> None:
    """With batches of 12 the fault shows in the evaluation after the only step, else in the second step's loss."""
    recorder = Recorder()
    prepared = prepare_with(
        backbone, task_file, learning_rate=1e30, max_gradient_norm=0.0, epochs=1, batch_size=batch_size
    )
    with pytest.raises(TrainingError, match=r"the (loss|logits) became (nan|inf|-inf) "):
        train(prepared, recorder)
    assert recorder.kept == []
    assert recorder.evaluations == []


def test_starting_from_tokens_uses_the_training_rows(backbone: Path, task_file: Path) -> None:
    first, second = (prepare_with(backbone, task_file, prompt={"init": "tokens"}, seed=seed) for seed in (1, 2))
    same = [prepared.build_model().prompt.layers[0] for prepared in (first, first, second)]
    assert torch.equal(same[0], same[1])
    assert not torch.equal(same[0], same[2])


def test_the_head_has_its_own_learning_rate(backbone: Path, task_file: Path) -> None:
    prepared = prepare_with(backbone, task_file, learning_rate=1e-30, head_learning_rate=0.1)
    seed_everything(11)
    start = prepared.build_model().trained_state()
    recorder = Recorder()
    train(prepared, recorder)
    end = recorder.kept[-1][0]
    assert torch.equal(end["prompt.layers.0"], start["prompt.layers.0"])
    assert not torch.equal(end["head.linear.weight"], start["head.linear.weight"])


def test_rows_of_validation_are_the_same_for_every_training_seed(backbone: Path, task_file: Path) -> None:
    recipe = prepare_with(backbone, task_file).recipe
    limit = {"train": 9, "validation": 7, "test": 5}
    for seed in (1, 2):
        train = recipe.train.model_copy(update={"seed": seed})
        limited = recipe.model_copy(update={"train": train, "limit": Limit(**limit)})
        assert limited.limit_of("train") == (9, seed)
        assert limited.limit_of("validation") == (7, 11)
        assert limited.limit_of("test_unseen") == (5, 11)


def test_the_fused_optimizer_steps_as_the_plain_one() -> None:
    from torch.optim import AdamW

    torch.manual_seed(0)
    start = {"prompt.layers.0": torch.randn(2, 4, 8, 8), "heads.tiny.weight": torch.randn(3, 8)}
    settings = Train(epochs=1, learning_rate=0.02, head_learning_rate=0.1, weight_decay=0.01, betas=(0.8, 0.95))
    fused = {name: torch.nn.Parameter(value.clone()) for name, value in start.items()}
    plain = {name: torch.nn.Parameter(value.clone()) for name, value in start.items()}
    ours = build_optimizer(fused, settings)
    groups = [{"params": [plain["prompt.layers.0"]], "lr": 0.02}, {"params": [plain["heads.tiny.weight"]], "lr": 0.1}]
    theirs = AdamW(groups, betas=(0.8, 0.95), weight_decay=0.01, fused=False, foreach=False)
    for _ in range(20):
        for name, parameter in fused.items():
            parameter.grad = torch.randn_like(parameter)
            plain[name].grad = parameter.grad.clone()
        ours.step()
        theirs.step()
    for name, parameter in fused.items():
        torch.testing.assert_close(parameter, plain[name], rtol=1e-5, atol=1e-6)
        assert not torch.allclose(parameter, start[name], atol=1e-2)


def test_schedules() -> None:
    def rates(**settings: Any) -> list[float]:
        train = Train(epochs=2, learning_rate=1.0, **settings)
        return [rate_factor(train, step, steps_per_epoch=5) for step in range(10)]

    assert rates() == pytest.approx([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    assert rates(warmup_ratio=0.2)[:4] == pytest.approx([0.5, 1.0, 1.0, 0.875])
    assert rates(schedule="constant") == [1.0] * 10
    assert rates(schedule="exponential", decay=0.5) == [1.0] * 5 + [0.5] * 5


def test_linear_schedule_equals_transformers() -> None:
    from torch.optim import SGD
    from transformers import get_linear_schedule_with_warmup

    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_linear_schedule_with_warmup(optimizer, 0, 10)
    settings = Train(epochs=2, learning_rate=1.0)
    for step in range(10):
        assert theirs.get_last_lr()[0] == pytest.approx(rate_factor(settings, step, 5))
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("settings", [{}, {"micro_batch_size": 2}])
def test_batches_made_ahead_train_the_same(
    backbone: Path, task_file: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """As on a GPU, where a thread makes the next batch."""
    prepared = prepare_with(backbone, task_file, **settings)
    losses: list[list[tuple[float, float]]] = []
    threads: set[str] = set()
    batch = EncodedSplit.batch

    def noted(split: EncodedSplit, *arguments: Any) -> Batch:
        threads.add(threading.current_thread().name)
        return batch(split, *arguments)

    monkeypatch.setattr(EncodedSplit, "batch", noted)
    for ahead in (False, True):
        if ahead:
            for module in (trainer, evaluate):
                monkeypatch.setattr(module, "OneAhead", lambda make, **_: OneAhead(make, ahead=True))
        seed_everything(1)
        model = prepared.build_model()
        part = TaskPart("tiny", model, prepared.scheme, prepared.splits["train"], prepared.splits["validation"])
        recorder = Recorder()
        Trainer([part], prepared.recipe.train, prepared.device, recorder.keeper, log=recorder.log).train()
        losses.append(recorder.steps)
        assert (len(threads) > 1) == ahead
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        (1.0, [1, 2, 3]),
        (2.0, [2, 3]),
        (0.5, [0.5, 1, 1.5, 2, 2.5, 3]),
        (0.3, [0.3, 0.6, 0.9, 1.2, 1.5, 1.8, 2.1, 2.4, 2.7, 3]),
        (0.01, [n / 4 for n in range(1, 13)]),
        ("3 steps", [0.75, 1.5, 2.25, 3]),
        (9.0, [3]),
    ],
)
def test_evaluations_within_and_across_epochs(
    backbone: Path, task_file: Path, every: float | str, expected: list[float]
) -> None:
    recorder = Recorder()
    prepared = prepare_with(backbone, task_file, epochs=3, batch_size=3, evaluate_every=every)
    assert len(prepared.splits["train"].features) in (10, 11, 12), "four batches"
    result, _ = train(prepared, recorder)
    assert [epoch for epoch, _ in recorder.evaluations] == list(result.evaluated) == expected
    assert len(result.history) == len(expected)
    assert result.epochs == 3
    plain = Recorder()
    train(prepare_with(backbone, task_file, epochs=3, batch_size=3), plain)
    assert plain.steps == recorder.steps, "an evaluation changes nothing of the training"


def test_patience_counts_evaluations_and_may_end_an_epoch(backbone: Path, task_file: Path) -> None:
    recorder = Recorder()
    settings: dict[str, Any] = {"epochs": 50, "batch_size": 3, "evaluate_every": 0.25, "patience": 6}
    result, _ = train(prepare_with(backbone, task_file, **settings), recorder)
    best = max(index for index, (_, best) in enumerate(recorder.evaluations) if best)
    assert len(recorder.evaluations) == best + 1 + 6
    assert result.evaluated[-1] < 50
