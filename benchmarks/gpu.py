"""Everything that is to be measured on a GPU, in one script that ends by itself.

    python benchmarks/gpu.py --out gpu.json                        # at most 12 minutes on one GPU of 80 GB or more
    python benchmarks/gpu.py --device cpu --small --out small.json # the whole script in small, on any machine

Each part is written to the file when it is done, so that nothing is lost if the machine is. Weights are random: speed
and memory do not depend on them. A part that fails is written down with its error, the others go on, and the script
ends with 1. A part that would begin after `--minutes` is left out, and named.

The parts: the rate of matrix products, which utilisation is a share of; GLM-10B, 50 steps with and without gradient
checkpointing, beside what `ptv2kit plan` says it needs; the shape of RoBERTa-large beside PEFT's prefix tuning and
LoRA and full fine-tuning; the same in 8 bits; the same compiled; `ptv2kit serve` with eight prompts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
import traceback
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from glm_speed import measure as measure_glm
from glm_speed import spec_of, synchronize
from peers.methods import Method, MethodName, Toolkit, build, toolkit_recipe
from peers.step import padded_batch
from serving import Server, load
from serving import train as train_runs
from transformers import RobertaConfig, RobertaModel

from ptv2kit.models.backbones import find_backbone
from ptv2kit.models.build import build_model
from ptv2kit.models.checkpoints import silence_libraries
from ptv2kit.plan.memory import Setup, footprint
from ptv2kit.plan.memory import measure as measure_costs
from ptv2kit.plan.passes import TaskShape
from ptv2kit.spec.recipe import Recipe
from ptv2kit.training.compilation import compile_backbone

PEERS: tuple[MethodName, ...] = ("ptv2kit", "ptv2kit-upper-half", "peft-prefix", "peft-lora", "fine-tuning")
GIB = 2**30


@dataclass(frozen=True)
class Scale:
    """How large everything is.

    Args:
        matrix: rows and columns of the matrices that are multiplied.
        glm: size of the GLM.
        steps: of the GLM.
        batch_size: of all.
        length: of the GLM's inputs; the encoder's are half as long.
        encoder: configuration of the encoder.
        encoder_steps: of each peer.
        seconds: that the server is asked.
    """

    matrix: int
    glm: str
    steps: int
    batch_size: int
    length: int
    encoder: dict[str, int]
    encoder_steps: int
    seconds: float


def _roberta(hidden_size: int, num_hidden_layers: int, num_attention_heads: int) -> dict[str, int]:
    shape = {"hidden_size": hidden_size, "num_hidden_layers": num_hidden_layers, "intermediate_size": 4 * hidden_size}
    own = {"max_position_embeddings": 514, "type_vocab_size": 1, "vocab_size": 50265}
    return shape | own | {"num_attention_heads": num_attention_heads}


LARGE = Scale(
    matrix=8192,
    glm="10B",
    steps=50,
    batch_size=16,
    length=256,
    encoder=_roberta(1024, 24, 16),
    encoder_steps=30,
    seconds=15,
)
SMALL = Scale(
    matrix=256,
    glm="tiny",
    steps=2,
    batch_size=4,
    length=32,
    encoder=_roberta(64, 2, 4),
    encoder_steps=2,
    seconds=1,
)


def matrix_rate(device: torch.device, size: int) -> dict[str, float]:
    """Floating-point operations per second of a product of square matrices, by precision, in units of 1e12."""
    found: dict[str, float] = {}
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        one = torch.randn(size, size, device=device, dtype=dtype)
        times: list[float] = []
        for _ in range(12):
            synchronize(device)
            started = time.perf_counter()
            one @ one
            synchronize(device)
            times.append(time.perf_counter() - started)
        found[name] = 2 * size**3 / sorted(times)[len(times) // 2] / 1e12
    return found


def glm(device: torch.device, scale: Scale, peak: float, checkpointing: bool) -> dict[str, Any]:
    """Steps of P-Tuning v2 on a GLM in bf16, and the memory that `plan` says it needs, in GiB."""
    arguments = Namespace(
        device=str(device),
        size=scale.glm,
        dtype="bf16",
        batch_size=scale.batch_size,
        length=scale.length,
        prompt_length=16,
        steps=scale.steps,
        peak_tflops=peak,
    )
    measured = asdict(measure_glm(arguments, checkpointing))
    spec = spec_of(scale.glm, "bf16")  # pyright: ignore[reportArgumentType]
    recipe = Recipe.model_validate(
        {
            "recipe": "glm",
            "task": "glm",
            "backbone": spec.settings.model_dump(),
            "prompt": {"length": 16},
            "train": {
                "epochs": 1,
                "learning_rate": 5e-3,
                "batch_size": scale.batch_size,
                "gradient_checkpointing": checkpointing,
            },
        }
    )
    costs = measure_costs(recipe, spec, [TaskShape("glm", "sequence", 2, scale.length)])
    planned = footprint(recipe, costs, Setup("none", "none", 1), scale.batch_size, checkpointing=checkpointing)
    parts = {f"planned_{name}": value / GIB for name, value in asdict(planned).items()}
    return {**measured, **parts, "planned": planned.total / GIB}


def steps_of(method: Method, device: torch.device, scale: Scale) -> dict[str, float | None]:
    """Seconds of a step in bf16 autocast as each peer's users run it on a GPU, rows per second, peak memory in GiB."""
    method.model.to(device)
    optimizer = method.optimizer(1e-3)
    batch = padded_batch(scale.batch_size, scale.length // 2, seed=11).to(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    times: list[float] = []
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
        for _ in range(scale.encoder_steps + 3):
            synchronize(device)
            started = time.perf_counter()
            method.step(batch, optimizer)
            synchronize(device)
            times.append(time.perf_counter() - started)
    seconds = sorted(times[3:])[len(times[3:]) // 2]
    peak = torch.cuda.max_memory_allocated() / GIB if device.type == "cuda" else None
    return {
        "first_step": times[0],
        "seconds_per_step": seconds,
        "rows_per_second": scale.batch_size / seconds,
        "peak_memory": peak,
    }


def encoder_folder(scale: Scale, place: Path) -> Path:
    """A folder with an encoder of random weights."""
    torch.manual_seed(11)
    RobertaModel(RobertaConfig(**scale.encoder)).save_pretrained(place / "encoder")  # pyright: ignore
    return place / "encoder"


def toolkit(folder: Path, device: torch.device, **backbone: str) -> Method:
    """ptv2kit's model on the encoder with other settings of the backbone."""
    recipe = toolkit_recipe("ptv2kit", folder, 20)
    settings = recipe.backbone.model_copy(update=backbone)
    recipe = recipe.model_copy(update={"backbone": settings})
    return Toolkit(build_model(recipe, "sequence", find_backbone(settings), 2, device).train())


def compiled(folder: Path, device: torch.device, scale: Scale) -> dict[str, float | None]:
    """The steps with a compiled backbone; the first one compiles it."""
    method = toolkit(folder, device)
    method.model.to(device)
    compile_backbone(method.model)  # pyright: ignore[reportArgumentType]
    return steps_of(method, device, scale)


def serve(place: Path, scale: Scale) -> dict[str, float]:
    """Rows per second and milliseconds of 32 clients who ask eight prompts on one MiniLM."""
    runs = train_runs(place)
    twice = {**runs, **{f"{name}-again": run for name, run in runs.items()}}
    server = Server.start(twice)
    try:
        taken, cpu = asyncio.run(load(server, 32, scale.seconds, seed=32))
    finally:
        server.stop()
    p50, p99 = (taken[int(len(taken) * share)] for share in (0.5, 0.99))
    found = {"prompts": len(twice), "clients": 32, "rows_per_second": len(taken) / scale.seconds}
    return {**found, "p50_ms": p50, "p99_ms": p99, "cpu_ms_per_row": 1000 * cpu / len(taken)}


class Record:
    """The file of results, written anew after each part.

    Args:
        path: of the file.
        ends: when no part may begin any more, on the monotonic clock.
        facts: of the machine.
    """

    def __init__(self, path: Path, ends: float, facts: dict[str, Any]) -> None:
        self._path = path
        self._ends = ends
        self.content: dict[str, Any] = {"machine": facts, "parts": {}, "left_out": [], "failed": []}

    def part(self, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        """Do a part and write it down; None if it failed or there was no time for it."""
        found: dict[str, Any] | None = None
        started = time.monotonic()
        if started > self._ends:
            self.content["left_out"].append(name)
        else:
            try:
                found = work()
                self.content["parts"][name] = {**found, "part_seconds": round(time.monotonic() - started, 1)}
            except Exception:  # noqa: BLE001 - one part's fault must not cost the others: the machine is lent for minutes
                self.content["failed"].append({"part": name, "error": traceback.format_exc()})
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._path.write_text(json.dumps(self.content, indent=2) + "\n", encoding="utf-8")
        print(json.dumps({name: self.content["parts"].get(name, "not done")}), flush=True)
        return found


def machine(device: torch.device) -> dict[str, Any]:
    """What it is measured on."""
    facts: dict[str, Any] = {"torch": torch.__version__, "device": str(device), "threads": torch.get_num_threads()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {"name": properties.name, "memory": properties.total_memory / GIB, "cuda": torch.version.cuda}
    return facts


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="file of results, JSON")
    parser.add_argument("--device", default="cuda", help="default: %(default)s")
    parser.add_argument("--small", action="store_true", help="tiny shapes, to see that the script runs")
    parser.add_argument("--minutes", type=float, default=10.0, help="when no part may begin any more")
    arguments = parser.parse_args()
    device, scale = torch.device(arguments.device), SMALL if arguments.small else LARGE
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU; --device cpu --small runs the script in small")
    record = Record(arguments.out, time.monotonic() + 60 * arguments.minutes, machine(device))
    silence_libraries()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        rates = record.part("matrix_tflops", lambda: matrix_rate(device, scale.matrix))
        peak = (rates or {"bf16": 0.0})["bf16"]
        for checkpointing in (False, True):
            label = f"glm_{scale.glm}{'_checkpointing' if checkpointing else ''}"
            record.part(label, partial(glm, device, scale, peak, checkpointing))
        folder = encoder_folder(scale, place)
        for peer in PEERS:
            record.part(
                f"encoder_{peer}", lambda peer=peer: steps_of(build(peer, folder, "sequence", 2, 20), device, scale)
            )
        for label, settings in (("bf16", {"dtype": "bf16"}), ("int8", {"dtype": "bf16", "quantization": "int8"})):
            record.part(
                f"encoder_{label}", lambda own=settings: steps_of(toolkit(folder, device, **own), device, scale)
            )
        record.part("encoder_compiled", lambda: compiled(folder, device, scale))
        record.part("serve", lambda: serve(place, scale))
    return 1 if record.content["failed"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
