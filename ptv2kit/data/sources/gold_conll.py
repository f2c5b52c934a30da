"""`_gold_conll` files of CoNLL-2012 (OntoNotes 5.0) and of the PropBank release."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ptv2kit.data.rows import Row
from ptv2kit.data.sources.sentences import Sentence, read_sentences
from ptv2kit.errors import DataError
from ptv2kit.spec.sources import GoldConllSource

# A document id may begin with any text, so only these two lines are taken as comments.
_DOCUMENT = ("#begin document", "#end document")
_WORD, _LEMMA, _ROLESET = 3, 6, 7
# CoNLL-2012 only: the roleset is a number, followed by word sense and speaker; coreference is last.
_ENTITY, _FIRST_ROLE_CONLL12, _FIRST_ROLE_PROPBANK = 10, 11, 8
_MASKED = "[WORD]"


def read_gold_conll(path: Path, source: GoldConllSource) -> Iterator[Row]:
    """One row for each column of roles: `tokens`, `predicate_index` (where its span V begins), `predicate` (the lemma),
    `sense` (the roleset, such as `try.01`), `tags`; or one for each sentence: `tokens`, its named entities as `tags`.

    Format: https://cemantix.org/conll/2012/data.html, https://github.com/propbank/propbank-release

    Raises:
        DataError: the file is unreadable, its words are masked, or a sentence is malformed.
    """
    assert source.layout == "conll12" or source.unit == "predicate", "the PropBank release has no named entities"
    is_conll12 = source.layout == "conll12"
    first_role = _FIRST_ROLE_CONLL12 if is_conll12 else _FIRST_ROLE_PROPBANK
    least = first_role + is_conll12
    for sentence in read_sentences(path, boundaries=_DOCUMENT):
        if sentence.width < least:
            raise DataError(
                f"expected {least} columns or more with layout {source.layout}. Got {sentence.width}",
                location=sentence.location(),
            )
        tokens = sentence.column(_WORD)
        if _MASKED in tokens:
            raise DataError(
                f"the words are masked as {_MASKED}",
                location=sentence.location(tokens.index(_MASKED)),
                hint="a skeleton holds no words; the release's own scripts put them back from the licensed treebanks",
            )
        if source.unit == "sentence":
            yield Row({"tokens": tokens, "tags": sentence.bracket_tags(_ENTITY)}, sentence.location())
        else:
            yield from _predicates(sentence, tokens, range(first_role, sentence.width - is_conll12), is_conll12)


def _predicates(sentence: Sentence, tokens: list[str], roles: range, is_conll12: bool) -> Iterator[Row]:
    """The k-th line with a roleset names the k-th column's predicate. A lemma alone has a word sense but no roles."""
    named = [fields for fields in sentence.lines if fields[_ROLESET] != "-"]
    if len(named) != len(roles):
        raise DataError(
            f"the sentence has {len(named)} rolesets but {len(roles)} columns of roles",
            location=sentence.location(),
            hint="see data.layout: 'conll12' has speaker, entities and coreference, 'propbank' has not",
        )
    for column, fields in zip(roles, named, strict=True):
        lemma, roleset = fields[_LEMMA], fields[_ROLESET]
        sense = f"{lemma}.{roleset}" if is_conll12 else roleset
        yield sentence.predicate_row(tokens, column, predicate=lemma, sense=sense)
