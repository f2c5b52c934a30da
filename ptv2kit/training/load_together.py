"""Several trained runs beside one backbone, which is loaded once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

from ptv2kit.data.unlabelled import row_in_memory
from ptv2kit.errors import ConfigError, DataError, did_you_mean
from ptv2kit.models.mixed import MixedModel
from ptv2kit.spec.task import AnyTask
from ptv2kit.training.load_run import LoadedRun, load_run, read_run
from ptv2kit.training.mixed import MixedPredictor, Prompted, encode

BATCH_TOKENS = 8192
"""Tokens per forward pass unless said otherwise, padding included."""


@final
class LoadedRuns:
    """Prompts by name, all on the same backbone; they can be added and removed at any time.

    Args:
        device: where the backbone goes: `auto`, `cpu`, `cuda` or `mps`.
    """

    def __init__(self, device: str = "auto") -> None:
        self._device = device
        self._first: LoadedRun | None = None
        self._runs: dict[str, tuple[Prompted, LoadedRun]] = {}

    @property
    def names(self) -> list[str]:
        """Of the prompts, in the order in which they were added."""
        return list(self._runs)

    @property
    def backbone(self) -> str | None:
        """Name of the backbone, None before the first run is there."""
        return None if self._first is None else self._first.recipe.backbone.name

    def add(self, folder: Path, name: str | None = None) -> list[str]:
        """Load a run, each of its tasks as a prompt.

        Args:
            name: of the prompt; of a run with several tasks, each is called `name.task`. None: as the task.

        Returns:
            The names that were added; none of them if one cannot be loaded.

        Raises:
            ConfigError: a name is taken, this is not the folder of a run, or it has another backbone than the others.
            DataError: a file of it is torn, or its backbone could not be loaded.
        """
        resolved = [each.task for each in read_run(folder).tasks]
        tasks = [task.task for task in resolved]
        names = tasks if name is None else [name] if len(tasks) == 1 else [f"{name}.{task}" for task in tasks]
        for each in names:
            if each in self._runs:
                raise ConfigError(
                    f"there already is a prompt '{each}', of the run '{self._runs[each][1].folder}'",
                    hint=f"give this one another name: NAME={folder}",
                )
        loaded: list[LoadedRun] = []
        for task in resolved:
            loaded.append(load_run(folder, task.task, self._device, beside=self._beside(task, loaded)))
        if self._first is None:
            self._first = loaded[0]
        for each, run in zip(names, loaded, strict=True):
            self._runs[each] = (Prompted(each, run.task, run.scheme, run.model), run)
        return names

    def _beside(self, task: AnyTask, loaded: Sequence[LoadedRun]) -> LoadedRun | None:
        """Whose backbone a task takes: of a run that reads its rows with the same tokenizer, if there is one."""
        known = [*loaded, *(run for _, run in self._runs.values()), *([] if self._first is None else [self._first])]
        like = [run for run in known if run.task.reads_words == task.reads_words]
        return next(iter(like or known), None)

    def remove(self, name: str) -> None:
        """Forget a prompt; the backbone stays.

        Raises:
            ConfigError: there is no prompt of that name.
        """
        self.run(name)
        del self._runs[name]

    def prompted(self, name: str) -> Prompted:
        """The prompt of that name.

        Raises:
            ConfigError: there is none.
        """
        self.run(name)
        return self._runs[name][0]

    def run(self, name: str) -> LoadedRun:
        """The run that a prompt is from.

        Raises:
            ConfigError: there is no prompt of that name.
        """
        if name not in self._runs:
            hint = did_you_mean(name, self.names) or f"there are: {', '.join(self.names) or 'none'}"
            raise ConfigError(f"there is no prompt '{name}'", hint=hint)
        return self._runs[name][1]

    def predictor(self, batch_tokens: int = BATCH_TOKENS) -> MixedPredictor:
        """What answers questions to all of them; it knows those that are added later too.

        Raises:
            ConfigError: no run has been added yet.
        """
        if self._first is None:
            raise ConfigError("there is no run, and so no backbone yet", hint="add one first")
        model = MixedModel(self._first.spec, self._first.model.backbone)
        return MixedPredictor(model, self._first.device, batch_tokens)

    def predict(
        self, rows: Iterable[tuple[str, Mapping[str, Any] | str]], batch_tokens: int = BATCH_TOKENS
    ) -> list[dict[str, Any]]:
        """The answer to each row, whatever its task; as of `LoadedRun.predict`.

        Args:
            rows: the prompt's name and the row, or the text if its task reads one column only.
            batch_tokens: tokens per forward pass, padding included.

        Raises:
            ConfigError: a row has no name, there is no such prompt, or a row is a text, but its task reads several
                columns.
            DataError: rows cannot be answered; all of them are named.
        """
        questions = []
        problems = []
        for number, asked in enumerate(rows, start=1):
            if not isinstance(asked, tuple | list) or len(asked) != 2:  # pyright: ignore[reportUnnecessaryIsInstance]
                message = "expected a pair: the name of a prompt, and a row"
                raise ConfigError(f"row {number}: {message}", hint='such as ("mood", "a joy from start to end")')
            name, row = asked
            prompted = self.prompted(name)
            try:
                questions += encode(prompted, row_in_memory(prompted.task, row, f"row {number}", f"prompt '{name}'"))
            except DataError as error:
                problems += error.problems
        answers = [] if problems else self.predictor(batch_tokens).answers(questions)
        problems += [problem for answer in answers if answer.error is not None for problem in answer.error.problems]
        if problems:
            raise DataError(problems)
        return [answer.values for answer in answers if answer.values is not None]


def load_together(runs: Mapping[str, Path], device: str = "auto") -> LoadedRuns:
    """Load runs by the names that they are to have.

    Raises:
        ConfigError: one of them cannot be loaded, or has another backbone than the others.
        DataError: a file of one is torn, or the backbone could not be loaded.
    """
    loaded = LoadedRuns(device)
    for name, folder in runs.items():
        loaded.add(folder, name)
    return loaded
