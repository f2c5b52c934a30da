"""Which layers a prompt covers."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from ptv2kit.spec.layers import Layers, covered_layers

ADAPTER: TypeAdapter[str | tuple[int, ...]] = TypeAdapter(Layers)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("all", [0, 1, 2, 3, 4, 5]),
        ("3-5", [2, 3, 4]),
        ("6-6", [5]),
        ("4..", [3, 4, 5]),
        ("-2..", [4, 5]),
        ("upper-half", [3, 4, 5]),
        ("-6..", [0, 1, 2, 3, 4, 5]),
        ([5, 1], [0, 4]),
    ],
)
def test_layers_count_from_1(layers: object, expected: list[int]) -> None:
    assert list(covered_layers(ADAPTER.validate_python(layers), 6)) == expected


@pytest.mark.parametrize("layers", ["", "none", "0-3", "5-3", "0..", "-0..", "..4", "1,2", [], [0], [2, 2], [-1]])
def test_what_is_no_range_is_refused(layers: object) -> None:
    with pytest.raises(ValidationError, match="expected all, upper-half, a range such as 17-24"):
        ADAPTER.validate_python(layers)


@pytest.mark.parametrize("layers", ["5-7", "7..", "-7..", (7,)])
def test_layers_beyond_the_backbones_are_refused(layers: str | tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="the backbone"):
        covered_layers(layers, 6)
