"""The tokenizer of the original GLM: GPT-2's byte-level BPE with eight added tokens.

Du et al. 2022 (https://aclanthology.org/2022.acl-long.26) and the GPT2BPETokenizer of THUDM/GLM. It is an ordinary
`GPT2Tokenizer`: what is saved loads through `AutoTokenizer` without any code of ours or of the hub.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from tokenizers import Tokenizer, processors
from transformers import AddedToken, GPT2Tokenizer

from ptv2kit.errors import DataError
from ptv2kit.files import read_json

END_OF_TEXT = "<|endoftext|>"
"""Ends every context, and pads."""
START_OF_PIECE = "<|startofpiece|>"
"""First input of an answer."""
END_OF_PIECE = "<|endofpiece|>"
"""Last target of an answer."""

VOCABULARY_FILE = "vocab.json"
MERGES_FILE = "merges.txt"

_MASKS = ("[MASK]", "[gMASK]", "[sMASK]")
# Their order is that of their ids, which follow the vocabulary's last id, that of <|endoftext|>.
_ADDED = (START_OF_PIECE, END_OF_PIECE, "[CLS]", "[MASK]", "[SEP]", "[UNK]", "[gMASK]", "[sMASK]")


def build_tokenizer(vocabulary: Path, merges: Path, *, add_prefix_space: bool = False) -> GPT2Tokenizer:
    """GLM's tokenizer: `[CLS] text <|endoftext|>`, or `[CLS] text [SEP] pair <|endoftext|>`.

    The three masks swallow the white space on their left. Padding is `<|endoftext|>` on the right.

    Args:
        vocabulary: `vocab.json`, ids of the sub-words; the last one is `<|endoftext|>`.
        merges: `merges.txt`.
        add_prefix_space: whether a text that starts without a blank is cut as if it stood within a sentence; needed
            for words that are already split.

    Raises:
        DataError: one of the files is malformed, or the vocabulary is not numbered as the added tokens need it.
    """
    ids = _read_vocabulary(vocabulary)
    rules = _read_merges(merges, ids)
    options: dict[str, Any] = {  # transformers' annotations are narrower than what it takes
        "vocab": ids,
        "merges": rules,
        "add_prefix_space": add_prefix_space,
        "bos_token": None,
        "eos_token": _added(END_OF_TEXT),
        "pad_token": _added(END_OF_TEXT),
        "cls_token": _added("[CLS]"),
        "sep_token": _added("[SEP]"),
        "mask_token": _added("[MASK]"),
        "unk_token": _added("[UNK]"),
        # All of them, so that the ids follow this order and not the one in which named tokens happen to be added.
        "added_tokens_decoder": {len(ids) + number: _added(token) for number, token in enumerate(_ADDED)},
        "extra_special_tokens": [_added(token) for token in (START_OF_PIECE, END_OF_PIECE, "[gMASK]", "[sMASK]")],
        "clean_up_tokenization_spaces": False,
        "padding_side": "right",
        "truncation_side": "right",
    }
    tokenizer = GPT2Tokenizer(**options)
    special = [(token, cast(int, tokenizer.convert_tokens_to_ids(token))) for token in ("[CLS]", "[SEP]", END_OF_TEXT)]
    template = processors.TemplateProcessing(
        single=f"[CLS] $A {END_OF_TEXT}",
        pair=f"[CLS] $A [SEP] $B {END_OF_TEXT}",
        special_tokens=special,
    )
    backend: Tokenizer = tokenizer.backend_tokenizer
    # The first one takes the blank in front of a word out of its offsets, so that an answer's span starts at a letter.
    backend.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), template])
    found = {token: tokenizer.convert_tokens_to_ids(token) for token in _ADDED}
    assert found == {token: len(ids) + number for number, token in enumerate(_ADDED)}, found
    return tokenizer


def _added(token: str) -> AddedToken:
    return AddedToken(token, lstrip=token in _MASKS, rstrip=False, normalized=False, special=True)


def _read_vocabulary(path: Path) -> dict[str, int]:
    """Sub-words and their ids, which must be 0, 1, … with `<|endoftext|>` last."""
    ids = _read_ids(path)
    if sorted(ids.values()) != list(range(len(ids))):
        raise DataError(f"the ids of its {len(ids):,} entries are not 0 to {len(ids) - 1:,}", location=str(path))
    if ids.get(END_OF_TEXT) != len(ids) - 1:
        raise DataError(
            f"its last id, {len(ids) - 1}, is not that of '{END_OF_TEXT}'",
            location=str(path),
            hint="expected GPT-2's vocabulary of 50,257 entries",
        )
    return ids


def _read_ids(path: Path) -> dict[str, int]:
    content = read_json(path)
    if not isinstance(content, dict) or not all(type(number) is int for number in content.values()):
        raise DataError("expected one JSON object from tokens to ids", location=str(path))
    return cast("dict[str, int]", content)


def _read_merges(path: Path, ids: dict[str, int]) -> list[tuple[str, str]]:
    """Pairs of sub-words in the order in which they are joined."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"it is not UTF-8 text: {error}", location=str(path)) from error
    rules: list[tuple[str, str]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or (number == 1 and line.startswith("#version")):
            continue
        pair = line.rstrip("\r").split(" ")
        if len(pair) != 2 or any(part not in ids for part in (*pair, "".join(pair))):
            raise DataError(
                f"expected two sub-words of the vocabulary, whose join is one too; got {line!r}",
                location=f"{path}:{number}",
            )
        rules.append((pair[0], pair[1]))
    return rules
