"""Checkpoints, from which a training is resumed. A few megabytes each, whole or not there at all.

One file holds all of a checkpoint, with a checksum, and no pickle. The frozen backbone is never part of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from pydantic import TypeAdapter
from safetensors.torch import save
from torch import Tensor

from ptv2kit.errors import DataError, Problem
from ptv2kit.files import parse_json, write_atomically
from ptv2kit.training.prompt_file import digest
from ptv2kit.training.state import Generators, Progress, TrainingState
from ptv2kit.training.tensor_files import read_tensors

FORMAT = "ptv2kit-checkpoint"
FORMAT_VERSION = 1
_PROGRESS = TypeAdapter(Progress)
_EXTRA = TypeAdapter(dict[str, Any])


@final
class Checkpoints:
    """The checkpoints of a run, `step-<number>.safetensors` each.

    Args:
        folder: where they lie; is made when the first one is written.
        keep: how many of the last ones are kept.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder = folder
        self._keep = keep

    def save(self, state: TrainingState, extra: Mapping[str, Any]) -> Path:
        """Write a checkpoint, then remove those that are too old, and those of later steps.

        Later ones are damaged: a training is resumed from the newest that is whole.

        Args:
            extra: what else to keep; plain values.

        Raises:
            OSError: the disk refuses; the checkpoints before it are still there.
        """
        tensors: dict[str, Tensor] = {f"trained/{name}": tensor for name, tensor in state.trained.items()}
        tensors |= {f"optimizer/{name}": tensor for name, tensor in state.optimizer.items()}
        for rank, generators in enumerate(state.generators):
            tensors |= {f"generators/{rank}/{device}": tensor for device, tensor in enumerate(generators.torch)}
        description = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "progress": state.progress.to_json(),
            "generators": [{"python": each.python, "numpy": each.numpy} for each in state.generators],
            "extra": dict(extra),
        }
        # The checksum covers the text of the header too, so an edited number is found as a flipped bit is.
        text = json.dumps(description)
        header = {FORMAT: text, "sha256": digest(tensors, text)}
        path = self._folder / f"step-{state.progress.step:08d}.safetensors"
        write_atomically(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}, header))
        files = self._files()
        end = files.index(path) + 1
        for other in (*files[: max(0, end - self._keep)], *files[end:]):
            other.unlink()
        return path

    def latest(self) -> tuple[TrainingState, dict[str, Any], list[Problem]] | None:
        """The newest whole checkpoint, what was kept with it, and what is wrong with newer ones; None: there is none.

        Raises:
            DataError: there are checkpoints, and all of them are damaged.
        """
        damaged: list[Problem] = []
        files = self._files()
        for path in reversed(files):
            try:
                state, extra = _load(path)
            except DataError as error:
                damaged += error.problems
            else:
                return state, extra, damaged
        if files:
            raise DataError([*damaged, Problem("no checkpoint of this run is whole", location=str(self._folder))])
        return None

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("step-*.safetensors"))


def _load(path: Path) -> tuple[TrainingState, dict[str, Any]]:
    try:
        tensors, header = read_tensors(path)
    except DataError as error:
        raise DataError(f"this checkpoint is torn: {error.problems[0].message}", location=str(path)) from error
    text = header.get(FORMAT, "")
    if header.get("sha256") != digest(tensors, text):
        raise DataError("this checkpoint does not match the checksum in its header", location=str(path))
    try:
        return _parse(parse_json(text), tensors)
    # The checksum keeps out accidents. Who writes another file with its checksum can put anything anywhere.
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        message = f"expected a checkpoint of format {FORMAT_VERSION}: {type(error).__name__}: {error}"
        raise DataError(message, location=str(path)) from error


def _parse(description: Any, tensors: Mapping[str, Tensor]) -> tuple[TrainingState, dict[str, Any]]:
    """A checkpoint from its header and tensors; what is not there or of another kind raises whatever it does."""
    if description["format_version"] != FORMAT_VERSION:
        raise ValueError(f"format {description['format_version']}")
    generators = tuple(
        Generators(python=each["python"], numpy=each["numpy"], torch=tuple(_under(tensors, f"generators/{rank}/")))
        for rank, each in enumerate(description["generators"])
    )
    state = TrainingState(
        progress=Progress.from_json(description["progress"]),
        trained=_named(tensors, "trained/"),
        optimizer=_named(tensors, "optimizer/"),
        generators=generators,
    )
    _PROGRESS.validate_json(json.dumps(description["progress"]))
    return state, dict(_EXTRA.validate_python(description["extra"]))


def _named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _under(tensors: Mapping[str, Tensor], prefix: str) -> list[Tensor]:
    """In the order of the numbers after the prefix."""
    numbered = {int(name): tensor for name, tensor in _named(tensors, prefix).items()}
    return [numbered[number] for number in sorted(numbered)]
