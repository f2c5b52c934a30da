"""Tiny random backbones of every family that is supported, each with a tokenizer of the family's kind."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModel,
    BertTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from ptv2kit.models.glm import register
from tests.conftest import VOCABULARY

ENCODER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "max_position_embeddings": 64,
}
DECODER = {**ENCODER, "num_key_value_heads": 2, "head_dim": 8}

# Each family: what its tokenizer is like, and the sizes of its tiny model
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("wordpiece", ENCODER),
    "electra": ("wordpiece", {**ENCODER, "embedding_size": 16}),
    "distilbert": (
        "wordpiece",
        {"dim": 32, "hidden_dim": 48, "n_heads": 4, "n_layers": 3, "max_position_embeddings": 64},
    ),
    "megatron-bert": ("wordpiece", ENCODER),
    "roformer": ("wordpiece", {**ENCODER, "embedding_size": 16}),
    "rembert": ("metaspace", {**ENCODER, "input_embedding_size": 16, "output_embedding_size": 16}),
    "albert": ("metaspace", {**ENCODER, "embedding_size": 16}),
    "roberta": ("byte_level", {**ENCODER, "pad_token_id": 1}),
    "mpnet": ("byte_level", {**ENCODER, "pad_token_id": 1}),
    "xlm-roberta": ("metaspace", {**ENCODER, "pad_token_id": 1}),
    "modernbert": (
        "byte_level",
        {**ENCODER, "global_attn_every_n_layers": 2, "local_attention": 8, "reference_compile": False},
    ),
    "deberta": (
        "byte_level",
        {**ENCODER, "relative_attention": True, "position_biased_input": False, "pos_att_type": ["c2p", "p2c"]},
    ),
    "deberta-v2": (
        "metaspace",
        {
            **ENCODER,
            "relative_attention": True,
            "position_biased_input": False,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 8,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "conv_kernel_size": 3,
        },
    ),
    "t5": ("ending", {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_heads": 4, "pad_token_id": 1}),
    "gpt2": ("bare", {"n_embd": 32, "n_head": 4, "n_layer": 3, "n_positions": 64}),
    "bloom": ("bare", {"hidden_size": 32, "n_head": 4, "n_layer": 3}),
    "mpt": ("bare", {"d_model": 32, "n_heads": 4, "n_layers": 3, "max_seq_len": 64}),
    "falcon": ("bare", {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 3}),
    "gpt_neo": (
        "bare",
        {
            "hidden_size": 32,
            "num_heads": 4,
            "num_layers": 3,
            "attention_types": [[["global", "local"], 1], [["local"], 1]],
            "window_size": 8,
            "max_position_embeddings": 64,
        },
    ),
    "gptj": ("bare", {"n_embd": 32, "n_head": 4, "n_layer": 3, "n_positions": 64, "rotary_dim": 4}),
    "codegen": ("bare", {"n_embd": 32, "n_head": 4, "n_layer": 3, "n_positions": 64, "rotary_dim": 4}),
    "xglm": ("beginning", {"d_model": 32, "attention_heads": 4, "num_layers": 3, "ffn_dim": 48}),
    "llama": ("beginning", DECODER),
    "qwen3": ("bare", DECODER),
    "gemma": ("beginning", DECODER),
    "gemma2": ("beginning", {**DECODER, "sliding_window": 8, "query_pre_attn_scalar": 8}),
    "gemma3_text": (
        "beginning",
        {**DECODER, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    ),
    "mistral": ("beginning", {**DECODER, "sliding_window": 8}),
    "deepseek_v3": (
        "bare",
        {
            **DECODER,
            "num_key_value_heads": 4,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 4,
            "head_dim": 4,
            "v_head_dim": 8,
            "first_k_dense_replace": 1,
            "moe_intermediate_size": 16,
            "n_routed_experts": 4,
            "n_shared_experts": 1,
            "num_experts_per_tok": 2,
            "n_group": 2,
            "topk_group": 1,
        },
    ),
    "glm": ("bare", DECODER),
    "glm4": ("bare", DECODER),
    "original_glm": (
        "byte_level",
        {"num_layers": 3, "hidden_size": 32, "num_attention_heads": 4, "max_sequence_length": 64},
    ),
}
CAUSAL = tuple(family for family in list(FAMILIES)[list(FAMILIES).index("gpt2") :] if family != "original_glm")
_TEXTS = [" ".join(VOCABULARY[5:]), "ada met alan in paris. yes no The rain in Spain"] * 3


CORE = ("bert", "roberta", "deberta-v2", "gpt2", "llama")
"""Families that differ most: encoders with segments, without, and with disentangled attention; two decoders."""


def in_turn(families: Iterable[str]) -> list[Any]:
    """Families as parameters of tests: a few in every run, the others at night."""
    return [each if each in CORE else pytest.param(each, marks=pytest.mark.night) for each in families]


def save_tokenizer(kind: str, folder: Path) -> PreTrainedTokenizerFast | BertTokenizer:
    """A small tokenizer; `bare` and `beginning` are those of decoders, without separators."""
    if kind == "wordpiece":
        (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
        tokenizer = BertTokenizer(str(folder / "vocab.txt"))
        tokenizer.save_pretrained(folder)
        return tokenizer
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    if kind in ("byte_level", "bare"):
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        backend.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=special, show_progress=False)
    backend.train_from_iterator(_TEXTS, trainer)
    names: dict[str, str] = {"eos_token": "</s>", "unk_token": "<unk>"}
    if kind == "beginning":
        backend.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A $B", special_tokens=[("<s>", 0)])
        names |= {"bos_token": "<s>"}
    elif kind == "ending":
        end = [("</s>", 2)]
        backend.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", special_tokens=end)
        names |= {"pad_token": "<pad>"}
    elif kind != "bare":
        backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
        names |= {"bos_token": "<s>", "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    tokenizer.save_pretrained(folder)
    return tokenizer


def save_tiny(folder: Path, family: str, **settings: Any) -> Path:
    """Model and tokenizer of a family in `folder`."""
    kind, sizes = FAMILIES[family]
    register()
    tokenizer = save_tokenizer(kind, folder)
    ids = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": 0, "eos_token_id": 2}
    if kind == "wordpiece":
        ids = {"pad_token_id": 0}
    config = AutoConfig.for_model(family, **{**ids, "vocab_size": len(tokenizer), **sizes, **settings})
    save_random(AutoModel, config, folder)
    return folder


def save_random(auto: Any, config: PretrainedConfig, folder: Path) -> PreTrainedModel:
    """A model with random weights, by one of transformers' auto classes, in `folder`."""
    torch.manual_seed(0)
    model: PreTrainedModel = auto.from_config(config).eval()
    with torch.no_grad():
        # The usual initial values are so small that hardly anything depends on anything.
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.2)
    model.save_pretrained(folder)
    return model
