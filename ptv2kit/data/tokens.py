"""Texts and words as sub-word ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

from transformers import PreTrainedTokenizerBase


@final
@dataclass(frozen=True, slots=True)
class Encoding:
    """One input.

    Args:
        ids: sub-word ids with special tokens.
        segments: segment of each id, or None where the backbone has none.
        words: for each id the index of its word within its text, None for special tokens.
        truncated: whether something was cut off.
    """

    ids: tuple[int, ...]
    segments: tuple[int, ...] | None
    words: tuple[int | None, ...]
    truncated: bool


@final
class Subwords:
    """A backbone's fast tokenizer, cutting off at `max_length` ids, special tokens included."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self._tokenizer: Any = tokenizer
        self._max_length = max_length

    @property
    def pad_id(self) -> int:
        """Id that fills up a batch."""
        return int(self._tokenizer.pad_token_id)

    def encode_texts(self, text: str, pair: str | None, shorten: Literal["longest", "text", "pair"]) -> Encoding:
        """One text, or a pair of which one or the longer one is shortened if both are too long.

        Raises:
            ValueError: the side that is not to be shortened is too long alone.
        """
        truncation = {"longest": "longest_first", "text": "only_first", "pair": "only_second"}[shorten]
        texts = [text] if pair is None else [text, pair]
        return self._encode(texts, truncation="longest_first" if pair is None else truncation)

    def encode_words(self, words: Sequence[str]) -> Encoding:
        """Words that are already split."""
        return self._encode([list(words)], truncation="longest_first", is_split_into_words=True)

    def _encode(self, texts: list[Any], **options: Any) -> Encoding:
        try:
            encoding = self._tokenizer(*texts, max_length=self._max_length, **options)
        except Exception as error:
            if "Truncation error" not in str(error):
                raise
            raise ValueError(f"one side of the pair alone fills the {self._max_length} sub-words") from error
        segments: list[int] | None = encoding.get("token_type_ids")
        return Encoding(
            ids=tuple(encoding["input_ids"]),
            segments=None if segments is None else tuple(segments),
            words=tuple(encoding.word_ids()),
            truncated=bool(encoding.encodings[0].overflowing),
        )
