"""Outputs of the layers below the lowest prompt, computed once: the same numbers, and less work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from ptv2kit.errors import ConfigError, OutOfMemoryError, TrainingError
from ptv2kit.machine import free_memory
from ptv2kit.spec.recipe import Recipe
from ptv2kit.spec.task import Task
from ptv2kit.training import trunk_cache
from ptv2kit.training.distributed import check_strategy
from ptv2kit.training.parts import TaskPart
from ptv2kit.training.prepare import Prepared, build_models, prepare
from ptv2kit.training.state import TrainingState
from ptv2kit.training.trainer import Trainer, seed_everything
from ptv2kit.training.trunk_cache import choose_place, keep_trunk
from tests.tiny_backbones import FAMILIES, in_turn, save_tiny
from tests.training.test_schemes_on_backbones import SECTIONS
from tests.training.test_trainer import Recorder

ROWS: list[dict[str, Any]] = [
    {"words": [who, *["met", "alan"] * more, "in", where], "verb": 1, "answer": where, "label": who == "ada"}
    | {"tags": ["B-PER", *["O", "O"] * more, "O", "B-LOC"], "text": f"{who} met alan" * more}
    | {"story": f"{who} met alan" + " for alan" * more + f" in {where}", "yes": "in " + where, "no": "left", "right": 0}
    | {"topics": [who, where], "size": more / 2, "spans": [[0, len(who), "PER"]]}
    for who in ("ada", "alan")
    for where in ("paris", "rome")
    for more in (1, 2)
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Made when a family is asked for."""

    class Folders(dict[str, Path]):
        def __missing__(self, family: str) -> Path:
            folder = save_tiny(tmp_path_factory.mktemp(family), family)
            (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
            self[family] = folder
            return folder

    return Folders()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where outputs are kept during a test."""
    monkeypatch.setenv("PTV2KIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def prepared_for(
    folder: Path,
    scheme: str = "classes",
    layers: Any = "2..",
    method: str = "p_tuning_v2",
    backbone: dict[str, Any] | None = None,
    prompt: dict[str, Any] | None = None,
    **train: Any,
) -> Prepared:
    files = {"train": "rows.jsonl", "validation": "rows.jsonl"}
    task = TypeAdapter(Task).validate_python(
        {"task": "t", "data": {"source": "jsonl", "splits": files}, **SECTIONS[scheme]}
    )
    still = {"dropout": 0.0, "attention_dropout": 0.0}
    recipe = Recipe.model_validate(
        {
            "recipe": "r",
            "task": "t",
            "backbone": {"name": str(folder), **still, "pooling": "mean", **(backbone or {})},
            "method": method,
            "prompt": {"length": 3, "dropout": 0.0, "layers": layers, **(prompt or {})},
            "train": {"epochs": 3, "batch_size": 3, "learning_rate": 0.05, "device": "cpu", **train},
        }
    )
    return prepare(recipe, task, folder / "t.yaml", None, lambda *_: None)


def parts_of(*prepared: Prepared) -> list[TaskPart]:
    seed_everything(1)
    models = build_models(prepared)
    return [
        TaskPart(f"t{number}", model, each.scheme, each.splits["train"], each.splits["validation"])
        for number, (each, model) in enumerate(zip(prepared, models, strict=True))
    ]


def kept(prepared: Prepared, parts: list[TaskPart], notes: list[str] | None = None, **options: Any) -> list[TaskPart]:
    notes = [] if notes is None else notes
    return keep_trunk(prepared.recipe, prepared.spec, parts, prepared.device, lambda *_: None, notes.append, **options)


def losses(
    prepared: Prepared, parts: list[TaskPart], start: TrainingState | None = None, fault: Recorder | None = None
) -> tuple[list[float], tuple[dict[str, float], ...], Recorder]:
    recorder = fault or Recorder()
    trainer = Trainer(parts, prepared.recipe.train, prepared.device, recorder.keeper, log=recorder.log, start=start)
    result = trainer.train()
    return [loss for loss, _ in recorder.steps], result.history, recorder


def count_calls(part: TaskPart, word: str) -> dict[str, int]:
    """Calls of the linear layers whose name contains a word, by name."""
    calls: dict[str, int] = {}
    for name, module in part.model.backbone.named_modules():
        if isinstance(module, nn.Linear) and word in name:
            calls[name] = 0

            def count(*_: Any, name: str = name) -> None:
                calls[name] += 1

            module.register_forward_hook(count)
    return calls


@pytest.mark.slow
@pytest.mark.parametrize("scheme", list(SECTIONS))
@pytest.mark.parametrize("family", in_turn(FAMILIES))
def test_kept_outputs_train_as_computed_ones(folders: dict[str, Path], family: str, scheme: str) -> None:
    """Every family and scheme, loss for loss; the prompt covers the upper two of three layers."""
    plain = prepared_for(folders[family], scheme, cache_trunk="off")
    cached = prepared_for(folders[family], scheme, cache_trunk="memory")
    notes: list[str] = []
    if family == "t5":  # the first layer's bias by distance goes from layer to layer
        with pytest.raises(ConfigError, match="give each other more than hidden states"):
            kept(cached, parts_of(cached), notes)
        return
    expected = losses(plain, kept(plain, parts_of(plain)))
    found = losses(cached, kept(cached, parts_of(cached), notes))
    assert len(notes) == 1
    assert notes[0].startswith("the outputs of layer 1 are kept in memory: ")
    assert found[0] == pytest.approx(expected[0], rel=1e-4, abs=1e-5)
    # A correlation moves with the last bits of what is predicted.
    assert list(found[1]) == [pytest.approx(scores, abs=0.01) for scores in expected[1]]


@pytest.mark.slow
@pytest.mark.parametrize("place", ["memory", "disk"])
@pytest.mark.parametrize("settings", [{"micro_batch_size": 2}, {"gradient_checkpointing": True}, {"patience": 1}])
def test_and_so_they_do_with_other_settings(folders: dict[str, Path], place: str, settings: dict[str, Any]) -> None:
    plain, cached = (
        prepared_for(folders["bert"], "iob2", layers=[2], cache_trunk=where, **settings) for where in ("off", place)
    )
    expected, found = losses(plain, parts_of(plain)), losses(cached, kept(cached, parts_of(cached)))
    assert found[0] == pytest.approx(expected[0], rel=1e-5, abs=1e-6)
    assert found[1] == expected[1]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["classes", "iob2", "start_end"])
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_of_a_linear_probe_all_layers_are_kept(folders: dict[str, Path], family: str, scheme: str) -> None:
    plain, cached = (
        prepared_for(folders[family], scheme, method="linear_probe", backbone={"pooling": "auto"}, cache_trunk=where)
        for where in ("off", "memory")
    )
    [part] = kept(cached, parts_of(cached))
    calls = count_calls(part, "layer.")
    expected, found = losses(plain, parts_of(plain)), losses(cached, [part])
    assert found[0] == pytest.approx(expected[0], rel=1e-5, abs=1e-6)
    assert set(calls.values()) == {0}


def test_kept_layers_are_not_run(folders: dict[str, Path]) -> None:
    prepared = prepared_for(folders["bert"], layers="3..", cache_trunk="memory")
    [part] = kept(prepared, parts_of(prepared))
    calls = count_calls(part, "layer.")
    steps = len(losses(prepared, [part])[0])
    assert steps == 9
    passes = steps + 3  # an evaluation of one batch in each epoch
    assert {count for name, count in calls.items() if "layer.2." in name} == {passes}
    assert {count for name, count in calls.items() if "layer.2." not in name} == {0}


def test_nothing_is_saved_for_backward_below_the_lowest_prompt(folders: dict[str, Path]) -> None:
    """With and without kept outputs; with a prompt on all layers every layer saves something."""

    def saved(layers: str, place: str) -> dict[int, int]:
        prepared = prepared_for(folders["bert"], layers=layers, cache_trunk=place)
        [part] = kept(prepared, parts_of(prepared))
        within: list[int] = []
        counts = {0: 0, 1: 0, 2: 0}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            if within:
                counts[within[-1]] += 1
            return tensor

        for number, layer in enumerate(part.model.backbone.encoder.layer):
            layer.register_forward_pre_hook(lambda *_, number=number: within.append(number))
            layer.register_forward_hook(lambda *_: within.clear())
        batch = part.train_split.batch(part.scheme, range(3))
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            part.model.train()(**batch.inputs())
        return counts

    everywhere, off, on = saved("all", "off"), saved("2..", "off"), saved("2..", "memory")
    assert min(everywhere.values()) > 0
    assert off[0] == on[0] == 0
    assert off[2] == on[2] == everywhere[2]
    assert 0 < off[1] == on[1]


def test_a_prompts_dropout_stays_on(folders: dict[str, Path]) -> None:
    prepared = prepared_for(folders["bert"], prompt={"dropout": 0.5}, cache_trunk="memory")
    [part] = kept(prepared, parts_of(prepared))
    inputs = part.train_split.batch(part.scheme, range(3)).inputs()
    part.model.train()
    assert not torch.equal(part.model(**inputs), part.model(**inputs))
    part.model.eval()
    assert torch.equal(part.model(**inputs), part.model(**inputs))


@pytest.mark.slow
@pytest.mark.parametrize("place", ["memory", "disk"])
def test_an_interrupted_training_goes_on_bit_by_bit(folders: dict[str, Path], place: str) -> None:
    def prepared() -> tuple[Prepared, list[TaskPart]]:
        own = prepared_for(folders["bert"], "iob2", prompt={"dropout": 0.3}, cache_trunk=place)
        return own, kept(own, parts_of(own))

    whole = losses(*prepared())
    first = losses(*prepared(), fault=Recorder(KeyboardInterrupt(), at=4))
    second = losses(*prepared(), start=first[2].keeper.states[-1])
    assert first[0] + second[0] == whole[0]
    assert second[1] == whole[1]


def test_several_tasks_share_the_layers_and_keep_their_own_outputs(folders: dict[str, Path]) -> None:
    def run(place: str) -> list[float]:
        both = [prepared_for(folders["roberta"], scheme, cache_trunk=place) for scheme in ("iob2", "start_end")]
        return losses(both[0], kept(both[0], parts_of(*both)))[0]

    assert run("memory") == pytest.approx(run("off"), rel=1e-5, abs=1e-6)


def test_a_backbone_in_bf16_keeps_bf16(folders: dict[str, Path]) -> None:
    plain, cached = (
        prepared_for(folders["roberta"], "iob2", backbone={"dtype": "bf16"}, cache_trunk=place)
        for place in ("off", "disk")
    )
    [part] = kept(cached, parts_of(cached))
    assert part.train_split.states is not None
    assert part.train_split.states.rows.dtype == torch.bfloat16
    expected = losses(plain, parts_of(plain))[0]
    assert losses(cached, [part])[0] == pytest.approx(expected, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_quantized_layers_are_kept_too(folders: dict[str, Path], quantization: str, cache: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="pip install 'ptv2kit[quantization]'")
    plain, cached, other = (
        prepared_for(folders["roberta"], "iob2", backbone={"quantization": how}, cache_trunk=place)
        for how, place in ((quantization, "off"), (quantization, "disk"), (None, "disk"))
    )
    expected, found = losses(plain, parts_of(plain))[0], losses(cached, kept(cached, parts_of(cached)))[0]
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
    kept(other, parts_of(other))


class TestDisk:
    """`cache_trunk: disk`."""

    def keep(self, folder: Path, **settings: Any) -> list[TaskPart]:
        prepared = prepared_for(folder, cache_trunk="disk", **settings)
        return kept(prepared, parts_of(prepared))

    def test_a_scratch_file_leaves_nothing_behind(self, folders: dict[str, Path], cache: Path) -> None:
        [part] = self.keep(folders["bert"])
        assert part.train_split.states is not None
        assert not list(cache.iterdir())
        in_memory = prepared_for(folders["bert"], cache_trunk="memory")
        [other] = kept(in_memory, parts_of(in_memory))
        assert other.train_split.states is not None
        assert torch.equal(part.train_split.states.rows, other.train_split.states.rows)

    def test_a_full_disk_is_an_error_that_names_the_folder(
        self, folders: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(trunk_cache.tempfile, "TemporaryFile", lambda dir: Path("/dev/full").open("w+b"))  # noqa: SIM115, A006
        with pytest.raises(TrainingError, match="cannot be kept: No space left on device") as caught:
            self.keep(folders["bert"])
        assert caught.value.problems[0].location == str(cache)
        assert "PTV2KIT_CACHE" in caught.value.problems[0].hint
        assert not list(cache.iterdir())

    def test_a_folder_that_cannot_be_made_too(
        self, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("PTV2KIT_CACHE", str(tmp_path / "file"))
        with pytest.raises(TrainingError, match="cannot be kept: "):
            self.keep(folders["bert"])


class TestChoice:
    """Where outputs are kept."""

    def choose(self, prepared: Prepared, processes: int = 1) -> tuple[str, str]:
        choice = choose_place(prepared.recipe, prepared.spec, parts_of(prepared), processes)
        return choice.place, choice.note

    def test_auto_keeps_what_fits_without_dropout(
        self, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, cache: Path
    ) -> None:
        prepared = prepared_for(folders["bert"])
        assert self.choose(prepared)[0] == "memory"
        monkeypatch.setattr(trunk_cache, "free_memory", lambda: 2000)
        place, note = self.choose(prepared)
        assert place == "disk"
        assert str(cache) in note
        monkeypatch.setattr(trunk_cache, "free_disk", lambda folder: 2000)
        assert self.choose(prepared) == (
            "off",
            "layer 1 is computed anew in each step: their outputs need 0.0 MiB, more than 25% of the free memory "
            "(0.0 MiB) and 50% of the free disk (0.0 MiB)",
        )
        assert self.choose(prepared_for(folders["bert"], epochs=1)) == ("off", "")
        assert self.choose(prepared_for(folders["bert"], layers="all")) == ("off", "")
        assert self.choose(prepared_for(folders["bert"], method="prompt_tuning")) == ("off", "")

    def test_auto_leaves_a_backbone_with_dropout_alone(self, folders: dict[str, Path]) -> None:
        prepared = prepared_for(folders["bert"], backbone={"dropout": None, "attention_dropout": None})
        place, note = self.choose(prepared)
        assert place == "off"
        assert "hidden_dropout_prob 0.1, attention_probs_dropout_prob 0.1" in note
        explicit = prepared_for(
            folders["bert"], backbone={"dropout": None, "attention_dropout": None}, cache_trunk="memory"
        )
        place, note = self.choose(explicit)
        assert place == "memory"
        assert "computed without dropout" in note

    def test_memory_that_is_not_there_is_an_error(
        self, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(trunk_cache, "free_memory", lambda: 2000)
        with pytest.raises(OutOfMemoryError, match=r"train\.cache_trunk is memory, which needs 0\.0 MiB"):
            self.choose(prepared_for(folders["bert"], cache_trunk="memory"))

    def test_layers_that_cannot_be_left_out(self, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
        """Under auto it is said, and they are computed."""

        def refuse(*_: Any) -> None:
            raise ConfigError("models of type 'odd' have layers that talk in secret")

        monkeypatch.setattr(trunk_cache, "check_trunk", refuse)
        prepared = prepared_for(folders["bert"])
        notes: list[str] = []
        [part] = kept(prepared, parts_of(prepared), notes)
        assert part.train_split.states is None
        assert notes == [
            "the lower layers are computed anew in each step: models of type 'odd' have layers that talk in secret"
        ]
        prepared = prepared_for(folders["bert"], cache_trunk="disk")
        with pytest.raises(ConfigError, match="'odd'"):
            kept(prepared, parts_of(prepared))

    @pytest.mark.parametrize(
        "settings", [{"layers": "all"}, {"layers": "1-2"}, {"method": "fine_tuning"}, {"method": "p_tuning"}]
    )
    @pytest.mark.parametrize("place", ["memory", "disk"])
    def test_where_nothing_is_below_the_prompt_it_is_refused(
        self, folders: dict[str, Path], place: str, settings: dict[str, Any]
    ) -> None:
        with pytest.raises(ConfigError, match=rf"train\.cache_trunk is {place}, but no layer is below"):
            prepared_for(folders["bert"], cache_trunk=place, **settings)

    @pytest.mark.parametrize(
        ("place", "strategy", "wrong"), [("disk", "ddp", "one process"), ("memory", "zero3", "zero3")]
    )
    def test_what_several_processes_cannot_do(
        self, folders: dict[str, Path], place: str, strategy: Any, wrong: str
    ) -> None:
        prepared = prepared_for(folders["bert"], cache_trunk=place)
        with pytest.raises(ConfigError, match=rf"train\.cache_trunk is {place}.*{wrong}"):
            check_strategy(prepared.recipe, prepared.spec, strategy, 2)

    def test_auto_computes_them_under_zero(self, folders: dict[str, Path]) -> None:
        prepared = prepared_for(folders["bert"])
        notes: list[str] = []
        [part] = kept(prepared, parts_of(prepared), notes, strategy="zero3", processes=2)
        assert part.train_split.states is None
        assert notes == ["the lower layers are computed anew in each step, because the strategy is zero3"]


def test_a_layer_that_hands_on_more_is_noticed(folders: dict[str, Path]) -> None:
    """Behind the back of hidden states too: the check compares numbers."""
    prepared = prepared_for(folders["bert"], cache_trunk="memory")
    [part] = parts_of(prepared)
    first, second = part.model.backbone.encoder.layer[:2]
    secret: list[torch.Tensor] = []
    first.register_forward_hook(lambda module, args, output: secret.append(output[:, :1].clone()))
    own = second.forward
    second.forward = lambda hidden, *args, **kwargs: own(hidden + secret[-1], *args, **kwargs)
    with pytest.raises(ConfigError, match=r"models of type 'bert' give other hidden states when the lower layers are"):
        kept(prepared, [part])


def test_free_memory_is_what_the_container_leaves(tmp_path: Path) -> None:
    memory = tmp_path / "meminfo"
    memory.write_text("MemTotal:  100 kB\nMemAvailable:   50 kB\n")
    assert free_memory(memory, tmp_path) == 51200
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert free_memory(memory, tmp_path) == 51200
    (tmp_path / "memory.max").write_text("5000\n")
    assert free_memory(memory, tmp_path) == 4000
    assert free_memory(tmp_path / "absent", tmp_path) is None
