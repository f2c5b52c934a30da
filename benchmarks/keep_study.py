"""Keeps what the mini study found: for each cell the results, metrics and resolved YAML of its run, without paths.

python benchmarks/keep_study.py runs/mini-table3 runs/mini-figure3 --to docs/study
ptv2kit report recipes/suites/mini/table3.yaml --runs-dir docs/study --to report

A cell that another suite has trained is kept as if this one had.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path

KEPT = ("results.json", "metrics.jsonl", "*.resolved.yaml")
_PATH = re.compile(r"(?<![\w.])/(?:[\w.@+-]+/)+(?=[\w.-]+)")
"""An absolute path up to its last part: where the data lay on the machine of the run is nobody's business."""


def keep(suite: Path, target: Path, *, scores_only: bool) -> int:
    """Copy the finished cells of a suite's folder; what was kept of it before is replaced.

    Args:
        scores_only: whether the record of a cell is enough, as of a search.

    Returns:
        How many there are.
    """
    shutil.rmtree(target / suite.name, ignore_errors=True)
    count = 0
    for path in sorted(suite.glob("cells/*/cell.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["status"] != "finished":
            continue
        count += 1
        run = suite / record["run"]
        record["run"] = f"cells/{record['name']}/{run.name}"
        kept = target / suite.name / record["run"]
        (kept.parent if scores_only else kept).mkdir(parents=True)
        (kept.parent / "cell.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        for path in () if scores_only else sorted(each for name in KEPT for each in run.glob(name)):
            text = path.read_text(encoding="utf-8")
            (kept / path.name).write_text(_PATH.sub("", text) if path.suffix == ".yaml" else text, encoding="utf-8")
    return count


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="+", type=Path, metavar="SUITE", help="folder of a suite")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="gets a folder for each suite")
    parser.add_argument("--scores-only", action="store_true", help="keep the scores of each cell and nothing else")
    arguments = parser.parse_args()
    for suite in arguments.suites:
        count = keep(suite, arguments.to, scores_only=arguments.scores_only)
        print(f"{arguments.to / suite.name}: {count} cells")


if __name__ == "__main__":
    main()
