"""Tiny random language models with their heads, each with a tokenizer that has a mask if the family fills masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    BertTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from tests.tiny_backbones import CAUSAL, FAMILIES

WORDS = [
    "yes",
    "no",
    "maybe",
    "ada",
    "alan",
    "met",
    "left",
    "paris",
    "rome",
    "is",
    "it",
    "so",
    "the",
    "a",
    "?",
    ".",
    ",",
]
_TEXTS = ["is it so? yes. no, maybe", " ".join(WORDS), "ada met alan. yes no maybe Yes No Maybe"] * 4
MASKED = ("bert", "roberta", "deberta", "deberta-v2", "albert", "electra", "distilbert", "xlm-roberta", "modernbert")


def save_language_tokenizer(family: str, folder: Path) -> PreTrainedTokenizerBase:
    """A tokenizer of the family's kind with whole words for `WORDS`, and the pieces `ada` + `##lan` and the like."""
    kind = FAMILIES[family][0]
    if kind == "wordpiece":
        vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "may", "##lan", "##ly"]
        (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
        tokenizer: PreTrainedTokenizerBase = BertTokenizer(str(folder / "vocab.txt"))
        tokenizer.save_pretrained(folder)
        return tokenizer
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    if kind in ("byte_level", "bare"):
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        backend.decoder = decoders.Metaspace()
    backend.train_from_iterator(
        _TEXTS, trainers.BpeTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    )
    names: dict[str, Any] = {"eos_token": "</s>", "unk_token": "<unk>"}
    if kind == "beginning":
        backend.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A $B", special_tokens=[("<s>", 0)])
        names |= {"bos_token": "<s>"}
    elif kind != "bare":
        backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
        names |= {"bos_token": "<s>", "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>"}
        names |= {"mask_token": AddedToken("<mask>", lstrip=True, special=True)}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    tokenizer.save_pretrained(folder)
    return tokenizer


def save_language_model(folder: Path, family: str, **settings: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model with its head, and its tokenizer, in `folder`; both as they would be loaded."""
    sizes = FAMILIES[family][1]
    tokenizer = save_language_tokenizer(family, folder)
    ids = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": 0, "eos_token_id": 2}
    if FAMILIES[family][0] == "wordpiece":
        ids = {"pad_token_id": 0}
    config = AutoConfig.for_model(family, **{**ids, "vocab_size": len(tokenizer), **sizes, **settings})
    torch.manual_seed(0)
    kind = AutoModelForCausalLM if family in CAUSAL else AutoModelForMaskedLM
    model: PreTrainedModel = kind.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            # Biases and norms too: what a head has must show.
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    return kind.from_pretrained(folder, attn_implementation="eager").eval(), tokenizer
