"""What every section of a task or recipe file has in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
"""The name of a task or recipe: letters, digits, `_`, `.` and `-`; it becomes a folder's name."""


class Section(BaseModel):
    """A mapping in a YAML file. Unknown keys are refused, values are never converted, instances are frozen.

    Docstrings below a field are its description in the JSON Schema and in the key reference.
    """

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        defer_build=True,  # a section is built once, within its file's adapter, and not by itself as well
    )


class Fault(NamedTuple):
    """Settings that contradict each other; the loader finds the line.

    Args:
        path: of the value, or of the key if `at_key`, within the section that says so.
    """

    path: tuple[str | int, ...]
    message: str
    hint: str = ""
    at_key: bool = False


def below(section: str, faults: Iterable[Fault]) -> Iterator[Fault]:
    """The faults of a section, as the file above it sees them."""
    return (fault._replace(path=(section, *fault.path)) for fault in faults)
