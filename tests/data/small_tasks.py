"""A few rows that tasks of every scheme can read, such tasks, and tokenizers for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ptv2kit.data.rows import Row
from ptv2kit.data.sources import SplitData
from ptv2kit.data.templates import task_rows
from ptv2kit.data.tokens import Filling, Subwords
from ptv2kit.models.glm.tiny import tiny_folder
from ptv2kit.spec.task import AnyTask, Task
from tests.tiny_language_models import save_language_tokenizer

TASKS: TypeAdapter[AnyTask] = TypeAdapter(Task)
ROWS: list[dict[str, Any]] = [
    {"text": f"{who} met alan, so " * more, "pair": f"is it {where}?", "label": "yes" if who == "ada" else "no"}
    | {"words": [who, *["met"] * more, where], "tags": ["B-PER", *["O"] * more, "B-LOC"], "verb": more}
    | {"story": f"{who} is so " + "the maybe " * 4 * more + f"in {where}.", "answer": where, "group": "ä“1”"}
    | {"spans": [[0, len(who), "PER"]]}
    | {"one": f"so {where}", "two": "left", "right": more % 2, "golds": ["paris", "rome"]}
    for who in ("ada", "alan")
    for where in ("paris", "rome")
    for more in (1, 2, 3)
]
CLASSES = {"scheme": "classes", "column": "label", "names": ["no", "yes"]}
CLOZE: dict[str, Any] = {
    "input": {"text": "{pair} {text} {mask}", "max_length": 16},
    "labels": CLASSES,
    "head": "verbalizer",
    "verbalizer": {"no": " no", "yes": [" yes", " so"]},
}
SECTIONS: dict[str, dict[str, Any]] = {
    "classes": {"input": {"text": "{text}", "pair": "{pair}", "max_length": 12}, "labels": CLASSES},
    "grouped": {
        "input": {"text": "{text}", "max_length": 12},
        "labels": {**CLASSES, "group": {"by": "{group}", "candidate": "{one}", "golds": "golds"}},
    },
    "labels": {
        "input": {"text": "{text}", "pair": "{pair}", "max_length": 12},
        "labels": {"scheme": "labels", "column": "golds", "names": ["paris", "rome", "oslo"]},
    },
    "number": {"input": {"text": "{text}", "max_length": 12}, "labels": {"scheme": "number", "column": "verb"}},
    "choices": {
        "input": {"text": "{text}", "choices": ["{one}", "{two}"], "max_length": 16},
        "labels": {"scheme": "choices", "column": "right"},
    },
    "iob2": {"input": {"words": "words", "max_length": 8}, "labels": {"scheme": "iob2", "column": "tags"}},
    "tags": {
        "input": {"words": "words", "max_length": 8, "stride": 2},
        "labels": {"scheme": "tags", "column": "tags", "names": ["O", "B-PER", "B-LOC"]},
    },
    "spans": {
        "input": {"text": "story", "max_length": 8, "stride": 2},
        "labels": {"scheme": "spans", "column": "spans", "names": ["PER"]},
    },
    "roles": {
        "input": {"words": "words", "append": {"column": "words", "at": "verb"}, "max_length": 8},
        "labels": {"scheme": "iob2", "column": "tags", "names": {"PER": "A0", "LOC": "A1"}},
        "metrics": ["srl_f1"],
    },
    "start_end": {
        "input": {"question": "is it so?", "context": "{story}", "max_length": 20, "stride": 4},
        "labels": {"scheme": "start_end", "text": "answer"},
    },
    "cloze": CLOZE,
    "cloze choices": {
        "input": {"text": "{text} {mask}", "max_length": 24},
        "labels": {"scheme": "choices", "column": "right"},
        "head": "verbalizer",
    },
    "cloze of several tokens": {**CLOZE, "verbalizer_tokens": "any", "verbalizer": {"no": " no", "yes": " ada is so"}},
}
SECTIONS["cloze choices"]["input"]["choices"] = ["{one}", "{two}"]
FILLINGS: dict[Filling, str] = {"masks": "bert", "continuation": "gpt2", "blank": "glm"}


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders by family."""
    folders = {family: tmp_path_factory.mktemp(family) for family in ("bert", "gpt2")}
    for family, folder in folders.items():
        save_language_tokenizer(family, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("glm")))
        return {**folders, "glm": tiny_folder()}


def subwords_of(folder: Path, filling: Filling = "masks", max_length: int = 24) -> Subwords:
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Subwords(tokenizer, max_length, filling)


def task_of(section: dict[str, Any], **keys: Any) -> AnyTask:
    data = {"source": "jsonl", "splits": {"train": "a", "validation": "b"}}
    return TASKS.validate_python({"task": "t", "data": data, **section, **keys})


def data_of(task: AnyTask, values: list[dict[str, Any]]) -> SplitData:
    plain = [Row(value, f"rows.jsonl:{number}") for number, value in enumerate(values, 1)]
    return SplitData("train", tuple(task_rows(task, plain)), "rows.jsonl", "")
