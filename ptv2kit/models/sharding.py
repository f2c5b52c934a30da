"""Frozen weights in parts: each process holds one part of every layer, and gathers a layer while it is computed.

This is DeepSpeed's ZeRO-3 over the backbone alone. Prompt and head are a few megabytes: they stay whole in each
process, so that they cost no gathering, and are trained as without it.

Source: Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", arXiv:1910.02054.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, final

from torch import nn
from transformers import PreTrainedModel


@final
class Sharding:
    """ZeRO-3 of a backbone; torch's default process group must be there.

    Args:
        config: DeepSpeed's, with stage 3.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = dict(config)

    @contextmanager
    def loading(self) -> Generator[None]:
        """Within it transformers puts weights into their parts as it reads them; process 0 alone reads values."""
        from transformers.integrations.deepspeed import HfDeepSpeedConfig

        switch = HfDeepSpeedConfig(dict(self._config))
        try:
            yield
        finally:
            del switch  # transformers asks whether it is still alive

    def shard(self, backbone: PreTrainedModel) -> None:
        """Let the modules of a backbone that was loaded in parts gather them when they are called."""
        import deepspeed

        deepspeed.initialize(model=backbone, config=dict(self._config))


def parameter_count(parameter: nn.Parameter) -> int:
    """Numbers in a parameter; of one in parts, all of them."""
    return int(vars(parameter).get("ds_numel", parameter.numel()))
