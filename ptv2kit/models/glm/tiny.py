"""A tiny original GLM with random weights, for trying recipes and for tests: it has learned nothing.

It is made when it is first named and kept in the user's cache folder. The same weights are made on every machine with
the same torch.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from ptv2kit.files import made_folder
from ptv2kit.models.glm.configuration import OriginalGlmConfig
from ptv2kit.models.glm.modeling import OriginalGlmModel
from ptv2kit.models.glm.tokenizer import END_OF_TEXT, MERGES_FILE, VOCABULARY_FILE, build_tokenizer
from ptv2kit.spec.layers import TINY_GLM

NAME = TINY_GLM
"""What a recipe calls it in `backbone.name`."""

_VERSION = 1  # raised with every change of what is written
_SEED = 0
_BYTES = 256
_PRINTED = (*range(33, 127), *range(161, 173), *range(174, 256))


def tiny_folder() -> Path:
    """The folder of the tiny GLM, in the layout of transformers; it is written if it is not there.

    Two layers of width 32, 4 heads, 1,024 positions; each byte of a text is a token.

    Raises:
        ConfigError: the cache folder cannot be written.
    """
    return made_folder(f"{NAME}-{_VERSION}", f"backbone '{NAME}'", _write)


def _write(folder: Path) -> None:
    # GPT-2's letters of bytes: printed ones stand for themselves, the others are moved behind all bytes.
    moved = (chr(_BYTES + number) for number in range(_BYTES - len(_PRINTED)))
    letters = [chr(code) if code in _PRINTED else next(moved) for code in range(_BYTES)]
    vocabulary = {letter: number for number, letter in enumerate(letters)} | {END_OF_TEXT: _BYTES}
    (folder / VOCABULARY_FILE).write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / MERGES_FILE).write_text("#version: 0.2\n", encoding="utf-8")
    tokenizer = build_tokenizer(folder / VOCABULARY_FILE, folder / MERGES_FILE)
    tokenizer.save_pretrained(folder)
    config = OriginalGlmConfig(
        num_layers=2,
        hidden_size=32,
        num_attention_heads=4,
        vocab_size=288,
        max_sequence_length=1024,
        pad_token_id=_BYTES,
        eos_token_id=_BYTES,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        OriginalGlmModel(config).save_pretrained(folder)
