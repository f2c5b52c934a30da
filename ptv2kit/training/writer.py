"""What a training writes into its run's folder: metrics, the best prompts with their predictions, checkpoints."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from torch import Tensor

from ptv2kit.errors import ConfigError
from ptv2kit.files import link_atomically, write_atomically
from ptv2kit.spec.recipe import Recipe
from ptv2kit.training.checkpoint import Checkpoints
from ptv2kit.training.evaluate import Evaluation, prediction_lines
from ptv2kit.training.folder import RunFolder
from ptv2kit.training.parts import TaskPart
from ptv2kit.training.prompt_file import load_prompt, prompt_files
from ptv2kit.training.state import LogEntry, Step, TrainingState

_EVERY = 10
"""Optimizer steps between two lines of `metrics.jsonl`."""


def prompt_folder(folder: Path, task: str | None) -> Path:
    """Where a run keeps its tensors: of a single task, or of the best mean of several, without a name."""
    return folder / "prompt" if task is None else folder / "prompt" / task


def predictions_path(task: str | None, split: str) -> str:
    """Where a run keeps its predictions of a split, within its folder."""
    return f"predictions/{'' if task is None else f'{task}/'}{split}.jsonl"


@final
class RunWriter:
    """Writes metrics, prompts, predictions and checkpoints.

    What is kept of a best epoch is written to `checkpoints/best/<epoch>` and from there linked to `prompt` and
    `predictions`. So a checkpoint that is resumed from finds the prompt that was the best at its time, whatever was
    kept after it.

    Args:
        recipe: of the run, self-contained.
        parts: its tasks.
        request: what decides the run's outcome; a checkpoint is good for no other.
        extra: what the checkpoint that is resumed from has kept of this writer; empty for a new run.
    """

    def __init__(
        self,
        folder: RunFolder,
        recipe: Recipe,
        parts: Sequence[TaskPart],
        request: Mapping[str, Any],
        extra: Mapping[str, Any],
    ) -> None:
        self._folder = folder
        self._recipe = recipe
        self._parts = parts
        self._request = request
        self._losses: list[float] = list(extra.get("losses", ()))  # since the last line of `metrics.jsonl`
        self._lines = int(extra.get("lines", 0))
        self._several = len(parts) > 1
        folder.cut_metrics(self._lines)
        self._named: deque[set[Path]] = deque(maxlen=recipe.train.keep_checkpoints)

    def log(self, row: LogEntry) -> None:
        """Add a line to `metrics.jsonl` every ten steps, with the mean loss since the last one, and each evaluation."""
        if isinstance(row, Step):
            self._losses.append(row.loss)
            if row.step % _EVERY and row.step != row.total_steps:
                return
            mean = sum(self._losses) / len(self._losses)
            self._losses = []
            facts = {"step": row.step, "epoch": row.epoch, "loss": mean, "learning_rate": row.learning_rate}
            line = {"kind": "train", **facts}
        else:
            wall, processor = (round(seconds, 3) for seconds in row.trained)
            times = {"seconds": round(row.seconds, 3), "training_seconds": wall, "training_cpu_seconds": processor}
            line = {"kind": "validation", "epoch": row.epoch, **row.values, "best": row.best, **times}
            shown = ", ".join(f"{name} {value:.2f}" for name, value in row.values.items())
            self._folder.log(f"epoch {row.epoch:g}: {shown}{' (best)' if row.best else ''}")
        self._folder.append_metrics(line)
        self._lines += 1

    def keep(self, part: TaskPart, tensors: dict[str, Tensor], epoch: float, evaluation: Evaluation | None) -> None:
        """Keep the tensors of a task's best epoch, and its predictions.

        Epoch 0 and None for a training that ends without an evaluated epoch.
        """
        if not self._folder.writes:
            return
        values = {} if evaluation is None else evaluation.scores.values
        files = self._prompt(tensors, {"task": part.name, "names": list(part.scheme.names)}, epoch, values)
        if evaluation is not None:
            rows = part.validation_split.data.rows
            lines = prediction_lines(part.scheme, rows, evaluation.predictions)
            files["predictions.jsonl"] = lines.encode()
        self._keep(part.name if self._several else None, epoch, files)

    def keep_shared(self, tensors: dict[str, Tensor], epoch: float, values: dict[str, float]) -> None:
        """Keep the tensors of all tasks in the epoch of their best mean."""
        facts = {
            "task": [part.name for part in self._parts],
            "names": {part.name: list(part.scheme.names) for part in self._parts},
        }
        if self._folder.writes:
            self._keep(None, epoch, self._prompt(tensors, facts, epoch, values))

    def checkpoint(self, state: TrainingState) -> None:
        """Save a point from which the run can be resumed."""
        if not self._folder.writes:
            return
        self._folder.require()
        extra = {"request": self._request, "losses": list(self._losses), "lines": self._lines}
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
                    f"the best prompt of the newest checkpoint is that of epoch {epoch:g}, but the run has kept "
                    f"only that of epoch {found}: version 0.1 did not keep it with the checkpoint",
                    location=str(self._folder.path),
                    hint="start the run anew",
                )

    def _bests(self, state: TrainingState) -> list[tuple[str | None, float]]:
        """Task and epoch of everything that is kept when `state` is saved; the task is None in a run of one task."""
        progress = state.progress
        found: list[tuple[str | None, float]] = [
            (part.name if self._several else None, best.epoch)
            for part, best in zip(self._parts, progress.best, strict=True)
        ]
        if self._several:
            found.append((None, progress.best_epoch))
        return [(task, epoch) for task, epoch in found if epoch > 0]

    def _kept(self, task: str | None, epoch: float) -> Path:
        return (
            self._folder.path / "checkpoints" / "best" / f"{epoch:05g}" / ("prompt" if task is None else f"of {task}")
        )

    def _keep(self, task: str | None, epoch: float, files: Mapping[str, bytes]) -> None:
        self._folder.require()
        for name, content in files.items():
            write_atomically(self._kept(task, epoch) / name, content)
        self._publish(task, epoch)

    def _publish(self, task: str | None, epoch: float) -> None:
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
        self, tensors: dict[str, Tensor], facts: dict[str, Any], epoch: float, values: Mapping[str, float]
    ) -> dict[str, bytes]:
        common = {
            "recipe": self._recipe.recipe,
            "backbone": self._recipe.backbone.name,
            "method": self._recipe.method,
            "prompt_length": self._recipe.prompt_length,
            "prompt_attention": self._recipe.prompt.attention,
            "epoch": epoch,
            "validation": dict(values),
        }
        return prompt_files(tensors, {**common, **facts})
