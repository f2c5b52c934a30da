"""Shell completion, asked as a shell asks it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ptv2kit.cli.completion import recipe_keys
from ptv2kit.cli.main import main

pytest.importorskip("argcomplete", reason="the extra 'completion' is not installed")
ROOT = Path(__file__).parents[2]


def answers(line: str, folder: Path) -> list[str]:
    """What bash would be told of a command line with the cursor at its end."""
    told = folder / "told"
    asked = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_SHELL": "bash",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(told),
        "_ARGCOMPLETE_IFS": "\n",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_TYPE": "9",
        "_ARGCOMPLETE_COMP_WORDBREAKS": " \t\n\"'><=;|&(:",
    }
    command = "from ptv2kit.cli.main import entry_point; entry_point()"
    subprocess.run([sys.executable, "-c", command], env={**os.environ, **asked}, cwd=ROOT, check=True)
    return told.read_text().split("\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ptv2kit pre", ["predict", "preview"]),
        ("ptv2kit run --dry", ["--dry-run "]),
        ("ptv2kit run recipes/quickst", ["recipes/quickstart.yaml "]),
        ("ptv2kit run recipes/quickstart.yaml train.lea", ["train.learning_rate="]),
        ("ptv2kit explain tasks/rte.yaml labels.sch", ["labels.scheme="]),
        ("ptv2kit report recipes/suites/mini/figure3", ["recipes/suites/mini/figure3.yaml "]),
    ],
)
def test_how_a_line_may_go_on(line: str, expected: list[str], tmp_path: Path) -> None:
    assert answers(line, tmp_path) == expected


def test_the_keys_are_those_of_the_kind_of_file() -> None:
    keys = recipe_keys(ROOT / "recipes/quickstart.yaml")
    assert "prompt.length=" in keys
    assert "prompt=" not in keys
    assert "search.trials=" not in keys
    assert {"search.trials=", "train.seed="} <= set(recipe_keys(ROOT / "recipes/suites/quickstart-search.yaml"))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_read_the_code(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    code = tmp_path / "code"
    code.write_text(capsys.readouterr().out)
    assert "ptv2kit" in code.read_text()
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"no {shell} on this machine")
    subprocess.run([found, "-n", str(code)], check=True)
