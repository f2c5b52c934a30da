"""The paper's comparison of methods in the docs: each row's fragment is trained."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.projects import Project, project, read_json

__all__ = ["project"]
PAGE = (Path(__file__).parents[2] / "docs" / "methods.md").read_text()
TABLE = PAGE[PAGE.index("## The paper's comparison") :].split("\n## ")[0]
FRAGMENTS = re.findall(r"`(\{method: .*\})` \|$", TABLE, re.M)


def test_the_table_is_that_of_the_paper() -> None:
    rows = [line for line in TABLE.splitlines() if line.startswith("| ")]
    assert len(FRAGMENTS) == len(rows) - 1 == 5


@pytest.mark.parametrize("fragment", FRAGMENTS)
def test_each_row_is_a_recipe_fragment_that_runs(project: Project, fragment: str) -> None:
    values = yaml.safe_load(fragment)
    words = [f"prompt.{key}={json.dumps(value)}" for key, value in values.get("prompt", {}).items()]
    code, _, err = project.run(f"method={values['method']}", *words, "train.epochs=1")
    assert code == 0, err
    assert read_json(project.runs[0] / "results.json")["method"] == values["method"]
