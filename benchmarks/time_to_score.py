"""How much processor time each method of the mini study needs until it reaches a share of fine-tuning's final score.

    python benchmarks/time_to_score.py docs/study/mini-table3

For each set: the mean over seeds of fine-tuning's score at its last evaluation, on the rows that choose the epoch, is
100 %. A method's time is that of training alone, evaluations left out, until the first evaluation that reaches the
share, mean over the seeds; `-` if a seed never did. All methods run in the same trainer, with the same batches of rows
of similar length, and rates that were searched with the same budget.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path

import yaml

SHARES = (0.8, 0.9, 0.95, 1.0)
Curve = list[tuple[float, float]]
"""Processor seconds, and the score after them."""


def curves(suite: Path) -> dict[tuple[str, str], list[Curve]]:
    """The curve of each seed, by set and method."""
    found: dict[tuple[str, str], list[Curve]] = defaultdict(list)
    for path in sorted(suite.glob("cells/*/*/results.json")):
        results = json.loads(path.read_text(encoding="utf-8"))
        recipe = yaml.safe_load((path.parent / "recipe.resolved.yaml").read_text(encoding="utf-8"))
        if not isinstance(results["task"], str) or recipe.get("init_from"):  # one of the stages of a joint training
            continue
        metric = next(iter(results["metrics"]["validation"]))
        lines = map(json.loads, (path.parent / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
        evaluated = [line for line in lines if line["kind"] == "validation"]
        curve = [(line["training_cpu_seconds"], line[metric]) for line in evaluated]
        found[results["task"], results["method"]].append(curve)
    return found


def reached(curve: Curve, score: float) -> float | None:
    """Seconds until the first evaluation with at least that score."""
    return next((seconds for seconds, value in curve if value >= score), None)


def main() -> None:
    """Print a table of Markdown for each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="+", type=Path, metavar="SUITE", help="folder of a suite of the study")
    found: dict[tuple[str, str], list[Curve]] = {}
    for suite in parser.parse_args().suites:
        found |= curves(suite)
    for task in dict.fromkeys(task for task, _ in found):
        goal = statistics.fmean(curve[-1][1] for curve in found[task, "fine_tuning"])
        print(f"\n{task}: fine-tuning ends at {goal:.1f}\n")
        heads = [f"CPU s to {share:.0%}" for share in SHARES]
        print(f"| method | seeds | last score | CPU s in all | {' | '.join(heads)} |")
        print("|---|---|---|---|" + "---|" * len(SHARES))
        for (other, method), own in found.items():
            if other != task:
                continue
            cells: list[str] = []
            for share in SHARES:
                times = [reached(curve, share * goal) for curve in own]
                known = [seconds for seconds in times if seconds is not None]
                cells.append(f"{statistics.fmean(known):.0f}" if len(known) == len(times) else "-")
            last, whole = (statistics.fmean(curve[-1][index] for curve in own) for index in (1, 0))
            print(f"| {method} | {len(own)} | {last:.1f} | {whole:.0f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
