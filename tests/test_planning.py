"""Plans against what real passes keep, against other counters of operations, and against formulas."""

from __future__ import annotations

import copy
import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from ptv2kit.errors import ConfigError
from ptv2kit.models.backbones import BackboneSpec, empty_backbone, find_backbone
from ptv2kit.models.build import build_model, empty_model
from ptv2kit.models.injection import find_attention
from ptv2kit.models.model import PromptedModel
from ptv2kit.plan.depth import ALIKE, layers_are_alike, passes_by_depth
from ptv2kit.plan.estimate import operations
from ptv2kit.plan.hardware import GIB, find_gpu, gpu_of_machine, time_processor
from ptv2kit.plan.memory import (
    RESERVE,
    ModelCosts,
    Setup,
    choose_strategy,
    decide,
    footprint,
    largest_micro_batch,
    measure,
)
from ptv2kit.plan.passes import PassCost, TaskShape, count_passes
from ptv2kit.plan.plan import count_processes, task_shape
from ptv2kit.spec.load import load_recipe
from ptv2kit.spec.recipe import Backbone, Recipe
from tests.tiny_backbones import in_turn, save_tiny

ROOT = Path(__file__).parents[1]

LENGTH, PROMPT, CLASSES = 24, 8, 3
SHAPES = {
    "sequence": TaskShape("x", "sequence", CLASSES, LENGTH),
    "token": TaskShape("x", "token", CLASSES, LENGTH),
    "choices": TaskShape("x", "choices", CLASSES, LENGTH),
    "start_end": TaskShape("x", "start_end", 2, LENGTH),
}


def recipe_with(name: str, *, checkpointing: bool = False, **more: Any) -> Recipe:
    values: dict[str, Any] = {
        "recipe": "x",
        "task": "x",
        "backbone": {"name": name, "dropout": None},
        "prompt": {"length": PROMPT, "dropout": 0.0},
        "train": {"epochs": 1, "learning_rate": 1e-3, "batch_size": 16, "gradient_checkpointing": checkpointing},
    }
    for key, value in more.items():
        values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
    return Recipe.model_validate(values)


def without_dropout(spec: BackboneSpec) -> BackboneSpec:
    """The CPU's kernels keep other things than a GPU's where there is dropout."""
    for key, value in spec.config.to_dict().items():
        if ("drop" in key or key.endswith("pdrop")) and isinstance(value, float):
            setattr(spec.config, key, 0.0)
    return spec


def really_kept(model: PromptedModel, shape: TaskShape, examples: int) -> float:
    """Bytes that are there after a real forward pass on the CPU: what autograd keeps and what Python still holds."""
    ids = torch.randint(3, 9, (examples * shape.inputs, shape.max_length))
    mask = torch.ones_like(ids)
    mask[0, -3:] = 0
    labels = torch.zeros(
        {"token": (examples, shape.max_length), "start_end": (examples, 2)}.get(shape.unit, (examples,)),
        dtype=torch.long,
    )
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    gc.collect()
    before = {tensor.untyped_storage().data_ptr() for tensor in _tensors()}
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model.head.loss_sum(model(ids, mask), labels)
    gc.collect()
    for tensor in _tensors():
        keep(tensor)
    loss.backward()
    return sum(tensor.untyped_storage().nbytes() for pointer, tensor in kept.items() if pointer not in before)


def _tensors() -> list[torch.Tensor]:
    """All that Python knows of, states of random generators aside; autograd's own references are not among them."""
    found = [item for item in gc.get_objects() if type(item) in (torch.Tensor, torch.nn.Parameter)]
    return [tensor for tensor in found if tensor.dtype != torch.uint8 and tensor.layout == torch.strided]


def kept(cost: PassCost, checkpointing: bool) -> float:
    return cost.outside + cost.prompt + cost.head + (cost.layer_inputs if checkpointing else cost.layers)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: save_tiny(tmp_path_factory.mktemp(family), family) for family in COUNTED}


COUNTED = ("bert", "roberta", "deberta", "deberta-v2", "gpt2", "llama", "original_glm", "modernbert", "electra")


@pytest.mark.night
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", COUNTED)
def test_a_dry_pass_keeps_what_a_real_one_keeps(folders: dict[str, Path], family: str, checkpointing: bool) -> None:
    spec = without_dropout(find_backbone(Backbone(name=str(folders[family]))))
    if checkpointing and not spec.attention.checkpoints:
        pytest.skip(f"{family} has no gradient checkpointing")
    recipe = recipe_with(str(folders[family]), checkpointing=checkpointing)
    shape = SHAPES["sequence"]
    counted = count_passes(empty_model(recipe_with(str(folders[family])), "sequence", spec, CLASSES), recipe, shape)
    real = build_model(recipe, "sequence", spec, CLASSES).train()
    for examples in (2, 5):
        expected = really_kept(real, shape, examples)
        assert kept(counted.at(examples), checkpointing) == pytest.approx(expected, rel=0.1), family


@pytest.mark.night
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"prompt": {"dropout": 0.1}},
        {"prompt": {"reparameterization": "mlp"}},
        {"method": "fine_tuning"},
        {"method": "prompt_tuning"},
    ],
    ids=["deep", "dropout", "mlp", "fine_tuning", "shallow"],
)
@pytest.mark.parametrize("family", in_turn(sorted(ALIKE)))
def test_two_shallow_models_tell_to_the_byte_what_a_deep_one_costs(
    folders: dict[str, Path], family: str, changes: dict[str, Any]
) -> None:
    recipe = recipe_with(str(folders[family]), **changes)
    spec = at_depth(find_backbone(recipe.backbone), 5)
    assert len(spec.layers) == 5
    assert layers_are_alike(recipe, spec)
    for unit in ("sequence", "token"):
        whole = count_passes(empty_model(recipe, unit, spec, CLASSES), recipe, SHAPES[unit])
        assert passes_by_depth(recipe, spec, SHAPES[unit]) == whole


def at_depth(spec: BackboneSpec, depth: int) -> BackboneSpec:
    config = copy.deepcopy(spec.config)
    config.num_hidden_layers = depth
    return replace(spec, config=config, attention=find_attention(config))


def test_only_whole_prompts_on_models_whose_layers_are_alike_are_counted_by_depth(folders: dict[str, Path]) -> None:
    deep = at_depth(find_backbone(Backbone(name=str(folders["bert"]))), 5)
    some = recipe_with(str(folders["bert"]), prompt={"layers": [4, 5]})
    assert not layers_are_alike(some, deep)
    assert layers_are_alike(recipe_with(str(folders["bert"]), method="fine_tuning", prompt={"layers": [4, 5]}), deep)
    other = at_depth(find_backbone(Backbone(name=str(folders["llama"]))), 5)
    assert not layers_are_alike(recipe_with(str(folders["llama"])), other)


@pytest.mark.slow
@pytest.mark.parametrize("unit", SHAPES)
def test_every_head_is_counted(folders: dict[str, Path], unit: str) -> None:
    spec = without_dropout(find_backbone(Backbone(name=str(folders["bert"]))))
    recipe, shape = recipe_with(str(folders["bert"])), SHAPES[unit]
    counted = count_passes(empty_model(recipe, shape.unit, spec, shape.labels), recipe, shape)
    real = build_model(recipe, shape.unit, spec, shape.labels).train()
    assert kept(counted.at(3), False) == pytest.approx(really_kept(real, shape, 3), rel=0.1)


@pytest.mark.slow
def test_layers_below_the_prompt_keep_and_compute_nothing_backwards(folders: dict[str, Path]) -> None:
    name = str(folders["bert"])
    spec = find_backbone(Backbone(name=name))
    costs = {
        layers: count_passes(empty_model(recipe, "sequence", spec, CLASSES), recipe, SHAPES["sequence"]).at(4)
        for layers in ("all", "3")
        for recipe in [recipe_with(name, prompt={"layers": layers if layers == "all" else [3]})]
    }
    assert costs["3"].forward < costs["all"].forward
    assert costs["3"].backward < 0.5 * costs["all"].backward
    assert costs["3"].layers == pytest.approx(costs["3"].largest_layer)
    # The upper layers of the full prompt keep what the only prompted one keeps; the first also needs no gradient below.
    assert costs["all"].layers > 2.5 * costs["3"].layers


@pytest.mark.slow
@pytest.mark.parametrize("method", ["p_tuning_v2", "fine_tuning", "prompt_tuning"])
@pytest.mark.parametrize("family", ["bert", "llama", "gpt2", "original_glm"])
def test_operations_are_those_of_torchs_own_counter(folders: dict[str, Path], family: str, method: str) -> None:
    # torch's counter does not know the CPU's fused attention.
    recipe = recipe_with(str(folders[family]), method=method, backbone={"attention": "eager"})
    spec, shape = without_dropout(find_backbone(recipe.backbone)), SHAPES["sequence"]
    counted = count_passes(empty_model(recipe, "sequence", spec, CLASSES), recipe, shape).at(3)
    model = build_model(recipe, "sequence", spec, CLASSES).train()
    ids = torch.randint(3, 9, (3, LENGTH))
    mask = torch.ones_like(ids)
    mask[0, -3:] = 0
    with FlopCounterMode(display=False) as forward:
        loss = model.head.loss_sum(model(ids, mask), torch.zeros(3, dtype=torch.long))
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    assert counted.forward == pytest.approx(forward.get_total_flops(), rel=0.02)
    assert counted.backward == pytest.approx(backward.get_total_flops(), rel=0.02)


def test_dropout_keeps_a_byte_for_each_element(backbone: Path) -> None:
    shape = SHAPES["sequence"]
    kept_with: dict[float, PassCost] = {}
    for dropout in (0.0, 0.1):
        recipe = recipe_with(str(backbone), backbone={"dropout": dropout})
        spec = find_backbone(recipe.backbone)
        kept_with[dropout] = count_passes(empty_model(recipe, "sequence", spec, CLASSES), recipe, shape).at(4)
    hidden = 4 * LENGTH * 32
    # Two layers with two dropouts each; but of the first, only what follows the prompt is differentiated.
    assert kept_with[0.1].layers - kept_with[0.0].layers == 4 * hidden


def test_a_dry_pass_of_the_largest_glm_agrees_with_its_formula() -> None:
    """Saved by a layer, in elements of two bytes per token: inputs of two norms 2H, fused projection 3H, keys and
    values with the prompt 2H(T + P)/T, context H, input of the GELU 4H; with the mask in the keys' type (T + P) and
    dropout's bytes."""
    settings = Backbone(name="THUDM/glm-10b", dtype="bf16")
    spec = find_backbone(settings, planning=True)
    assert not spec.at_hand
    recipe = recipe_with("THUDM/glm-10b", backbone={"dtype": "bf16"}, prompt={"length": 16})
    costs = measure(recipe, spec, [TaskShape("x", "sequence", 2, 256)])
    assert costs.count.backbone == 9_880_682_496
    tokens, width, prompt = 256, 4096, 16
    formula = 2 * (10 * tokens * width + 2 * (tokens + prompt) * width + tokens * (tokens + prompt))
    formula += 2 * tokens * width + 4 * 64 * tokens
    assert costs.passes.one.largest_layer == pytest.approx(formula, rel=0.05)
    assert costs.passes.one.layers == pytest.approx(48 * formula, rel=0.05)
    forward = 2 * 256 * 48 * 12 * width**2 + 48 * 4 * 256 * 272 * width
    assert costs.passes.one.forward == pytest.approx(forward, rel=0.01)
    assert costs.passes.one.backward == pytest.approx(forward, rel=0.03)


@pytest.fixture(scope="module")
def glm() -> ModelCosts:
    recipe = recipe_with("THUDM/glm-2b", backbone={"dtype": "bf16"})
    spec = find_backbone(recipe.backbone, planning=True)
    return measure(recipe, spec, [TaskShape("x", "sequence", 2, 256)])


def test_only_the_third_stage_divides_frozen_weights_and_nothing_else(glm: ModelCosts) -> None:
    recipe = recipe_with("THUDM/glm-2b", backbone={"dtype": "bf16"})
    frozen, own = glm.frozen, glm.trained
    assert frozen == 2 * glm.count.backbone
    assert own == 4 * glm.count.trained
    states: dict[str, float] = {}
    for strategy in ("none", "ddp", "zero1", "zero2", "zero3"):
        found = footprint(recipe, glm, Setup(strategy, "none", 1 if strategy == "none" else 4), 2, checkpointing=False)
        states[strategy] = found.weights + found.gradients + found.optimizer
        assert found.reserve == RESERVE
    assert states["none"] == states["ddp"] == frozen + 4 * own
    assert states["zero1"] == pytest.approx(frozen + 2 * own + 2 * own / 4)
    assert states["zero2"] == pytest.approx(frozen + own + 3 * own / 4)
    assert states["zero3"] == pytest.approx(frozen / 4 + 4 * own)
    offloaded = footprint(recipe, glm, Setup("zero3", "cpu", 4), 2, checkpointing=False)
    assert offloaded.weights == own
    assert offloaded.host == frozen / 4


def test_settings_of_deepspeed_count(glm: ModelCosts) -> None:
    plain = recipe_with("THUDM/glm-2b", backbone={"dtype": "bf16"})
    small = recipe_with(
        "THUDM/glm-2b",
        backbone={"dtype": "bf16"},
        deepspeed={"zero_optimization": {"stage3_max_live_parameters": 10**9, "stage3_prefetch_bucket_size": 0}},
    )
    found = [footprint(each, glm, Setup("zero3", "none", 2), 1, checkpointing=False).buckets for each in (plain, small)]
    assert found[1] - found[0] == pytest.approx(2 * (8e8 - 5e7), rel=0.02)


def test_the_largest_micro_batch_is_the_last_that_fits(glm: ModelCosts) -> None:
    recipe = recipe_with("THUDM/glm-2b", backbone={"dtype": "bf16"})
    for checkpointing in (False, True):
        for memory in (8 * GIB, 24 * GIB):
            setup = Setup("none", "none", 1)
            most = largest_micro_batch(recipe, glm, setup, memory, checkpointing=checkpointing)
            sizes = [footprint(recipe, glm, setup, most + n, checkpointing=checkpointing).total for n in (0, 1)]
            assert sizes[0] <= memory < sizes[1]
    assert largest_micro_batch(recipe, glm, Setup("none", "none", 1), GIB, checkpointing=True) == 0


@pytest.mark.parametrize(
    ("distributed", "processes", "gib", "expected"),
    [
        ({}, 1, 4, "none"),
        ({}, 4, 24, "ddp"),
        ({}, 4, 5, "zero3"),
        ({"offload": "cpu"}, 1, 24, "zero3 + cpu"),
        ({"strategy": "zero2"}, 4, 24, "zero2"),
        ({"strategy": "none"}, 4, 24, "none"),
    ],
)
def test_auto_takes_the_simplest_that_fits(
    glm: ModelCosts, distributed: dict[str, str], processes: int, gib: float, expected: str
) -> None:
    recipe = recipe_with("THUDM/glm-2b", backbone={"dtype": "bf16"}, distributed=distributed)
    choice = decide(recipe, glm, processes=processes, memory=gib * GIB)
    assert choice.setup.name == expected
    assert choice.micro_batch is not None


def test_a_strategy_is_chosen_without_measuring_where_nothing_depends_on_it(
    backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, shapes = find_backbone(Backbone(name=str(backbone))), [SHAPES["token"]]
    recipe = recipe_with(str(backbone))
    nothing = choose_strategy(recipe, spec, shapes, processes=2, memory=GIB)  # the reserve alone needs more
    assert (nothing.micro_batch, "needs least" in nothing.reason) == (0, True)
    assert choose_strategy(recipe, spec, shapes, processes=2, memory=8 * GIB).setup.name == "ddp"
    monkeypatch.setattr("ptv2kit.plan.memory.measure", None)
    assert choose_strategy(recipe, spec, shapes, processes=1, memory=GIB).setup.name == "none"
    assert choose_strategy(recipe, spec, shapes, processes=2, memory=None).setup.name == "ddp"


def test_heads_of_all_tasks_are_counted_and_the_largest_task_decides(backbone: Path) -> None:
    recipe, spec = recipe_with(str(backbone)), find_backbone(Backbone(name=str(backbone)))
    one = measure(recipe, spec, [SHAPES["token"]])
    longer = TaskShape("long", "sequence", 2, LENGTH + 8)
    both = measure(recipe, spec, [SHAPES["token"], longer])
    assert both.shape is longer
    assert both.count.head == one.count.head + 2 * 33
    assert both.count.prompt == one.count.prompt
    assert measure(recipe, spec, [longer, SHAPES["choices"]]).shape is SHAPES["choices"]


def test_fine_tuning_trains_the_backbone(backbone: Path) -> None:
    recipe, spec = recipe_with(str(backbone), method="fine_tuning"), find_backbone(Backbone(name=str(backbone)))
    costs = measure(recipe, spec, [SHAPES["token"]])
    assert costs.frozen == 0
    assert costs.trained == 4 * (costs.count.backbone + costs.count.head)


def test_rounded_weights_are_counted_as_they_are_stored(backbone: Path) -> None:
    sizes: dict[str | None, float] = {}
    for name in (None, "int8", "nf4"):
        recipe = recipe_with(str(backbone), backbone={"quantization": name})
        sizes[name] = measure(recipe, find_backbone(recipe.backbone), [SHAPES["token"]]).frozen
    weights = 2 * (4 * 32 * 32 + 2 * 32 * 48)
    rows = 2 * (4 * 32 + 48 + 32)
    plain = sizes[None]
    assert plain is not None
    assert plain - sizes["int8"] == 3 * weights - 4 * rows
    assert plain - sizes["nf4"] == (4 - 0.5 - 4 / 64) * weights


def test_gpus_are_known_described_or_refused() -> None:
    assert find_gpu(None, None, None).name == "h100"
    assert find_gpu("H200", None, None).memory == 139 * GIB
    assert find_gpu("H200", 100, 500).peak("fp32") == 500e12
    assert find_gpu("mine", 10, None).peak("bf16") is None
    assert find_gpu(None, 10, None).name == "GPU with 10 GiB"
    assert gpu_of_machine("NVIDIA GeForce RTX 4090", GIB).peak("bf16") == 165e12
    assert gpu_of_machine("NVIDIA A100-SXM4-80GB", GIB).peak("fp32") == 19.5e12
    assert gpu_of_machine("NVIDIA T1000", GIB).peak("bf16") is None
    with pytest.raises(ConfigError, match=r"did you mean 'rtx4090'"):
        find_gpu("rtx4900", None, None)
    with pytest.raises(ConfigError, match="--memory must be more than 0"):
        find_gpu(None, 0, None)


def test_a_layer_takes_its_time_however_little_it_computes() -> None:
    gpu = find_gpu("h100", None, None)
    assert gpu.seconds("bf16", 989e12, 100) == pytest.approx(1 / 0.4)
    assert gpu.seconds("bf16", 989e12, 5000) == pytest.approx(5)
    assert gpu.seconds("fp32", 989e12, 100) == pytest.approx(989 / 67 / 0.4)
    assert find_gpu("mine", 10, None).seconds("bf16", 1e12, 100) is None


@pytest.mark.parametrize(("amx", "share"), [(True, 2.0), (False, 0.8)])
def test_a_processor_is_planned_with_its_own_rate_in_bf16(
    amx: bool, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ptv2kit.models.checkpoints.has_amx", lambda: amx)
    processor = time_processor()
    fp32, bf16 = processor.peak("fp32"), processor.peak("bf16")
    assert fp32 is not None
    assert bf16 == pytest.approx(share * fp32)


def test_processes_are_counted_from_options_host_file_and_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    hosts = tmp_path / "hosts"
    hosts.write_text("# two machines\nfirst slots=4\n\nsecond slots=3\n")
    assert count_processes(recipe_with("mini"), path, None, 2) == 2
    assert count_processes(recipe_with("mini", distributed={"gpus": 3}), path, None, 1) == 3
    listed = recipe_with("mini", distributed={"hostfile": "hosts"})
    assert count_processes(listed, path, None, 1) == 7
    assert count_processes(listed, path, 5, 1) == 5
    hosts.write_text("first 4 slots\n")
    with pytest.raises(ConfigError, match=r"hosts:1: error: expected '<host> slots=<processes>'"):
        count_processes(listed, path, None, 1)
    with pytest.raises(ConfigError, match="--gpus must be at least 1"):
        count_processes(listed, path, 0, 1)


def test_fine_tuning_takes_the_first_strategy_that_fits_and_never_zero3(backbone: Path) -> None:
    recipe = recipe_with(str(backbone), method="fine_tuning", prompt={"length": 4})
    costs = measure(recipe, find_backbone(recipe.backbone), [SHAPES["token"]])
    large = replace(costs, trained=10 * GIB, frozen=0.0)
    totals = {
        name: footprint(recipe, large, Setup(name, "none", 8), 1, checkpointing=False).total
        for name in ("ddp", "zero1", "zero2")
    }
    assert totals["ddp"] > totals["zero1"] > totals["zero2"]
    for name, total in totals.items():
        assert decide(recipe, large, processes=8, memory=total + 1024).setup.name == name
    choice = decide(recipe, large, processes=8, memory=GIB)
    assert (choice.setup.name, choice.micro_batch) == ("zero2", 0)
    assert "this one needs least" in choice.reason


@pytest.mark.parametrize("name", ["mini-rte", "glm-2b-boolq"])
@pytest.mark.parametrize("method", ["p_tuning_v2", "fine_tuning", "prompt_tuning", "linear_probe"])
def test_the_formula_of_a_suites_plan_is_near_what_is_counted(name: str, method: str) -> None:
    tuned = ["backbone.dtype=fp32"] if method == "fine_tuning" else []
    resolved = load_recipe(ROOT / f"recipes/{name}.yaml", [f"method={method}", *tuned])
    spec = find_backbone(resolved.recipe.backbone, planning=True)
    shapes = [task_shape(resolved.recipe, task.task) for task in resolved.tasks]
    counted = measure(resolved.recipe, spec, shapes).passes.at(1)
    expected = counted.operations(resolved.recipe.train.gradient_checkpointing)
    assert operations(resolved.recipe, spec, empty_backbone(spec), shapes[0]) == pytest.approx(expected, rel=0.05)
