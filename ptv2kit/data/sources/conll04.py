"""Entities of the CoNLL-2004 relation corpus (Roth and Yih 2004)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ptv2kit.data.rows import Row
from ptv2kit.data.sources.sentences import TAB, Sentence, read_sentences
from ptv2kit.errors import DataError
from ptv2kit.spec.sources import Conll04Source

_TYPE, _POS, _WORD = 1, 4, 5
_RELATION_WIDTH = 3
_COMMA = "COMMA"


def read_conll04(path: Path, source: Conll04Source) -> Iterator[Row]:
    """One row for each sentence, with `tokens` and `tags`.

    `corp`: a line with several parts of speech joined by `/` holds one entity of as many tokens, joined in the same
    way. The parts of speech decide, because a token may hold a `/` of its own: if the word has another number of parts,
    or an empty one, the line stays one token. The relations are skipped.

    Raises:
        DataError: the file is unreadable, or a line has the wrong number of columns or an empty token.
    """
    is_corp = source.layout == "corp"
    width, columns = (9, "an entity or a token") if is_corp else (5, "index, token, tag, relations and heads")
    for sentence in read_sentences(path, separator=TAB, boundaries=() if is_corp else ("#doc",)):
        if is_corp and sentence.width == _RELATION_WIDTH:
            continue
        if sentence.width != width:
            raise DataError(
                f"expected {width} columns, separated by tabs: {columns}. Got {sentence.width}",
                location=sentence.location(),
                hint="see data.layout; files of tokens and tags alone are read by 'source: conll'",
            )
        tokens, tags = _expand(sentence) if is_corp else (sentence.column(1), sentence.column(2))
        if not all(tokens):
            raise DataError("a token of the sentence is empty", location=sentence.location())
        yield Row({"tokens": tokens, "tags": tags}, sentence.location())


def _expand(sentence: Sentence) -> tuple[list[str], list[str]]:
    """Tokens and IOB2 tags of `corp` lines."""
    tokens: list[str] = []
    tags: list[str] = []
    for fields in sentence.lines:
        words = fields[_WORD].split("/")
        if len(words) != len(fields[_POS].split("/")) or not all(words):
            words = [fields[_WORD]]
        tokens += ["," if word == _COMMA else word for word in words]
        name = fields[_TYPE]
        tags += ["O"] * len(words) if name == "O" else [f"B-{name}", *[f"I-{name}"] * (len(words) - 1)]
    return tokens, tags
