"""The model card: the `README.md` of a run's folder, as people and the hub read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ptv2kit.spec.sources import HubSource
from ptv2kit.spec.task import scheme_of
from ptv2kit.training.results import Outcome

_HUB_TASKS = {
    "classes": ("text-classification", "Text Classification"),
    "choices": ("multiple-choice", "Multiple Choice"),
    "iob2": ("token-classification", "Token Classification"),
    "start_end": ("question-answering", "Question Answering"),
}
"""What the hub calls a label scheme."""
HERE = "."
"""The run's folder in the card's commands."""


def card_for(text: str, place: str) -> str:
    """A card whose commands are for whoever finds the run at another place, such as `hub:user/name`."""
    return text.replace(f"ptv2kit predict {HERE} ", f"ptv2kit predict {place} ").replace(
        f'ptv2kit.load("{HERE}"', f'ptv2kit.load("{place}"'
    )


def model_card(outcome: Outcome) -> str:
    """The content of `README.md`; its commands are for whoever is in the folder."""
    recipe, tasks, parameters = outcome.recipe, outcome.tasks, outcome.parameters
    names = ", ".join(item.task.task for item in tasks)
    several = len(tasks) > 1
    lines = [
        "---",
        yaml.safe_dump(_facts(outcome), sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        f"# {recipe.recipe}",
        "",
        recipe.description or f"{recipe.method} on {'the tasks' if several else 'the task'} {names}.",
        "",
        *(
            f"- task: {item.task.task}, version {item.task.version}. {item.task.description} "
            f"Data: {item.task.licence or 'no licence stated in the task file'}"
            for item in tasks
        ),
        f"- backbone: {recipe.backbone.name} ({parameters.backbone:,} parameters"
        f"{'' if parameters.tuned else ', frozen'})",
        f"- trained ({recipe.method}): {parameters.trained:,} parameters ({parameters.share:.2%}): "
        f"{recipe.trained(head=parameters.head > 0)}",
        f"- settings: {recipe.train.epochs} epochs, batch {recipe.train.batch}, learning rate "
        f"{recipe.train.learning_rate:g}, seed {recipe.train.seed}; all of them in `recipe.resolved.yaml`",
        f"- status: {outcome.status}; best of {outcome.epochs} epochs: "
        + ", ".join(f"{item.best_epoch}{f' ({item.task.task})' if several else ''}" for item in tasks),
        "",
        "| split | metric | value |",
        "|---|---|---|",
    ]
    for split, scores in outcome.scores.items():
        lines += [f"| {split} | {name} | {value:.2f} |" for name, value in scores.values.items()]
    option, argument = (f" --task {tasks[0].task.task}", f', task="{tasks[0].task.task}"') if several else ("", "")
    lines += [
        "",
        "The validation split chose the epoch: its score is optimistic.",
        "",
        "## How to use it",
        "",
        "```sh",
        f"ptv2kit predict {HERE} rows.jsonl{option}",
        "```",
        "",
        "```python",
        "import ptv2kit",
        "",
        f'run = ptv2kit.load("{HERE}"{argument})',
        "print(run.predict([...]))",
        "```",
        "",
        "`prompt/prompt.safetensors` holds the trained tensors only; the backbone is not in this folder.",
        "Train again with `ptv2kit run recipe.resolved.yaml`.",
    ]
    return "\n".join(lines) + "\n"


def _facts(outcome: Outcome) -> dict[str, Any]:
    """What the hub reads: https://huggingface.co/docs/hub/model-cards."""
    backbone = outcome.recipe.backbone.name
    kinds = [_HUB_TASKS[scheme_of(item.task) or ""] for item in outcome.tasks]
    facts: dict[str, Any] = {"library_name": "ptv2kit", "tags": ["ptv2kit", outcome.recipe.method.replace("_", "-")]}
    if "/" in backbone and not Path(backbone).is_absolute():
        facts["base_model"] = backbone
    if len(set(kinds)) == 1:
        facts["pipeline_tag"] = kinds[0][0]
    results = [
        {
            "task": {"type": kind, "name": title},
            "dataset": {"name": item.task.task, "type": _data_set(item.task.data), "split": split},
            "metrics": [
                {"type": name, "name": name, "value": round(value, 4)} for name, value in scores.values.items()
            ],
        }
        for item, (kind, title) in zip(outcome.tasks, kinds, strict=True)
        for split, scores in item.scores.items()
    ]
    if results:
        facts["model-index"] = [{"name": outcome.recipe.recipe, "results": results}]
    return facts


def _data_set(source: object) -> str:
    return source.path if isinstance(source, HubSource) else "local"
