"""Depth of prompts: how many layers `prompt.layers` covers, and from which end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, final

from ptv2kit.reporting.report.model import Configuration

_LAYERS = "prompt.layers"
_RANGE = re.compile(r"(\d+)-(\d+)")
FROM_BELOW = "ascending (from the first layer)"
FROM_ABOVE = "descending (from the last layer)"


@final
class Depths:
    """Places of configurations on an axis of depth."""

    def __init__(self, items: Sequence[Configuration]) -> None:
        self._layers: dict[str, int] = {}
        for backbone in dict.fromkeys(item.backbone for item in items):
            found = _layer_count([item for item in items if item.backbone == backbone])
            if found is not None:
                self._layers[backbone] = found

    def place(self, item: Configuration) -> tuple[float, str] | None:
        """Number of covered layers and the value as written; None if the backbone's depth is needed and not known."""
        covered = _covered(item.settings.get(_LAYERS), self._layers.get(item.backbone))
        return None if covered is None else (float(len(covered)), _text(item.settings[_LAYERS]))

    def orders(self, item: Configuration) -> list[str]:
        """The lines it belongs to: from below, from above, both if all layers are covered, or neither."""
        total = self._layers.get(item.backbone)
        covered = _covered(item.settings.get(_LAYERS), total)
        if covered is None or total is None:
            return ["layers"]
        count = len(covered)
        orders: list[str] = []
        if covered == list(range(1, count + 1)):
            orders.append(FROM_BELOW)
        if covered == list(range(total - count + 1, total + 1)):
            orders.append(FROM_ABOVE)
        return orders or ["other layers"]


def _covered(layers: Any, total: int | None) -> list[int] | None:
    """The layers, from 1; None if that depends on a total that is not known."""
    if isinstance(layers, list | tuple):
        return sorted(int(number) for number in layers)
    text = str(layers)
    match = _RANGE.fullmatch(text)
    if match is not None:
        return list(range(int(match[1]), int(match[2]) + 1))
    if total is None:
        return None
    if text == "all":
        return list(range(1, total + 1))
    number = int(text.removesuffix("..").removeprefix("-"))
    return list(range(total - number + 1 if text.startswith("-") else number, total + 1))


def _layer_count(items: Sequence[Configuration]) -> int | None:
    """Layers of a backbone, which results do not say: by the parameters of its prompts, or the last layer named.

    The prompt of a layer has as many parameters as that of any other if the length is the same and no network makes it.
    """
    for whole in items:
        for part in items:
            count = _own_count(part.settings.get(_LAYERS))
            if whole.settings.get(_LAYERS) != "all" or not count or not _same_prompt(whole, part):
                continue
            if whole.prompt_size and part.prompt_size:
                return round(whole.prompt_size * count / part.prompt_size)
    ends = [covered[-1] for item in items if (covered := _covered(item.settings.get(_LAYERS), None))]
    return max(ends, default=None)


def _own_count(layers: Any) -> int | None:
    """How many layers are covered, where that does not depend on the backbone."""
    if isinstance(layers, str) and layers.startswith("-"):
        return int(layers.removeprefix("-").removesuffix(".."))
    covered = _covered(layers, None)
    return None if covered is None else len(covered)


def _same_prompt(one: Configuration, other: Configuration) -> bool:
    if one.values.get("prompt.length") != other.values.get("prompt.length"):
        return False
    plain = ("auto", "none")
    return all(
        item.method == "p_tuning_v2" and item.values.get("prompt.reparameterization") in plain for item in (one, other)
    )


def _text(layers: Any) -> str:
    return layers if isinstance(layers, str) else ",".join(map(str, layers))
