"""Which layers a prompt covers: `all`, `17-24`, `17..`, `-8..`, or a list. Layers count from 1."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

_RANGE = re.compile(r"(?P<first>\d+)(?:-(?P<last>\d+)|\.\.)|-(?P<highest>\d+)\.\.")
_EXPECTED = "expected all, a range such as 17-24, 17.. or -8.., or a list of layers, which count from 1"


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _check(value: str | tuple[int, ...]) -> str | tuple[int, ...]:
    if isinstance(value, tuple):
        if not value or min(value) < 1 or len(set(value)) < len(value):
            raise ValueError(f"{_EXPECTED}; each once")
        return tuple(sorted(value))
    if value == "all":
        return value
    match = _RANGE.fullmatch(value)
    if match is None:
        raise ValueError(_EXPECTED)
    first, last, highest = (None if part is None else int(part) for part in match.groups())
    if 0 in (first, last, highest) or (first is not None and last is not None and first > last):
        raise ValueError(_EXPECTED)
    return value


Layers = Annotated[str | tuple[int, ...], BeforeValidator(_as_tuple), AfterValidator(_check)]


def covered_layers(layers: str | tuple[int, ...], count: int) -> tuple[int, ...]:
    """The layers that a prompt covers, as indices from 0, ascending.

    Args:
        layers: a valid value of `prompt.layers`.
        count: layers of the backbone.

    Raises:
        ValueError: it names a layer that the backbone does not have.
    """
    if isinstance(layers, tuple):
        numbers = layers
    elif layers == "all":
        numbers = tuple(range(1, count + 1))
    else:
        match = _RANGE.fullmatch(layers)
        assert match is not None
        first, last, highest = (None if part is None else int(part) for part in match.groups())
        if highest is not None:
            if highest > count:
                raise ValueError(f"{layers} asks for the highest {highest} layers, but the backbone has {count}")
            first = count - highest + 1
        assert first is not None
        numbers = tuple(range(first, (last or count) + 1))
    if not numbers or max(numbers) > count:
        raise ValueError(
            f"{layers if isinstance(layers, str) else list(layers)} is beyond the backbone's {count} layers"
        )
    return tuple(number - 1 for number in numbers)
