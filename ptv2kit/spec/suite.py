"""The suite file: many runs of recipes, and what is shown of them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from ptv2kit.spec.base import Name, Section
from ptv2kit.spec.recipe import Expectation, Method

Settings = dict[str, Any]
"""Values of a recipe by dotted key, such as `train.learning_rate: 5e-3`."""
Grid = dict[str, Annotated[tuple[Any, ...], Field(strict=False, min_length=1)]]
"""Lists of values by dotted key."""

LONGEST_LIST = 10_000
"""Points that a grid may have."""


class Parameter(Section):
    """What a search may choose for a key: one of `values`, or a number from `low` to `high`."""

    low: float | None = None
    """Lowest number."""
    high: float | None = None
    """Highest number, included."""
    log: bool = False
    """Choose evenly on the scale of logarithms, as is right for learning rates."""
    step: float | None = Field(default=None, gt=0)
    """Only `low`, `low + step`, … up to `high`."""
    integer: bool = False
    """Only whole numbers."""
    values: Annotated[tuple[Any, ...], Field(strict=False, min_length=1)] | None = None
    """One of these, instead of a range."""

    def listed(self) -> tuple[Any, ...] | None:
        """Every value that can be chosen, None if they are not a few."""
        if self.values is not None:
            return self.values
        step = self.step or (1.0 if self.integer and not self.log else None)
        if step is None:
            return None
        assert self.low is not None
        assert self.high is not None
        count = int((self.high - self.low) / step + 1e-9) + 1
        if count > LONGEST_LIST:
            return None
        return tuple(self.number(self.low + index * step) for index in range(count))

    def corners(self) -> tuple[Any, ...]:
        """Values that show whether all are allowed: each listed one, or the ends of the range."""
        if self.values is not None:
            return self.values
        assert self.low is not None
        assert self.high is not None
        return tuple(dict.fromkeys((self.number(self.low), self.number(self.high))))

    def number(self, value: float) -> int | float:
        """A number of the range as a recipe holds it: without the noise of steps, and short enough to be read."""
        if self.integer:
            return round(value)
        return float(f"{value:.12g}" if self.step is not None else f"{value:.6g}")


class Search(Section):
    """A search for the best values, one study for each case."""

    trials: PositiveInt | None = None
    """Trials of each study, of all processes that share it together; the grid has as many as it has points."""
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    """How values are chosen: by those that did well so far (tree-structured Parzen estimator), at random, or all."""
    space: Annotated[dict[str, Parameter], Field(min_length=1)]
    """What is searched, by dotted key of the recipe."""
    pruner: Literal["median", "none"] = "median"
    """Stop a trial whose best validation score so far is below the median of the others at the same epoch."""
    warmup_epochs: NonNegativeInt = 0
    """Epochs of each trial that the pruner waits."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 11
    """Seed of the sampler; the seed of training is the recipe's."""
    storage: Annotated[str, Field(min_length=1)] | None = None
    """Where the trials are kept: null, a journal in the suite's folder; the path of a journal; or the URL of an SQL
    database. Processes and machines that are given the same one share the search."""
    final: Settings | None = None
    """The best trial is trained once more with these values; `{}` with none."""

    def points(self) -> list[dict[str, Any]]:
        """Every point of the grid, the last key varying fastest. Of a space whose values are all listed."""
        lists = [parameter.listed() or () for parameter in self.space.values()]
        return [dict(zip(self.space, values, strict=True)) for values in itertools.product(*lists)]

    @property
    def budget(self) -> int:
        """Trials of each study."""
        return len(self.points()) if self.trials is None else self.trials


class Case(Section):
    """One of several things that are compared, such as methods or backbones."""

    name: Name
    """Name of the case in the table and in the names of folders."""
    recipe: Annotated[str, Field(min_length=1)] | None = None
    """Path of the case's recipe, relative to the suite; null: the suite's."""
    set: Settings = Field(default_factory=dict)
    """Values of the recipe in this case; they win over the suite's `set`."""
    grid: Grid = Field(default_factory=dict)
    """Lists of values in this case, besides those of the suite's `grid`."""


class Rule(Section):
    """Values for some of the cells: those whose settings are as `where` says."""

    where: Annotated[Settings, Field(min_length=1)]
    """Which cells: by dotted key of what the suite varies, or `case`, a value or a list of values; all must match."""
    set: Settings = Field(default_factory=dict)
    """Values of the recipe in these cells; they win over the suite's `set` and over earlier rules, and give way to the
    case's `set` and to `grid`."""
    expect: Annotated[tuple[Expectation, ...], Field(strict=False)] = ()
    """What these cells should reach, besides what their recipe and other rules expect."""
    source: str = ""
    """Where the values of `set` come from, such as the name of a published script."""


class Published(Section):
    """A table of values that cells should reach, as CSV."""

    file: Annotated[str, Field(min_length=1)]
    """Path of the file, relative to the suite. Its columns `metric`, `split`, `value`, `tolerance`, `source` and
    `origin` are an expectation; every other one that is not empty says of which cells: `case`, `task`, `method` …"""
    table: Annotated[str, Field(min_length=1)]
    """Only rows with this value in the column `table`."""


Keep = Literal["scores", "prompt", "all"]
"""What is left of a finished cell besides its scores and predictions."""


def keeps_tensors(keep: Keep, method: Method) -> bool:
    """Whether a finished cell keeps what was trained; a fine-tuned backbone only with `all`."""
    return keep == "all" or (keep == "prompt" and method != "fine_tuning")


class Suite(Section):
    """Many runs. Each combination of a case and a value of each list is a cell, trained as a recipe of its own."""

    suite: Name
    """Name of the suite; everything of it is in `runs/<suite>/`."""
    description: str = ""
    """What the suite is for."""
    recipe: Annotated[str, Field(min_length=1)] | None = None
    """Path of the recipe that every cell starts from, relative to this file; cases may have their own."""
    set: Settings = Field(default_factory=dict)
    """Values of the recipe in every cell, by dotted key."""
    grid: Grid = Field(default_factory=dict)
    """Lists of values by dotted key; every combination is a cell."""
    cases: Annotated[tuple[Case, ...], Field(strict=False)] = ()
    """What is compared, each with every combination of `grid`, or each with a search of its own."""
    rules: Annotated[tuple[Rule, ...], Field(strict=False)] = ()
    """Values for some of the cells; a later rule wins. One that an extended file brings along may match no cell."""
    expect: Published | None = None
    """Values that cells should reach, from a table; each row is one more rule."""
    search: Search | None = None
    """Search for the best values instead of trying all of `grid`."""
    override: Settings = Field(default_factory=dict)
    """Values of the recipe that win over everything in this file: where a suite's folder keeps what the command line
    gave."""
    labels: dict[str, str] = Field(default_factory=dict)
    """What tables and figures of a report call a method, task, backbone, case or key, such as
    `{srl_ewt_verbs: roles, train.learning_rate: rate}`; methods are written as in the paper unless they are here."""
    keep: Keep = "prompt"
    """What a finished cell keeps besides its scores and predictions: nothing; the prompt and head, but no fine-tuned
    backbone; or all that was trained. What another cell starts from is kept as well."""


def short_names(keys: Mapping[str, Any]) -> dict[str, str]:
    """The last part of each dotted key, or the whole key where two would be the same."""
    last = [key.rpartition(".")[2] for key in keys]
    return {key: name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True)}


def shown(value: Any) -> str:
    """A value as tables and cell names show it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
