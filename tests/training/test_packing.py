"""`train.packing` through whole trainings: the losses of padded ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ptv2kit.errors import ConfigError
from ptv2kit.models.model import PromptedModel
from ptv2kit.training.packing_check import check_packing
from tests.tiny_backbones import save_tiny
from tests.training.test_schemes_on_backbones import SECTIONS
from tests.training.test_side_by_side import alone as run_alone
from tests.training.test_side_by_side import together
from tests.training.test_trunk_cache import ROWS, kept, losses, parts_of, prepared_for
from tests.training.tiny import prepare_with

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = save_tiny(tmp_path, "bert")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return folder


@pytest.mark.parametrize("scheme", [scheme for scheme in SECTIONS if scheme != "start_end"])
@pytest.mark.parametrize("settings", [{}, {"layers": "all"}, {"micro_batch_size": 2}, {"method": "prompt_tuning"}])
def test_losses_and_scores_are_those_of_padded_batches(folder: Path, scheme: str, settings: dict[str, Any]) -> None:
    """With the lower layer's outputs kept, without, in parts of batches, and behind vectors."""
    if "method" in settings:
        settings = {"layers": "all", **settings}
    found: list[Any] = []
    for packing in (True, False):
        prepared = prepared_for(folder, scheme, packing=packing, cache_trunk="auto", **settings)
        found.append(losses(prepared, kept(prepared, parts_of(prepared))))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4, abs=1e-5)
    assert found[0][1] == found[1][1]


def test_answers_in_a_context_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="padding is part of the softmax of answers"):
        prepared_for(folder, "start_end", packing=True)


def test_trials_side_by_side_are_packed_too(backbone: Path, task_file: Path) -> None:
    still: dict[str, Any] = {"dropout": 0.0, "packing": True}
    both = [prepare_with(backbone, task_file, learning_rate=rate, **still) for rate in (0.05, 0.02)]
    for found, prepared in zip(together(both), both, strict=True):
        assert found.watcher.losses == pytest.approx(run_alone(prepared).watcher.losses, rel=1e-4)


def test_a_model_that_differs_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepared_for(folder, "classes", packing=True)
    [part] = parts_of(prepared)
    check_packing(part, CPU)
    assert part.model.packing
    packed = PromptedModel._packed_hidden  # of a model whose layers mix inputs
    monkeypatch.setattr(PromptedModel, "_packed_hidden", lambda *arguments: packed(*arguments).roll(1, 0))
    with pytest.raises(ConfigError, match=r"train.packing: models of type 'bert' give other hidden states"):
        check_packing(part, CPU)
