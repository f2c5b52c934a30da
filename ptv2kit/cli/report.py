"""`ptv2kit report`: what came out of suites and runs, as Markdown, an HTML page and figures."""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path

from ptv2kit.cli.output import show
from ptv2kit.errors import require_extra
from ptv2kit.report.entries import collect, suite_folder
from ptv2kit.report.page import build, to_json, write_report
from ptv2kit.spec.catalog import find_file


def run(args: argparse.Namespace) -> int:
    """Write the report.

    Raises:
        ConfigError: an argument is not a suite or run, nothing has been run, or jinja2 is not installed.
        DataError: a file of a run is not what it should be.
    """
    require_extra("jinja2", "the pages of a report need jinja2", "report")
    figures = importlib.util.find_spec("matplotlib") is not None
    sources = [_source(str(source), args.runs_dir) for source in args.sources]
    groups = collect(sources, args.runs_dir, args.only)
    folder = args.to
    if folder is None:
        suites = {suite_folder(source, args.runs_dir) for source in sources}
        only = suites.pop() if len(suites) == 1 else None
        folder = (only or args.runs_dir) / "report"
    report = build(groups, figures=figures)
    files = write_report(report, folder)
    if args.json:
        content = {"folder": str(folder), "files": [path.name for path in files], **to_json(report)}
        show(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", end="")
    else:
        for part in report.parts:
            show(f"{part.title}: {part.summary}\n", end="")
            for title, found in part.problems.items():
                show(f"  {title}: {len(found)}\n", end="")
        if not figures:
            show("no figures: they need matplotlib; pip install 'ptv2kit[report]'\n", end="")
        show("".join(f"{path}\n" for path in files if path.parent == folder), end="")
        show(f"{folder / 'tables'}: every table as CSV and LaTeX\n", end="")
    return 0


def _source(name: str, runs_dir: Path) -> Path:
    """A path; or the folder of a suite or recipe below `runs_dir`; or the file of a suite by its name."""
    path = Path(name)
    if path.exists() or path.suffix:
        return path
    return runs_dir / name if (runs_dir / name).is_dir() else find_file(name, ["suite"])
