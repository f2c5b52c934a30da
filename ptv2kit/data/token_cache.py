"""Encoded splits on disk: one file each, named by all that decides its content, whole or not there at all.

A file is three lines of JSON in gzip: a header with the checksum of the other two, the features, and their notes.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import GenericAlias
from typing import Any, cast

from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError

from ptv2kit.config.task import AnyTask
from ptv2kit.data.dataset import EncodedSplit, Progress, encode_split
from ptv2kit.data.schemes.base import Feature, LabelScheme
from ptv2kit.data.sources import SplitData
from ptv2kit.data.tokens import Subwords
from ptv2kit.files import cache_folder, parse_json, write_atomically

TOKENS = "tokens"
"""Name of the folder in the cache."""
ENCODING_VERSION = 1
"""Raised whenever a change of the code makes other features of the same rows."""
LEAST_BYTES = 2**20
"""Rows of fewer bytes, as JSON, are not kept: they are encoded in about half a second."""

_FORMAT = "ptv2kit-encoded"
_FORMAT_VERSION = 1
_LEVEL = 1  # higher ones save little and take longer
_FEATURES = TypeAdapter(tuple[Feature, ...])
# Their effect is in the rows, or there is none on features.
_NOT_ENCODED = {
    *("task", "version", "description", "licence", "metrics"),
    *("data", "expand", "derive", "where", "distinct"),
}
_LOGGER = logging.getLogger(__name__)


def encoded_split(
    scheme: LabelScheme, task: AnyTask, subwords: Subwords, data: SplitData, progress: Progress, *, keep: bool
) -> EncodedSplit:
    """`encode_split`, read from the disk if it was kept there.

    A damaged file, and a folder that cannot be written, are named in a warning of the log `ptv2kit`.

    Args:
        scheme: of the task.
        task: what is encoded; its template and labels count.
        subwords: that the scheme uses.
        data: the rows.
        progress: told about the work.
        keep: whether to read and write at all.

    Raises:
        DataError: rows are malformed, as of `encode_split`; such a split is never kept.
    """
    key = encoding_key(scheme, task, subwords, data) if keep else None
    if key is None:
        return encode_split(scheme, data, progress)
    try:
        path = cache_folder() / TOKENS / f"{key}.json.gz"
    except OSError as error:
        _tell_not_kept(TOKENS, data, error.strerror)
        return encode_split(scheme, data, progress)
    try:
        return EncodedSplit(data, _read(path, scheme))
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, EOFError, zlib.error, ValueError) as error:
        _LOGGER.warning("%s: warning: this encoded split is made again: %s", path, _first_line(error))
    split = encode_split(scheme, data, progress)
    try:
        write_atomically(path, _written(split.features, scheme))
    except OSError as error:
        _tell_not_kept(path.parent, data, error.strerror)
    except PydanticSerializationError as error:  # half of a surrogate pair, which no file in UTF-8 can hold
        _tell_not_kept(path.parent, data, _first_line(error))
    return split


def encoding_key(scheme: LabelScheme, task: AnyTask, subwords: Subwords, data: SplitData) -> str | None:
    """A name for the encoded rows: another one as soon as anything that decides them is another.

    That is what the rows hold, input, labels and head of the task, the classes that it found, and the tokenizer with
    the longest input. Where any of them lies does not count, nor what they are called.

    Returns:
        32 hexadecimal digits; None if the rows are so few that they are not worth keeping.
    """
    facts = hashlib.sha256()
    size = 0
    for row in data.rows:
        line = json.dumps(row.values, default=_plain).encode() + b"\n"
        size += len(line)
        facts.update(line)
    if size < LEAST_BYTES:
        return None
    description = {
        "version": ENCODING_VERSION,
        "task": task.model_dump(mode="json", exclude=_NOT_ENCODED),
        "names": scheme.names,
        "tokenizer": subwords.fingerprint,
    }
    # Keys are not sorted: the order of a task's names is that of its classes.
    facts.update(json.dumps(description).encode())
    return facts.hexdigest()[:32]


def _plain(value: object) -> Any:
    """What stands for a value that JSON has no form for. Nothing but text, numbers and booleans is ever encoded."""
    return dict(cast("Mapping[str, object]", value)) if isinstance(value, Mapping) else type(value).__name__


def _written(features: tuple[Feature, ...], scheme: LabelScheme) -> bytes:
    notes = _notes(scheme).dump_json(tuple(feature.notes for feature in features))
    body = _FEATURES.dump_json(features, exclude={"__all__": {"notes"}}) + b"\n" + notes
    header = {"format": _FORMAT, "format_version": _FORMAT_VERSION, "sha256": hashlib.sha256(body).hexdigest()}
    return gzip.compress(json.dumps(header).encode() + b"\n" + body, _LEVEL, mtime=0)


def _read(path: Path, scheme: LabelScheme) -> tuple[Feature, ...]:
    """The features of a file.

    Raises:
        OSError: there is none, or it cannot be read.
        EOFError, zlib.error, ValueError: it is damaged.
    """
    header, _, body = gzip.decompress(path.read_bytes()).partition(b"\n")
    expected = {"format": _FORMAT, "format_version": _FORMAT_VERSION, "sha256": hashlib.sha256(body).hexdigest()}
    if parse_json(header.decode()) != expected:
        raise ValueError("it does not match its header")
    features, _, notes = body.partition(b"\n")
    of_features = _notes(scheme).validate_json(notes, strict=True)
    return tuple(
        replace(feature, notes=note)
        for feature, note in zip(_FEATURES.validate_json(features, strict=True), of_features, strict=True)
    )


def _notes(scheme: LabelScheme) -> TypeAdapter[tuple[Any, ...]]:
    notes: Any = GenericAlias(tuple, (scheme.notes_type, ...))
    return TypeAdapter(notes)


def _tell_not_kept(folder: Path | str, data: SplitData, reason: str | None) -> None:
    _LOGGER.warning(
        "%s: warning: the encoded split '%s' cannot be kept: %s; set PTV2KIT_CACHE to another folder, "
        "or train.cache_tokens to false",
        folder,
        data.name,
        reason,
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
