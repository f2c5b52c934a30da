"""Recipes, tasks and suites from strangers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.security.command import DEEP, QUICK, Ending, requires_message, run
from tests.security.generators import damaged

ROOT = Path(__file__).parents[2]
TASK = b"""task: tiny
description: "two kinds"
data: {source: jsonl, splits: {train: rows.jsonl, validation: "dev/*.jsonl", test: {a: t.jsonl}}}
derive: {whole: {text: "{a} {b}", replace: {"x": "{a}"}}, kind: {column: label, map: {"0": no, "1": yes}}}
where: {a: [one, two]}
input: {text: "{whole}", pair: "{b.c}", max_length: 16}
labels: {scheme: classes, column: kind, names: [no, yes]}
metrics: [accuracy]
"""
RECIPE = b"""recipe: one
description: "prompt of ${prompt.length}"
task: tiny.yaml
backbone: {name: mini}
prompt: {length: 4, init: tokens}
train: {epochs: 2, batch_size: 4, learning_rate: 5e-3, seed: 11}
expect: [{metric: accuracy, split: validation, value: 50, tolerance: 5}]
"""
SUITE = b"""suite: many
recipe: one.yaml
grid: {train.learning_rate: [1e-2, 5e-3], prompt.length: [4, 8]}
"""
WHOLE = {"tiny.yaml": TASK, "one.yaml": RECIPE, "many.yaml": SUITE}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in WHOLE.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def looked_at(folder: Path, name: str, content: bytes) -> Ending:
    path = folder / name
    path.write_bytes(content)
    ending = run("validate", str(path))
    requires_message(ending, path)
    requires_message(run("explain", str(path)), path)
    path.write_bytes(WHOLE.get(name, b""))
    return ending


def check_damaged(folder: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(WHOLE)))
    looked_at(folder, name, data.draw(damaged(WHOLE[name])))


@QUICK
@given(data=st.data())
def test_a_damaged_file_ends_with_a_message(folder: Path, data: st.DataObject) -> None:
    check_damaged(folder, data)


@pytest.mark.night
@DEEP
@given(data=st.data())
def test_many_damaged_files(folder: Path, data: st.DataObject) -> None:
    check_damaged(folder, data)


def doubling(levels: int) -> str:
    return "".join(f"a{level}: ${{a{level + 1}}}${{a{level + 1}}}\n" for level in range(levels)) + f"a{levels}: x\n"


NIGHT = pytest.mark.night
BOMBS = {
    "references that double": (doubling(60), "references go in a circle, or deeper than 32 levels"),
    "references that double, in 25 levels": (doubling(25), "references expand to more than 1,000,000 characters"),
    "lists that double": (
        "".join(f"a{level}: ['${{a{level + 1}}}', '${{a{level + 1}}}']\n" for level in range(25)) + "a25: x\n",
        "references",
    ),
    "a chain of references": (
        "".join(f"a{level}: ${{a{level + 1}}}\n" for level in range(5000)) + "a5000: x\n",
        "references go in a circle, or deeper than 32 levels",
    ),
    "a value within itself": ("a: {b: '${a}'}\n", "references go in a circle"),
    "two values within each other": ("a: '${b.c}'\nb: '${a.c}'\n", "references"),
    "billion laughs": ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "anchors (&name) are not allowed"),
    "a merge key": ("a: {<<: {b: c}}\n", "merge keys (<<) are not allowed"),
    "a tag": ("a: !!python/object/apply:os.system [id]\n", "tags ("),
    "a tag of a key": ("!!python/name:os.system a: 1\n", "tags ("),
    "flow lists": ("a: " + "[" * 100_000, "nested deeper than 32 levels"),
    "flow mappings": ("a: " + "{a: " * 100_000, "nested deeper than 32 levels"),
    "block lists": ("a:\n " + "- " * 100_000, "nested deeper than 32 levels"),
    "half of a surrogate pair": ('a: "\\uD83D"\n', "half of a surrogate pair"),
    "half of a pair in a key": ('"\\uD83D": 1\n', "half of a surrogate pair"),
    "no character": ('a: "\\UFFFFFFFF"\n', "no valid YAML"),
    "a version of many digits": ("%YAML 1." + "1" * 5000 + "\n---\na: 1\n", "no valid YAML"),
    "the environment": ("a: ${oc.env:PATH}\n", "only '${key}' is allowed, no resolver and no escape"),
    "a resolver in a reference": ("a: ${oc.decode:${b}}\nb: x\n", "no resolver and no escape"),
    "a control character": ("a: \x01\n", "is not allowed in YAML"),
    "a byte order mark inside": ("task: a\n\ufeffb: c\n", "unknown key"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["recipe", *(pytest.param(name, marks=NIGHT) for name in ("task", "suite"))])
@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_end_with_a_message(tmp_path: Path, bomb: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, message = BOMBS[bomb]
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/the-secret-of-the-environment")
    content = text.replace("\na: 1\n", f"\n{kind}: x\na: 1\n") if text.startswith("%") else f"{kind}: x\n{text}"
    ending = looked_at(tmp_path, f"{kind}.yaml", content.encode())
    assert ending.code == 2
    assert message in ending.err
    assert "the-secret-of-the-environment" not in ending.err + ending.out


def test_extends_has_an_end(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number}.yaml").write_text(f"extends: {number + 1}.yaml\n")
    (tmp_path / "40.yaml").write_text("recipe: last\n")
    ending = run("validate", str(tmp_path / "0.yaml"))
    assert ending.code == 2
    assert "'extends' goes over more than 32 files" in ending.err


@pytest.mark.parametrize("name", ['"a\\0b.yaml"', "a" * 300, "/dev/null/x.yaml", "/dev", "../" * 500 + "x.yaml"])
@pytest.mark.parametrize("key", ["extends", "task"])
def test_names_that_no_file_has(tmp_path: Path, key: str, name: str) -> None:
    text = RECIPE.decode().replace("task: tiny.yaml\n", "") + f"{key}: {name}\n"
    assert looked_at(tmp_path, "recipe.yaml", text.encode()).code == 2


def test_a_device_has_no_end() -> None:
    ending = run("validate", "/dev/zero")
    assert ending.code == 2
    assert "/dev/zero: error: the file has more than 1,000,000 bytes" in ending.err


@pytest.mark.parametrize(
    "text",
    ["{a.__class__}", "{a!r}", "{a:>1000000000}", "{}", "{0}", "{a[0]}", "{a" * 1000, "{" * 1000, "{{{a}}}" * 1000],
)
def test_templates_are_names_of_columns(tmp_path: Path, text: str) -> None:
    (tmp_path / "rows.jsonl").write_text('{"a": "b", "label": "no"}\n' * 2)
    task = (
        "task: t\ndata: {source: jsonl, splits: {train: rows.jsonl, validation: rows.jsonl}}\n"
        f"input: {{text: {text!r}, max_length: 8}}\nlabels: {{scheme: classes, column: label, names: [no, yes]}}\n"
    )
    path = tmp_path / "task.yaml"
    path.write_text(task)
    ending = run("validate", str(path), "--data")
    requires_message(ending, path)
    assert len(ending.err) < 20_000


@pytest.mark.slow
@QUICK
@given(value=st.text(max_size=40))
def test_what_stands_behind_an_override_never_escapes(folder: Path, value: str) -> None:
    ending = run("explain", str(folder / "one.yaml"), f"description={value}", f"train.seed={value}")
    assert "Traceback" not in ending.err
    assert "internal error" not in ending.err, ending


def test_a_colon_and_a_digit_in_a_name_are_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a:²:b.yaml"
    path.write_text("recipe: x\nb: 1\nc: 2\n")
    requires_message(run("validate", str(path)), path)
