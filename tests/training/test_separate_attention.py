"""`prompt.attention: separate`: trained, kept, loaded, continued; and where it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ptv2kit.cli.main import main
from ptv2kit.models.prompts import DeepPrompt
from ptv2kit.training.load_run import load_run
from ptv2kit.training.load_together import load_together
from tests.projects import Project, project, read_json

__all__ = ["project"]
SEPARATE = "prompt.attention=separate"


def newest(project: Project, *others: Path) -> Path:
    return next(run for run in project.runs if run not in others)


@pytest.mark.parametrize("method", ["p_tuning_v2", "prefix_tuning"])
def test_it_is_kept_and_loaded(project: Project, method: str) -> None:
    code, _, err = project.run(SEPARATE, f"method={method}", "prompt.init=tokens")
    assert code == 0, err
    run = newest(project)
    assert read_json(run / "prompt" / "prompt.json")["prompt_attention"] == "separate"
    values = [tensor[1] for tensor in load_file(run / "prompt" / "prompt.safetensors").values() if tensor.dim() == 4]
    assert values
    assert all(each.abs().sum() > 0 for each in values)
    prompt = load_run(run, device="cpu").model.prompt
    assert isinstance(prompt, DeepPrompt)
    assert prompt.separate
    score = read_json(run / "results.json")["metrics"]["validation"]["span_f1"]
    assert main(["evaluate", str(run), "--json"]) == 0
    assert str(score)[:8] in project.capsys.readouterr().out
    assert main(["export", str(run), "--to", "adapter"]) == 2
    assert "softmax of its own (prompt.attention: separate), which PEFT" in project.capsys.readouterr().err


def test_it_answers_beside_a_run_of_the_paper(project: Project) -> None:
    assert project.run("train.epochs=1")[0] == 0
    joint = newest(project)
    assert project.run(SEPARATE, "train.epochs=1", "prompt.length=3")[0] == 0
    separate = newest(project, joint)
    both = load_together({"joint": joint, "separate": separate}, device="cpu")
    text = {"words": ["ada", "met", "alan", "in", "paris"]}
    found = both.predict([("separate", text), ("joint", text), ("separate", text)])
    for answer, run in zip(found, (separate, joint, separate), strict=True):
        [alone] = load_run(run, device="cpu").predict([text])
        assert answer["label"] == alone["label"]
        assert answer["probability"] == pytest.approx(alone["probability"], abs=1e-5)


def test_a_run_starts_from_a_prompt_of_its_kind(project: Project) -> None:
    assert project.run(SEPARATE, "train.epochs=1")[0] == 0
    first = newest(project)
    code, _, err = project.run(SEPARATE, f"init_from={first}", "train.learning_rate=1e-9", "train.epochs=1")
    assert code == 0, err
    second = newest(project, first)
    before, after = (load_file(run / "prompt" / "prompt.safetensors") for run in (first, second))
    torch.testing.assert_close(before["prompt.layers.0"], after["prompt.layers.0"])
    code, _, err = project.run(f"init_from={first}")
    assert code == 2
    message = f"init_from: the prompt in '{first}' was trained with prompt.attention: separate, but it is joint"
    assert message in err
    assert project.run("train.epochs=1")[0] == 0
    joint = newest(project, first, second)
    code, _, err = project.run(SEPARATE, f"init_from={joint}")
    assert code == 2
    assert "was trained with prompt.attention: joint, but it is separate" in err
