"""Lines of UTF-8 text, from plain files and from gzip."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterable, Iterator
from io import BufferedReader
from itertools import count
from pathlib import Path
from typing import BinaryIO, cast

from ptv2kit.errors import DataError

JSON_LINES = ("jsonl", "json", "ndjson", "jsonlines")
CONLL = ("conll", "conllu", "bio", "iob", "iob2")
"""How the names of files of JSON rows, and of files with a word a line, end."""
_DECODED = 1 << 24
"""Bytes at the begin of a file that tell its encoding."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF16 = "this is UTF-16; set 'data.encoding: utf-16' for a table, or save the file as UTF-8"
_MAGIC = {
    b"\x1f\x8b": "this is gzip; its name has to end in '.gz'",
    b"PK\x03\x04": "this is a zip archive; unpack it, and name the file in it",
    b"\xff\xfe": _UTF16,
    b"\xfe\xff": _UTF16,
    b"PAR1": "this is Parquet; set 'data.source: parquet'",
}
"""How files of other kinds begin, and what to do about them."""
LONGEST_FILE = 1 << 28
"""Bytes of a file that is one piece of JSON: SQuAD is one line of 40 MB, but gzip makes a gigabyte of a megabyte."""
LONGEST_ROW = 1 << 24
"""Bytes of a row's line. Tokenizers need about a hundred times the size of a text: a longer row would fill memory."""


def read_lines(path: Path, longest: int = LONGEST_ROW, encoding: str | None = None) -> Iterator[tuple[int, str]]:
    """Line numbers from 1, and lines with their line ends. A byte order mark is dropped; only `\\n` ends a line.

    Args:
        longest: bytes of the longest line.
        encoding: `data.encoding`; None for formats that are UTF-8 always.

    Raises:
        DataError: the file cannot be read, its gzip data is damaged, or a line is not of the encoding or too long.
    """
    number = 0
    try:
        with _open(path) as file:
            if encoding is not None and "\n".encode(encoding) != b"\n":
                lines = _wide_lines(file, path, longest, encoding)
            else:
                lines = decoded_lines(_bounded(file, path, longest), path, encoding)
            for number, line in lines:
                yield number, line
    # BadGzipFile is an OSError without strerror, so it has to come first.
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"the gzip data is damaged; it could be read up to line {number}: {error}", location=str(path)
        ) from error
    except OSError as error:
        raise unreadable(path, error) from error


def decoded_lines(file: Iterable[bytes], path: Path, encoding: str | None = None) -> Iterator[tuple[int, str]]:
    """`read_lines` of an open file.

    Raises:
        DataError: a line is not of the encoding.
    """
    for number, raw in enumerate(file, start=1):
        yield number, _decode(raw.removeprefix(_BYTE_ORDER_MARK) if number == 1 else raw, path, number, encoding)


def ending_of(path: Path) -> str:
    """How a file's name ends, in small letters, without `.gz` and the dot."""
    return path.name.removesuffix(".gz").rpartition(".")[2].lower()


def encoding_of(path: Path) -> str:
    """UTF-8, UTF-16 by its mark, or what Excel and old corpora have, in which every byte but five is a letter."""
    try:
        with _open(path) as file:
            start = file.read(_DECODED)
    except (OSError, EOFError, zlib.error):
        return "utf-8"  # the reader says what is wrong
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if start.startswith(tuple(_MAGIC)):
        return "utf-8"  # of another kind, which the reader names
    whole = start if len(start) < _DECODED else start[: start.rfind(b"\n") + 1]
    return next((name for name in ("utf-8", "cp1252") if _decodes(whole, name)), "latin-1")


def _decodes(content: bytes, encoding: str) -> bool:
    try:
        content.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def unreadable(path: Path, error: OSError) -> DataError:
    """The error for a file that the operating system does not let us read."""
    return DataError(f"cannot be read: {error.strerror or error}", location=str(path))


def fingerprint_of_file(path: Path) -> str:
    """SHA-256 of the file's bytes, in hexadecimal.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(path, error) from error


def _open(path: Path) -> gzip.GzipFile | BufferedReader:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _bounded(file: gzip.GzipFile | BufferedReader, path: Path, longest: int) -> Iterator[bytes]:
    for number in count(1):
        line = file.readline(longest + 1)
        if not line:
            return
        if len(line) > longest:
            raise _too_long(path, number, longest)
        yield line


def _wide_lines(
    file: gzip.GzipFile | BufferedReader, path: Path, longest: int, encoding: str
) -> Iterator[tuple[int, str]]:
    """Lines of UTF-16 and its like, whose line ends are not one byte; `longest` counts characters."""
    with io.TextIOWrapper(cast("BinaryIO", file), encoding, newline="\n") as text:
        for number in count(1):
            try:
                line = text.readline(longest + 1)
            except UnicodeError as error:
                message = f"not {encoding.upper()}: {error}"
                raise DataError(message, location=f"{path}:{number}", hint="save the file as UTF-8") from error
            if not line:
                return
            if len(line) > longest:
                raise _too_long(path, number, longest)
            yield number, line


def _too_long(path: Path, number: int, longest: int) -> DataError:
    message = f"the line is longer than {longest >> 20} MiB"
    return DataError(message, location=f"{path}:{number}", hint="give each row a line of its own")


def _decode(raw: bytes, path: Path, number: int, encoding: str | None) -> str:
    try:
        return raw.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        other = "" if encoding is None else ", or set 'data.encoding', such as cp1252 for files of Excel"
        hint = next((hint for magic, hint in _MAGIC.items() if number == 1 and raw.startswith(magic)), "")
        raise DataError(
            f"not {(encoding or 'utf-8').upper()}: byte 0x{raw[error.start]:02x} at byte {error.start + 1} of the line",
            location=f"{path}:{number}",
            hint=hint or f"save the file as UTF-8{other}",
        ) from error
