"""Prompts that go to PEFT, and come from it and from the official code; PEFT itself computes the other side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, AutoModelForQuestionAnswering, AutoModelForSequenceClassification
from transformers import AutoModelForTokenClassification as TokenClassification

from ptv2kit.cli.main import main
from ptv2kit.errors import ConfigError
from ptv2kit.exchange.peft import (
    RIGHT_IN_PEFT,
    WRONG_IN_PEFT,
    adapter_config,
    from_flat,
    peft_head,
    require_peft,
    to_flat,
)
from ptv2kit.models.backbones import find_backbone
from ptv2kit.models.build import Unit, build_model
from ptv2kit.models.model import PromptedModel
from ptv2kit.spec.recipe import Recipe
from ptv2kit.training.load_run import load_run
from tests.projects import Project, project, read_json
from tests.tiny_backbones import FAMILIES, save_tiny

__all__ = ["project"]
SETTINGS: dict[str, dict[str, Any]] = {"mistral": {"sliding_window": None}}
"""A window would leave the prompt behind."""


def recipe_for(folder: Path, positions: str = "shifted", **prompt: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "recipe": "r",
            "task": "t",
            "backbone": {"name": str(folder), "dropout": 0.0, "attention_dropout": 0.0},
            "prompt": {"length": 5, "dropout": 0.0, "init_scale": 1.0, "positions": positions, **prompt},
            "train": {"epochs": 1, "learning_rate": 0.1},
        }
    )


def write_adapter(folder: Path, model: PromptedModel, recipe: Recipe) -> None:
    """What `ptv2kit export` writes, without a run."""
    spec = find_backbone(recipe.backbone)
    head = peft_head(spec, model.head)
    state = model.inference_state()
    tensors = {"prompt_embeddings": to_flat([state[f"prompt.layers.{index}"] for index in range(len(spec.layers))])}
    if head is not None:
        for part in ("weight", "bias"):
            tensors[f"base_model.{head.module}.{part}"] = state[f"head.linear.{part}"]
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(adapter_config(spec, 5, head)))


def batch(vocabulary: int) -> dict[str, Tensor]:
    torch.manual_seed(2)
    mask = torch.ones(3, 9, dtype=torch.long)
    mask[1, 6:] = 0
    mask[2, 3:] = 0
    return {"input_ids": torch.randint(5, vocabulary, (3, 9)), "attention_mask": mask}


def hidden_in_peft(folder: Path, adapter: Path, inputs: dict[str, Tensor]) -> Tensor:
    base = AutoModel.from_pretrained(folder)
    base.config.use_cache = True
    model = PeftModel.from_pretrained(base.eval(), str(adapter)).eval()
    with torch.no_grad():
        return model(**inputs).last_hidden_state[:, -9:]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of PEFT and transformers about its way of handing a cache over
@pytest.mark.parametrize("family", list(FAMILIES))
def test_what_peft_computes_for_each_family(tmp_path: Path, family: str) -> None:
    """The same where we export, something else or nothing where we refuse: a refusal that PEFT mends shows up here."""
    folder = tmp_path / "backbone"
    folder.mkdir()
    save_tiny(folder, family, **SETTINGS.get(family, {}))
    recipe = recipe_for(folder, "shifted" if family in RIGHT_IN_PEFT else "auto")
    spec = find_backbone(recipe.backbone)
    torch.manual_seed(1)
    model = build_model(recipe, "choices", spec, 2).eval()
    write_adapter(tmp_path / "adapter", model, recipe)
    inputs = batch(spec.config.vocab_size)
    with torch.no_grad():
        ours = model.encode(**inputs).hidden
    if family in RIGHT_IN_PEFT:
        require_peft(recipe, spec)
        theirs = hidden_in_peft(folder, tmp_path / "adapter", inputs)
        assert float(((ours - theirs) * inputs["attention_mask"][..., None]).abs().max()) < 1e-5
        return
    assert family in WRONG_IN_PEFT
    with pytest.raises(ConfigError, match="cannot be exported to PEFT: models of type"):
        require_peft(recipe, spec)
    try:
        theirs = hidden_in_peft(folder, tmp_path / "adapter", inputs)
    except (RuntimeError, ValueError):
        return
    assert float((ours - theirs).abs().max()) > 1e-2


WITHOUT_TOKEN_HEAD = {"megatron-bert", "rembert", "codegen", "gptj", "xglm"}
"""Of transformers' classes for tokens those with such a backbone do not exist, or were not compared."""
HEADS = [
    *((family, "token", TokenClassification) for family in sorted(RIGHT_IN_PEFT - WITHOUT_TOKEN_HEAD)),
    *((family, "start_end", AutoModelForQuestionAnswering) for family in ("bert", "electra", "roberta")),
    ("bert", "sequence", AutoModelForSequenceClassification),
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("family", "unit", "auto_class"), HEADS)
def test_heads_that_peft_carries(tmp_path: Path, family: str, unit: Unit, auto_class: Any) -> None:
    folder = tmp_path / "backbone"
    folder.mkdir()
    save_tiny(folder, family, **SETTINGS.get(family, {}))
    recipe = recipe_for(folder)
    spec = find_backbone(recipe.backbone)
    torch.manual_seed(1)
    model = build_model(recipe, unit, spec, 2 if unit == "start_end" else 3).eval()
    torch.nn.init.normal_(model.head.linear.bias)  # type: ignore[union-attr]
    write_adapter(tmp_path / "adapter", model, recipe)
    inputs = batch(spec.config.vocab_size)
    base = auto_class.from_pretrained(folder, num_labels=2 if unit == "start_end" else 3)
    base.config.use_cache = True
    with torch.no_grad():
        ours = model(**inputs)
        output = PeftModel.from_pretrained(base.eval(), str(tmp_path / "adapter")).eval()(**inputs)
    theirs = torch.stack([output.start_logits, output.end_logits], dim=-1) if unit == "start_end" else output.logits
    mask = torch.ones(3) if unit == "sequence" else inputs["attention_mask"]
    assert float(((ours - theirs[:, -9:].reshape(ours.shape)) * mask.reshape(*mask.shape, 1)).abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "prompt_tuning"}, "its method is prompt_tuning"),
        ({"method": "fine_tuning"}, "its method is fine_tuning"),
        ({"prompt": {"layers": [1]}}, "prompt.layers is"),
        ({"prompt": {"positions": "unshifted"}}, "it counts tokens from 0"),
        ({"backbone": {"quantization": "int8"}}, "quantized weights"),
    ],
)
def test_what_is_refused(backbone: Path, changes: dict[str, Any], message: str) -> None:
    content = recipe_for(backbone).model_dump(mode="json")
    for key, value in changes.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) else value
    recipe = Recipe.model_validate(content)
    with pytest.raises(ConfigError, match=message):
        require_peft(recipe, find_backbone(recipe.backbone))


def test_a_falcon_whose_attention_falls_with_distance_is_refused(tmp_path: Path) -> None:
    recipe = recipe_for(save_tiny(tmp_path, "falcon", alibi=True))
    with pytest.raises(ConfigError, match="'falcon' with alibi: PEFT gives its prompt places"):
        require_peft(recipe, find_backbone(recipe.backbone))


def test_the_flat_layout_and_back(backbone: Path) -> None:
    spec = find_backbone(recipe_for(backbone).backbone)
    layers = [torch.randn(2, 4, 5, 8) for _ in range(2)]
    flat = to_flat(layers)
    # Vector 3, layer 1, value, head 2.
    assert torch.equal(flat[3, (2 * 1 + 1) * 32 + 2 * 8 : (2 * 1 + 1) * 32 + 3 * 8], layers[1][1, 2, 3])
    for layer, again in zip(layers, from_flat(flat, spec.layers), strict=True):
        assert torch.equal(layer, again)
    with pytest.raises(ConfigError, match=r"has shape \(5, 127\). Expected \(length, 128\)"):
        from_flat(flat[:, :-1], spec.layers)


@pytest.fixture
def trained(project: Project) -> Path:
    assert project.run("train.epochs=1")[0] == 0
    return project.runs[0]


@pytest.mark.filterwarnings("ignore")
def test_a_run_goes_to_peft_and_back(project: Project, trained: Path, backbone: Path) -> None:
    assert main(["export", str(trained), "--format", "peft", "--to", "adapter"]) == 0
    assert "PEFT adapter (TOKEN_CLS), prompt of length 4, head of AutoModel" in project.capsys.readouterr().out
    assert "num_labels=5" in Path("adapter/README.md").read_text()
    loaded = load_run(trained)
    assert loaded.scheme.names == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    inputs = {"input_ids": torch.tensor([[2, 5, 7, 8, 3]]), "attention_mask": torch.ones(1, 5, dtype=torch.long)}
    base = TokenClassification.from_pretrained(backbone, num_labels=5)
    with torch.no_grad():
        theirs = PeftModel.from_pretrained(base.eval(), "adapter").eval()(**inputs).logits
        assert float((loaded.model(**inputs) - theirs).abs().max()) < 1e-5

    assert main(["import", "adapter", "--recipe", "recipe.yaml", "--to", "imported"]) == 0
    assert "head for O, B-LOC, I-LOC, B-PER, I-PER, in this order" in project.capsys.readouterr().out
    first, second = (load_file(folder / "prompt" / "prompt.safetensors") for folder in (trained, Path("imported")))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    with torch.no_grad():
        assert torch.equal(load_run(Path("imported")).model(**inputs), loaded.model(**inputs))
    code, _, err = project.run("init_from=imported", "train.epochs=1", "--runs-dir", "further")
    assert code == 0
    assert "and the head of tiny" in err


def test_the_target_is_never_overwritten(project: Project, trained: Path) -> None:
    assert main(["export", str(trained), "--to", "adapter", "--json"]) == 0
    assert json.loads(project.capsys.readouterr().out)["task_type"] == "TOKEN_CLS"
    assert main(["export", str(trained), "--to", "adapter"]) == 2
    assert "'adapter' is there already" in project.capsys.readouterr().err
    assert main(["export", "nowhere", "--to", "other"]) == 2
    assert "'nowhere' is not the folder of a run" in project.capsys.readouterr().err
    assert not Path("other").exists()
    assert not list(Path().glob(".*adapter*"))


def official(length: int = 4, width: int = 2 * 2 * 32, projection: bool = False) -> dict[str, Tensor]:
    """A checkpoint as the official scripts save it: the backbone too."""
    torch.manual_seed(3)
    tensors = {"bert.embeddings.word_embeddings.weight": torch.randn(13, 32)}
    if not projection:
        return tensors | {"prefix_encoder.embedding.weight": torch.randn(length, width)}
    return tensors | {
        "prefix_encoder.embedding.weight": torch.randn(length, 32),
        "prefix_encoder.trans.0.weight": torch.randn(16, 32),
        "prefix_encoder.trans.0.bias": torch.randn(16),
        "prefix_encoder.trans.2.weight": torch.randn(width, 16),
        "prefix_encoder.trans.2.bias": torch.randn(width),
    }


@pytest.mark.parametrize("projection", [False, True])
def test_a_checkpoint_of_the_official_code(project: Project, projection: bool) -> None:
    tensors = official(projection=projection)
    Path("official").mkdir()
    torch.save(
        tensors | {"classifier.weight": torch.ones(5, 32), "classifier.bias": torch.zeros(5)},
        "official/pytorch_model.bin",
    )
    assert main(["import", "official", "--recipe", "recipe.yaml", "--to", "runs/imported", "--json"]) == 0
    facts = json.loads(project.capsys.readouterr().out)
    assert facts["labels"] == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    made = load_file("runs/imported/prompt/prompt.safetensors")
    prompt = tensors["prefix_encoder.embedding.weight"]
    if projection:
        layers = torch.nn.Sequential(torch.nn.Linear(32, 16), torch.nn.Tanh(), torch.nn.Linear(16, 128))
        layers.load_state_dict({name[21:]: value for name, value in tensors.items() if "trans" in name})
        prompt = layers(prompt).detach()
    # As the official `get_prompt` does it: [batch, length, layers · 2, heads, head_dim] → [layers · 2, batch, …].
    theirs = prompt.view(1, 4, 4, 4, 8).permute(2, 0, 3, 1, 4).split(2)
    for index, layer in enumerate(theirs):
        assert torch.allclose(made[f"prompt.layers.{index}"], layer[:, 0], atol=1e-6)
    assert read_json(Path("runs/imported/prompt/prompt.json"))["imported_from"].endswith("pytorch_model.bin")


def test_a_prompt_without_a_head_is_a_start_only(project: Project) -> None:
    save_file(official(), "model.safetensors")
    assert main(["import", "model.safetensors", "--recipe", "recipe.yaml", "--to", "imported"]) == 0
    assert "no head" in project.capsys.readouterr().out
    with pytest.raises(ConfigError, match="has a prompt and no head"):
        load_run(Path("imported"))
    code, _, err = project.run("init_from=imported", "train.epochs=1")
    assert code == 0
    assert "heads are fresh" in err


@pytest.mark.parametrize(
    ("tensors", "words", "code", "message"),
    [
        (official(length=5), [], 2, "has length 5, but prompt.length is 4"),
        (official(width=127), [], 2, "has shape (4, 127). Expected (length, 128)"),
        ({"bert.x": torch.ones(1)}, [], 3, "holds no prompt in front of every layer"),
        (
            {**official(projection=True), "prefix_encoder.trans.2.bias": None},
            [],
            3,
            "lacks 'prefix_encoder.trans.2.bias'",
        ),
        ({**official(), "classifier.weight": torch.ones(7, 32), "classifier.bias": torch.ones(7)}, [], 2, "has 7 rows"),
        (official(), ["method=prompt_tuning"], 2, "method is prompt_tuning"),
        (official(), ["prompt.layers=[1]"], 2, "covers all layers"),
        (official(), ["prompt.attention=separate"], 2, "in one softmax, but prompt.attention is separate"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    project: Project, tensors: dict[str, Any], words: list[str], code: int, message: str
) -> None:
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, "model.safetensors")
    assert main(["import", "model.safetensors", *words, "--recipe", "recipe.yaml", "--to", "imported"]) == code
    assert message in project.capsys.readouterr().err
    assert not Path("imported").exists()


class Dangerous:
    """Unpickling it would make a file."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("owned"),)


def test_no_pickle_is_run(project: Project) -> None:
    torch.save({"prefix_encoder.embedding.weight": Dangerous()}, "model.bin")
    assert main(["import", "model.bin", "--recipe", "recipe.yaml", "--to", "imported"]) == 3
    assert "cannot be read" in project.capsys.readouterr().err
    assert not Path("owned").exists()


def test_other_adapters_of_peft_are_refused(project: Project) -> None:
    Path("lora").mkdir()
    save_file({"prompt_embeddings": torch.ones(4, 32)}, "lora/adapter_model.safetensors")
    Path("lora/adapter_config.json").write_text('{"peft_type": "PROMPT_TUNING"}')
    assert main(["import", "lora", "--recipe", "recipe.yaml", "--to", "imported"]) == 3
    assert "peft_type is PROMPT_TUNING" in project.capsys.readouterr().err


HEAD = {"classifier.weight": torch.ones(5, 32), "classifier.bias": torch.zeros(5)}
WRAPPED = {
    "DataParallel": lambda whole: {f"module.{name}": tensor for name, tensor in whole.items()},
    "Lightning": lambda whole: {"state_dict": {f"model.{name}": each for name, each in whole.items()}, "epoch": 3},
    "a training loop": lambda whole: {"model_state_dict": whole, "epoch": 3},
    "torch.compile": lambda whole: {f"_orig_mod.{name}": tensor for name, tensor in whole.items()},
}


@pytest.mark.parametrize("wrapper", WRAPPED)
def test_the_head_is_found_in_every_wrapper_of_a_checkpoint(project: Project, wrapper: str) -> None:
    torch.save(WRAPPED[wrapper](official() | HEAD), "pytorch_model.bin")
    assert main(["import", "pytorch_model.bin", "--recipe", "recipe.yaml", "--to", "imported", "--json"]) == 0
    assert len(json.loads(project.capsys.readouterr().out)["labels"]) == 5
    assert torch.equal(load_file("imported/prompt/prompt.safetensors")["head.linear.weight"], HEAD["classifier.weight"])


def test_the_head_of_an_adapter_that_saved_it_as_a_module_is_found(project: Project) -> None:
    Path("adapter").mkdir()
    saved = {f"base_model.{name.replace('.', '.modules_to_save.default.')}": each for name, each in HEAD.items()}
    torch.save({"prompt_embeddings": torch.randn(4, 128)} | saved, "adapter/adapter_model.bin")
    Path("adapter/adapter_config.json").write_text('{"peft_type": "PREFIX_TUNING"}')
    assert main(["import", "adapter", "--recipe", "recipe.yaml", "--to", "imported", "--json"]) == 0
    assert len(json.loads(project.capsys.readouterr().out)["labels"]) == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({**official(), "tagger.weight": torch.ones(5, 32)}, "has a prompt and 'tagger.weight', which is not a head"),
        ({"x.weight": torch.ones(2), "y.weight": torch.ones(2)}, "Found 'x.weight', 'y.weight'"),
        ({"optimizer": {}, "epoch": 3}, "Found the keys 'optimizer', 'epoch'"),
    ],
)
def test_what_a_file_holds_instead_is_named(project: Project, content: dict[str, Any], message: str) -> None:
    torch.save(content, "pytorch_model.bin")
    assert main(["import", "pytorch_model.bin", "--recipe", "recipe.yaml", "--to", "imported"]) == 3
    assert message in project.capsys.readouterr().err
    assert not Path("imported").exists()
