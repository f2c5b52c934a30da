"""What one forward and backward pass keeps in memory and computes, counted by a dry pass on the meta device.

The whole model is built without weights and run once. autograd tells each tensor that it keeps for the backward pass;
each storage is counted once, parameters are not. So prompts on some layers only, frozen weights that keep nothing of
their inputs, and the oddities of each architecture are counted as they are, not by a formula. Three things are counted
as a GPU's kernels do them: fused attention keeps its inputs, its output and one number for each query instead of all
weights; a boolean mask becomes one of the keys' type in every layer; dropout keeps one byte for each element.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from transformers.modeling_layers import GradientCheckpointingLayer

from ptv2kit.errors import ConfigError
from ptv2kit.models.heads import BackboneOutput
from ptv2kit.models.model import PromptedModel
from ptv2kit.spec.recipe import Recipe
from ptv2kit.spec.task_base import Unit

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

_Place = Literal["prompt", "head", "outside", "layer"]


@final
@dataclass(frozen=True)
class TaskShape:
    """The size of a task's inputs and head.

    Args:
        unit: what has logits.
        labels: number of logits per unit; of choices their number.
        max_length: sub-words of the longest input.
        assumed: whether the number of labels is a guess, because only the training rows tell it.
        own_head: whether the head is the backbone's own, frozen; its passes are counted as those of a linear one.
    """

    name: str
    unit: Unit
    labels: int
    max_length: int
    assumed: bool = False
    own_head: bool = False

    @property
    def inputs(self) -> int:
        """Inputs of the backbone per example."""
        return self.labels if self.unit == "choices" else 1

    @property
    def tokens(self) -> int:
        """Sub-words of the longest example."""
        return self.max_length * self.inputs


@final
@dataclass(frozen=True)
class PassCost:
    """What a pass over some examples keeps, in bytes, and computes, in floating-point operations.

    Args:
        layers: kept by all layers.
        largest_layer: kept by the layer that keeps most.
        layer_inputs: what is kept instead of `layers` under gradient checkpointing.
        outside: kept by the backbone outside its layers.
        prompt: the prompt's keys and values, or vectors, with their dropout masks and what a network keeps.
        head: kept by the head and the loss.
        copies: in fp32, of the last hidden states and of their gradient; 0 if the backbone computes in fp32.
        forward: operations of the forward pass.
        forward_layers: those of them within layers.
        backward: operations of the backward pass.
    """

    layers: float
    largest_layer: float
    layer_inputs: float
    outside: float
    prompt: float
    head: float
    copies: float
    forward: float
    forward_layers: float
    backward: float

    def activations(self, checkpointing: bool) -> float:
        """Most bytes of activations at one time, without prompt and head.

        All that is kept, and as much room as one layer needs for its gradients. Under checkpointing what one layer
        keeps comes on top, because it is computed again.
        """
        kept = self.layer_inputs + self.largest_layer if checkpointing else self.layers
        return kept + self.outside + self.largest_layer

    def operations(self, checkpointing: bool) -> float:
        """Operations of a forward and a backward pass."""
        return self.forward + self.backward + (self.forward_layers if checkpointing else 0)


@final
@dataclass(frozen=True)
class PassCosts:
    """The costs of one example and of two; costs grow linearly from there."""

    one: PassCost
    two: PassCost

    def at(self, examples: int) -> PassCost:
        """The costs of a number of examples."""
        values: dict[str, float] = {}
        for field in fields(PassCost):
            first, second = getattr(self.one, field.name), getattr(self.two, field.name)
            values[field.name] = first + (second - first) * (examples - 1)
        return PassCost(**values)


def count_passes(model: PromptedModel, recipe: Recipe, shape: TaskShape) -> PassCosts:
    """What training passes of a model cost; inputs are as long as they may be, and padded.

    Args:
        model: from `empty_model`, without gradient checkpointing; hooks are put into it, so that it is good for nothing
            else afterwards.
        recipe: with the type of the frozen weights.

    Raises:
        ConfigError: the model cannot be run without values.
    """
    nn.Module.to(model.backbone, DTYPES[recipe.backbone.dtype])
    counter = _Counter(model.train())
    try:
        return PassCosts(counter.count(shape, 1), counter.count(shape, 2))
    except (RuntimeError, NotImplementedError) as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise ConfigError(
            f"backbone '{recipe.backbone.name}': its activations cannot be counted: {reason}",
            hint="mixtures of experts are counted with backbone.dtype=bf16 only"
            if recipe.backbone.dtype != "bf16"
            else "",
        ) from error


@final
class _Counter:
    """Counts storages by where they were first kept."""

    def __init__(self, model: PromptedModel) -> None:
        self._model = model
        # Storages are told apart by their identity, so that all that were seen are held.
        self._own = {_key(tensor): _storage(tensor) for tensor in (*model.parameters(), *model.buffers())}
        self._depth = 0
        self._calls = 0
        self._copies = 0.0
        self._place: _Place = "outside"
        self._kept: dict[int, tuple[_Place, int, torch.UntypedStorage]] = {}
        self._remaining: dict[int, torch.UntypedStorage] = {}
        for module in model.backbone.modules():
            if isinstance(module, GradientCheckpointingLayer):
                module.register_forward_pre_hook(self._enter_layer, with_kwargs=True)
                module.register_forward_hook(self._leave_layer)
        parts: tuple[tuple[nn.Module | None, _Place], ...] = ((model.prompt, "prompt"), (model.head, "head"))
        for part, place in parts:
            if part is not None:
                part.register_forward_pre_hook(self._enter(place))
                part.register_forward_hook(self._leave_part)

    def count(self, shape: TaskShape, examples: int) -> PassCost:
        """The costs of one pass."""
        self._calls, self._kept, self._remaining = 0, {}, {}
        kernels = _Kernels(lambda: self._place == "layer")
        rows = examples * shape.inputs
        labels = {
            "token": (examples, shape.max_length),
            "start_end": (examples, 2),
            "labels": (examples, shape.labels),
        }.get(shape.unit, (examples,))
        with saved_tensors_hooks(self._keep, _never), kernels:
            ids = torch.ones(rows, shape.max_length, dtype=torch.long, device="meta")
            logits = self._model(ids, torch.ones_like(ids))
            self._place = "head"
            dtype = torch.float if shape.unit in ("labels", "number") else torch.long
            self._model.head.loss_sum(logits, torch.zeros(labels, dtype=dtype, device="meta"))
            self._place = "outside"
        by_layer: dict[int, float] = {}
        sums: dict[_Place, float] = {"prompt": 0.0, "head": 0.0, "outside": 0.0, "layer": 0.0}
        for place, call, storage in self._kept.values():
            sums[place] += storage.nbytes()
            if place == "layer":
                by_layer[call] = by_layer.get(call, 0.0) + storage.nbytes()
        elsewhere = {key for key, (place, _, _) in self._kept.items() if place != "layer"}
        inputs = [storage for key, storage in self._remaining.items() if key not in elsewhere and key not in self._own]
        return PassCost(
            layers=sums["layer"],
            largest_layer=max(by_layer.values(), default=0.0),
            layer_inputs=sum(storage.nbytes() for storage in inputs),
            outside=sums["outside"],
            prompt=sums["prompt"],
            head=sums["head"],
            copies=self._copies,
            forward=kernels.forward,
            forward_layers=kernels.forward_chosen,
            backward=kernels.backward,
        )

    def _keep(self, tensor: Tensor) -> Tensor:
        self._add(tensor)
        return tensor

    def _add(self, tensor: Tensor) -> None:
        key = _key(tensor)
        if key in self._own:
            return
        self._kept.setdefault(key, (self._place, self._calls, _storage(tensor)))
        if self._place != "layer":
            self._remaining[key] = _storage(tensor)  # kept even if what layers keep is not

    def _enter_layer(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._depth += 1
        if self._depth > 1:
            return
        self._calls += 1
        self._place = "layer"
        for value in (*args, *kwargs.values()):
            for tensor in value if isinstance(value, tuple) else (value,):
                if isinstance(tensor, Tensor):
                    self._remaining[_key(tensor)] = _storage(tensor)

    def _leave_layer(self, *_: Any) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._place = "outside"

    def _enter(self, place: _Place) -> Callable[..., None]:
        def enter(_: nn.Module, args: tuple[Any, ...]) -> None:
            self._place = place
            if place == "head":
                self._count_copies(args[0])

        return enter

    def _count_copies(self, output: BackboneOutput) -> None:
        """Head and loss compute in fp32; the gradient that comes back to them is copied, too."""
        if self._model.backbone.dtype != output.hidden.dtype:
            self._copies = 2 * _storage(output.hidden).nbytes()

    def _leave_part(self, _: nn.Module, __: Any, output: Any) -> None:
        if self._place == "prompt":  # it is held until the next pass, whether or not autograd needs it
            for layer in output if isinstance(output, list) else [(output,)]:
                for tensor in layer:
                    self._add(tensor)
        self._place = "outside"


@final
class _Kernels(TorchFunctionMode):
    """Counts operations, and lets a pass keep what a GPU's kernels would keep.

    Args:
        chosen: whether an operation that runs now is counted in `forward_chosen`, too.
    """

    def __init__(self, chosen: Callable[[], bool]) -> None:
        super().__init__()
        self._chosen = chosen
        self.forward = 0.0
        self.forward_chosen = 0.0
        self.backward = 0.0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.__bool__:
            return False  # what depends on values, such as a mask without padding, is taken to be the costlier case
        if func is F.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        if func is F.dropout:
            return _dropout(*args, **kwargs)
        result = func(*args, **kwargs)
        if func in _PRODUCTS:
            left, right = args[-2:] if func is torch.addmm else args[:2]
            # [..., n, k] times [..., k, m]; a linear layer has its weights as [m, k].
            columns = right.shape[0] if func is F.linear else right.shape[-1]
            self._count(2.0 * max(left.numel() * columns, result.numel() * left.shape[-1]), left, right)
        return result

    def _attention(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *_: Any, **__: Any
    ) -> Tensor:
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            attn_mask = attn_mask.to(query.dtype)
        scores = math.prod(query.shape[:-1]) * key.shape[-2]
        self._count(2.0 * scores * query.shape[-1], query, key)
        self._count(2.0 * scores * value.shape[-1], value, query)
        return _FusedAttention.apply(query, key, value, attn_mask)

    def _count(self, operations: float, *inputs: Tensor) -> None:
        self.forward += operations
        if self._chosen():
            self.forward_chosen += operations
        self.backward += operations * sum(tensor.requires_grad for tensor in inputs)


_PRODUCTS = frozenset(
    {F.linear, torch.matmul, torch.bmm, torch.addmm, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.Tensor.bmm}
)


@final
class _FusedAttention(torch.autograd.Function):
    """Keeps what memory-efficient attention keeps."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        context = query.new_empty(*query.shape[:-1], value.shape[-1])
        normalizers = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, context, normalizers, *(() if mask is None else (mask,)))
        return context


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:  # noqa: A002
    """As torch's: the names are those of its arguments."""
    if not training or p == 0:
        return input
    return torch.native_dropout(input, p, True)[0]


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage()


def _key(tensor: Tensor) -> int:
    return id(tensor.untyped_storage())


def _never(_: Tensor) -> Tensor:
    raise AssertionError("nothing is computed backwards")
