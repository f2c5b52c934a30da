"""How much `${key}` puts in, counted before anything is put in: a few lines of references can double each other."""

from __future__ import annotations

import re
from typing import Any, final

from ptv2kit.spec.yaml import KeyPath

_REFERENCE = re.compile(r"\$\{([A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*)\}")
_DEEPEST = 32
_LARGEST = 1_000_000


def only_plain(text: str) -> bool:
    """Whether `${` occurs in plain references such as `${train.epochs}` alone: no resolver, no escape."""
    return "${" not in _REFERENCE.sub("", text) and "\\" not in text


@final
class Expansion:
    """Counts characters and values of what references stand for.

    The count continues from one text to the next, and stops at a million, so that counting takes no longer than that.

    Args:
        values: in which keys are looked up.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values
        self._count = 0

    def add(self, text: str) -> None:
        """Count what a text becomes.

        Raises:
            ValueError: it is too much, too deep, or goes in a circle.
        """
        self._value(text, 0)

    def _value(self, value: Any, depth: int) -> None:
        if depth > _DEEPEST:
            raise ValueError(f"references go in a circle, or deeper than {_DEEPEST} levels")
        self._count += 1 + (len(value) if isinstance(value, str) else 0)
        if self._count > _LARGEST:
            raise ValueError(f"references expand to more than {_LARGEST:,} characters")
        if isinstance(value, str):
            for match in _REFERENCE.finditer(value):
                self._value(self._look_up(tuple(match.group(1).split(".")), depth), depth + 1)
        elif isinstance(value, dict | list):
            for item in value.values() if isinstance(value, dict) else value:
                self._value(item, depth + 1)

    def _look_up(self, path: KeyPath, depth: int) -> Any:
        """The value as it is written; None if there is none, which interpolation itself says."""
        node: Any = self._values
        for part in path:
            whole = _REFERENCE.fullmatch(node) if isinstance(node, str) else None
            if whole is not None:
                self._count += 1
                if depth > _DEEPEST or self._count > _LARGEST:
                    raise ValueError(f"references go in a circle, or deeper than {_DEEPEST} levels")
                node = self._look_up(tuple(whole.group(1).split(".")), depth + 1)
            if isinstance(node, dict):
                node = node.get(part)
            elif isinstance(node, list) and str(part).isdecimal() and len(str(part)) < 9 and int(part) < len(node):
                node = node[int(part)]
            else:
                return None
        return node
