"""What clients send and get, as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, cast, final

from pydantic import BaseModel, ConfigDict, Field, field_validator

RowValue = str | dict[str, Any]


class Body(BaseModel):
    """A body that names every field; others are faults."""

    model_config = ConfigDict(extra="forbid")


@final
class AskedRow(Body):
    """A row, and the prompt that is to answer it."""

    row: RowValue
    """The columns that the task reads, by name; or the text, if it reads one column only."""
    prompt: str | None = None
    """Name of the prompt; may be left out while there is one only."""

    @field_validator("row", "prompt")
    @classmethod
    def _is_unicode(cls, value: RowValue | None) -> RowValue | None:
        if value is not None and _has_half_characters(value):
            raise ValueError("the text has half of a surrogate pair, which is not a character")
        return value


@final
class MixedRows(Body):
    """Rows of any of the prompts."""

    rows: Annotated[list[AskedRow], Field(min_length=1)]


@final
class Rows(Body):
    """Rows of one prompt."""

    rows: Annotated[list[RowValue], Field(min_length=1)]

    @field_validator("rows")
    @classmethod
    def _are_unicode(cls, rows: list[RowValue]) -> list[RowValue]:
        for number, row in enumerate(rows):
            if _has_half_characters(row):
                raise ValueError(f"row {number} has half of a surrogate pair, which is not a character")
        return rows


@final
class Answers(Body):
    """What came out."""

    answers: list[dict[str, Any]]
    """In the order of the rows. Each has `row`, the number of its row from 0 on, and `label`, `probability` and what
    the scheme tells besides, or `error`. A task that makes several rows of one has several answers to it."""


@final
class PromptFacts(Body):
    """A prompt that is served."""

    name: str
    run: str
    """Name of the run that it is from."""
    task: str
    scheme: str
    """`classes`, `choices`, `iob2` or `start_end`."""
    method: str
    columns: list[str]
    """What a row must have."""
    labels: list[str]
    parameters: int
    """Trained parameters that this prompt and its head add to the backbone."""


@final
class Prompts(Body):
    """All prompts that are served."""

    backbone: str | None
    prompts: list[PromptFacts]


@final
class NewPrompt(Body):
    """A run whose prompts are to be served too."""

    run: Annotated[str, Field(min_length=1, max_length=4096)]
    """Its folder, within the one that the server was started with."""
    name: Annotated[str, Field(pattern=r"^[\w.-]{1,100}$")] | None = None
    """Of the prompt; of a run with several tasks, each is called `name.task`. null: as the task."""


@final
class Health(Body):
    """Whether the server answers."""

    status: str
    version: str
    prompts: int


@final
class Fault(Body):
    """Why a request was refused."""

    detail: str


def characters(value: RowValue) -> int:
    """How many characters a row has, names and values of all columns together; a number counts as one."""
    return sum(len(text) for text in _texts(value))


def _has_half_characters(value: RowValue) -> bool:
    try:
        for text in _texts(value):
            text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _texts(value: Any) -> Iterator[str]:
    """All texts within a JSON value."""
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            mapping = cast("dict[str, Any]", item)
            left += [*mapping.keys(), *mapping.values()]
        elif isinstance(item, list):
            left += cast("list[Any]", item)
        else:
            yield "0"
