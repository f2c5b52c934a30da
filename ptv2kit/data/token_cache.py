"""Encoded splits on disk, so that the same rows are not cut into sub-words by every run.

A file's name is a hash of all that its content follows from: rows, template, labels, tokenizer, longest input. With any
of them another, the name is another. The first line holds the checksum of the rest, which is plain JSON.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import replace
from types import GenericAlias
from typing import Any, final

from pydantic import TypeAdapter, ValidationError

from ptv2kit import __version__
from ptv2kit.config.task import AnyTask
from ptv2kit.data.dataset import EncodedSplit, Progress, encode_split
from ptv2kit.data.schemes.base import Feature, LabelScheme
from ptv2kit.data.sources import SplitData
from ptv2kit.data.tokens import Subwords
from ptv2kit.files import cache_folder, write_atomically

FORMAT_VERSION = 1
FEWEST_ROWS = 5_000
"""Of a split that is kept; fewer are cut into sub-words in a second or so."""

_NOTES = logging.getLogger("ptv2kit.data")
_IRRELEVANT = {"task", "version", "description", "licence", "data", "where", "metrics", "head"}
"""Keys of a task that say nothing about how its rows are encoded, or that rows and labels tell already."""


def encoded_split(
    scheme: LabelScheme, task: AnyTask, subwords: Subwords, data: SplitData, progress: Progress, *, keep: bool
) -> EncodedSplit:
    """`encode_split`, read from the disk if it was kept there.

    What cannot be read or written is a warning, not an error.

    Args:
        scheme: of the task.
        task: what is encoded; its template and labels count.
        subwords: that the scheme uses.
        data: the rows.
        progress: told about the work.
        keep: whether to read and write at all.

    Raises:
        DataError: as of `encode_split`; rows with faults are not kept.
    """
    if not keep or len(data.rows) < FEWEST_ROWS:
        return encode_split(scheme, data, progress)
    path = cache_folder() / "tokens" / f"{encoding_key(scheme, task, subwords, data)}.json"
    codec = _Codec(scheme)
    try:
        return EncodedSplit(data, codec.read(path.read_bytes()))
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        _NOTES.warning("the encoded rows in %s are made again: %s", path, error)
    split = encode_split(scheme, data, progress)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, codec.written(split.features))
    except OSError as error:
        _NOTES.warning("the encoded rows are not kept in %s: %s", path.parent, error.strerror or error)
    return split


def encoding_key(scheme: LabelScheme, task: AnyTask, subwords: Subwords, data: SplitData) -> str:
    """A name for the encoded rows: another one as soon as anything that decides them is another."""
    given = task.model_dump(mode="json", exclude=_IRRELEVANT)
    facts = {
        "format": FORMAT_VERSION,
        "version": __version__,
        "task": given,
        "head": task.head,
        "names": scheme.names,
        "words": scheme.words,
        "subwords": subwords.description(),
    }
    found = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for row in data.rows:
        found.update(json.dumps(dict(row.values), default=repr).encode() + b"\n")
    return found.hexdigest()[:32]


@final
class _Codec:
    """Features as bytes, and back.

    Args:
        scheme: that made them; it knows what its notes are.
    """

    def __init__(self, scheme: LabelScheme) -> None:
        self._features: TypeAdapter[tuple[Feature, ...]] = TypeAdapter(tuple[Feature, ...])
        notes: Any = GenericAlias(tuple, (scheme.notes_type, ...))
        self._notes: TypeAdapter[tuple[Any, ...]] = TypeAdapter(notes)

    def written(self, features: tuple[Feature, ...]) -> bytes:
        notes = self._notes.dump_json(tuple(feature.notes for feature in features))
        plain = self._features.dump_json(tuple(replace(feature, notes=None) for feature in features))
        body = plain + b"\n" + notes
        return hashlib.sha256(body).hexdigest().encode() + b"\n" + body

    def read(self, content: bytes) -> tuple[Feature, ...]:
        """Raises ValueError: it is damaged."""
        checksum, _, body = content.partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != checksum:
            raise ValueError("they do not match their checksum")
        plain, _, notes = body.partition(b"\n")
        try:
            features, noted = self._features.validate_json(plain), self._notes.validate_json(notes)
        except ValidationError as error:
            raise ValueError("their form is another's") from error
        return tuple(replace(feature, notes=note) for feature, note in zip(features, noted, strict=True))
