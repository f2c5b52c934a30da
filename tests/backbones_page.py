"""Writes `docs/backbones.md` from the reports of `test_compatibility.py`, for `pytest --backbones-page PATH`."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

CHECKS = {
    "test_the_prompt_of_every_layer_changes_the_logits": "each layer's prompt counts",
    "test_gradients_reach_every_layer_and_nothing_of_the_backbone": "gradients",
    "test_a_padded_batch_equals_its_rows_alone": "padding",
    "test_eager_and_sdpa_agree": "eager = sdpa",
    "test_gradient_checkpointing_changes_nothing": "checkpointing",
    "test_bf16_weights_give_nearly_the_same": "bf16",
    "test_a_compiled_model_gives_the_same": "compile",
    "test_a_causal_model_can_be_made_bidirectional": "bidirectional",
}
"""Each check of the compatibility test, and the head of its column."""
FACTS = ("attention", "kv heads", "kernel", "positions", "pooling")
INTRODUCTION = """# Backbones

Made by `just backbones` from `tests/models/test_compatibility.py`; do not edit.

A prompt goes into any model whose layers call transformers' attention interface. The families below are tested: a tiny
random model of each, with each of the four heads (whole inputs, choices, tokens, start and end). A number says with how
many heads a check passed.

Other model types are tried when a recipe names them: the configuration alone, on the meta device, shows whether each
layer calls the interface and gets a mask; if not, they are refused by name before weights are read. DeBERTa, which
does not call the interface, has an adapter; Megatron-BERT (GatorTron), RemBERT, RoFormer, MPNet, BLOOM, MPT, Falcon,
GPT-Neo, GPT-J, CodeGen and XGLM are made to call it; the original GLM (2B, 10B) is [native](glm.md). The attention of
BLOOM, MPT and some Falcons falls with distance; from a prompt there is none.

**Encoder-decoders** are refused but for T5, mT5 and UMT5 (FLAN-T5 is a T5), of which the encoder alone is read. Its
scores have a learned bias by distance; a prompt has no place, and its columns get none. `pooling: auto` is the mean.

**Multi-head latent attention** (DeepSeek V2 and V3, GLM 4.7 Flash, Kimi Linear, MiniCPM3): the prompt is in front of
the keys and values that the latent vectors are widened to. Values are narrower than keys; the prompt has the wider
shape for both, and a plan counts it so.

**Models that also read pictures or sound** (Gemma 3 and 4, Qwen-VL and Qwen 3.5, Mistral Small and Ministral, SmolVLM):
their text model alone is read from the checkpoint, the rest is left where it is.

**Hybrids** (Qwen 3.5, Qwen3-Next, LFM2, Granite 4, Jamba): some layers are recurrent, convolutions, or networks alone.
They have no keys that a query is compared with, so that a prompt goes in front of the layers with attention only, such
as each fourth one; a run and `ptv2kit plan` say how many. `prompt.layers` counts those. What the recurrent layers carry
on is what the prompted ones below gave them. Without the packages that their model cards name, such as
flash-linear-attention, transformers computes these layers in plain PyTorch, which is slow and takes more memory; a plan
counts that. `backbone.bidirectional` is refused, because such layers read from left to
right, and torch.compile fails on some of them.

"""
LEGEND = """
- **each layer's prompt counts**: the prompt of any single layer changes the logits.
- **gradients** reach keys and values of every layer's prompt and the head, and nothing of the backbone.
- **padding**: a padded batch gives what its rows give alone (1e-5).
- **eager = sdpa**: the model's own plain attention and torch's fused kernels agree in logits and gradients.
- **checkpointing**: `train.gradient_checkpointing` changes no gradient by more than 1e-6.
- **bf16**: half-precision frozen weights give nearly the same logits and gradients; prompt and head stay in fp32.
- **compile**: `torch.compile` without a graph break gives the same logits and gradients; tried with one head, of BERT
  with all.
- **bidirectional**: `backbone.bidirectional` lets a causal model see both sides; exact under padding. Sliding windows
  widen to both sides.
- **kv heads** are those of keys and values of the tested model, which has 4 query heads: 2 means grouped-query
  attention.
- **positions**: `index` and `after_padding` are learned and count from after the prompt (`prompt.positions: auto`), as
  in the official code; `rotary` and a model's `own` do not.
- **pooling** is what `backbone.pooling: auto` reads for whole inputs; `dense` is a layer that is trained with the head.

## Families that are not in the table

Tried once, with transformers 5.23: a tiny random model of each was trained to classify texts, the prompt of each layer
changes its probabilities, and a row has the same ones alone and in a padded batch. Nothing else was checked:

> apertus, arcee, bert-generation, biogpt, bitnet, camembert, cohere, cohere2, ctrl, data2vec-text, dots1, ernie,
> ernie4_5, esm, eurobert, exaone4, glm4_moe, gpt_bigcode, gpt_neox, gpt_oss, granite, helium, hunyuan_v1_dense, jais2,
> ministral, mixtral, mobilebert, modernbert-decoder, nemotron, nomic_bert, olmo, olmo2, olmo3, opt, persimmon, phi,
> phi3, phimoe, qwen2, qwen2_moe, qwen3_moe, roberta-prelayernorm, roc_bert, seed_oss, smollm3, splinter, stablelm,
> starcoder2, xlm-roberta-xl

Latent attention and encoders of encoder-decoders, without training: gradients reach the keys and values of each
layer's prompt, and a row's hidden states are the same alone and in a padded batch (of mt5 and umt5 without a prompt
also those of the whole model):

> deepseek_v2, deepseek_v32, glm4_moe_lite, glm_moe_dsa, kimi_linear (hybrid), minicpm3, mt5, umt5, youtu

Hybrids, trained once too; without a prompt their hidden states equal those of transformers:

> falcon_h1, granitemoehybrid, jamba, lfm2, lfm3, minimax, nemotron_h, olmo_hybrid, qwen3_5, qwen3_5_moe, qwen3_next,
> recurrent_gemma, zamba2

Text models of these, with hidden states equal to those of the whole model, saved with and without its head:

> aya_vision, cohere2_vision, gemma3, gemma3n (of its text model alone), gemma4, internvl, lfm2_vl, llava, mistral3,
> paligemma, qwen2_5_vl, qwen3_5, qwen3_5_moe, qwen3_vl, smolvlm

These are refused by name, each with the reason:

> big_bird, convbert, ibert, mamba, mra, nystromformer, squeezebert, tapas, yoso (their attention is their own);
> diffllama (layers share an attention module); layoutlm, markuplm (padding is masked in a way of their own); canine,
> flaubert, longcat_flash, longformer, xlm, xmod (the model cannot be made or run on the meta device); bart, t5gemma
> (encoder-decoders)
"""


class BackbonesPage:
    """Collects outcomes and writes the page at the end of the session, if nothing failed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._facts: dict[str, dict[str, str]] = {}
        self._passed: dict[tuple[str, str], int] = defaultdict(int)
        self._skipped: dict[tuple[str, str], str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        check = report.nodeid.rpartition("::")[2].partition("[")[0]
        properties = dict(report.user_properties)
        family = str(properties.get("family"))
        if report.when != "call" or "test_compatibility" not in report.nodeid:
            return
        if "facts" in properties:
            self._facts[family] = properties["facts"]  # type: ignore[assignment]
        if report.passed:
            self._passed[family, check] += 1
        elif report.skipped and isinstance(report.longrepr, tuple):
            self._skipped[family, check] = report.longrepr[2].removeprefix("Skipped: ")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if session.testsfailed:
            return
        lines = ["| model type | " + " | ".join([*FACTS, *CHECKS.values()]) + " |"]
        lines.append("|---" * (1 + len(FACTS) + len(CHECKS)) + "|")
        for family, facts in self._facts.items():
            # Failures end the session without a page; a head may be left out where one shows all.
            passed = {check: self._passed[family, check] for check in CHECKS}
            cells = [
                f"{passed[check]}/{passed[check]}" if passed[check] else self._skipped[family, check]
                for check in CHECKS
            ]
            lines.append("| " + " | ".join([f"`{family}`", *(facts[name] for name in FACTS), *cells]) + " |")
        self._path.write_text(INTRODUCTION + "\n".join(lines) + "\n" + LEGEND, encoding="utf-8")
