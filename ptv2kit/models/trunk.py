"""The trunk: the layers below a backbone's lowest prompt, whose outputs are the same in every epoch.

They are frozen and no prompt reaches them, so an input's hidden states between the trunk and the first prompted layer
can be computed once and handed in from then on. The layers stay where they are in the model: one that is not needed
hands its input on, and the first layer above the trunk gets the hidden states that were kept. Masks, positions and
whatever else a model gives its layers are made by the model itself, in every pass.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, final

from torch import Tensor, nn
from transformers import PreTrainedModel

from ptv2kit.errors import ConfigError
from ptv2kit.models.injection import AttentionLayer

_Mode = Literal["whole", "below", "above"]


@final
class Trunk:
    """The lower layers of a backbone, and the switch that leaves them out.

    Args:
        backbone: whose layers these are; they are left as they are until `install`.
        layers: attention layers of the backbone, in order.
        depth: how many of them are below the lowest prompt, at least one and not all.
    """

    def __init__(self, backbone: PreTrainedModel, layers: Sequence[AttentionLayer], depth: int) -> None:
        assert 0 < depth < len(layers)
        self._backbone = backbone
        self._names = [layer.name for layer in layers]
        self.depth = depth
        self._first = 0
        self._mode: _Mode = "whole"
        self._states: Tensor | None = None
        self._beside: dict[int, tuple[Any, ...] | None] = {}

    def install(self) -> None:
        """Make the switch; until it is used, the layers answer as before. May be called again.

        Raises:
            ConfigError: the layers are not in one list, or the lowest prompted one is part of the list's first
                element.
        """
        if self._first > 0:
            return
        places = [_place(self._backbone, name) for name in self._names]
        lists = {path for path, _ in places}
        if len(lists) != 1 or None in lists:
            raise ConfigError(f"{self._kind} do not have their layers in one list, so that none can be left out")
        path = str(lists.pop())
        blocks = self._backbone.get_submodule(path)
        assert isinstance(blocks, nn.ModuleList)
        self._first = places[self.depth][1]
        if self._first == 0:
            raise ConfigError(f"{self._kind}: the lowest prompted layer is in the first element of their layers")
        for number, block in enumerate(blocks):
            block.forward = self._switched(number, block.forward)

    def replace_by(self, states: Tensor | None) -> None:
        """Leave the trunk out of the coming passes and let `states` stand for its output; None: compute it.

        They stay until the next call, because gradient checkpointing may compute a layer again during backward.

        Args:
            states: `[batch, length, hidden]`.
        """
        assert states is None or self._first > 0, "it was not installed"
        self._mode, self._states = ("whole" if states is None else "above"), states

    @contextmanager
    def computing(self) -> Generator[list[Tensor]]:
        """Nothing but the trunk is computed; the list then holds its output `[batch, length, hidden]`."""
        output: list[Tensor] = []
        self._mode, self._states = "below", None
        try:
            yield output
            assert self._states is not None, "no forward pass was made"
            output.append(self._states)
        finally:
            self._mode, self._states = "whole", None

    @property
    def _kind(self) -> str:
        return f"models of type '{self._backbone.config.model_type}'"

    def _switched(self, number: int, original: Callable[..., Any]) -> Callable[..., Any]:
        """What stands in for the `forward` of the list's element `number`."""

        def forward(*args: Any, **kwargs: Any) -> Any:
            if self._mode == "above" and number == self._first:
                args, kwargs = _with_input(self._states, args, kwargs)
            elif self._mode == "above" and number < self._first:
                return self._handed_on(number, args, kwargs)
            elif self._mode == "below" and number >= self._first:
                if number == self._first:
                    self._states = args[0] if args else kwargs["hidden_states"]
                return self._handed_on(number, args, kwargs)
            output = original(*args, **kwargs)
            self._notice(number, output)
            return output

        return forward

    def _notice(self, number: int, output: Any) -> None:
        """Learn the form of a layer's output; only hidden states may go from layer to layer."""
        if number in self._beside:
            return
        beside = output[1:] if isinstance(output, tuple) else None
        if any(item is not None for item in beside or ()):
            message = f"layers of {self._kind} give each other more than hidden states, so that none can be left out"
            raise ConfigError(message, hint="set train.cache_trunk to auto or off")
        self._beside[number] = beside

    def _handed_on(self, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A layer's input in the form of its output."""
        assert number in self._beside, "a whole pass must come first"
        beside = self._beside[number]
        hidden = args[0] if args else kwargs["hidden_states"]
        return hidden if beside is None else (hidden, *beside)


def _place(backbone: PreTrainedModel, name: str) -> tuple[str | None, int]:
    """The outermost list of modules that an attention module is in, and its element; None without a list."""
    parts = name.split(".")
    for end in range(1, len(parts)):
        if isinstance(backbone.get_submodule(".".join(parts[:end])), nn.ModuleList):
            return ".".join(parts[:end]), int(parts[end])
    return None, 0


def _with_input(
    states: Tensor | None, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A layer's arguments with other hidden states."""
    return ((states, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": states})
