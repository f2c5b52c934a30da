"""What came out of a run, as `results.json`, `README.md` and the comparison with `expect`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, final

from ptv2kit.data.schemes.records import Scores
from ptv2kit.models.counts import ParameterCount
from ptv2kit.spec.recipe import MEAN, Expectation, Recipe
from ptv2kit.spec.task import AnyTask

RESULTS_VERSION = 1


Status = Literal["finished", "interrupted", "terminated", "hung_up", "stopped"]


@final
@dataclass(frozen=True)
class TaskOutcome:
    """What came out for one task.

    Args:
        task: as it was run.
        best_epoch: the epoch that was kept, from 1; 0 if none was evaluated.
        scores: by split, of the best epoch.
        skipped: malformed rows that were left out, by split; empty where they are errors.
    """

    task: AnyTask
    best_epoch: float
    scores: Mapping[str, Scores]
    skipped: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def score(self) -> float | None:
        """The first metric on the validation split; None if it was never measured."""
        validation = self.scores.get("validation")
        return None if validation is None else next(iter(validation.values.values()))


@final
@dataclass(frozen=True)
class Outcome:
    """Everything that is reported of a run.

    Args:
        recipe: as it was run.
        tasks: at least one.
        status: whether it ran to its end; `terminated`: by SIGTERM; `hung_up`: by
            SIGHUP; `stopped`: the pruner has seen enough.
        parameters: frozen and trained; the heads of all tasks together.
        best_epoch: of several tasks the one with the best mean of their first metrics; as of `TaskOutcome` otherwise.
        epochs: epochs that were finished.
        seconds: wall time of the training.
        history: metrics on the validation split, by evaluation.
        evaluated: when they were made, in epochs.
    """

    recipe: Recipe
    tasks: tuple[TaskOutcome, ...]
    status: Status
    parameters: ParameterCount
    best_epoch: float
    epochs: int
    seconds: float
    history: tuple[dict[str, float], ...]
    evaluated: tuple[float, ...]

    @property
    def scores(self) -> dict[str, Scores]:
        """By split; of several tasks by `task/split`."""
        if len(self.tasks) == 1:
            return dict(self.tasks[0].scores)
        return {f"{item.task.task}/{split}": scores for item in self.tasks for split, scores in item.scores.items()}

    @property
    def score(self) -> float | None:
        """What chose the best epoch: the first metric on the validation split, of several tasks the highest mean."""
        if len(self.tasks) == 1:
            return self.tasks[0].score
        return max((values[MEAN] for values in self.history), default=None)

    def missed(self) -> list[str]:
        """A sentence for each expectation that was not reached; a released value is only shown beside the paper's."""
        sentences: list[str] = []
        for expectation in self.recipe.expect:
            if expectation.origin == "released":
                continue
            found = self._found(expectation)
            if found is None or found < expectation.value - expectation.tolerance:
                shown = "no value" if found is None else f"{found:.2f}"
                sentences.append(
                    (f"{expectation.task} " if len(self.tasks) > 1 else "")
                    + f"{expectation.split} {expectation.metric}: expected {expectation.value:g}"
                    + (f" - {expectation.tolerance:g}" if expectation.tolerance else "")
                    + f", found {shown}"
                    + (f" ({expectation.source})" if expectation.source else "")
                )
        return sentences

    def to_json(self) -> dict[str, Any]:
        """The content of `results.json`, version 1."""
        single = len(self.tasks) == 1
        return {
            "schema_version": RESULTS_VERSION,
            "recipe": self.recipe.recipe,
            "task": self.tasks[0].task.task if single else [item.task.task for item in self.tasks],
            "task_version": self.tasks[0].task.version if single else [item.task.version for item in self.tasks],
            "backbone": self.recipe.backbone.name,
            "method": self.recipe.method,
            "seed": self.recipe.train.seed,
            "status": self.status,
            "parameters": {
                "backbone": self.parameters.backbone,
                "frozen": self.parameters.frozen,
                "prompt": self.parameters.prompt,
                "head": self.parameters.head,
                **({"adapter": self.parameters.adapter} if self.parameters.adapter else {}),
                **({"layer_norms": self.parameters.norms} if self.parameters.norms else {}),
                "trained": self.parameters.trained,
                "share": self.parameters.share,
            },
            "selection": "best epoch on the validation split by the task's first metric",
            "score": self.score,
            "best_epoch": self.best_epoch,
            "best_epochs": {item.task.task: item.best_epoch for item in self.tasks},
            "epochs": self.epochs,
            "seconds": round(self.seconds, 3),
            "metrics": {split: scores.values for split, scores in self.scores.items()},
            "types": {split: [asdict(row) for row in scores.types] for split, scores in self.scores.items()},
            "skipped_rows": {
                split if single else f"{item.task.task}/{split}": count
                for item in self.tasks
                for split, count in item.skipped.items()
            },
            "history": list(self.history),
            "evaluated": list(self.evaluated),
            "expect": [
                {**expectation.model_dump(), "found": self._found(expectation)} for expectation in self.recipe.expect
            ],
        }

    def _found(self, expectation: Expectation) -> float | None:
        item = next(item for item in self.tasks if expectation.task in (None, item.task.task))
        scores = item.scores.get(expectation.split)
        return None if scores is None else scores.values.get(expectation.metric)


def first_metric(tasks: Sequence[AnyTask]) -> str:
    """What chooses the best epoch: the first metric of a task, the mean of several tasks' first ones."""
    return tasks[0].metrics[0] if len(tasks) == 1 else MEAN
