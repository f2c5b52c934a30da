"""What quantizing the frozen backbone costs: error, time and memory, beside fp32 weights, on real sentences.

    python benchmarks/quantization_cost.py --data tasks/quickstart/train.jsonl

The backbone is MiniLM-L6 with a random prompt of length 16. Errors are relative to fp32; the gradient is the prompt's.
Times are of one forward and one backward pass, the forms taking turns, and the median over the rounds is given.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from ptv2kit.models.backbones import find_backbone, load_backbone
from ptv2kit.models.checkpoints import load_tokenizer
from ptv2kit.models.heads import TokenHead
from ptv2kit.models.model import PromptedModel
from ptv2kit.models.prompts import EmbeddingPrompt
from ptv2kit.spec.recipe import Backbone

FORMS: dict[str, dict[str, str]] = {
    "fp32": {},
    "bf16": {"dtype": "bf16"},
    "int8": {"quantization": "int8"},
    "int8, bf16": {"quantization": "int8", "dtype": "bf16"},
    "nf4": {"quantization": "nf4"},
    "nf4, bf16": {"quantization": "nf4", "dtype": "bf16"},
}


def build(form: str) -> PromptedModel:
    """The same random prompt on MiniLM with weights of a form."""
    spec = find_backbone(Backbone.model_validate({"name": "mini", **FORMS[form]}))
    backbone = load_backbone(spec)
    torch.manual_seed(1)
    prompt = EmbeddingPrompt(spec.layers, 16, dropout=0.0, init_scale=1.0)
    head = TokenHead(spec.config.hidden_size, 2, dropout=0.0)
    return PromptedModel(spec, backbone, prompt, head, shift_positions=True).eval()


def step(model: PromptedModel, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, float]:
    """Hidden states of real tokens, the prompt's gradient, and seconds."""
    model.zero_grad()
    started = time.perf_counter()
    output = model.encode(ids, mask)
    model.head(output)[mask.bool()].square().mean().backward()
    seconds = time.perf_counter() - started
    gradient = torch.cat([parameter.grad.flatten() for parameter in model.prompt.parameters()])
    return output.hidden[mask.bool()].detach(), gradient, seconds


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="JSON Lines with a column 'tokens' or 'text'")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [json.loads(line) for line in arguments.data.read_text(encoding="utf-8").splitlines()[: arguments.rows]]
    texts = [row["text"] if "text" in row else " ".join(row["tokens"]) for row in rows]
    batch = load_tokenizer(find_backbone(Backbone(name="mini")), words=False)(texts, padding=True, return_tensors="pt")
    ids, mask = batch["input_ids"], batch["attention_mask"]
    models = {form: build(form) for form in FORMS}
    seconds: dict[str, list[float]] = {form: [] for form in FORMS}
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for _ in range(arguments.rounds):
        for form, model in models.items():
            hidden, gradient, taken = step(model, ids, mask)
            found[form] = hidden, gradient
            seconds[form].append(taken)
    exact_hidden, exact_gradient = found["fp32"]
    print("| weights | hidden states | gradient, cosine | time | MB |")
    print("|---|---|---|---|---|")
    for form, (hidden, gradient) in found.items():
        error = (hidden - exact_hidden).norm() / exact_hidden.norm()
        cosine = cosine_similarity(gradient, exact_gradient, dim=0)
        ratio = statistics.median(seconds[form]) / statistics.median(seconds["fp32"])
        tensors = [*models[form].backbone.parameters(), *models[form].backbone.buffers()]
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1e6
        print(f"| {form} | {error:.1%} | {cosine:.4f} | {ratio:.2f} | {size:.1f} |")


if __name__ == "__main__":
    main()
