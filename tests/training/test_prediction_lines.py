"""The lines of a run's predictions: what was found, what is right, and what the model read of the row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ptv2kit.data.schemes import build_scheme
from ptv2kit.data.schemes.records import Prediction
from ptv2kit.training.evaluate import prediction_lines
from tests.data.small_tasks import ROWS, SECTIONS, data_of, subwords_of, task_of, tokenizers

__all__ = ["tokenizers"]
ROW = ROWS[3]
STORY = "ada is so the maybe the maybe the maybe the maybe in rome."
SAID: dict[str, dict[str, Any]] = {
    "classes": {"text": ROW["text"], "pair": ROW["pair"]},
    "number": {"text": ROW["text"]},
    "choices": {"text": ROW["text"], "one": "so rome", "two": "left"},
    "iob2": {"words": ["ada", "met", "rome"]},
    "roles": {"words": ["ada", "met", "rome"], "verb": 1},
    "spans": {"story": [*STORY[:-1].split(), "."]},
    "start_end": {"story": STORY},
    "cloze": {"pair": ROW["pair"], "text": ROW["text"]},
}


@pytest.mark.parametrize("kind", SAID)
def test_a_line_has_what_the_model_read(kind: str, tokenizers: dict[str, Path]) -> None:
    task = task_of(SECTIONS[kind])
    data = data_of(task, [ROW])
    scheme = build_scheme(task, subwords_of(tokenizers["bert"]), data.rows)
    [line] = prediction_lines(scheme, data.rows, [Prediction(0, "found", 0.5, "right")]).splitlines()
    found = json.loads(line)
    assert found["input"] == SAID[kind]
    assert (found["location"], found["label"], found["reference"]) == ("rows.jsonl:1", "found", "right")


def test_long_texts_are_cut(tokenizers: dict[str, Path]) -> None:
    task = task_of(SECTIONS["number"])
    data = data_of(task, [{"text": "ada " * 1000, "verb": 1}])
    scheme = build_scheme(task, subwords_of(tokenizers["bert"]), data.rows)
    text = json.loads(prediction_lines(scheme, data.rows, [Prediction(0, 1.0, None, 1.0)]))["input"]["text"]
    assert len(text) == 300
    assert text.endswith("ada ada…")
