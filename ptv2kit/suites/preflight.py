"""What can be known of a run before its rows and weights are read: whether it can start, and the key of its outcome."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, final

from ptv2kit.data.sources.conll05 import words_path
from ptv2kit.data.sources.lines import fingerprint_of_file
from ptv2kit.errors import ConfigError, DataError
from ptv2kit.models.backbones import BackboneSpec, find_backbone
from ptv2kit.models.build import check_model
from ptv2kit.models.checkpoints import load_tokenizer
from ptv2kit.models.quantization import check_quantization
from ptv2kit.spec.load import ResolvedRecipe, ResolvedTask
from ptv2kit.spec.recipe import Recipe
from ptv2kit.spec.sources import Conll05Source
from ptv2kit.training.folder import run_key
from ptv2kit.training.initial import read_initial
from ptv2kit.training.prepare import choose_device, locate_data
from ptv2kit.training.request import outcome_request


@final
class Preflight:
    """Checks runs one after the other; backbones, files and tokenizers that several share are looked at once.

    Args:
        data_root: where data files are looked up first.
        planning: whether backbones that are not on this machine may be known by their published sizes alone; such runs
            cannot start.
    """

    def __init__(self, data_root: Path | None, *, planning: bool = False) -> None:
        self._data_root = data_root
        self._planning = planning
        self._specs: dict[str, BackboneSpec] = {}
        self._tokenizers: set[tuple[str, bool]] = set()
        self._data: dict[str, dict[str, Any]] = {}
        self._unreachable: dict[str, DataError] = {}

    def key(self, resolved: ResolvedRecipe) -> str:
        """Check a run, and make the key that says whether it has been done.

        The key stands for the resolved recipe and tasks without what changes no number, the bytes of the data files
        (of a hub data set its address and revision), the backbone's commit, the prompt that it starts from, and the
        version of ptv2kit. It is not the key in the run folder's name, which also covers the rows of a hub data set
        and needs them to be read.

        Raises:
            ConfigError: settings do not fit each other, the backbone or the machine.
            DataError: the backbone or a data file could not be loaded.
        """
        recipe = resolved.recipe
        if recipe.distributed.hostfile is not None:
            raise ConfigError(
                "a cell of a suite is trained on one machine, but distributed.hostfile names several",
                hint="start the suite on each machine, or with --engine ray: they share its cells",
            )
        device = choose_device(recipe.train.device)
        data = [self._data_of(task) for task in resolved.tasks]
        spec = self.spec(recipe)
        if recipe.backbone.quantization is not None:
            check_quantization(recipe.backbone.quantization, spec.config, device.type)
        for task in resolved.tasks:
            check_model(recipe, spec, recipe.train.max_length or task.task.input.max_length)
            self._check_tokenizer(recipe, spec, task)
        initial = read_initial(recipe, spec)
        tasks = [task.task for task in resolved.tasks]
        return run_key(outcome_request(spec.resolved(recipe), tasks, data, spec.commit, initial))

    @property
    def absent(self) -> list[str]:
        """Backbones of the runs so far that are known by their published sizes alone."""
        return sorted({spec.source for spec in self._specs.values() if not spec.at_hand})

    def spec(self, recipe: Recipe) -> BackboneSpec:
        """The backbone of a recipe, looked up once for all recipes of it; errors as of `find_backbone`."""
        settings = recipe.backbone_settings.model_dump_json()
        address = f"{recipe.backbone.name}@{recipe.backbone.revision}"
        if address in self._unreachable:  # a hub that does not answer lets each of a hundred cells wait for a minute
            raise self._unreachable[address]
        if settings not in self._specs:
            try:
                self._specs[settings] = find_backbone(recipe.backbone_settings, planning=self._planning)
            except DataError as error:
                self._unreachable[address] = error
                raise
        return self._specs[settings]

    def _check_tokenizer(self, recipe: Recipe, spec: BackboneSpec, task: ResolvedTask) -> None:
        words = task.task.reads_words
        known = (recipe.backbone.model_dump_json(), words)
        if known not in self._tokenizers and spec.at_hand:
            load_tokenizer(spec, words=words)
            self._tokenizers.add(known)

    def _data_of(self, task: ResolvedTask) -> dict[str, Any]:
        """What stands for the data of a task: by split the fingerprints of its files, or the address on the hub."""
        known = json.dumps([str(task.path), task.task.data.model_dump(mode="json")])
        if known not in self._data:
            found: dict[str, Any] = {}
            for split, located in locate_data(task.task, task.path, self._data_root).items():
                if located is None:
                    found[split] = task.task.data.splits.by_name()[split]
                    continue
                files = list(located.files)
                if isinstance(task.task.data, Conll05Source):
                    files += [words_path(path) for path in located.files]
                found[split] = [fingerprint_of_file(path) for path in files]
            self._data[known] = found
        return self._data[known]
