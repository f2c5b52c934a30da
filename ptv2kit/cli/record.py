"""What a training writes into its run's folder while it goes on."""

from __future__ import annotations

import json
import shutil
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from ptv2kit.errors import ConfigError
from ptv2kit.files import link_atomically, write_atomically
from ptv2kit.training.checkpoints import load_prompt, prompt_files
from ptv2kit.training.resume import Checkpoints

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


def prediction_lines(rows: Sequence[Row], found: Sequence[Prediction]) -> str:
    """The predictions of rows as JSON Lines."""
    lines = (prediction.to_json(rows[prediction.row].location) for prediction in found)
    return "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines)


def predictions_path(task: str | None, split: str) -> str:
    """Where a run keeps its predictions of a split, within its folder."""
    return f"predictions/{'' if task is None else f'{task}/'}{split}.jsonl"


@final
class RunWriter:
    """Writes prompts, predictions and checkpoints.

    What is kept of a best epoch is written to `checkpoints/best/<epoch>` and from there linked to `prompt` and
    `predictions`. So a checkpoint that is resumed from finds the prompt that was the best at its time, whatever was
    kept after it.

    Args:
        recipe: of the run, self-contained.
        parts: its tasks.
        recorder: whose unwritten losses are part of a checkpoint.
        request: what decides the run's outcome; a checkpoint is good for no other.
    """

    def __init__(
        self,
        folder: RunFolder,
        recipe: Recipe,
        parts: Sequence[TaskPart],
        recorder: RunRecorder,
        request: Mapping[str, Any],
    ) -> None:
        self._folder = folder
        self._recipe = recipe
        self._parts = parts
        self._recorder = recorder
        self._request = request
        self._named: deque[set[Path]] = deque(maxlen=recipe.train.keep_checkpoints)

    def keep(self, part: TaskPart, tensors: dict[str, Tensor], epoch: int, evaluation: Evaluation | None) -> None:
        """The tensors of a task's best epoch, and its predictions."""
        if not self._folder.writes:
            return
        values = {} if evaluation is None else evaluation.scores.values
        files = self._prompt(tensors, {"task": part.name, "names": list(part.scheme.names)}, epoch, values)
        if evaluation is not None:
            rows = part.validation_split.data.rows
            files["predictions.jsonl"] = prediction_lines(rows, evaluation.predictions).encode()
        self._keep(part.name if len(self._parts) > 1 else None, epoch, files)

    def keep_shared(self, tensors: dict[str, Tensor], epoch: int, values: dict[str, float]) -> None:
        """The tensors of all tasks in the epoch of the best mean."""
        facts = {
            "task": [part.name for part in self._parts],
            "names": {part.name: list(part.scheme.names) for part in self._parts},
        }
        if self._folder.writes:
            self._keep(None, epoch, self._prompt(tensors, facts, epoch, values))

    def checkpoint(self, state: TrainingState) -> None:
        """From here the run can be resumed."""
        if not self._folder.writes:
            return
        self._folder.require()
        extra = {"request": self._request, "losses": self._recorder.unwritten, "lines": self._recorder.lines}
        Checkpoints(self._folder.path / "checkpoints", self._recipe.train.keep_checkpoints).save(state, extra)
        self._named.append({self._kept(task, epoch) for task, epoch in self._bests(state)})
        if len(self._named) == self._named.maxlen:
            named = set[Path]().union(*self._named)
            for path in (self._folder.path / "checkpoints" / "best").glob("*/*"):
                if path not in named:
                    shutil.rmtree(path)

    def restore(self, state: TrainingState) -> None:
        """Put the prompts and predictions back that were the best when `state` was saved.

        Raises:
            ConfigError: a later epoch has taken the place of one of them, in a run of version 0.1.
        """
        if not self._folder.writes:
            return
        for task, epoch in self._bests(state):
            if self._kept(task, epoch).is_dir():
                self._publish(task, epoch)
                continue
            found = load_prompt(prompt_folder(self._folder.path, task))[1].get("epoch")
            if found != epoch:
                raise ConfigError(
                    f"the best prompt of the newest checkpoint is that of epoch {epoch}, but the run has kept "
                    f"only that of epoch {found}: version 0.1 did not keep it with the checkpoint",
                    location=str(self._folder.path),
                    hint="start the run anew",
                )

    def _bests(self, state: TrainingState) -> list[tuple[str | None, int]]:
        """Task and epoch of everything that is kept when `state` is saved; the task is None in a run of one task."""
        progress, several = state.progress, len(self._parts) > 1
        found: list[tuple[str | None, int]] = [
            (part.name if several else None, best.epoch) for part, best in zip(self._parts, progress.best, strict=True)
        ]
        if several:
            found.append((None, progress.best_epoch))
        return [(task, epoch) for task, epoch in found if epoch > 0]

    def _kept(self, task: str | None, epoch: int) -> Path:
        return self._folder.path / "checkpoints" / "best" / f"{epoch:05}" / ("prompt" if task is None else f"of {task}")

    def _keep(self, task: str | None, epoch: int, files: Mapping[str, bytes]) -> None:
        self._folder.require()
        for name, content in files.items():
            write_atomically(self._kept(task, epoch) / name, content)
        self._publish(task, epoch)

    def _publish(self, task: str | None, epoch: int) -> None:
        """Link what is kept of an epoch to where users look for it."""
        prompt = prompt_folder(self._folder.path, task)
        places = {
            "prompt.safetensors": prompt / "prompt.safetensors",
            "prompt.json": prompt / "prompt.json",
            "predictions.jsonl": self._folder.path / predictions_path(task, "validation"),
        }
        for name, target in places.items():
            source = self._kept(task, epoch) / name
            if source.is_file():
                link_atomically(source, target)

    def _prompt(
        self, tensors: dict[str, Tensor], facts: dict[str, Any], epoch: int, values: Mapping[str, float]
    ) -> dict[str, bytes]:
        common = {
            "recipe": self._recipe.recipe,
            "backbone": self._recipe.backbone.name,
            "method": self._recipe.method,
            "prompt_length": self._recipe.prompt_length,
            "epoch": epoch,
            "validation": dict(values),
        }
        return prompt_files(tensors, {**common, **facts})
