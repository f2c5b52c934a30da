"""Batches of at most so many tokens."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptv2kit.cli.main import main
from ptv2kit.data.batching import grouped_batches, token_batches
from ptv2kit.errors import ConfigError
from ptv2kit.spec.recipe import Train
from ptv2kit.training.mixing import batch_stream
from tests.projects import Project, project, read_json
from tests.training.test_trainer import Recorder, train
from tests.training.tiny import prepare_with

__all__ = ["project"]


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 3)), max_size=200), st.integers(120, 400), st.integers(0, 9)
)
def test_each_row_comes_once_and_no_batch_is_too_large(rows: list[tuple[int, int]], budget: int, seed: int) -> None:
    lengths, inputs = [length for length, _ in rows], [count for _, count in rows]
    batches = token_batches(lengths, inputs, budget, seed)
    assert sorted(row for batch in batches for row in batch) == list(range(len(rows)))
    for batch in batches:
        assert max(lengths[row] for row in batch) * sum(inputs[row] for row in batch) <= budget
    assert batches == token_batches(lengths, inputs, budget, seed)


def test_little_is_padding_and_the_budget_is_used() -> None:
    lengths = [8 + 7 * (row % 30) for row in range(3000)]
    batches = token_batches(lengths, [1] * 3000, 4096, 0)
    padded = sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)
    assert padded < 1.05 * sum(lengths)
    assert padded > 0.93 * 4096 * len(batches)
    by_examples = grouped_batches(lengths, round(3000 / len(batches)), 0)
    assert max(len(batch) * max(lengths[row] for row in batch) for batch in by_examples) > 1.5 * 4096
    assert batches != token_batches(lengths, [1] * 3000, 4096, 1)


def test_a_row_that_is_too_long_is_alone() -> None:
    assert sorted(token_batches([5, 50, 5], [1, 1, 1], 10, 0)) == [[0, 2], [1]]


def test_passes_follow_each_other_without_end() -> None:
    lengths = list(range(1, 24))
    stream = batch_stream(lambda seed: token_batches(lengths, [1] * 23, 40, seed), 11)
    rows = [row for batch in islice(stream, 60) for row in batch]
    assert sorted(rows[:23]) == sorted(rows[23:46]) == list(range(23))


def test_the_loss_is_the_mean_over_the_batch_however_it_is_cut(backbone: Path, task_file: Path) -> None:
    whole, parts = Recorder(), Recorder()
    for recorder, size in ((whole, "auto"), (parts, 1)):
        prepared = prepare_with(
            backbone, task_file, prompt={"dropout": 0.0}, batch_size=None, batch_tokens=20, micro_batch_size=size
        )
        prepared.spec.config.hidden_dropout_prob = prepared.spec.config.attention_probs_dropout_prob = 0.0
        train(prepared, recorder)
    assert len(whole.steps) > 9  # batches of 4 examples would make 9 steps
    assert [loss for loss, _ in whole.steps] == pytest.approx([loss for loss, _ in parts.steps], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 4, 7])
def test_an_interrupted_training_goes_on_bit_by_bit(backbone: Path, task_file: Path, at: int) -> None:
    def prepared() -> Any:
        return prepare_with(backbone, task_file, batch_size=None, batch_tokens=24, checkpoint_steps=1)

    whole, first, second = Recorder(), Recorder(KeyboardInterrupt(), at=at), Recorder()
    train(prepared(), whole)
    train(prepared(), first)
    train(prepared(), second, first.keeper.states[-1])
    assert first.steps + second.steps == whole.steps


def test_an_example_that_no_batch_can_hold_is_refused(backbone: Path, task_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.batch_tokens is 5, but an example of the training split has 7 tok"):
        prepare_with(backbone, task_file, batch_size=None, batch_tokens=5)


def test_either_examples_or_tokens() -> None:
    assert Train(epochs=1, learning_rate=1.0).batch_size == 32
    tokens = Train(epochs=1, learning_rate=1.0, batch_tokens=4096)
    assert (tokens.batch_size, tokens.batch) == (None, "4,096 tokens")
    assert (tokens.most_examples(128), tokens.most_examples(5000)) == (32, 1)
    assert Train.model_validate(tokens.model_dump()) == tokens


def test_from_the_command_line(project: Project) -> None:
    code, _, err = project.run("train.batch_tokens=20")
    assert code == 2
    assert "'train.batch_tokens' takes the place of 'train.batch_size', which is 4" in err
    code, _, err = project.run("train.batch_size=null")
    assert code == 2
    assert "'train.batch_size' is null, and there is no 'train.batch_tokens'" in err
    project.change("recipe.yaml", "batch_size: 4", "batch_tokens: 32")
    code, out, _ = project.run("--dry-run", "--json")
    assert code == 0, out
    assert main(["plan", "recipe.yaml"]) == 0
    planned = project.capsys.readouterr().out
    assert "(3 epochs of 12 rows, batches of 32 tokens)" in planned
    assert "batches of 2 such examples; shorter ones make larger batches" in planned
    code, _, err = project.run()
    assert code == 0, err
    [run] = project.runs
    assert read_json(run / "results.json")["status"] == "finished"
    assert "batch 32 tokens" in (run / "README.md").read_text()
    assert "batch_size: null" in (run / "recipe.resolved.yaml").read_text()
