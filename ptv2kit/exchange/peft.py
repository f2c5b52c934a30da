"""Prompts in the layouts of PEFT's prefix tuning and of the official P-Tuning v2 code, which are the same.

Both keep one matrix `[length, layers · 2 · kv_heads · head_dim]`: for each vector layer after layer, the key before the
value. Sources: `PeftModel.get_prompt` and `PrefixEncoder` of PEFT 0.21; `get_prompt` of `model/*_classification.py` and
`PrefixEncoder` of THUDM/P-tuning-v2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from ptv2kit.errors import ConfigError
from ptv2kit.models.backbones import BackboneSpec
from ptv2kit.models.build import shifts_positions
from ptv2kit.models.heads import Head, SequenceHead, StartEndHead, TokenHead
from ptv2kit.models.injection import AttentionLayer
from ptv2kit.spec.recipe import DEEP_METHODS, Recipe

_IGNORED = "PEFT hands the prompt over as a cache, which this model does not read"
_MASK = "PEFT's forward fails on it: its mask is longer than what the model makes room for"
_REFUSED = "PEFT's forward fails on it, or PEFT says that it takes no prefix"
_WINDOW = "its window of attention slides over PEFT's prompt as if it were tokens, and leaves it behind"
_DISTANCE = "PEFT gives its prompt places before the tokens, from which attention falls with distance"
WRONG_IN_PEFT = {
    "distilbert": _IGNORED,
    "albert": _IGNORED,
    "modernbert": _MASK,
    "deberta": _MASK,
    "deberta-v2": _MASK,
    "gemma2": _WINDOW,
    "gemma3_text": _WINDOW,
    "bloom": _DISTANCE,
    "gpt_neo": _WINDOW,
    "mpt": _DISTANCE,
    "mpnet": _REFUSED,
    "roformer": _REFUSED,
    "t5": _REFUSED,
    "deepseek_v3": "PEFT's prefix has the shape of plain keys and values, which latent attention does not have",
    "original_glm": "PEFT knows no model of this type",
}
"""Model types whose forward in PEFT was compared with ours and is not the same, and why."""
RIGHT_IN_PEFT = frozenset(
    {
        "bert",
        "electra",
        "megatron-bert",
        "rembert",
        "roberta",
        "xlm-roberta",
        "gpt2",
        "llama",
        "qwen3",
        "gemma",
        "mistral",
        "glm",
        "glm4",
        "falcon",
        "codegen",
        "gptj",
        "xglm",
    }
)
"""Model types whose forward in PEFT was compared with ours and is the same, if tokens count from after the prompt."""
_TOKEN_HEADS = {
    "bert": "classifier",
    "electra": "classifier",
    "roberta": "classifier",
    "xlm-roberta": "classifier",
    "gpt2": "classifier",
    "falcon": "classifier",
    "llama": "score",
    "qwen3": "score",
    "gemma": "score",
    "mistral": "score",
    "glm": "score",
    "glm4": "score",
}
_ANSWER_HEADS = frozenset({"bert", "electra", "roberta", "xlm-roberta"})


@final
@dataclass(frozen=True)
class PeftHead:
    """Where a head of ours belongs in a class of transformers.

    Args:
        module: its name in the class.
        auto_class: that makes the model.
    """

    task_type: str
    module: str
    auto_class: str


def to_flat(layers: Sequence[Tensor]) -> Tensor:
    """One matrix from keys and values.

    Args:
        layers: `[2, kv_heads, length, head_dim]` each.

    Returns:
        `[length, layers · 2 · kv_heads · head_dim]`.
    """
    both = torch.stack(list(layers))  # [layers, 2, kv_heads, length, head_dim]
    return both.permute(3, 0, 1, 2, 4).reshape(both.shape[3], -1).contiguous()


def from_flat(flat: Tensor, layers: Sequence[AttentionLayer]) -> list[Tensor]:
    """Keys and values from one matrix.

    Args:
        flat: `[length, layers · 2 · kv_heads · head_dim]`.
        layers: of the backbone; all of them have the same shape.

    Returns:
        `[2, kv_heads, length, head_dim]` for each layer.

    Raises:
        ConfigError: the width is not that of the layers.
    """
    heads, size = layers[0].kv_heads, layers[0].head_dim
    width = len(layers) * 2 * heads * size
    if flat.dim() != 2 or flat.shape[1] != width:
        raise ConfigError(
            f"its prompt has shape {tuple(flat.shape)}. Expected (length, {width}) for {len(layers)} layers with "
            f"{heads} heads of {size} for keys and values"
        )
    parts = flat.view(flat.shape[0], len(layers), 2, heads, size)
    return [part.contiguous() for part in parts.permute(1, 2, 3, 0, 4)]


def require_peft(recipe: Recipe, spec: BackboneSpec) -> None:
    """Make sure that PEFT computes with a prompt what we do.

    Args:
        spec: its backbone.

    Raises:
        ConfigError: it does not; the message says why.
    """
    reason, hint = _why_not(recipe, spec)
    if reason:
        raise ConfigError(f"this run cannot be exported to PEFT: {reason}", hint=hint)


def _why_not(recipe: Recipe, spec: BackboneSpec) -> tuple[str, str]:
    kind = spec.family.model_type
    if recipe.method not in DEEP_METHODS:
        return f"PEFT's prefix tuning is for prompts in every layer, and its method is {recipe.method}", ""
    if recipe.prompt.layers != "all":
        return f"PEFT's prompts cover all layers, and prompt.layers is {recipe.prompt.layers}", ""
    if recipe.prompt.attention != "joint":
        return "its prompt has a softmax of its own (prompt.attention: separate), which PEFT does not know", ""
    if recipe.train.layer_norm_learning_rate is not None:
        return "its prompt belongs to LayerNorms that were trained with it, which PEFT would not have", ""
    if recipe.backbone.quantization is not None:
        return "its prompt belongs to quantized weights, which PEFT would not have", ""
    if recipe.backbone.bidirectional:
        return "backbone.bidirectional is on, which PEFT does not know", ""
    if spec.renamed is not None:
        return f"its backbone is the text model of '{spec.source}', of which PEFT would take the whole", ""
    if kind in WRONG_IN_PEFT:
        return f"models of type '{kind}': {WRONG_IN_PEFT[kind]}", ""
    if kind not in RIGHT_IN_PEFT:
        return f"models of type '{kind}' were never compared with PEFT", ""
    window: Any = getattr(spec.config, "sliding_window", None)
    if kind == "mistral" and window is not None:
        return f"models of type '{kind}' with a sliding window: {_WINDOW}", ""
    if kind == "falcon" and spec.config.alibi:
        return f"models of type '{kind}' with alibi: {_DISTANCE}", ""
    if len({(layer.kv_heads, layer.head_dim) for layer in spec.layers}) > 1:
        return "its layers have keys of different shapes", ""
    if not shifts_positions(recipe, spec):
        return (
            "it counts tokens from 0, and PEFT from after the prompt",
            "train with prompt.positions: shifted to export the run",
        )
    return "", ""


def peft_head(spec: BackboneSpec, head: Head) -> PeftHead | None:
    """The class of transformers whose head computes what ours does; None: there is none."""
    kind = spec.family.model_type
    match head:
        case TokenHead() if kind in _TOKEN_HEADS:
            return PeftHead("TOKEN_CLS", _TOKEN_HEADS[kind], "AutoModelForTokenClassification")
        case StartEndHead() if kind in _ANSWER_HEADS:
            return PeftHead("QUESTION_ANS", "qa_outputs", "AutoModelForQuestionAnswering")
        case SequenceHead() if kind == "bert" and head.pooling.source == "pooler" and head.dense is None:
            return PeftHead("SEQ_CLS", "classifier", "AutoModelForSequenceClassification")
        case _:
            return None


def adapter_config(spec: BackboneSpec, length: int, head: PeftHead | None) -> dict[str, Any]:
    """The content of PEFT's `adapter_config.json`.

    Args:
        head: that goes along in PEFT's own way.
    """
    layer = spec.layers[0]
    width = layer.kv_heads * layer.head_dim
    return {
        "peft_type": "PREFIX_TUNING",
        "task_type": "FEATURE_EXTRACTION" if head is None else head.task_type,
        "base_model_name_or_path": spec.source,
        "inference_mode": True,
        "num_virtual_tokens": length,
        "num_layers": len(spec.layers),
        "num_attention_heads": layer.kv_heads,
        "token_dim": width,
        "encoder_hidden_size": width,
        "num_transformer_submodules": 1,
        "prefix_projection": False,
        "modules_to_save": None if head is None else [head.module],
    }
