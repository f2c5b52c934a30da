"""Keys of earlier versions: a hint in a recipe, nothing in the resolved recipe of an old run."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptv2kit.cli.main import main
from ptv2kit.spec.validate import REMOVED
from tests.projects import Project, project

__all__ = ["project"]


@pytest.mark.parametrize("path", REMOVED, ids=lambda path: ".".join(path))
def test_a_removed_key_says_what_to_do_instead(project: Project, path: tuple[str, ...]) -> None:
    code, _, err = project.run(f"{'.'.join(path)}=1")
    assert code == 2
    assert f"'{'.'.join(path)}' is gone since 0.2: {REMOVED[path]}" in err


def test_a_run_of_an_earlier_version_still_predicts(project: Project) -> None:
    assert project.run("train.epochs=1")[0] == 0
    [run] = project.runs
    recipe = run / "recipe.resolved.yaml"
    old = "train:\n  packing: false\n  cache_tokens: true\n  parallel_trials: 1\n"
    recipe.write_text(recipe.read_text().replace("train:\n", old, 1))
    Path("more.jsonl").write_text('{"words": ["ada", "left"]}\n')
    project.capsys.readouterr()
    assert main(["predict", str(run), "more.jsonl"]) == 0
    assert main(["evaluate", str(run)]) == 0
