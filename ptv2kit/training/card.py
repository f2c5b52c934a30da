"""The model card: the `README.md` of a run's folder, as people and the hub read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from ptv2kit.data.unlabelled import given_columns
from ptv2kit.files import is_folder
from ptv2kit.spec.layers import OWN_BACKBONES
from ptv2kit.spec.sources import HubSource
from ptv2kit.spec.task import AnyTask
from ptv2kit.training.results import Outcome

HERE = "."
"""The run's folder in the card's commands."""


def card_for(text: str, place: str) -> str:
    """A card whose commands are for those who find the run at another place, such as `hub:user/name`."""
    return text.replace(f"ptv2kit predict {HERE} ", f"ptv2kit predict {place} ").replace(
        f'ptv2kit.load("{HERE}"', f'ptv2kit.load("{place}"'
    )


def model_card(outcome: Outcome) -> str:
    """The content of `README.md`; its commands are for use in the folder."""
    recipe, tasks, parameters = outcome.recipe, outcome.tasks, outcome.parameters
    names = ", ".join(item.task.task for item in tasks)
    several = len(tasks) > 1
    lines = [
        "---",
        _facts(outcome).to_yaml().rstrip(),
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
        f"- trained ({recipe.method}): {parameters.trained:,} parameters ({parameters.percent}): "
        f"{recipe.trained(head=parameters.head > 0)}",
        f"- settings: {recipe.train.epochs} epochs, batch {recipe.train.batch}, learning rate "
        f"{recipe.train.learning_rate:g}, seed {recipe.train.seed}; all of them in `recipe.resolved.yaml`",
        f"- status: {outcome.status}; best of {outcome.epochs} epochs: "
        + ", ".join(f"{item.best_epoch:g}{f' ({item.task.task})' if several else ''}" for item in tasks),
        "",
        "| split | metric | value |",
        "|---|---|---|",
    ]
    for split, scores in outcome.scores.items():
        lines += [f"| {split} | {name} | {value:.2f} |" for name, value in scores.values.items()]
    option, argument = (f" --task {tasks[0].task.task}", f', task="{tasks[0].task.task}"') if several else ("", "")
    package = "ptv2kit[mini]" if recipe.backbone.name == "mini" else "ptv2kit"
    lines += [
        "",
        "The validation split chose the epoch: its score is optimistic.",
        "",
        "## How to use it",
        "",
        "```sh",
        f"pip install '{package}'",
        f"ptv2kit predict {HERE} rows.jsonl{option}",
        "```",
        "",
        "```python",
        "import ptv2kit",
        "",
        f'run = ptv2kit.load("{HERE}"{argument})',
        f"print(run.predict([{json.dumps(_example(tasks[0].task), ensure_ascii=False)}]))",
        "```",
        "",
        "`prompt/prompt.safetensors` holds the trained tensors only; the backbone is not in this folder.",
        "Train again with `ptv2kit run recipe.resolved.yaml`.",
    ]
    return "\n".join(lines) + "\n"


def _example(task: AnyTask) -> dict[str, Any]:
    """A row that the task can read, with words of no data set."""
    columns = given_columns(task)
    if task.reads_words:
        words = ["Ada", "met", "Alan", "in", "Rome"]
        return {column: words if number == 0 else 1 for number, column in enumerate(columns)}
    return {column: f"the {column.replace('_', ' ')} as text" for column in columns}


def _facts(outcome: Outcome) -> ModelCardData:
    """What the hub reads: https://huggingface.co/docs/hub/model-cards."""
    sources = [_data_set(item.task.data) for item in outcome.tasks]
    languages = list(dict.fromkeys(code for item in outcome.tasks for code in item.task.languages))
    kinds = [item.task.hub_task for item in outcome.tasks]
    results = [
        EvalResult(
            task_type=kind,
            task_name=title,
            dataset_name=item.task.task,
            dataset_type=_data_set(item.task.data),
            dataset_split=split,
            metric_type=name,
            metric_name=name,
            metric_value=round(value, 4),
        )
        for item, (kind, title) in zip(outcome.tasks, kinds, strict=True)
        for split, scores in item.scores.items()
        for name, value in scores.values.items()
    ]
    return ModelCardData(
        language=languages or None,
        license=outcome.recipe.licence,
        library_name="ptv2kit",
        tags=["ptv2kit", outcome.recipe.method.replace("_", "-")],
        base_model=_base_model(outcome.recipe.backbone.name),
        datasets=list(dict.fromkeys(path for path in sources if path != "local")) or None,
        metrics=list(dict.fromkeys(metric for item in outcome.tasks for metric in item.task.metrics)),
        pipeline_tag=kinds[0][0] if len(set(kinds)) == 1 else None,
        model_name=outcome.recipe.recipe,
        eval_results=results or None,
    )


def _base_model(name: str) -> str | None:
    """The backbone's name on the hub, None of one that is in a folder."""
    if name == "mini":
        return "sentence-transformers/all-MiniLM-L6-v2"
    folder = Path(name).is_absolute() or name.startswith((".", "~")) or is_folder(Path(name))
    return None if folder or name in OWN_BACKBONES else name


def _data_set(source: object) -> str:
    return source.path if isinstance(source, HubSource) else "local"
