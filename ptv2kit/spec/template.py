"""Input templates: `"{question} {choice1}"`. Names of columns only: no code, no format specifications."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, final

from pydantic import AfterValidator

from ptv2kit.spec.base import Fault

MASK = "mask"
"""What stands in braces where a verbalizer's word belongs; a column of this name is hidden by it."""
OPTION = "option"
"""What stands in braces where an option of `input.options` belongs."""
_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_ATTRIBUTE = re.compile(r"(^|\.)__\w+__(\.|$)")
_COLUMN = re.compile(r"^[^\s{}!:][^{}!:]*$")


@final
@dataclass(frozen=True)
class Template:
    """A parsed template: literal text and column names in turn.

    Args:
        parts: `(is_column, text)` pairs in order.
    """

    parts: tuple[tuple[bool, str], ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the template reads, in order of first use; `a.b` reads field `b` of column `a`."""
        return tuple(dict.fromkeys(text for is_column, text in self.parts if is_column))


@cache
def parse_template(text: str) -> Template:
    """Parse `text`; `{{` and `}}` stand for the braces themselves.

    Raises:
        ValueError: a brace is not closed, or what stands between two braces is not a column name.
    """
    parts: list[tuple[bool, str]] = []
    end = 0
    for match in _TOKEN.finditer(text):
        if match.start() > end:
            parts.append((False, text[end : match.start()]))
        end = match.end()
        token = match.group(0)
        if token in ("{{", "}}"):
            parts.append((False, token[0]))
        elif match.group(1) is None:
            raise ValueError(
                f"'{token}' at character {match.start() + 1} has no partner; write '{token * 2}' for the brace"
            )
        elif not _COLUMN.match(match.group(1)):
            raise ValueError(
                f"'{token}' is not a column name: only '{{column}}' or '{{column.field}}' can stand in braces"
            )
        elif _ATTRIBUTE.search(match.group(1)):
            raise ValueError(f"'{token}' names an attribute of Python; only columns and their fields can be read")
        else:
            parts.append((True, match.group(1)))
    if end < len(text):
        parts.append((False, text[end:]))
    return Template(tuple(parts))


def no_column(path: tuple[str | int, ...], templates: Sequence[str], example: str, name: str) -> Iterator[Fault]:
    """A fault if templates name no column, so that they are the same for every row."""
    if not any(parse_template(template).columns for template in templates):
        yield Fault(path, f"'{name}' names no column, such as '{example}'")


def _checked(text: str) -> str:
    parse_template(text)
    return text


TemplateText = Annotated[str, AfterValidator(_checked)]
"""Text with columns in braces, such as `"{premise} {joiner}"`."""
