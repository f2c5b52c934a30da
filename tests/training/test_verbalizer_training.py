"""Training by a verbalizer: it learns, it saves its prompt alone, and prompts may start from words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoTokenizer

from ptv2kit.errors import ConfigError
from ptv2kit.models.glm import register
from ptv2kit.models.glm.modeling import OriginalGlmModel
from ptv2kit.models.glm.tiny import tiny_folder
from ptv2kit.spec.load import load_recipe
from ptv2kit.spec.recipe import Recipe
from ptv2kit.spec.task import Task
from ptv2kit.training.evaluate import evaluate
from ptv2kit.training.load_run import load_run
from ptv2kit.training.parts import TaskPart
from ptv2kit.training.prepare import Prepared, build_models, prepare, prepare_tasks
from ptv2kit.training.run import train_recipe
from ptv2kit.training.trainer import Trainer, seed_everything
from tests.tiny_language_models import save_language_model
from tests.training.tiny import Kept

ROWS = [
    {
        "text": f"{who} met {other}",
        "label": "yes" if who == "ada" else "no",
        "yes": " ada met",
        "no": " alan",
        "right": 0,
    }
    for who in ("ada", "alan")
    for other in ("ada", "alan", "paris", "rome")
]
CLASSES: dict[str, Any] = {
    "labels": {"scheme": "classes", "column": "label", "names": ["no", "yes"]},
    "verbalizer": {"no": " no", "yes": " yes"},
    "head": "verbalizer",
}
SEVERAL = {**CLASSES, "verbalizer": {"no": " no, no", "yes": [" yes", " maybe yes"]}, "verbalizer_tokens": "any"}
FAMILIES = ("bert", "roberta", "gpt2", "llama")


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    save_language_model(folder, request.param)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return folder


def task_of(**keys: Any) -> Any:
    source = {"source": "jsonl", "splits": {"train": "rows.jsonl", "validation": "rows.jsonl"}}
    task = {"task": "t", "data": source, "input": {"text": "{text}? it is{mask}", "max_length": 32}}
    return TypeAdapter(Task).validate_python({**task, **CLASSES, **keys})


def recipe_of(folder: Path | str, **keys: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "recipe": "r",
            "task": "t",
            "backbone": {"name": str(folder), "dropout": 0.0},
            "prompt": {"length": 6, "dropout": 0.0},
            "train": {"epochs": 40, "batch_size": 4, "learning_rate": 0.1, "device": "cpu"},
            **keys,
        }
    )


def prepared_for(folder: Path, task: Any, **keys: Any) -> Prepared:
    return prepare(recipe_of(folder, **keys), task, folder / "t.yaml", None, lambda *_: None)


def accuracy_after_training(prepared: Prepared) -> float:
    seed_everything(0)
    model, kept, split = prepared.build_model(), Kept(), prepared.splits["train"]
    parts = [TaskPart("t", model, prepared.scheme, split, split)]
    Trainer(parts, prepared.recipe.train, prepared.device, kept).train()
    assert kept.evaluations[-1] is not None
    return kept.evaluations[-1].scores.values["accuracy"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [CLASSES, SEVERAL], ids=["one token", "several tokens"])
def test_two_classes_are_learned(folder: Path, kind: dict[str, Any]) -> None:
    assert accuracy_after_training(prepared_for(folder, task_of(**kind))) == 100.0


@pytest.mark.slow
@pytest.mark.parametrize("kind", [CLASSES, SEVERAL], ids=["one token", "several tokens"])
@pytest.mark.parametrize("method", ["p_tuning_v2", "prompt_tuning"])
def test_an_original_glm_learns_them_too(kind: dict[str, Any], method: str, tmp_path: Path) -> None:
    register()
    model = OriginalGlmModel.from_pretrained(tiny_folder())
    seed_everything(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.2)  # as published it is so even that a prompt moves next to nothing
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_folder()).save_pretrained(tmp_path)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    words = {"no": "n", "yes": "y"} if kind is CLASSES else {"no": " no", "yes": [" yes", "y"]}  # each byte is a token
    task = task_of(**{**kind, "verbalizer": words}, input={"text": "{text}? {mask}.", "max_length": 60})
    prepared = prepared_for(tmp_path, task, method=method)
    assert prepared.scheme.unit == ("words" if kind is CLASSES else "answers")
    assert accuracy_after_training(prepared) >= 75.0


@pytest.mark.slow
@pytest.mark.parametrize("method", ["prompt_tuning", "fine_tuning"])
def test_by_every_kind_of_method(folder: Path, method: str) -> None:
    rate = {"learning_rate": 0.3 if method == "prompt_tuning" else 0.003}
    train = {"epochs": 40, "batch_size": 4, "device": "cpu", **rate}
    assert accuracy_after_training(prepared_for(folder, task_of(), method=method, train=train)) >= 75.0


@pytest.mark.slow
def test_choices_are_learned(folder: Path) -> None:
    rows = [
        {"text": row["text"], "a": " ada met", "b": " alan, no", "right": int(row["label"] == "no")} for row in ROWS
    ]
    (folder / "choices.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = TypeAdapter(Task).validate_python(
        {
            "task": "c",
            "data": {"source": "jsonl", "splits": {"train": "choices.jsonl", "validation": "choices.jsonl"}},
            "input": {"text": "{text}? it is{mask}", "choices": ["{a}", "{b}"], "max_length": 32},
            "labels": {"scheme": "choices", "column": "right"},
            "head": "verbalizer",
        }
    )
    assert accuracy_after_training(prepared_for(folder, task)) == 100.0


@pytest.mark.slow
def test_a_linear_and_a_verbalized_task_share_a_prompt(folder: Path) -> None:
    linear = TypeAdapter(Task).validate_python(
        {
            "task": "l",
            "data": {"source": "jsonl", "splits": {"train": "rows.jsonl", "validation": "rows.jsonl"}},
            "input": {"text": "{text}", "max_length": 32},
            "labels": {"scheme": "classes", "column": "label"},
        }
    )
    recipe = recipe_of(folder, task=["t", "l"], backbone={"name": str(folder), "dropout": 0.0, "pooling": "mean"})
    tasks = [(task, folder / "t.yaml") for task in (task_of(), linear)]
    prepared = prepare_tasks(recipe, tasks, None, lambda *_: None)
    seed_everything(0)
    models, kept = build_models(prepared), Kept()
    parts = [
        TaskPart(each.task.task, model, each.scheme, each.splits["train"], each.splits["train"])
        for each, model in zip(prepared, models, strict=True)
    ]
    result = Trainer(parts, recipe.train, prepared[0].device, kept).train()
    assert [best.scores.values["accuracy"] for best in result.tasks if best.scores] == [100.0, 100.0]


def write_files(folder: Path, backbone: Path | str, task: str = "", recipe: str = "") -> Path:
    (folder / "tasks").mkdir(exist_ok=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "tasks" / "t.yaml").write_text(
        "task: t\n"
        "data: {source: jsonl, splits: {train: ../rows.jsonl, validation: ../rows.jsonl}}\n"
        'input: {text: "{text}? it is{mask}", max_length: 32}\n'
        'labels: {scheme: classes, column: label, names: ["no", "yes"]}\n'
        "head: verbalizer\n" + (task or 'verbalizer: {"no": " no", "yes": " yes"}\n')
    )
    (folder / "r.yaml").write_text(
        f"recipe: r\ntask: t\nbackbone: {{name: {backbone}, dropout: 0}}\n"
        f"train: {{epochs: 2, batch_size: 4, learning_rate: 0.05, device: cpu}}\n{recipe}"
    )
    return folder / "r.yaml"


def test_a_run_keeps_its_prompt_alone(folder: Path, tmp_path: Path) -> None:
    resolved = load_recipe(write_files(tmp_path, folder))
    quiet = Console(quiet=True)
    made, outcome = train_recipe(resolved, data_root=None, runs_dir=tmp_path / "runs", messages=quiet)
    tensors = load_file(made.path / "prompt" / "prompt.safetensors")
    assert tensors
    assert all(name.startswith("prompt.layers.") for name in tensors)
    assert outcome.parameters.head == 0
    assert outcome.parameters.trained == outcome.parameters.prompt
    loaded = load_run(made.path, device="cpu")
    split = prepared_for(folder, task_of()).splits["validation"]
    again = evaluate(loaded.model, loaded.scheme, split, 4, torch.device("cpu"), lambda *_: None)
    assert again.scores == outcome.tasks[0].scores["validation"]


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_what_is_wrong_with_the_words_is_said_with_their_place(family: str, tmp_path: Path) -> None:
    save_language_model(tmp_path, family)
    word, cut = {"bert": (" mayly", "'may', '##ly'"), "llama": (" yesno", "'▁yes', 'no'")}[family]
    resolved = load_recipe(write_files(tmp_path, tmp_path, f'verbalizer: {{"no": " no", "yes": "{word}"}}\n'))
    (tmp_path / "rows.jsonl").write_text("no row can be read\n")
    with pytest.raises(ConfigError) as caught:
        train_recipe(resolved, data_root=None, runs_dir=tmp_path / "runs", messages=Console(quiet=True))
    [problem] = caught.value.problems
    assert problem.location.endswith("tasks/t.yaml:6:34")
    assert problem.message == f"'{word}' is two tokens in this vocabulary: {cut}"
    assert problem.hint == "take a word that is one token, or set verbalizer_tokens: any"


def test_words_that_the_vocabulary_cannot_tell_apart_are_refused(tmp_path: Path) -> None:
    save_language_model(tmp_path, "bert")
    task = 'verbalizer: {"no": " No", "yes": [" yes", " no", " q"]}\n'
    resolved = load_recipe(write_files(tmp_path, tmp_path, task))
    with pytest.raises(ConfigError) as caught:
        train_recipe(resolved, data_root=None, runs_dir=tmp_path / "runs", messages=Console(quiet=True))
    assert [problem.message for problem in caught.value.problems] == [
        "' no' of 'yes' and ' No' of 'no' are the same in this vocabulary: 'no'",
        "the word ' q' is not in this vocabulary",
    ]


def test_a_backbone_without_a_head_is_refused_before_rows_are_read(tmp_path: Path) -> None:
    resolved = load_recipe(write_files(tmp_path, "mini"))
    (tmp_path / "rows.jsonl").write_text("no row can be read\n")
    with pytest.raises(ConfigError, match="backbone 'mini' has no language-model head") as caught:
        train_recipe(resolved, data_root=None, runs_dir=tmp_path / "runs", messages=Console(quiet=True))
    assert "set head: linear in the task" in caught.value.problems[0].hint


def words_in(prepared: Prepared) -> torch.Tensor:
    """Word embeddings of the tokens that a prompt of six starts from."""
    ids = [number for of_class in prepared.scheme.words for word in of_class for number in word]
    model = prepared.build_model()
    return model.backbone.get_input_embeddings()(torch.tensor((ids * 6)[:6])).detach()


@pytest.mark.parametrize("reparameterization", ["none", "mlp"])
def test_shallow_prompts_start_from_the_words_of_classes(folder: Path, reparameterization: str) -> None:
    prompt = {"length": 6, "init": "labels", "reparameterization": reparameterization}
    prepared = prepared_for(folder, task_of(), method="prompt_tuning", prompt=prompt)
    assert torch.equal(prepared.build_model().prompt.vectors.embedding.weight, words_in(prepared))


def test_what_a_network_makes_deep_prompts_of_starts_from_them_too(folder: Path) -> None:
    prompt = {"length": 6, "init": "labels"}
    prepared = prepared_for(folder, task_of(**SEVERAL), method="prefix_tuning", prompt=prompt)
    assert torch.equal(prepared.build_model().prompt.embedding, words_in(prepared))


def test_deep_prompts_start_from_the_words_keys_and_values(folder: Path) -> None:
    prepared = prepared_for(folder, task_of(), prompt={"length": 6, "init": "words", "words": "ada met alan"})
    model, plain = prepared.build_model().eval(), prepared_for(folder, task_of()).build_model().eval()
    [row] = [prepared.first_words]
    ids = torch.tensor([row[:6]])
    plain.start_prompt_from_tokens(ids, torch.ones_like(ids))
    assert all(torch.equal(*pair) for pair in zip(model.prompt.layers, plain.prompt.layers, strict=True))


def test_names_of_classes_and_spans_are_words_without_a_verbalizer(folder: Path) -> None:
    task = TypeAdapter(Task).validate_python(
        {
            "task": "l",
            "data": {"source": "jsonl", "splits": {"train": "rows.jsonl", "validation": "rows.jsonl"}},
            "input": {"text": "{text}", "max_length": 32},
            "labels": {"scheme": "classes", "column": "label", "names": ["no", "yes"]},
        }
    )
    backbone = {"name": str(folder), "dropout": 0.0, "pooling": "mean"}
    prepared = prepared_for(folder, task, backbone=backbone, prompt={"length": 6, "init": "labels"})
    verbalized = prepared_for(folder, task_of(), prompt={"length": 6, "init": "labels"})
    assert prepared.first_words == verbalized.first_words


@pytest.mark.slow
def test_several_tasks_start_from_the_words_of_all(folder: Path) -> None:
    other = task_of(task="u", verbalizer={"no": " ada", "yes": " alan"})
    recipe = recipe_of(folder, task=["t", "u"], method="prompt_tuning", prompt={"length": 4, "init": "labels"})
    prepared = prepare_tasks(recipe, [(task, folder / "t.yaml") for task in (task_of(), other)], None, lambda *_: None)
    models = build_models(prepared)
    ids = [number for each in prepared for of_class in each.scheme.words for word in of_class for number in word]
    expected = models[0].backbone.get_input_embeddings()(torch.tensor(ids)).detach()
    assert torch.equal(models[1].prompt.vectors.embedding.weight, expected)
