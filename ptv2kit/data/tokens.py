"""Texts and words as sub-word ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any, Literal, TypeVar, final

from transformers import PreTrainedTokenizerBase

from ptv2kit.data.encodings import Encoding, Whole, Window

Filling = Literal["masks", "continuation", "blank"]
"""How a model is asked for a missing word: it fills masks; or continues a text; or, as the original GLM, generates
what belongs in a blank behind the whole text."""

_MOST_CHARACTERS = 500_000
"""Of texts that are encoded in one call."""

_Texts = TypeVar("_Texts", bound=tuple[str | None, ...])

Words = tuple[tuple[tuple[int, ...], ...], ...]
"""A verbalizer: for each class its words, each in sub-word ids."""


@final
class UnusableTokenError(ValueError):
    """A token that the tokenizer has and the backbone has no embedding for."""


@final
class Subwords:
    """A backbone's fast tokenizer, cutting off at `max_length` ids, special tokens included.

    Args:
        max_length: longest input.
        filling: how the backbone is asked for a missing word.
        vocabulary: embeddings of the backbone, which may be fewer than the tokenizer has tokens; None: enough.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        filling: Filling = "masks",
        vocabulary: int | None = None,
    ) -> None:
        self._tokenizer: Any = tokenizer
        self._max_length = max_length
        self.filling: Filling = filling
        self._vocabulary = len(tokenizer) if vocabulary is None else vocabulary
        added = tokenizer.num_special_tokens_to_add
        # A tokenizer of a decoder puts nothing between two texts; they must not run into each other.
        self._joint = "" if added(pair=True) > added(pair=False) else "\n"
        self._texts_ahead: dict[tuple[str, str | None, str], Encoding] = {}
        self._windows_ahead: dict[tuple[str, str, int], list[Window]] = {}
        # A split is kept in memory as Python objects, each id 28 bytes for itself; equal ones are kept once.
        self._has_segments = "token_type_ids" in tokenizer.model_input_names
        self._numbers: dict[int, int] = {}
        self._segments: dict[tuple[int, ...], tuple[int, ...]] = {}
        self._spans: dict[tuple[int, int], tuple[int, int]] = {}

    @property
    def pad_id(self) -> int:
        """Id that fills up a batch."""
        return int(self._tokenizer.pad_token_id)

    @property
    def max_length(self) -> int:
        """Longest input in ids."""
        return self._max_length

    @property
    def mask(self) -> str | None:
        """The mask token, None if there is none."""
        return self._tokenizer.mask_token

    def special_id(self, token: str) -> int:
        """The id of a token that the vocabulary has as a whole."""
        number = self._tokenizer.convert_tokens_to_ids(token)
        assert number not in (None, self._tokenizer.unk_token_id), f"the vocabulary has no {token}"
        return int(number)

    @property
    def unknown_id(self) -> int | None:
        """The id that stands for whatever the vocabulary cannot write, None if there is none."""
        return self._tokenizer.unk_token_id

    def word(self, text: str) -> tuple[int, ...]:
        """The sub-words of a verbalizer's word; with a blank in front as it is cut behind another word.

        Raises:
            ValueError: what it is cut into depends on the word before it.
        """
        if not text[:1].isspace():
            return tuple(self._pieces(text))
        before, both = self._pieces("a"), self._pieces("a" + text)
        if both[: len(before)] != before:
            raise ValueError(f"what {text!r} is cut into depends on the word before it")
        return tuple(both[len(before) :])

    def plain(self, text: str) -> tuple[int, ...]:
        """The sub-words of a text that stands alone, without special tokens."""
        return tuple(self._pieces(text))

    def whole(self, text: str, pair: str | None) -> Whole:
        """A text, or a pair, with special tokens and never shortened."""
        texts = [text] if pair is None else [text + self._joint, pair]
        encoded = self._tokenizer(*texts, truncation=False, return_offsets_mapping=True)
        sides = tuple(encoded.sequence_ids(0))
        spans = self._places(texts, encoded["input_ids"], sides, encoded["offset_mapping"])
        self._require_embeddings(encoded["input_ids"])
        segments = encoded.get("token_type_ids")
        return Whole(tuple(encoded["input_ids"]), None if segments is None else tuple(segments), sides, spans)

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """The sub-words of ids as the vocabulary writes them."""
        return list(self._tokenizer.convert_ids_to_tokens(list(ids)))

    def encode_texts(self, text: str, pair: str | None, shorten: Literal["longest", "text", "pair"]) -> Encoding:
        """One text, or a pair of which one or the longer one is shortened if both are too long.

        Raises:
            ValueError: the side that is not to be shortened is too long alone.
        """
        ahead = self._texts_ahead.get((text, pair, shorten))
        return self._encode_texts([(text, pair)], shorten)[0] if ahead is None else ahead

    def encode_texts_ahead(
        self, texts: Sequence[tuple[str, str | None]], shorten: Literal["longest", "text", "pair"]
    ) -> None:
        """Encode texts, or pairs, in one call with all threads of the tokenizer, and keep them for `encode_texts`.

        Those of the last call are kept. A group with one at fault is not: `encode_texts` then says which.
        """
        self._texts_ahead = {}
        for group in _groups(texts):
            try:
                encodings = self._encode_texts(group, shorten)
            except ValueError:
                continue
            self._texts_ahead |= {(*each, shorten): found for each, found in zip(group, encodings, strict=True)}

    def _encode_texts(
        self, texts: Sequence[tuple[str, str | None]], shorten: Literal["longest", "text", "pair"]
    ) -> list[Encoding]:
        """Texts, or pairs, of one task: either all of them are pairs or none is."""
        truncation = {"longest": "longest_first", "text": "only_first", "pair": "only_second"}[shorten]
        if texts[0][1] is None:
            return self._encode([text for text, _ in texts], truncation="longest_first")
        return self._encode([(text + self._joint, pair) for text, pair in texts], truncation=truncation)

    def encode_words(self, words: Sequence[str]) -> Encoding:
        """Words that are already split."""
        return self._encode_words(words, self._max_length)

    def encode_words_and(self, words: Sequence[str], appended: str, separator: str | None) -> Encoding:
        """Words that are already split, a separator, and a word that is never cut off, all in one segment.

        Args:
            appended: the word after it.
            separator: what stands between them, cut into sub-words like a word; None: the tokenizer's own separator,
                or a line break if it has none.

        Raises:
            ValueError: the appended word has no sub-word, or leaves no room for the sentence.
        """
        tail = list(_cut(self._tokenizer, appended))
        if not tail:
            raise ValueError(f"the appended word {appended!r} has no sub-word")
        if separator is not None:
            tail = [*_cut(self._tokenizer, separator), *tail]
        elif self._tokenizer.sep_token_id is None:
            tail = [*self._pieces("\n"), *tail]
        else:
            tail = [int(self._tokenizer.sep_token_id), *tail]
        room = self._max_length - len(tail)
        if room <= self._tokenizer.num_special_tokens_to_add() + 1:
            raise ValueError(f"the appended word '{appended}' leaves no room for the sentence")
        sentence = self._encode_words(words, room)
        # The special tokens that end an input go to the end of the whole.
        end = len(sentence.ids)
        while end and sentence.words[end - 1] is None:
            end -= 1
        return replace(
            sentence,
            ids=(*sentence.ids[:end], *tail, *sentence.ids[end:]),
            segments=None if sentence.segments is None else (0,) * (len(sentence.ids) + len(tail)),
            words=(*sentence.words[:end], *([None] * len(tail)), *sentence.words[end:]),
        )

    def encode_windows(self, question: str, context: str, stride: int) -> list[Window]:
        """A question with each of the overlapping windows of a passage; neighbours share `stride` sub-words.

        Raises:
            ValueError: the question leaves a window no more than `stride` sub-words of the passage.
        """
        ahead = self._windows_ahead.get((question, context, stride))
        if ahead is not None:
            return ahead
        [room] = self._rooms([question])
        if room <= stride and len(self._pieces(context)) > room:
            raise ValueError(
                f"the question leaves {max(0, room)} of {self._max_length} sub-words to the passage, "
                f"but neighbouring windows share {stride}"
            )
        return self._encode_windows([(question, context)], stride)[0]

    def encode_windows_ahead(self, texts: Sequence[tuple[str, str]], stride: int) -> None:
        """Encode questions and passages as `encode_texts_ahead` does, and keep them for `encode_windows`."""
        self._windows_ahead = {}
        for group in _groups(texts):
            if min(self._rooms([question for question, _ in group])) <= stride:
                continue
            try:
                windows = self._encode_windows(group, stride)
            except UnusableTokenError:
                continue
            self._windows_ahead |= {(*each, stride): found for each, found in zip(group, windows, strict=True)}

    def _rooms(self, questions: Sequence[str]) -> list[int]:
        """How many sub-words each question leaves to a passage."""
        asked = [question + self._joint for question in questions]
        pieces = self._tokenizer(asked, add_special_tokens=False, truncation=False)["input_ids"]
        room = self._max_length - self._tokenizer.num_special_tokens_to_add(pair=True)
        return [room - len(of_question) for of_question in pieces]

    def _encode_windows(self, texts: Sequence[tuple[str, str]], stride: int) -> list[list[Window]]:
        """The windows of each question and passage."""
        asked = [(question + self._joint, context) for question, context in texts]
        self._tokenizer("", truncation="only_second", max_length=self._max_length, stride=stride)  # as in _encode
        return [
            [self._window(pair, window) for window in (first, *first.overflowing)]
            for pair, first in zip(asked, self._tokenizer.backend_tokenizer.encode_batch(asked), strict=True)
        ]

    def _window(self, asked: tuple[str, str], encoded: Any) -> Window:
        """A window from what the tokenizer's backend made."""
        ids, sides = encoded.ids, encoded.sequence_ids
        self._require_embeddings(ids)
        places = self._places(asked, ids, sides, encoded.offsets)
        spans = tuple(
            self._spans.setdefault(place, place) if side == 1 else None
            for side, place in zip(sides, places, strict=True)
        )
        return Window(self._encoding(ids, encoded.type_ids if self._has_segments else None, (), False), spans)

    def _pieces(self, text: str) -> list[int]:
        """The sub-words of a text, without special tokens."""
        return list(self._tokenizer(text, add_special_tokens=False, truncation=False)["input_ids"])

    def _encode_words(self, words: Sequence[str], room: int) -> Encoding:
        """Words that are already split, in at most `room` ids."""
        pieces = [_cut(self._tokenizer, word) for word in words]
        if self._frame is not None:
            before, after, segment = self._frame
            length = len(before) + sum(map(len, pieces)) + len(after)
            if 0 < length <= room:
                ids = (*before, *chain.from_iterable(pieces), *after)
                inner = (place for place, of_word in enumerate(pieces) for _ in of_word)
                self._require_embeddings(ids)
                segments = None if segment is None else (segment,) * length
                return Encoding(ids, segments, (*[None] * len(before), *inner, *[None] * len(after)), False)
        return self._encode([list(words)], truncation="longest_first", are_words=True, max_length=room)[0]

    @cached_property
    def _frame(self) -> tuple[tuple[int, ...], tuple[int, ...], int | None] | None:
        """The special tokens in front of words and behind them, and the segment of all, None where there is none.

        None where they have a segment of their own, as XLNet's, or an "a" has no sub-word to stand between them.
        """
        encoded = self._tokenizer(["a"], is_split_into_words=True, truncation=False)
        ids, segments = encoded["input_ids"], encoded.get("token_type_ids")
        inner = [place for place, word in enumerate(encoded.word_ids()) if word is not None]
        if not inner or (segments is not None and len(set(segments)) > 1):
            return None
        return tuple(ids[: inner[0]]), tuple(ids[inner[-1] + 1 :]), None if segments is None else segments[0]

    def _require_embeddings(self, ids: Sequence[int]) -> None:
        """Raise `UnusableTokenError` for a token that the backbone cannot read."""
        highest = max(ids)
        if highest >= self._vocabulary:
            [token] = self.tokens([highest])
            raise UnusableTokenError(
                f"the token {token!r} has id {highest:,}, but the backbone has {self._vocabulary:,} embeddings"
            )

    def _places(
        self,
        texts: Sequence[str],
        ids: Sequence[int],
        sides: Sequence[int | None],
        offsets: Sequence[tuple[int, int]],
    ) -> tuple[tuple[int, int], ...]:
        """First character and end of each sub-word in its text, without white space in front; (0, 0) of special ones.

        Some tokenizers count a blank to the word behind it, which is left out. Others put a blank of their own into the
        word and then take it off its first character ("et" for "met"), which is put right by the sub-word's spelling.
        """
        places: list[tuple[int, int]] = []
        before: tuple[int | None, int] = (None, 0)
        for number, side, (start, end) in zip(ids, sides, offsets, strict=True):
            if side is None:
                places.append((0, 0))
                continue
            text = texts[side]
            while start < end and text[start].isspace():
                start += 1
            after = before[1] if before[0] == side else 0
            if start > after and start < end and not text[start - 1].isspace():
                spelled = self._tokenizer.convert_tokens_to_string(self.tokens([number])).strip()
                if spelled == text[start - 1 : end]:
                    start -= 1
            before = (side, end)
            places.append((start, end))
        return tuple(places)

    def _encode(
        self, texts: Sequence[Any], truncation: str, max_length: int | None = None, are_words: bool = False
    ) -> list[Encoding]:
        """Inputs from texts, pairs, or lists of words."""
        backend = self._tokenizer.backend_tokenizer
        try:
            # This call only sets how the backend truncates. One with the texts would also make lists of numbers that
            # nothing here reads, which takes half as long again.
            self._tokenizer("", truncation=truncation, max_length=max_length or self._max_length)
            # The fast way does not follow which word a sub-word is of.
            encoded = (
                backend.encode_batch(texts, is_pretokenized=True) if are_words else backend.encode_batch_fast(texts)
            )
        except Exception as error:
            if "Truncation error" not in str(error):
                raise
            raise ValueError(f"one side of the pair alone fills the {self._max_length} sub-words") from error
        encodings: list[Encoding] = []
        for each in encoded:
            ids = each.ids
            if not ids:
                # An empty text, read by a tokenizer without special tokens of its own, is one token of padding.
                encodings.append(Encoding((self.pad_id,), None, (None,), False))
                continue
            self._require_embeddings(ids)
            segments = each.type_ids if self._has_segments else None
            words = each.word_ids if are_words else ()
            encodings.append(self._encoding(ids, segments, words, bool(each.overflowing)))
        return encodings

    def _encoding(
        self, ids: Sequence[int], segments: Sequence[int] | None, words: Sequence[int | None], truncated: bool
    ) -> Encoding:
        """An input whose numbers, and segments as a whole, are shared with other inputs."""
        of_ids = None if segments is None else tuple(segments)
        return Encoding(
            ids=tuple(map(self._numbers.setdefault, ids, ids)),
            segments=of_ids and self._segments.setdefault(of_ids, of_ids),
            words=tuple(words),
            truncated=truncated,
        )


def _groups(texts: Sequence[_Texts]) -> Iterator[list[_Texts]]:
    """Cut a list of texts, or pairs, into groups that are encoded in one call each.

    The tokenizer keeps some hundred bytes for each sub-word of a call, also of those that are cut off.
    """
    group: list[_Texts] = []
    characters = 0
    for each in texts:
        group.append(each)
        characters += sum(len(text) for text in each if text is not None)
        if characters >= _MOST_CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group


@lru_cache(maxsize=1 << 16)
def _cut(tokenizer: Any, word: str) -> tuple[int, ...]:
    """The sub-words of a word, without special tokens.

    A tokenizer cuts each word alone where a text is given as words, so that a word is cut once for all rows, and for
    all runs that share the tokenizer. Its own call prepares for a whole text, which takes ten times as long.
    """
    backend = tokenizer.backend_tokenizer
    if backend.truncation is not None:  # left by a call for a text
        backend.no_truncation()
    if backend.padding is not None:
        backend.no_padding()
    return tuple(backend.encode([word], is_pretokenized=True, add_special_tokens=False).ids)
