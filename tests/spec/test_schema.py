"""The JSON Schema that editors use, and the key reference."""

from __future__ import annotations

import json

import pytest

from ptv2kit.cli.main import main
from ptv2kit.spec.schema import json_schema, key_reference


def test_sections_of_one_kind_require_nothing_since_a_parent_may_bring_it() -> None:
    schema = json_schema("recipe")
    assert "required" not in schema
    assert not any("required" in section for section in schema["$defs"].values())
    assert "extends" in schema["properties"]


def test_the_kinds_of_a_task_are_told_apart_by_what_they_require() -> None:
    schema = json_schema("task")
    labels = [schema["$defs"][f"{name}Labels"] for name in ("Classes", "Choices", "Iob2", "StartEnd")]
    assert [section["properties"]["scheme"]["const"] for section in labels] == [
        "classes",
        "choices",
        "iob2",
        "start_end",
    ]
    assert all("scheme" in section["required"] for section in labels)
    assert all(section["additionalProperties"] is False for section in schema["$defs"].values())


@pytest.mark.parametrize(
    "row",
    [
        "| `task` | text | required | Name of the task. |",
        "| `expand[].column` | text | required |",
        "| `input.stride` | integer ≥ 0 | `128` |",
        "| `labels.unanswerable` | `true`, `false` | `false` |",
        "| `source` | `csv`, `tsv` | required |",
        "| `layout` | `conll12`, `propbank` | required |",
    ],
)
def test_rows_of_the_key_reference(row: str) -> None:
    assert row in key_reference("task")


def test_the_verb_prints_both(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "recipe"]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema("recipe")
    assert main(["schema", "recipe", "--markdown"]) == 0
    out = capsys.readouterr().out
    assert "| `train.learning_rate` | number > 0 | required |" in out
    assert "| `prompt.dropout` | number ≥ 0, < 1 | `0.1` |" in out
