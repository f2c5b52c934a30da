"""What share of a large backbone's parameters each shipped recipe trains; no weights are needed.

    python benchmarks/parameter_shares.py

The paper's backbones are built on the meta device with the shapes of their published configurations, and each recipe is
put on each of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from transformers import BertConfig, DebertaConfig, PretrainedConfig, RobertaConfig

from ptv2kit.models.backbones import BackboneSpec, find_backbone
from ptv2kit.models.build import Unit, count_parameters
from ptv2kit.models.glm.configuration import OriginalGlmConfig
from ptv2kit.spec.load import load_recipe
from ptv2kit.spec.recipe import Backbone, Recipe
from ptv2kit.spec.task import AnyTask, ChoicesTask, ClassesTask, Iob2Task, StartEndTask

RECIPES = Path(__file__).parents[1] / "recipes"
UNITS: Mapping[str, Unit] = {"classes": "sequence", "choices": "choices", "iob2": "token", "start_end": "start_end"}
LENGTHS = (4, 8, 16, 32, 64, 128, 224)
"""Prompt lengths of the paper's search and of its released settings."""
LABELS_FROM_TRAIN = {"srl_ewt": 36, "srl_ewt_verbs": 36}
"""How many the tasks have that take them from their training rows."""


def large_backbones() -> dict[str, PretrainedConfig]:
    """The backbones of the paper, with the shapes of their published configurations."""
    wide = {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096}
    return {
        "BERT-large": BertConfig(vocab_size=28996, num_hidden_layers=24, **wide),
        "RoBERTa-large": RobertaConfig(
            vocab_size=50265, num_hidden_layers=24, max_position_embeddings=514, type_vocab_size=1, **wide
        ),
        "DeBERTa-xlarge": DebertaConfig(
            vocab_size=50265,
            num_hidden_layers=48,
            type_vocab_size=0,
            relative_attention=True,
            position_biased_input=False,
            pos_att_type=["c2p", "p2c"],
            **wide,
        ),
        "GLM-2B": OriginalGlmConfig.of_size("2B"),
        "GLM-10B": OriginalGlmConfig.of_size("10B"),
    }


def label_count(task: AnyTask) -> int:
    """Logits per unit, as the task's label scheme counts them."""
    match task:
        case ClassesTask() if task.labels.names != "from_train":
            return len(task.labels.names)
        case ChoicesTask():
            return len(task.input.choices)
        case Iob2Task():
            names = task.labels.names
            return 1 + 2 * (LABELS_FROM_TRAIN[task.task] if names == "from_train" else len(names))
        case StartEndTask():
            return 2
        case _:
            raise AssertionError(f"task '{task.task}' takes its labels from its rows: say how many there are")


def specs() -> dict[str, BackboneSpec]:
    """The facts of each large backbone."""
    found: dict[str, BackboneSpec] = {}
    for name, config in large_backbones().items():
        with tempfile.TemporaryDirectory() as folder:
            config.save_pretrained(folder)
            found[name] = find_backbone(Backbone(name=folder))
    return found


def share(recipe: Recipe, tasks: Sequence[AnyTask], spec: BackboneSpec) -> float:
    """Trained parameters, all heads included, as a share of the backbone's."""
    counts = [count_parameters(recipe, UNITS[task.labels.scheme], spec, label_count(task)) for task in tasks]
    return (counts[0].trained + sum(count.head for count in counts[1:])) / counts[0].backbone


def table() -> str:
    """Markdown: a row for each recipe with a prompt, and one for each length that the authors released settings of."""
    backbones = specs()
    rows = [f"| recipe | length | {' | '.join(backbones)} |", "|---|" + "---:|" * (1 + len(backbones))]
    for path in sorted(RECIPES.glob("*.yaml")):
        resolved = load_recipe(path)
        if resolved.recipe.prompt_length:
            tasks = [task.task for task in resolved.tasks]
            rows.append(_row(f"`{path.stem}`", resolved.recipe, tasks, backbones))
    path = RECIPES / "mini-rte.yaml"
    resolved = load_recipe(path)
    for length in LENGTHS:
        recipe = load_recipe(path, [f"prompt.length={length}", "backbone.pooling=auto"]).recipe
        rows.append(_row("two classes, `pooling: auto`", recipe, [resolved.task.task], backbones))
    return "\n".join(rows) + "\n"


def _row(name: str, recipe: Recipe, tasks: Sequence[AnyTask], backbones: Mapping[str, BackboneSpec]) -> str:
    shares = (f"{share(recipe, tasks, spec):.2%}" for spec in backbones.values())
    return f"| {name} | {recipe.prompt.length} | {' | '.join(shares)} |"


if __name__ == "__main__":
    print(table(), end="")
