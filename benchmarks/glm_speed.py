"""Trains a prompt on the original GLM with random weights, and measures what that costs.

    python benchmarks/glm_speed.py --size 10B --steps 50 --peak-tflops 989

No checkpoint is needed: speed and memory do not depend on the values of the weights. `--size tiny` shows on any machine
that it works. Prints one line of JSON for each setting of gradient checkpointing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from transformers import AutoModel

from ptv2kit.models import injection
from ptv2kit.models.backbones import BackboneSpec, find_backbone
from ptv2kit.models.glm import register
from ptv2kit.models.glm.configuration import OriginalGlmConfig, Size
from ptv2kit.models.heads import Pooling, SequenceHead
from ptv2kit.models.model import PromptedModel
from ptv2kit.models.prompts import EmbeddingPrompt
from ptv2kit.spec.recipe import Backbone

WARM_UP = 5


@dataclass(frozen=True)
class Measurement:
    """One setting; memory in GiB, `mfu` None without a peak rate."""

    size: str
    device: str
    batch_size: int
    length: int
    prompt_length: int
    gradient_checkpointing: bool
    parameters: int
    trained: int
    steps: int
    first_loss: float
    last_loss: float
    seconds_per_step: float
    tokens_per_second: float
    peak_memory: float | None
    mfu: float | None


def spec_of(size: Size | Literal["tiny"], dtype: str) -> BackboneSpec:
    """The facts of a GLM of that size; no weights exist."""
    register()
    tiny = OriginalGlmConfig(
        num_layers=3, hidden_size=64, num_attention_heads=4, vocab_size=512, pad_token_id=0, eos_token_id=0
    )
    with tempfile.TemporaryDirectory() as folder:
        (tiny if size == "tiny" else OriginalGlmConfig.of_size(size)).save_pretrained(folder)
        return find_backbone(Backbone.model_validate({"name": folder, "dtype": dtype}))


def build(spec: BackboneSpec, device: torch.device, prompt_length: int) -> PromptedModel:
    """A frozen GLM with random weights on `device`, a prompt and the trained head of the linear protocol."""
    injection.register()
    dtype = torch.bfloat16 if spec.settings.dtype == "bf16" else torch.float32
    with device:
        backbone = AutoModel.from_config(spec.config, attn_implementation=injection.IMPLEMENTATION, dtype=dtype)
        head = SequenceHead(spec.config.hidden_size, 2, 0.1, Pooling("first", "tanh"))
        prompt = EmbeddingPrompt(spec.layers, prompt_length, 0.1, init_scale=0.02)
    return PromptedModel(spec, backbone.requires_grad_(False), prompt, head, shift_positions=False)


def model_flops(spec: BackboneSpec, parameters: int, batch_size: int, length: int, prompt_length: int) -> float:
    """Floating-point operations that one training step needs, recomputation not counted.

    Two per weight and token forwards and two backwards, because frozen weights have no gradient; embeddings are looked
    up. Scores and contexts cost 4 · columns · hidden per token and layer forwards, twice that backwards.
    """
    config = spec.config
    embeddings = (config.vocab_size + 2 * (config.max_sequence_length + 1)) * config.hidden_size
    tokens = batch_size * length
    attention = 12 * config.num_layers * config.hidden_size * (length + prompt_length)
    return tokens * (4 * (parameters - embeddings) + attention)


def measure(arguments: argparse.Namespace, checkpointing: bool) -> Measurement:
    """Train for the given steps on one random batch after another."""
    device = torch.device(arguments.device)
    torch.manual_seed(11)
    spec = spec_of(arguments.size, arguments.dtype)
    model = build(spec, device, arguments.prompt_length).train()
    if checkpointing:
        model.backbone.activation_checkpointing_enable({"use_reentrant": False})
    count = model.parameter_count()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    losses: list[Tensor] = []
    started = 0.0
    shape = (arguments.batch_size, arguments.length)
    for step in range(WARM_UP + arguments.steps):
        if step == WARM_UP:
            synchronize(device)
            started = time.perf_counter()
        ids = torch.randint(spec.config.vocab_size, shape, device=device)
        labels = ids[:, 1] % 2
        loss = model.head.loss_sum(model(ids, torch.ones_like(ids)), labels) / len(labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    synchronize(device)
    seconds = (time.perf_counter() - started) / arguments.steps
    flops = model_flops(spec, count.frozen, *shape, arguments.prompt_length)
    return Measurement(
        size=arguments.size,
        device=torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        batch_size=arguments.batch_size,
        length=arguments.length,
        prompt_length=arguments.prompt_length,
        gradient_checkpointing=checkpointing,
        parameters=count.frozen,
        trained=count.trained,
        steps=arguments.steps,
        first_loss=round(float(losses[0]), 4),
        last_loss=round(float(losses[-1]), 4),
        seconds_per_step=round(seconds, 4),
        tokens_per_second=round(arguments.batch_size * arguments.length / seconds, 1),
        peak_memory=round(torch.cuda.max_memory_allocated() / 2**30, 2) if device.type == "cuda" else None,
        mfu=round(flops / seconds / (arguments.peak_tflops * 1e12), 4) if arguments.peak_tflops else None,
    )


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["tiny", *get_args(Size)], default="10B")
    parser.add_argument("--dtype", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--prompt-length", type=int, default=16)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--peak-tflops", type=float, help="peak rate of the device in this precision, for the MFU")
    arguments = parser.parse_args()
    for checkpointing in (False, True):
        print(json.dumps(asdict(measure(arguments, checkpointing))), flush=True)


if __name__ == "__main__":
    main()
