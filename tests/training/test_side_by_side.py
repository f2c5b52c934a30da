"""Trials side by side: each is its lone run, whatever the others do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ptv2kit.config.together import OWN_TO_A_TRIAL
from ptv2kit.errors import TrainingError
from ptv2kit.models.model import PromptedModel
from ptv2kit.training.parts import TaskPart
from ptv2kit.training.prepare import Prepared
from ptv2kit.training.requests import TrainingResult
from ptv2kit.training.side_by_side import Ended, SideBySide, Trial
from ptv2kit.training.streams import RandomStream
from ptv2kit.training.trainer import StopTraining, Trainer, TrainingEvents, seed_everything
from ptv2kit.training.trunk_cache import keep_trunk
from tests.training.tiny import Kept, prepare_with

CPU = torch.device("cpu")


class Watcher:
    """Notes losses and scores; ends a training after an epoch if it is told to."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.losses: list[float] = []
        self.rates: list[float] = []
        self.scores: list[dict[str, float]] = []
        self._stop_after = stop_after

    def on_step(self, step: int, total_steps: int, epoch: float, loss: float, learning_rate: float) -> None:
        self.losses.append(loss)
        self.rates.append(learning_rate)

    def on_evaluating(self, done: int, total: int) -> None:
        pass

    def on_evaluation(self, epoch: int, values: dict[str, float], best: bool, seconds: float) -> None:
        self.scores.append(values)
        if epoch == self._stop_after:
            raise StopTraining


class Outcome:
    """What came of a training."""

    def __init__(self, watcher: Watcher, kept: Kept, model: PromptedModel, result: Any) -> None:
        self.watcher = watcher
        self.kept = kept
        self.model = model
        self.result = result


def alone(prepared: Prepared, watcher: Watcher | None = None, cached: bool = False) -> Outcome:
    seed_everything(prepared.recipe.train.seed)
    model = prepared.build_model()
    part = TaskPart("tiny", model, prepared.scheme, prepared.splits["train"], prepared.splits["validation"])
    if cached:
        part = keep_trunk(prepared.recipe, prepared.spec, [part], CPU, lambda *_: None, lambda _: None)[0]
    kept, watcher = Kept(), watcher or Watcher()
    result = Trainer([part], prepared.recipe.train, CPU, watcher, kept).train()
    return Outcome(watcher, kept, model, result)


def together(
    prepared: Sequence[Prepared],
    watchers: Sequence[Watcher] = (),
    cached: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> list[Outcome]:
    trials: list[Trial] = []
    outcomes: list[Outcome] = []
    first: TaskPart | None = None
    for index, each in enumerate(prepared):
        stream = RandomStream(CPU)
        with stream.active():
            seed_everything(each.recipe.train.seed)
            model = each.build_model(beside=None if first is None else first.model)
        part = TaskPart("tiny", model, each.scheme, each.splits["train"], each.splits["validation"])
        if first is None and cached:
            part = keep_trunk(each.recipe, each.spec, [part], CPU, lambda *_: None, lambda _: None)[0]
        if first is not None:
            part = TaskPart("tiny", model, each.scheme, first.train_split, first.validation_split)
        first = first or part
        outcomes.append(Outcome(watchers[index] if watchers else Watcher(), Kept(), model, None))
        events: TrainingEvents = outcomes[-1].watcher
        with stream.active():
            trainer = Trainer([part], each.recipe.train, CPU, events, outcomes[-1].kept, stop=stop)
        trials.append(Trial(part, trainer, stream))
    ended: list[Ended] = list(SideBySide(trials, prepared[0].recipe.train, CPU).train())
    assert sorted(each.trial for each in ended) == list(range(len(trials)))
    for each in ended:
        outcomes[each.trial].result = each.result
    return outcomes


def assert_same(found: Outcome, expected: Outcome) -> None:
    assert found.watcher.rates == expected.watcher.rates
    assert found.watcher.losses == pytest.approx(expected.watcher.losses, rel=1e-4, abs=1e-5)
    assert len(found.watcher.scores) == len(expected.watcher.scores)
    for own, lone in zip(found.watcher.scores, expected.watcher.scores, strict=True):
        assert own == pytest.approx(lone)
    assert [epoch for _, _, epoch in found.kept.bests] == [epoch for _, _, epoch in expected.kept.bests]
    for (_, own, _), (_, lone, _) in zip(found.kept.bests, expected.kept.bests, strict=True):
        assert own.keys() == lone.keys()
        for name, tensor in own.items():
            torch.testing.assert_close(tensor, lone[name], rtol=1e-3, atol=1e-4, msg=name)
    assert isinstance(found.result, TrainingResult)
    assert (found.result.epochs, found.result.ending) == (expected.result.epochs, expected.result.ending)


METHODS = {
    "p_tuning_v2": {},
    "p_tuning_v2, upper layer": {"prompt": {"layers": [2]}},
    "p_tuning_v2, mlp": {"prompt": {"reparameterization": "mlp", "reparameterization_size": 8}},
    "prefix_tuning": {"method": "prefix_tuning", "prompt": {"reparameterization_size": 8}},
    "prompt_tuning": {"method": "prompt_tuning"},
    "p_tuning": {"method": "p_tuning"},
    "linear_probe": {"method": "linear_probe"},
}


@pytest.mark.parametrize("name", METHODS)
def test_each_trial_is_its_lone_run(backbone: Path, task_file: Path, name: str) -> None:
    settings: dict[str, Any] = METHODS[name]
    prompt = {"dropout": 0.2, **settings.get("prompt", {})}
    rest = {key: value for key, value in settings.items() if key != "prompt"}
    different: list[dict[str, Any]] = [
        {"learning_rate": 0.05},
        {"learning_rate": 0.01, "weight_decay": 0.1, "warmup_ratio": 0.3, "schedule": "constant"},
        {"learning_rate": 0.02, "seed": 3, "max_gradient_norm": 0.1, "head_learning_rate": 0.2},
    ]
    prepared = [prepare_with(backbone, task_file, prompt, dropout=0, **rest, **train) for train in different]
    for found, own in zip(together(prepared), prepared, strict=True):
        assert_same(found, alone(own))


def test_trials_of_different_seeds_are_padded_to_the_longest(backbone: Path, task_file: Path) -> None:
    prepared = [
        prepare_with(backbone, task_file, {"dropout": 0}, dropout=0, seed=seed, batch_size=1) for seed in (1, 2, 3)
    ]
    for found, own in zip(together(prepared), prepared, strict=True):
        assert_same(found, alone(own))


@pytest.mark.parametrize("micro", [1, 3])
def test_micro_batches_change_nothing(backbone: Path, task_file: Path, micro: int) -> None:
    different: list[dict[str, Any]] = [{"seed": 1}, {"seed": 1, "learning_rate": 0.01}, {"seed": 2}]
    prepared = [
        prepare_with(backbone, task_file, {"dropout": 0}, dropout=0, micro_batch_size=micro, **train)
        for train in different
    ]
    for found, own in zip(together(prepared), prepared, strict=True):
        assert_same(found, alone(own))


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("method", ["p_tuning_v2", "linear_probe"])
def test_all_trials_read_the_lower_layers_outputs_that_one_has_kept(
    backbone: Path, task_file: Path, method: str, seed: int
) -> None:
    """With the same seed they have the same rows in each step, and share more."""
    prepared = [
        prepare_with(
            backbone,
            task_file,
            {"layers": [2], "dropout": 0.2} if method == "p_tuning_v2" else None,
            method=method,
            dropout=0,
            cache_trunk="memory",
            **train,
        )
        for train in ({"seed": 1}, {"seed": 1, "learning_rate": 0.01}, {"seed": seed})
    ]
    for found, own in zip(together(prepared, cached=True), prepared, strict=True):
        assert_same(found, alone(own, cached=True))


def test_epochs_patience_and_pruning_are_each_trials_own(backbone: Path, task_file: Path) -> None:
    """One has fewer epochs, one is stopped, one runs out of patience; the others go on as if alone."""
    different: list[dict[str, Any]] = [{}, {"epochs": 2}, {}, {"patience": 1, "learning_rate": 1e-9, "seed": 2}]
    prepared = [
        prepare_with(backbone, task_file, {"dropout": 0}, dropout=0, **{"epochs": 5, **train}) for train in different
    ]
    stops = [None, None, 1, None]
    found = together(prepared, [Watcher(stop) for stop in stops])
    for each, own, stop in zip(found, prepared, stops, strict=True):
        assert_same(each, alone(own, Watcher(stop)))
    assert [each.result.epochs for each in found] == [5, 2, 1, 2]
    assert [each.result.ending for each in found] == ["finished", "finished", "stopped", "finished"]


def test_trials_with_more_or_fewer_steps_are_evaluated_each_at_its_time(backbone: Path, task_file: Path) -> None:
    """As may happen with `batch_tokens` and different seeds."""
    prepared = [
        prepare_with(backbone, task_file, {"dropout": 0}, dropout=0, seed=seed, batch_size=size)
        for seed, size in ((1, 4), (2, 5), (3, 12))
    ]
    found = together(prepared)
    assert [len(each.watcher.losses) for each in found] == [9, 9, 3]
    for each, own in zip(found, prepared, strict=True):
        assert_same(each, alone(own))


def test_a_trial_that_fails_leaves_the_others_alone(backbone: Path, task_file: Path) -> None:
    prepared = [
        prepare_with(backbone, task_file, {"dropout": 0}, dropout=0, learning_rate=rate, max_gradient_norm=0)
        for rate in (0.05, 1e30, 0.01)
    ]
    found = together(prepared)
    assert isinstance(found[1].result, TrainingError)
    assert "became" in str(found[1].result)
    assert found[1].kept.bests, "the last prompt with a finite loss was kept"
    for index in (0, 2):
        assert_same(found[index], alone(prepared[index]))


def test_a_disk_that_is_full_for_one_leaves_the_others_alone(backbone: Path, task_file: Path) -> None:
    class Full(Watcher):
        def on_evaluation(self, epoch: int, values: dict[str, float], best: bool, seconds: float) -> None:
            raise OSError(28, "No space left on device")

    prepared = [prepare_with(backbone, task_file, {"dropout": 0}, dropout=0) for _ in range(2)]
    found = together(prepared, [Full(), Watcher()])
    assert isinstance(found[0].result, OSError)
    assert_same(found[1], alone(prepared[1]))


def test_an_interrupt_ends_all_and_each_can_go_on_alone(backbone: Path, task_file: Path) -> None:
    prepared = [prepare_with(backbone, task_file, dropout=0, learning_rate=rate) for rate in (0.05, 0.01)]
    watchers = [Watcher(), Watcher()]
    found = together(prepared, watchers, stop=lambda: len(watchers[1].losses) >= 4)
    for each, own in zip(found, prepared, strict=True):
        assert each.result.ending == "interrupted"
        state = each.kept.states[-1]
        assert state.progress.step < 9
        part = TaskPart("tiny", own.build_model(), own.scheme, own.splits["train"], own.splits["validation"])
        rest, kept = Watcher(), Kept()
        Trainer([part], own.recipe.train, CPU, rest, kept, start=state).train()
        whole = alone(own)
        done = state.progress.step
        assert each.watcher.losses[:done] + rest.losses == pytest.approx(whole.watcher.losses, rel=1e-4, abs=1e-5)


def test_the_frozen_weights_are_read_once_for_all(backbone: Path, task_file: Path) -> None:
    """As many passes through the backbone as a lone run has, and rows of all trials in each."""
    prepared = [prepare_with(backbone, task_file, dropout=0, epochs=1, learning_rate=rate) for rate in (0.1, 0.2, 0.3)]
    rows: list[int] = []

    def count(own: Prepared) -> PromptedModel:
        model = own.build_model()
        model.backbone.register_forward_hook(lambda _, __, output: rows.append(len(output.last_hidden_state)))
        return model

    model = count(prepared[0])
    trials: list[Trial] = []
    for own in prepared:
        own_model = own.build_model(beside=model)
        part = TaskPart("tiny", own_model, own.scheme, own.splits["train"], own.splits["validation"])
        trials.append(Trial(part, Trainer([part], own.recipe.train, CPU, Watcher(), Kept()), RandomStream(CPU)))
    ended = list(SideBySide(trials, prepared[0].recipe.train, CPU).train())
    assert len(ended) == 3
    assert rows == [12, 12, 12, 36], "three steps with four rows each, one evaluation with twelve"


@pytest.mark.parametrize("method", ["p_tuning_v2", "prompt_tuning"])
def test_prompts_that_start_in_other_ways_and_are_made_in_other_ways(
    backbone: Path, task_file: Path, method: str
) -> None:
    prompts: list[dict[str, Any]] = [
        {"init_scale": 0.5},
        {"init": "tokens"},
        {"init": "labels"},
        {"init": "words", "words": "ada met alan"},
        {"reparameterization": "lstm", "reparameterization_size": 8, "dropout": 0.3},
    ]
    alike = [prepare_with(backbone, task_file, prompt, method=method, dropout=0) for prompt in prompts]
    found = together([alike[0].for_recipe(each.recipe) for each in alike])
    for each, own in zip(found, alike, strict=True):
        assert_same(each, alone(own))


def test_what_differs_between_trials_is_a_key_of_the_recipe(backbone: Path, task_file: Path) -> None:
    recipe = prepare_with(backbone, task_file).recipe
    for section, keys in OWN_TO_A_TRIAL.items():
        assert keys <= set(type(getattr(recipe, section)).model_fields)
