"""DeepSpeed's ZeRO-1 and ZeRO-2: the optimizer's state, and the gradients, in parts.

With a frozen backbone they save next to nothing, for what is trained is small; with `fine_tuning` they save much.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from ptv2kit.data.schemes.records import Batch
from ptv2kit.training.parts import TaskPart
from ptv2kit.training.processes import Processes
from ptv2kit.training.strategy import Strategy

_PARTS = ("exp_avg", "exp_avg_sq")


@final
class PartitionedOptimizer(Strategy):
    """Steps are made by a DeepSpeed engine around the model of one task.

    Args:
        trained: what is trained, by name.
        optimizer: over all of `trained`.
        processes: that train together.
        config: DeepSpeed's, with stage 1 or 2.
    """

    def __init__(
        self,
        parts: Sequence[TaskPart],
        trained: Mapping[str, nn.Parameter],
        optimizer: AdamW,
        processes: Processes,
        config: Mapping[str, Any],
    ) -> None:
        super().__init__(parts, trained, optimizer, processes)
        import deepspeed

        assert len(parts) == 1, "the engine would move the heads of tasks that had no turn"
        self._engine: Any = deepspeed.initialize(model=parts[0].model, optimizer=optimizer, config=dict(config))[0]

    def forward(self, task: int, batch: Batch, *, last: bool) -> Tensor:
        """See `Strategy.forward`."""
        self._engine.set_gradient_accumulation_boundary(last)
        return self._engine(**batch.inputs())

    def backward(self, loss: Tensor) -> None:
        """See `Strategy.backward`."""
        # The engine takes the mean over processes of what is to be summed.
        self._engine.backward(loss * self.processes.size)

    def step(self, task: int, max_norm: float) -> float:
        """See `Strategy.step`; the engine steps whatever the norm is."""
        self._engine.step()
        norm = self._engine.get_global_grad_norm()
        return math.nan if norm is None else float(norm)

    def optimizer_state(self) -> dict[str, Tensor]:
        """See `Strategy.optimizer_state`."""
        from deepspeed.utils import safe_get_full_optimizer_state

        steps = [own["step"] for own in self.optimizer.state.values() if "step" in own]
        if not steps:
            return {}
        self._link()
        state: dict[str, Tensor] = {}
        for name, parameter in self.trained.items():
            for key in _PARTS:
                whole = safe_get_full_optimizer_state(parameter, key)
                assert whole is not None, f"'{name}' belongs to no partition"
                state[f"{name}/{key}"] = whole.detach().cpu().clone()
            state[f"{name}/step"] = steps[0].detach().cpu().clone()
        return state

    def load_optimizer_state(self, state: Mapping[str, Tensor]) -> None:
        """See `Strategy.load_optimizer_state`."""
        from deepspeed.utils import safe_set_full_optimizer_state

        # The engine steps on copies of its own, which the parameters that were just restored have to reach.
        self._engine.optimizer.refresh_fp32_params()
        steps = [value for key, value in state.items() if key.endswith("/step")]
        if not steps:
            return
        for group in self.optimizer.param_groups:
            for partition in group["params"]:
                zeros = {key: torch.zeros_like(partition) for key in _PARTS}
                self.optimizer.state[partition] = {"step": steps[0].clone().to(partition.device), **zeros}
        self._link()
        for name, parameter in self.trained.items():
            for key in _PARTS:
                safe_set_full_optimizer_state(parameter, state[f"{name}/{key}"].to(parameter.device), key)

    def _link(self) -> None:
        """Let DeepSpeed see the state of all groups; by itself it looks once, when only the first one has any."""
        zero: Any = self._engine.optimizer
        zero._hp_optimizer_states_linked = False
        zero._lazy_init_hp_params_optimizer_state()
