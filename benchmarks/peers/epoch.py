"""Whole epochs on real rows: training, evaluation, and all that lies between.

ptv2kit runs its own trainer, with its own batches. The others run a plain loop, which spares them the overhead of a
trainer, in two ways: as their users run them, with random batches padded to their longest row (`official`: to a fixed
length) and rows to predict as they come; and `grouped`, with the sampler that transformers' Trainer has for rows of
similar length, and rows to predict sorted by length, which is what ptv2kit does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast, final

import torch
from torch import Tensor

from peers.methods import LEARNING_RATES, Method, MethodName, build, toolkit_recipe
from peers.rows import FIXED, LENGTHS, padded_tokens, peer_batches, prepared_rows, widened
from peers.setting import Setting
from peers.timing import Clock, Spent
from ptv2kit.data.batching import grouped_batches
from ptv2kit.data.schemes.records import Prediction
from ptv2kit.models.model import PromptedModel
from ptv2kit.spec.recipe import Recipe
from ptv2kit.training.evaluate import Evaluation
from ptv2kit.training.parts import TaskPart
from ptv2kit.training.prepare import Prepared
from ptv2kit.training.state import LogEntry, Step, TrainingState
from ptv2kit.training.trainer import Trainer
from ptv2kit.training.writer import RunWriter

BATCH_SIZE = 16
EVAL_BATCH_SIZE = 32
_CPU = torch.device("cpu")


Peer = tuple[MethodName, bool]
"""A method, and whether its batches are of rows of similar length."""


@dataclass(frozen=True)
class Epoch:
    """One epoch.

    Args:
        training: time of the steps, with collating.
        evaluation: time of predicting, decoding and scoring.
        score: the task's first metric, 0 to 100.
    """

    training: Spent
    evaluation: Spent
    score: float


@dataclass(frozen=True)
class EpochTimes:
    """What one set gave.

    Args:
        rows: that were trained on in each epoch.
        validation_rows: that were predicted.
        real_tokens: of the rows that were trained on.
        tokens: computed in an epoch of training, padding included, by peer.
        epochs: by peer.
    """

    rows: int
    validation_rows: int
    real_tokens: int
    tokens: dict[Peer, int]
    epochs: dict[Peer, list[Epoch]]


def epoch_times(
    setting: Setting, names: tuple[MethodName, ...], data: str, data_root: Path, rows: int, validation_rows: int
) -> EpochTimes:
    """Epochs of each method in turn within this process; the first epoch of each is measured too."""
    setting.prepare_process()
    prepared = prepared_rows(setting, data, data_root, rows, validation_rows)
    fixed = LENGTHS[data] if data in FIXED else None
    streams: dict[Peer, Iterator[Epoch]] = {}
    tokens: dict[Peer, int] = {}
    peers: list[Peer] = [
        (name, grouped)
        for name in names
        for grouped in ((True,) if name.startswith("ptv2kit") else (False,) if name == "official" else (False, True))
    ]
    for name, grouped in peers:
        streams[name, grouped] = epochs(name, setting, prepared, fixed, init="normal", grouped=grouped)
        train = prepared.splits["train"]
        if name.startswith("ptv2kit"):
            batches = grouped_batches(train.lengths, BATCH_SIZE, setting.seed)
        else:
            batches = peer_batches(train, BATCH_SIZE, setting.seed, grouped=grouped)
        tokens[name, grouped] = padded_tokens(train, batches, fixed if name == "official" else None)
    real_tokens = sum(prepared.splits["train"].lengths)
    done: dict[Peer, list[Epoch]] = {peer: [] for peer in peers}
    for _ in range(setting.rounds):
        for peer in peers:
            done[peer].append(next(streams[peer]))
    split, validation = prepared.splits["train"], prepared.splits["validation"]
    return EpochTimes(len(split.features), len(validation.features), real_tokens, tokens, done)


def epochs(
    name: MethodName, setting: Setting, prepared: Prepared, fixed_length: int | None, init: str, *, grouped: bool
) -> Iterator[Epoch]:
    """One epoch after another, without end; the rate is constant.

    Args:
        name: of the method.
        setting: of the run.
        prepared: the rows.
        fixed_length: what `official` pads to; None: to the batch's longest.
        init: how ptv2kit's prompt starts.
        grouped: whether a peer's batches are of rows of similar length.
    """
    recipe = toolkit_recipe(
        name,
        setting.folder,
        setting.prompt_length,
        init=init,
        schedule="constant",
        head_learning_rate=5e-3,
        batch_size=BATCH_SIZE,
        eval_batch_size=EVAL_BATCH_SIZE,
        seed=setting.seed,
        max_length=prepared.recipe.train.max_length,
    )
    if name.startswith("ptv2kit"):
        yield from _toolkit_epochs(recipe, prepared)
    else:
        method = build(name, setting.folder, prepared.scheme.unit, len(prepared.scheme.names), setting.prompt_length)
        length = fixed_length if name == "official" else None
        yield from _plain_epochs(method, LEARNING_RATES[name], prepared, length, setting.seed, grouped=grouped)


def _plain_epochs(
    method: Method, learning_rate: float, prepared: Prepared, length: int | None, seed: int, *, grouped: bool
) -> Iterator[Epoch]:
    train, validation, scheme = prepared.splits["train"], prepared.splits["validation"], prepared.scheme
    optimizer = method.optimizer(learning_rate)
    number = 0
    while True:
        number += 1
        clock = Clock.start()
        method.model.train()
        for rows in peer_batches(train, BATCH_SIZE, seed + number, grouped=grouped):
            batch = scheme.collate([train.features[row] for row in rows])
            method.step(batch if length is None else widened(batch, length), optimizer)
        training, clock = clock.spent(), Clock.start()
        method.model.eval()
        predictions: list[Prediction] = []
        with torch.inference_mode():
            order = range(len(validation.features))
            if grouped:
                order = sorted(order, key=lambda row: -validation.features[row].length)
            for at in range(0, len(order), EVAL_BATCH_SIZE):
                features = [validation.features[row] for row in order[at : at + EVAL_BATCH_SIZE]]
                batch = scheme.collate(features)
                logits = method.logits(batch if length is None else widened(batch, length))
                if logits.dim() == 3:  # decoding counts on the batch's own length
                    logits = logits[:, : batch.input_ids.shape[1]]
                predictions += scheme.decode(features, logits)
        scores = scheme.score(scheme.join(predictions)).values
        yield Epoch(training, clock.spent(), next(iter(scores.values())))


def _toolkit_epochs(recipe: Recipe, prepared: Prepared) -> Iterator[Epoch]:
    """Epochs of ptv2kit's trainer, one training of one epoch after another on the same model."""
    model = _toolkit_model(recipe, prepared)
    part = TaskPart("speed", model, prepared.scheme, prepared.splits["train"], prepared.splits["validation"])
    number = 0
    while True:
        number += 1
        settings = recipe.train.model_copy(update={"seed": recipe.train.seed + number})
        watch = _Watch()
        trainer = Trainer([part], settings, _CPU, cast(RunWriter, _Nobody()), log=watch.log)
        watch.begin()
        trainer.train()
        yield watch.epoch()


def _toolkit_model(recipe: Recipe, prepared: Prepared) -> PromptedModel:
    return replace(prepared, recipe=recipe).build_model()


@final
@dataclass
class _Watch:
    """Takes the time of a trainer's epoch."""

    started: Clock = field(default_factory=Clock.start)
    last_step: Clock = field(default_factory=Clock.start)
    ended: Clock = field(default_factory=Clock.start)
    score: float = 0.0

    def begin(self) -> None:
        """The trainer is built, the epoch begins."""
        self.started = Clock.start()

    def log(self, row: LogEntry) -> None:
        """Note when a step or the epoch ended."""
        if isinstance(row, Step):
            self.last_step = Clock.start()
        else:
            self.ended = Clock.start()
            self.score = next(iter(row.values.values()))

    def epoch(self) -> Epoch:
        """What was seen."""
        return Epoch(_between(self.started, self.last_step), _between(self.last_step, self.ended), self.score)


def _between(first: Clock, second: Clock) -> Spent:
    return Spent(second.cpu - first.cpu, second.wall - first.wall)


@final
class _Nobody:
    """Keeps nothing."""

    def keep(self, part: TaskPart, tensors: dict[str, Tensor], epoch: int, evaluation: Evaluation | None) -> None:
        """See `RunWriter`."""

    def keep_shared(self, tensors: dict[str, Tensor], epoch: int, values: dict[str, float]) -> None:
        """See `RunWriter`."""

    def checkpoint(self, state: TrainingState) -> None:
        """See `RunWriter`."""
