"""What fits where: GLM-2B and GLM-10B on GPUs of several sizes, from the plan; nothing is measured.

python benchmarks/scale_table.py
"""

from __future__ import annotations

from pathlib import Path

from ptv2kit.models.backbones import find_backbone
from ptv2kit.plan.memory import Setup, largest_micro_batch, measure
from ptv2kit.plan.plan import task_shape
from ptv2kit.spec.load import load_recipe

RECIPES = Path(__file__).parents[1] / "recipes"
GPUS = {"16 GB": 15.7, "24 GB": 23.5, "40 GB": 39.4, "80 GB": 79.2, "141 GB": 139.8}
"""GiB that a driver leaves of each."""
COUNTS = (2, 4, 8, 16, 64)


def table() -> str:
    """Markdown: the largest micro-batch of each way to train, without and with gradient checkpointing."""
    lines: list[str] = []
    setups = [Setup("none", "none", 1), *(Setup("zero3", "none", count) for count in COUNTS), Setup("zero3", "cpu", 1)]
    names = ["whole", *(f"zero3 on {count}" for count in COUNTS), "zero3 + cpu"]
    for name in ("glm-2b-boolq", "glm-10b-boolq"):
        resolved = load_recipe(RECIPES / f"{name}.yaml")
        spec = find_backbone(resolved.recipe.backbone, planning=True)
        costs = measure(resolved.recipe, spec, [task_shape(resolved.recipe, resolved.task.task)])
        lines += [f"| `{name}` | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
        for gpu, gib in GPUS.items():
            cells = [
                " / ".join(
                    str(largest_micro_batch(resolved.recipe, costs, setup, gib * 2**30, checkpointing=checkpointing))
                    for checkpointing in (False, True)
                )
                for setup in setups
            ]
            lines.append(f"| {gpu} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(), end="")
