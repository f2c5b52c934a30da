"""Imports go one way: cli, {serve, suites, exchange}, training, plan, {models, data}, spec, errors; report reads."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ptv2kit"
FILES = sorted(PACKAGE.rglob("*.py"))
BOTTOM = {"errors", "files", "machine"}
MAY_IMPORT = {
    "errors": set[str](),
    "files": {"errors"},
    "machine": set[str](),
    "spec": BOTTOM | {"spec"},
    "data": BOTTOM | {"spec", "data"},
    "models": BOTTOM | {"spec", "models"},
    "plan": BOTTOM | {"spec", "data", "models", "plan"},
    "report": BOTTOM | {"spec", "report"},
    "exchange": BOTTOM | {"spec", "data", "models", "training", "exchange"},
    "training": BOTTOM | {"spec", "data", "models", "plan", "training"},
    "suites": BOTTOM | {"spec", "data", "models", "plan", "report", "training", "suites"},
    "serve": BOTTOM | {"spec", "data", "models", "training", "serve"},
    "cli": BOTTOM | {"spec", "data", "models", "plan", "report", "training", "suites", "serve", "exchange", "cli"},
    "__main__": {"cli"},
    "__init__": {"exchange", "training"},  # `ptv2kit.load`, within the function
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


@pytest.mark.parametrize("path", [path for path in FILES if layer_of(path) in ("spec", *BOTTOM)])
def test_the_spec_layer_imports_no_heavy_library(path: Path) -> None:
    heavy = {"torch", "transformers", "datasets", "numpy", "sklearn", "seqeval", "rich"}
    assert not heavy & {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize("path", [path for path in FILES if layer_of(path) != "cli"])
def test_only_the_command_line_prints(path: Path) -> None:
    calls = [node.func for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    assert not [call for call in calls if isinstance(call, ast.Name) and call.id == "print"]
    assert "sys.stdout" not in path.read_text(encoding="utf-8")


LATER = {
    "__init__.py": "importing ptv2kit loads no torch",
    "models/glm/__init__.py": "transformers asks for the classes by name",
    "cli/subject.py": "only a verbalizer asks how a model fills blanks",
    "models/checkpoints.py": "models that are made or widened when they are first named",
    "cli/run.py": "a mistake in a file is shown before torch is loaded",
    "cli/validate.py": "only --data needs torch",
    "cli/serve.py": "FastAPI is an extra",
    "suites/study.py": "Optuna is an extra",
}


@pytest.mark.parametrize("path", [path for path in FILES if str(path.relative_to(PACKAGE)) not in LATER])
def test_imports_stand_at_the_top(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    within = [node for function in functions for node in ast.walk(function) if isinstance(node, ast.ImportFrom)]
    assert not [node.module for node in within if str(node.module).startswith("ptv2kit")]


def test_no_circles() -> None:
    modules = {path: ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in FILES}
    modules = {path: module.removesuffix(".__init__") for path, module in modules.items()}
    needs: dict[str, set[str]] = {}
    for path, own in modules.items():
        top = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)]
        found = {f"{node.module}.{alias.name}" for node in top for alias in node.names} | {str(n.module) for n in top}
        needs[own] = {module for module in modules.values() if module in found and module not in (own, "ptv2kit")}
    list(TopologicalSorter(needs).static_order())


@pytest.mark.parametrize(
    "module", ["cli.main", "cli.first", "cli.run", "cli.validate", "cli.explain", "cli.ls", "cli.completion"]
)
def test_what_answers_at_once_loads_no_torch(module: str) -> None:
    code = f"import sys, ptv2kit.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
