"""Every method of the paper trains by changing one key, and what is kept of it is all that inference needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from ptv2kit.errors import ConfigError
from ptv2kit.models.prompts import EmbeddingPrompt, NetworkPrompt, ShallowPrompt
from ptv2kit.spec.recipe import DEEP_METHODS, Method
from ptv2kit.training.evaluate import evaluate
from ptv2kit.training.parts import TaskPart
from ptv2kit.training.trainer import Trainer, seed_everything
from tests.training.test_schemes_on_backbones import Silent
from tests.training.tiny import Kept, prepare_with

CASES: list[tuple[str, dict[str, Any]]] = [
    *((method, {}) for method in get_args(Method)),
    *(("p_tuning_v2", {"reparameterization": network}) for network in ("mlp", "lstm")),
    ("prompt_tuning", {"reparameterization": "mlp"}),
    *((method, {"init": "tokens"}) for method in get_args(Method)),
    ("p_tuning_v2", {"layers": "2.."}),
    ("prefix_tuning", {"layers": [1]}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "prompt"), CASES)
def test_it_learns_and_what_is_kept_suffices(
    backbone: Path, task_file: Path, method: str, prompt: dict[str, Any]
) -> None:
    settings: dict[str, object] = {"epochs": 6, "learning_rate": 0.002 if method == "fine_tuning" else 0.03}
    prepared = prepare_with(backbone, task_file, {"dropout": 0.0, **prompt}, method=method, **settings)
    seed_everything(1)
    model, events, split = prepared.build_model(), Silent(), prepared.splits["train"]
    before = {name: value.clone() for name, value in model.named_parameters()}
    tuned = method == "fine_tuning"
    assert model.parameter_count().tuned is tuned
    assert model.parameter_count().trained == sum(p.numel() for p in model.parameters() if p.requires_grad)

    keeper, train = Kept(), prepared.recipe.train
    Trainer(
        [TaskPart("tiny", model, prepared.scheme, split, split)], train, prepared.device, keeper, log=events.log
    ).train()
    kept = keeper.bests[-1][1]
    assert sum(events.losses[-2:]) < sum(events.losses[:2])
    moved = [name for name, value in model.named_parameters() if not torch.equal(value, before[name])]
    changed = {"lora" if ".lora_" in name else name.split(".")[0] for name in moved}
    of_method = {"fine_tuning": {"backbone"}, "lora": {"lora"}}.get(method, set())
    assert changed == {"head"} | of_method | ({"prompt"} if prepared.recipe.prompt_length else set())

    model.fold_prompt()
    model.load_trained_state(kept)
    scored = evaluate(model, prepared.scheme, split, 4, prepared.device, lambda *_: None)
    seed_everything(2)
    fresh = prepare_with(backbone, task_file, prompt, method=method, **settings).build_model()
    fresh.fold_prompt()
    fresh.load_trained_state(kept)
    again = evaluate(fresh, prepared.scheme, split, 4, prepared.device, lambda *_: None)
    assert [item.probability for item in again.predictions] == [item.probability for item in scored.predictions]


def test_each_method_has_its_prompt(backbone: Path, task_file: Path) -> None:
    def prompt_of(method: str, **prompt: object) -> torch.nn.Module | None:
        return prepare_with(backbone, task_file, prompt, method=method).build_model().prompt

    assert isinstance(prompt_of("p_tuning_v2"), EmbeddingPrompt)
    prefix = prompt_of("prefix_tuning")
    assert isinstance(prefix, NetworkPrompt)
    assert prefix.lstm is None
    assert isinstance(prompt_of("prefix_tuning", reparameterization="none"), EmbeddingPrompt)
    for method, encoder in (("prompt_tuning", "none"), ("p_tuning", "lstm")):
        shallow = prompt_of(method)
        assert isinstance(shallow, ShallowPrompt)
        assert shallow.vectors.encoder == encoder
    assert prompt_of("linear_probe") is None
    assert prompt_of("fine_tuning") is None


def test_covered_layers_alone_have_a_prompt(backbone: Path, task_file: Path) -> None:
    prepared = prepare_with(backbone, task_file, {"layers": "-1..", "dropout": 0.0})
    model = prepared.build_model().eval()
    assert isinstance(model.prompt, EmbeddingPrompt)
    assert len(model.prompt.layers) == 1
    batch = prepared.scheme.collate(list(prepared.splits["train"].features[:2]))
    model.encode(batch.input_ids, batch.attention_mask, batch.token_type_ids)
    slots = [model.backbone.get_submodule(f"{layer.name}.prompt_slot") for layer in prepared.spec.layers]
    assert [slot.prompt is None for slot in slots] == [True, False]


@pytest.mark.parametrize("method", sorted(DEEP_METHODS))
def test_layers_that_are_not_there_are_refused_before_weights_are_read(
    backbone: Path, task_file: Path, method: str
) -> None:
    with pytest.raises(ConfigError, match=r"prompt.layers: 17-24 is beyond the backbone's 2 layers"):
        prepare_with(backbone, task_file, {"layers": "17-24"}, method=method)
    with pytest.raises(ConfigError, match=r"prompt.layers: -3.. asks for the highest 3 layers, but the backbone has 2"):
        prepare_with(backbone, task_file, {"layers": "-3.."}, method=method)


@pytest.mark.parametrize("method", ["p_tuning_v2", "prefix_tuning", "p_tuning"])
def test_an_evaluation_makes_the_prompt_once(backbone: Path, task_file: Path, method: str) -> None:
    """What a network makes is the same for every batch; the next training step makes it anew."""
    prepared = prepare_with(backbone, task_file, method=method)
    model, split = prepared.build_model(), prepared.splits["validation"]
    made: list[int] = []
    if isinstance(model.prompt, NetworkPrompt):
        model.prompt.mlp.register_forward_hook(lambda *_: made.append(1))
    model.eval()
    with torch.no_grad():
        expected = model(**split.batch(prepared.scheme, range(3)).inputs())
        with model.prompt_made_once():
            found = model(**split.batch(prepared.scheme, range(3)).inputs())
    assert torch.equal(expected, found)
    made.clear()
    evaluation = evaluate(model.train(), prepared.scheme, split, 3, prepared.device, lambda *_: None)
    assert len(evaluation.predictions) == 12
    assert len(made) == (1 if method == "prefix_tuning" else 0)
    model(**split.batch(prepared.scheme, range(3)).inputs()).sum().backward()
    assert all(parameter.grad is not None for parameter in model.prompt.parameters())
