"""Spans by the characters of a text, in the layouts of annotation tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

_KEYS = (("start", "start_offset"), ("end", "end_offset"), ("label", "labels", "type", "tag"))
"""Names of a span's start, end and label in the layouts of annotation tools."""


class CharacterSpan(NamedTuple):
    """A span: its first character from 0, the character behind its last one, and its type."""

    start: int
    end: int
    name: str

    def bare(self, text: str) -> tuple[int, int]:
        """Start and end without the blanks at its edges; of nothing but blanks the end is before the start."""
        given = text[self.start : self.end]
        return self.start + len(given) - len(given.lstrip()), self.end - len(given) + len(given.rstrip())


def read_span(item: Any) -> CharacterSpan | None:
    """Read `[start, end, label]`, or a mapping as Doccano, Prodigy, Label Studio and spaCy write it; None for what is
    neither."""
    if isinstance(item, list):
        parts = cast(list[Any], item)
        start, end, label = parts if len(parts) == 3 else (None, None, None)
    elif isinstance(item, Mapping):
        fields = cast(Mapping[str, Any], item)
        start, end, label = (next((fields[key] for key in keys if key in fields), None) for keys in _KEYS)
    else:
        return None
    if isinstance(label, list):
        several = cast(list[Any], label)
        label = several[0] if len(several) == 1 else None
    if not isinstance(start, int) or not isinstance(end, int) or not isinstance(label, str) or not label:
        return None
    return CharacterSpan(start, end, label)
