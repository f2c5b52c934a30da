"""Imports go one way: cli, serving, {planning, reporting, training, evaluation}, {models, data}, config, errors."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ptv2kit"
FILES = sorted(PACKAGE.rglob("*.py"))
BOTTOM = {"errors", "files"}
MAY_IMPORT = {
    "errors": set[str](),
    "files": {"errors"},
    "config": BOTTOM | {"config"},
    "data": BOTTOM | {"config", "data"},
    "models": BOTTOM | {"config", "models"},
    "evaluation": BOTTOM | {"config", "data", "models", "evaluation"},
    "planning": BOTTOM | {"config", "data", "models", "planning"},
    "training": BOTTOM | {"config", "data", "models", "evaluation", "planning", "training"},
    "reporting": BOTTOM | {"config", "data", "models", "reporting"},
    "serving": BOTTOM | {"config", "data", "models", "evaluation", "training", "serving"},
    "cli": BOTTOM | {"config", "data", "models", "evaluation", "training", "reporting", "planning", "serving", "cli"},
    "__main__": {"cli"},
    "__init__": {"training"},  # `ptv2kit.load`, within the function
}


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path) -> set[str]:
    """Every module that a file imports, also within functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_layer_imports_only_from_below(path: Path) -> None:
    layer = layer_of(path)
    used = {name.split(".")[1] for name in imports(path) if name.startswith("ptv2kit.")} - {"__version__"}
    assert used <= MAY_IMPORT[layer], f"{path} imports from {sorted(used - MAY_IMPORT[layer])}"


@pytest.mark.parametrize("path", [path for path in FILES if layer_of(path) in ("config", *BOTTOM)])
def test_the_spec_layer_imports_no_heavy_library(path: Path) -> None:
    heavy = {"torch", "transformers", "datasets", "numpy", "sklearn", "seqeval", "rich"}
    assert not heavy & {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize("path", [path for path in FILES if layer_of(path) != "cli"])
def test_only_the_command_line_prints(path: Path) -> None:
    calls = [node.func for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    assert not [call for call in calls if isinstance(call, ast.Name) and call.id == "print"]
    assert "sys.stdout" not in path.read_text(encoding="utf-8")
