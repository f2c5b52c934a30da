"""`ptv2kit plan`, the plan of a dry run, and the recipes on GLM."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ptv2kit.cli.main import main
from ptv2kit.errors import DataError
from ptv2kit.models.backbones import find_backbone, load_backbone
from ptv2kit.models.checkpoints import load_tokenizer
from ptv2kit.models.glm import tiny
from ptv2kit.spec.load import load_recipe
from ptv2kit.spec.recipe import Backbone
from tests.projects import Project, project

__all__ = ["project"]

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes"
GLM = sorted(path.name for path in RECIPES.glob("glm-*.yaml"))


@pytest.fixture
def folder(project: Project) -> Path:
    """Of a project whose task gives no names of labels."""
    project.change("tiny.yaml", ", names: [LOC, PER]", "")
    project.change("recipe.yaml", "batch_size: 4", "batch_size: 5")
    return project.folder


def plan_json(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["plan", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_plan_counts_rows_steps_parameters_and_bytes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_json(capsys, "recipe.yaml", "--gpu", "l4", "--price", "2")
    assert plan["rows"] == {"tiny": 12}
    assert plan["duration"]["steps"] == 3 * 3
    assert plan["duration"]["cost"] == pytest.approx(2 * plan["duration"]["hours"])
    assert plan["parameters"]["prompt"] == 2 * 2 * 4 * 32
    assert plan["parameters"]["head"] == 32 * 33
    assert "assumed 32 labels for task 'tiny'" in plan["assumptions"]
    assert plan["chosen"] == {"strategy": "none", "offload": "none", "processes": 1, "reason": "there is one process"}
    names = [(option["strategy"], option["offload"]) for option in plan["strategies"]]
    plain = [(name, "none") for name in ("none", "ddp", "zero1", "zero2", "zero3")]
    assert names == [*plain, ("zero3", "cpu")]
    for option in plan["strategies"]:
        sizes = option["bytes"]
        assert sizes["total"] == pytest.approx(sum(v for k, v in sizes.items() if k not in ("host", "total")))
        assert option["activations"]["checkpointed"] < option["activations"]["plain"]
        assert option["fits"]
    assert list(folder.glob("runs/*")) == []


def test_steps_are_unknown_until_somebody_says_how_many_rows_there_are(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "rows.jsonl").unlink()
    assert main(["plan", "recipe.yaml"]) == 0
    out = capsys.readouterr().out
    assert "steps: unknown, because the training rows of tiny are not on this machine; say --rows N" in out
    assert "time: unknown without the number of rows" in out
    assert main(["plan", "recipe.yaml", "--rows", "12", "--memory", "4"]) == 0
    out = capsys.readouterr().out
    assert "steps: 9 (3 epochs of 12 rows, batches of 5)" in out
    assert "time: unknown, because the peak rate of GPU with 4 GiB is not known" in out


def test_without_a_gpu_the_time_on_the_processor_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["plan", "recipe.yaml"]) == 0
    assert " minutes on 1 x h100; 0.0 minutes on this machine's processor; less" in capsys.readouterr().out
    plan = plan_json(capsys, "recipe.yaml", "--rows", "120000")
    # 24,000 batches of 5 an epoch, two layers, a millisecond each: the tiny model computes next to nothing
    assert plan["hours_here"] == pytest.approx(3 * 24_000 * 2 * 1e-3 / 3600) == plan["duration"]["hours"]
    assert plan_json(capsys, "recipe.yaml", "--gpu", "l4")["hours_here"] is None
    assert main(["plan", "recipe.yaml", "--rows", "12000000"]) == 0  # four hours
    assert "a first look: limit.train=1000000 limit.validation=500 takes about 20 minutes" in capsys.readouterr().out


def test_what_cannot_fit_is_warned_about(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "recipe.yaml", "--memory", "1.5006", "train.batch_size=64"]) == 0
    out = capsys.readouterr().out
    assert (
        "warning: none with a micro-batch of 64 does not fit GPU with 1.5006 GiB: set train.micro_batch_size to" in out
    )
    assert main(["plan", "recipe.yaml", "--memory", "1", "--gpus", "2", "distributed.strategy=ddp"]) == 0
    out = capsys.readouterr().out
    assert "warning: ddp with a micro-batch of 3 does not fit" in out
    assert "nothing that can be set in the recipe makes it fit" in out
    assert "zero3" not in out.partition("warning: ")[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gpu", "h20"], "--gpu h20: its memory is not known here"),
        (["--rows", "0"], "--rows must be more than 0"),
        (["--price", "-1"], "--price must be more than 0"),
        (["train.max_length=80"], "exceed the 64 positions"),
        (["prompt.layers=9.."], "is beyond the backbone's 2 layers"),
    ],
)
def test_what_cannot_be_planned_ends_with_2(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["plan", "recipe.yaml", *words]) == 2
    assert message in capsys.readouterr().err


def test_lines_fit_a_narrow_terminal(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["plan", "recipe.yaml", "--gpus", "8"]) == 0
    table = capsys.readouterr().out.split("GiB on each of 8 x h100")[1].split("strategy:")[0]
    assert "…" not in table
    assert "zero3 + cpu" in table
    assert all(len(line) <= 80 for line in table.splitlines())


def test_a_dry_run_without_the_checkpoint_prints_plan_and_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PTV2KIT_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert main(["run", str(RECIPES / "glm-2b-boolq.yaml"), "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("recipe: glm-2b-boolq\n")
    assert "\n---\ntask: boolq\n" in out
    assert "parameters: 1,920,122,880 frozen" in err
    assert "backbone 'THUDM/glm-2b' is not on this machine: planned with its published sizes" in err
    assert "of 79.0 GiB" in err or torch.cuda.is_available()


def test_published_sizes_are_for_planning_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **options: object) -> None:
        raise OSError("no network" if not options.get("local_files_only") else "not in the cache")

    monkeypatch.setattr("transformers.PretrainedConfig.get_config_dict", refuse)
    assert not find_backbone(Backbone(name="THUDM/glm-10b"), planning=True).at_hand
    with pytest.raises(DataError, match="no network"):
        find_backbone(Backbone(name="THUDM/glm-10b"))
    with pytest.raises(DataError, match="no network"):
        find_backbone(Backbone(name="THUDM/glm-large"), planning=True)


def test_recipes_on_glm_expect_the_papers_scores(shared: Path) -> None:
    names = {"glm-xlarge-2b": "2b", "glm-xxlarge-10b": "10b"}
    metrics = {"f1a": "multirc_f1a", "f1": "record_f1", "accuracy": "accuracy"}
    with (shared / "paper" / "tables.csv").open() as file:
        published = {
            f"glm-{names[row['backbone']]}-{row['task']}.yaml": (metrics[row["metric"]], float(row["value"]))
            for row in csv.DictReader(file)
            if row["table"] == "2" and row["method"] == "p_tuning_v2" and row["backbone"] in names
        }
    found = {name: load_recipe(RECIPES / name).recipe.expect for name in GLM}
    assert len(published) == 16
    assert {name: [(item.metric, item.value) for item in expect] for name, expect in found.items()} == {
        name: [value] for name, value in published.items()
    }
    assert {item.source for expect in found.values() for item in expect} == {"paper, table 2"}


def test_the_tiny_glm_is_the_same_wherever_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights: list[dict[str, torch.Tensor]] = []
    for cache in ("first", "second"):
        monkeypatch.setenv("PTV2KIT_CACHE", str(tmp_path / cache))
        state = torch.get_rng_state()
        folder = tiny.tiny_folder()
        assert torch.equal(torch.get_rng_state(), state)
        assert folder == tiny.tiny_folder()
        assert [path.name for path in (tmp_path / cache).iterdir()] == [folder.name]
        spec = find_backbone(Backbone(name=tiny.NAME))
        assert spec.config.model_type == "original_glm"
        weights.append(load_backbone(spec).state_dict())
        tokenizer = load_tokenizer(spec, words=False)
        assert tokenizer.decode(tokenizer("Zoë → 東京", add_special_tokens=False)["input_ids"]) == "Zoë → 東京"
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_recipe_on_glm_runs_from_end_to_end_on_the_tiny_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PTV2KIT_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "data" / "boolq"
    data.mkdir(parents=True)
    for split in ("train", "validation"):
        rows = [
            {"question": f"is {word} round", "passage": f"{word} is {'' if label else 'not '}round.", "label": label}
            for word in ("a ball", "a box", "the moon")
            for label in (0, 1)
        ]
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["run", str(RECIPES / "glm-10b-boolq.yaml"), "--data-root", "data", "--json", "--quiet"]
    code = main([*words, "backbone.name=glm-tiny-random", "train.epochs=1", "train.max_length=64", "expect=[]"])
    result = json.loads(capsys.readouterr().out)
    assert code == 0
    assert result["status"] == "finished"
    assert (Path(result["run"]) / "prompt" / "prompt.safetensors").is_file()


def test_a_verbalizer_has_no_head_to_train(capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_json(capsys, str(RECIPES / "mini-sst2.yaml"), f"task={RECIPES.parent}/tasks/sst2_cloze.yaml")
    assert plan["parameters"]["head"] == 0
    assert main(["plan", str(RECIPES / "mini-sst2.yaml"), f"task={RECIPES.parent}/tasks/sst2_cloze.yaml"]) == 0
    assert "in front of every layer\n" in capsys.readouterr().out
