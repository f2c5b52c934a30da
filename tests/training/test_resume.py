"""A training that goes on from a checkpoint, beside one that was never interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ptv2kit.errors import DataError
from ptv2kit.training.checkpoint import Checkpoints
from tests.training.test_trainer import Recorder, train
from tests.training.tiny import prepare_with


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 5, 9, *(pytest.param(step, marks=pytest.mark.night) for step in (3, 10))])
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("p_tuning_v2", {}),
        ("prefix_tuning", {"micro_batch_size": 2, "schedule": "exponential", "warmup_ratio": 0.2}),
        ("p_tuning", {"patience": 3, "weight_decay": 0.1, "schedule": "constant"}),
        ("p_tuning_v2", {"evaluate_every": 0.34}),
        ("p_tuning_v2", {"evaluate_every": "5 steps"}),
        ("p_tuning_v2", {"layer_norm_learning_rate": 1e-2}),
        ("lora", {"learning_rate": 1e-2}),
        ("fine_tuning", {"learning_rate": 1e-3}),
    ],
)
def test_an_interrupted_training_goes_on_bit_by_bit(
    backbone: Path, task_file: Path, tmp_path: Path, method: str, settings: dict[str, Any], at: int
) -> None:
    """Dropout is on: the random generators go on too."""

    def prepared() -> Any:
        return prepare_with(backbone, task_file, prompt={"dropout": 0.2}, method=method, epochs=4, **settings)

    whole = Recorder()
    expected, model = train(prepared(), whole)
    first = Recorder(KeyboardInterrupt(), at=at)
    result, _ = train(prepared(), first)
    assert result.ending == "interrupted"
    Checkpoints(tmp_path, keep=2).save(first.keeper.states[-1], {"note": [1.5]})
    found = Checkpoints(tmp_path, keep=2).latest()
    assert found is not None
    state, extra, damaged = found
    assert (state.progress.step, extra, damaged) == (at, {"note": [1.5]}, [])
    second = Recorder()
    again, other = train(prepared(), second, state)
    assert first.steps + second.steps == whole.steps
    for spent in (whole.spent, [*first.spent, state.progress.spent, *second.spent]):
        assert [wall for wall, _ in spent] == sorted(wall for wall, _ in spent)
        assert [processor for _, processor in spent] == sorted(processor for _, processor in spent)
    assert min(state.progress.spent) > 0
    assert first.evaluations + second.evaluations == whole.evaluations
    assert (again.history, again.tasks, again.best_epoch) == (expected.history, expected.tasks, expected.best_epoch)
    for name, value in model.trained_state().items():
        assert torch.equal(value, other.trained_state()[name]), name
    best = (second.kept or first.kept)[-1]
    assert best[1] == whole.kept[-1][1]
    for name, value in best[0].items():
        assert torch.equal(value, whole.kept[-1][0][name]), name


def test_a_checkpoint_each_epoch_or_each_few_steps(backbone: Path, task_file: Path) -> None:
    by_epoch, by_step = Recorder(), Recorder()
    train(prepare_with(backbone, task_file), by_epoch)
    assert [(state.progress.step, state.progress.epoch) for state in by_epoch.keeper.states] == [(3, 2), (6, 3), (9, 4)]
    train(prepare_with(backbone, task_file, checkpoint_steps=4), by_step)
    assert [(state.progress.step, state.progress.turn) for state in by_step.keeper.states] == [(4, 1), (8, 2)]


def test_a_checkpoint_holds_no_backbone(backbone: Path, task_file: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    _, model = train(prepare_with(backbone, task_file), recorder)
    path = Checkpoints(tmp_path, keep=2).save(recorder.keeper.states[-1], {})
    trained = sum(value.numel() for value in model.trained_state().values())
    assert path.stat().st_size < 3 * 4 * trained + 60_000
    assert 3 * 4 * trained < path.stat().st_size


def test_the_last_ones_are_kept_and_damaged_ones_passed_over(backbone: Path, task_file: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    train(prepare_with(backbone, task_file, epochs=5), recorder)
    checkpoints = Checkpoints(tmp_path, keep=3)
    assert checkpoints.latest() is None
    for state in recorder.keeper.states:
        checkpoints.save(state, {})
    names = [path.name for path in sorted(tmp_path.iterdir())]
    assert names == [f"step-{step:08d}.safetensors" for step in (9, 12, 15)]
    newest, middle, oldest = (tmp_path / name for name in reversed(names))
    newest.write_bytes(newest.read_bytes()[:-100])
    edited = bytearray(middle.read_bytes())
    at = edited.index(b'\\"best_mean\\"') + len(b'\\"best_mean\\": ')
    edited[at] = ord("9") if edited[at] != ord("9") else ord("8")
    middle.write_bytes(edited)
    (tmp_path / ".step-00000018.safetensors.7.tmp").write_bytes(b"half")
    found = checkpoints.latest()
    assert found is not None
    assert found[0].progress.step == 9
    assert [problem.location for problem in found[2]] == [str(newest), str(middle)]
    assert "torn" in found[2][0].message
    assert "checksum" in found[2][1].message
    oldest.write_bytes(b"")
    with pytest.raises(DataError, match="no checkpoint of this run is whole"):
        checkpoints.latest()


def test_a_new_one_is_kept_though_a_later_one_is_damaged(backbone: Path, task_file: Path, tmp_path: Path) -> None:
    """Who goes on from step 3, because step 9 is damaged, may next write step 6."""
    recorder = Recorder()
    train(prepare_with(backbone, task_file), recorder)
    first, second, third = recorder.keeper.states[:3]
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(third, {}).write_bytes(b"torn")
    path = checkpoints.save(second, {})
    assert list(tmp_path.iterdir()) == [path]
    checkpoints.save(first, {})
    found = checkpoints.latest()
    assert found is not None
    assert found[0].progress.step == first.progress.step
