"""Scores and predictions of a model over a whole split."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final

import torch

from ptv2kit.data.batching import sorted_batches
from ptv2kit.data.dataset import EncodedSplit
from ptv2kit.data.prefetch import OneAhead, ready_for
from ptv2kit.data.rows import Row
from ptv2kit.data.schemes.base import LabelScheme
from ptv2kit.data.schemes.records import Batch, Prediction, Scores
from ptv2kit.errors import TrainingError
from ptv2kit.models.model import PromptedModel

_LONGEST = 300
"""Characters of a text beside its prediction: enough to recognise the row by."""


@final
@dataclass(frozen=True)
class Evaluation:
    """Result over a split.

    Args:
        predictions: one for each row, in the order of the rows.
    """

    scores: Scores
    predictions: tuple[Prediction, ...]


def prediction_lines(scheme: LabelScheme, rows: Sequence[Row], predictions: Sequence[Prediction]) -> str:
    """The predictions of rows as JSON Lines, each with what the model read of the row, long texts cut off."""
    lines: list[str] = []
    for prediction in predictions:
        row = rows[prediction.row]
        said = {column: _cut(value) for column, value in scheme.said(row).items()}
        line = {**prediction.to_json(row.location), "input": said}
        lines.append(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
    return "".join(lines)


def _cut(value: object) -> object:
    return f"{value[: _LONGEST - 1]}…" if isinstance(value, str) and len(value) > _LONGEST else value


class Processes(Protocol):
    """The processes that share the work."""

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        ...

    @property
    def size(self) -> int:
        """Number of processes."""
        ...

    def gather(self, value: Any) -> list[Any]:
        """The value of each process, in all of them."""
        ...


def evaluate(
    model: PromptedModel,
    scheme: LabelScheme,
    split: EncodedSplit,
    batch_size: int,
    device: torch.device,
    progress: Callable[[int, int], None],
    processes: Processes | None = None,
) -> Evaluation:
    """Predict every row without dropout and score the predictions.

    Args:
        model: is put into evaluation mode, and back into training mode if it was in it.
        batch_size: rows per forward pass.
        device: where the model is.
        progress: told how many rows are done, and how many there are.
        processes: each takes a part of the batches; all of them get the whole result. None: this one takes all.

    Raises:
        TrainingError: a logit is not a number.
    """
    rank, size = (0, 1) if processes is None else (processes.rank, processes.size)
    training = model.training
    model.eval()
    batches = sorted_batches(split.lengths, batch_size)
    predictions: dict[int, list[Prediction]] = {}
    bad: float | None = None
    done = 0

    def make(number: int) -> Batch:
        return ready_for(split.batch(scheme, batches[number if number < len(batches) else 0]), device)

    made = OneAhead(make, ahead=device.type == "cuda")
    # What DeepSpeed gathers within inference mode could not be used for training again.
    with torch.inference_mode() if size == 1 else torch.no_grad(), model.prompt_made_once():
        numbers = range(rank, size * math.ceil(len(batches) / size), size)
        for number in numbers:
            # All processes make equally many forward passes, for they exchange weights in them.
            rows = batches[number] if number < len(batches) else batches[0]
            features = [split.features[row] for row in rows]
            logits = model(**made.take(number, number + size if number + size in numbers else None).to(device).inputs())
            if not bool(logits.isfinite().all()):
                bad = float(logits.sum())
                if size == 1:
                    break
            elif number < len(batches):
                predictions[number] = scheme.decode(features, logits.float().cpu())
            done = min(done + size * len(rows), len(split.features))
            progress(done, len(split.features))
    model.train(training)
    found = [(bad, predictions)] if processes is None else processes.gather((bad, predictions))
    faults = [value for value, _ in found if value is not None]
    if faults:
        raise TrainingError(
            f"the logits became {faults[0]} while the {split.data.name} split was predicted",
            hint="lower train.learning_rate, or raise train.warmup_ratio",
        )
    by_batch = {number: decoded for _, part in found for number, decoded in part.items()}
    joined = scheme.join([prediction for number in sorted(by_batch) for prediction in by_batch[number]])
    return Evaluation(scheme.scores(joined), tuple(joined))
