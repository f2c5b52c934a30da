"""What every section of a task or recipe file has in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
"""The name of a task or recipe: letters, digits, `_`, `.` and `-`; it becomes a folder's name."""


class Section(BaseModel):
    """A mapping in a YAML file. Unknown keys are refused, values are never converted, instances are frozen.

    Docstrings below a field are its description in the JSON Schema and in the key reference.
    """

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
