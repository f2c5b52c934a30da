"""What a training writes into its run's folder while it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from torch import Tensor

    from ptv2kit.config.recipe import Recipe
    from ptv2kit.data.rows import Row
    from ptv2kit.data.schemes.base import Prediction
    from ptv2kit.evaluation.evaluate import Evaluation
    from ptv2kit.reporting.run_folder import RunFolder, RunRecorder
    from ptv2kit.training.parts import TaskPart
    from ptv2kit.training.state import TrainingState


def prompt_folder(folder: Path, task: str | None) -> Path:
    """Where a run keeps its tensors: of a single task, or of the best mean of several, without a name."""
    return folder / "prompt" if task is None else folder / "prompt" / task


def write_predictions(folder: RunFolder, task: str | None, split: str, rows: Sequence[Row], found: Any) -> None:
    """`predictions/<split>.jsonl`, or `predictions/<task>/<split>.jsonl`; `found` are the predictions of `rows`."""
    predictions: Sequence[Prediction] = found
    lines = (prediction.to_json(rows[prediction.row].location) for prediction in predictions)
    folder.write_lines(f"predictions/{'' if task is None else f'{task}/'}{split}.jsonl", lines)


@final
@dataclass(frozen=True)
class RunWriter:
    """Writes prompts, predictions and checkpoints.

    Args:
        folder: of the run.
        recipe: of the run, self-contained.
        parts: its tasks.
        recorder: whose unwritten losses are part of a checkpoint.
        request: what decides the run's outcome; a checkpoint is good for no other.
    """

    folder: RunFolder
    recipe: Recipe
    parts: Sequence[TaskPart]
    recorder: RunRecorder
    request: Mapping[str, Any]

    def keep(self, part: TaskPart, tensors: dict[str, Tensor], epoch: int, evaluation: Evaluation | None) -> None:
        """The tensors of a task's best epoch, and its predictions."""
        values = {} if evaluation is None else evaluation.scores.values
        task = part.name if len(self.parts) > 1 else None
        if not self.folder.writes:
            return
        self._save(tensors, task, {"task": part.name, "names": list(part.scheme.names)}, epoch, values)
        if evaluation is not None:
            rows = part.validation_split.data.rows
            write_predictions(self.folder, task, "validation", rows, evaluation.predictions)

    def keep_shared(self, tensors: dict[str, Tensor], epoch: int, values: dict[str, float]) -> None:
        """The tensors of all tasks in the epoch of the best mean."""
        facts = {
            "task": [part.name for part in self.parts],
            "names": {part.name: list(part.scheme.names) for part in self.parts},
        }
        if self.folder.writes:
            self._save(tensors, None, facts, epoch, values)

    def checkpoint(self, state: TrainingState) -> None:
        """From here the run can go on."""
        from ptv2kit.training.resume import Checkpoints

        if self.folder.writes:
            extra = {"request": self.request, "losses": self.recorder.unwritten, "lines": self.recorder.lines}
            checkpoints = Checkpoints(self.folder.path / "checkpoints", self.recipe.train.keep_checkpoints)
            checkpoints.save(state, extra)

    def _save(
        self,
        tensors: dict[str, Tensor],
        task: str | None,
        facts: dict[str, Any],
        epoch: int,
        values: Mapping[str, float],
    ) -> None:
        from ptv2kit.training.checkpoints import save_prompt

        common = {
            "recipe": self.recipe.recipe,
            "backbone": self.recipe.backbone.name,
            "method": self.recipe.method,
            "prompt_length": self.recipe.prompt_length,
            "epoch": epoch,
            "validation": dict(values),
        }
        save_prompt(prompt_folder(self.folder.path, task), tensors, {**common, **facts})
