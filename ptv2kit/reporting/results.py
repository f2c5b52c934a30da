"""What came out of a run, as `results.json`, `README.md` and the comparison with `expect`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, final

from ptv2kit.config.recipe import Expectation, Recipe
from ptv2kit.config.task import TaskBase
from ptv2kit.data.schemes.base import Scores
from ptv2kit.models.model import ParameterCount

RESULTS_VERSION = 1


@final
@dataclass(frozen=True)
class Outcome:
    """Everything that is reported of a run.

    Args:
        recipe: as it was run.
        task: likewise.
        status: whether it ran to its end.
        parameters: frozen and trained.
        best_epoch: the epoch that was kept, from 1; 0 if none was evaluated.
        epochs: epochs that were finished.
        seconds: wall time of the training.
        scores: by split, of the best epoch.
        history: metrics on the validation split after each epoch.
    """

    recipe: Recipe
    task: TaskBase
    status: Literal["finished", "interrupted"]
    parameters: ParameterCount
    best_epoch: int
    epochs: int
    seconds: float
    scores: Mapping[str, Scores]
    history: tuple[dict[str, float], ...]

    def missed(self) -> list[str]:
        """A sentence for each expectation that was not reached."""
        sentences: list[str] = []
        for expectation in self.recipe.expect:
            found = self._found(expectation)
            if found is None or found < expectation.value - expectation.tolerance:
                shown = "no value" if found is None else f"{found:.2f}"
                sentences.append(
                    f"{expectation.split} {expectation.metric}: expected {expectation.value:g}"
                    + (f" - {expectation.tolerance:g}" if expectation.tolerance else "")
                    + f", found {shown}"
                    + (f" ({expectation.source})" if expectation.source else "")
                )
        return sentences

    def to_json(self) -> dict[str, Any]:
        """The content of `results.json`, version 1."""
        return {
            "schema_version": RESULTS_VERSION,
            "recipe": self.recipe.recipe,
            "task": self.task.task,
            "task_version": self.task.version,
            "backbone": self.recipe.backbone.name,
            "method": self.recipe.method,
            "seed": self.recipe.train.seed,
            "status": self.status,
            "parameters": {
                "backbone": self.parameters.backbone,
                "frozen": self.parameters.frozen,
                "prompt": self.parameters.prompt,
                "head": self.parameters.head,
                "trained": self.parameters.trained,
                "share": self.parameters.share,
            },
            "selection": "best epoch on the validation split by the task's first metric",
            "best_epoch": self.best_epoch,
            "epochs": self.epochs,
            "seconds": round(self.seconds, 3),
            "metrics": {split: scores.values for split, scores in self.scores.items()},
            "types": {split: [asdict(row) for row in scores.types] for split, scores in self.scores.items()},
            "history": list(self.history),
            "expect": [
                {**expectation.model_dump(), "found": self._found(expectation)} for expectation in self.recipe.expect
            ],
        }

    def model_card(self) -> str:
        """The content of the run folder's `README.md`."""
        recipe, task = self.recipe, self.task
        lines = [
            f"# {recipe.recipe}",
            "",
            recipe.description or f"{recipe.method} on the task {task.task}.",
            "",
            f"- task: {task.task}, version {task.version}. {task.description}".rstrip(),
            f"- data: {task.licence or 'no licence stated in the task file'}",
            f"- backbone: {recipe.backbone.name} ({self.parameters.backbone:,} parameters"
            f"{'' if self.parameters.tuned else ', frozen'})",
            f"- trained ({recipe.method}): {self.parameters.trained:,} parameters ({self.parameters.share:.2%}): "
            f"{recipe.trained}",
            f"- settings: {recipe.train.epochs} epochs, batch {recipe.train.batch_size}, learning rate "
            f"{recipe.train.learning_rate:g}, seed {recipe.train.seed}; all of them in `recipe.resolved.yaml`",
            f"- status: {self.status}; best of {self.epochs} epochs: {self.best_epoch}",
            "",
            "| split | metric | value |",
            "|---|---|---|",
        ]
        for split, scores in self.scores.items():
            lines += [f"| {split} | {name} | {value:.2f} |" for name, value in scores.values.items()]
        lines += [
            "",
            "The validation split chose the epoch: its score is optimistic.",
            "`prompt/prompt.safetensors` holds the trained tensors only; the backbone is not in this folder.",
            "Train again with `ptv2kit run recipe.resolved.yaml`.",
        ]
        return "\n".join(lines) + "\n"

    def _found(self, expectation: Expectation) -> float | None:
        scores = self.scores.get(expectation.split)
        return None if scores is None else scores.values.get(expectation.metric)
