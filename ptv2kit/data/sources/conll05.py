"""Semantic roles of the CoNLL-2005 shared task: words and props in files side by side."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from ptv2kit.data.rows import Row
from ptv2kit.data.sources.sentences import Sentence, read_sentences
from ptv2kit.errors import DataError
from ptv2kit.spec.sources import Conll05Source


def words_path(props: Path) -> Path:
    """Where the words of a props file are: `words` instead of `props` in the file's name and in its folder's name, such
    as `train/words/train.02.words.gz` for `train/props/train.02.props.gz`.

    Raises:
        DataError: the file's name has no `props`.
    """
    if "props" not in props.name:
        raise DataError(
            "the name of a props file must contain 'props'; its words are read from the same name with 'words'",
            location=str(props),
        )
    folder = props.parent
    if folder.name:
        folder = folder.with_name(folder.name.replace("props", "words"))
    return folder / props.name.replace("props", "words")


def read_conll05(path: Path, source: Conll05Source) -> Iterator[Row]:
    """One row for each predicate: `tokens`, `predicate_index`, `predicate` (its lemma), and `tags` with the roles as
    written (A0, AM-TMP, C-A1, R-A0, V). A sentence without a predicate has no row.

    Args:
        path: the props: a column with each predicate's lemma, else `-`, then a column of roles for each predicate.
        source: the task's section; nothing in it changes how a file is read.

    Format: https://www.cs.upc.edu/~srlconll/conll05st/

    Raises:
        DataError: a file is missing or unreadable, the two differ in length, or the props are malformed.
    """
    words_file = words_path(path)
    try:
        words_file.stat()
    except OSError as error:
        raise DataError(
            f"the words of these props were not found; looked for {words_file}: {error.strerror}", location=str(path)
        ) from error
    for props, words in zip_longest(read_sentences(path), read_sentences(words_file)):
        if props is None or words is None:
            longer, other = (words, path) if props is None else (props, words_file)
            assert longer is not None
            raise DataError(f"this sentence has no partner; {other} ended before it", location=longer.location())
        yield from _rows(props, words)


def _rows(props: Sentence, words: Sentence) -> Iterator[Row]:
    if len(props.lines) != len(words.lines):
        raise DataError(
            f"the sentence has {len(props.lines)} lines of props but {len(words.lines)} words in {words.location()}",
            location=props.location(),
        )
    lemmas = [lemma for lemma in props.column(0) if lemma != "-"]
    if len(lemmas) != props.width - 1:
        raise DataError(
            f"the sentence has {len(lemmas)} predicates in its first column, but {props.width - 1} columns of roles",
            location=props.location(),
        )
    tokens = words.column(0)
    for column, lemma in enumerate(lemmas, start=1):
        yield props.predicate_row(tokens, column, predicate=lemma)
