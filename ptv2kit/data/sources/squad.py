"""SQuAD's own nested JSON, versions 1.1 and 2.0."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from ptv2kit.data.rows import Fault, Row, raise_fault
from ptv2kit.data.sources.lines import LONGEST_FILE, read_lines
from ptv2kit.errors import DataError

_NAMES = {str: "a text", int: "a whole number", bool: "true or false", list: "a list"}
# Half of a pair parses, but no tokenizer takes it.
_SURROGATE = re.compile("[\ud800-\udfff]")


def read_squad(path: Path, *, on_fault: Fault = raise_fault) -> Iterator[Row]:
    """One row for each question: `id`, `title`, `context`, `question`, and `answers` with the lists `text` and
    `answer_start`, as in the hub's data set. Both are empty if `is_impossible`; `plausible_answers` are not read.

    Files of the same layout that others make are read too: without titles, with numbers as ids, with more keys. A
    question without an id has its number in the file.

    Format: https://rajpurkar.github.io/SQuAD-explorer

    Args:
        on_fault: told of a question with a missing or wrong value; unless it raises, the questions after it are read.

    Raises:
        DataError: the file is unreadable or not JSON, or lacks a list of articles, paragraphs or questions.
    """
    count = 0
    for article, in_article in _items(_parse(path), "data", f"{path}:", "article"):
        title = _field(article, "title", str, in_article) if _has(article, "title") else ""
        for paragraph, in_paragraph in _items(article, "paragraphs", f"{in_article},", "paragraph"):
            context = _field(paragraph, "context", str, in_paragraph)
            for question, location in _items(paragraph, "qas", f"{in_paragraph},", "question"):
                count += 1
                try:
                    identity = _identity(question, count, location)
                    text = _field(question, "question", str, location)
                    answers = _answers(question, location)
                except DataError as error:
                    on_fault(error)
                    continue
                values = {"id": identity, "title": title, "context": context, "question": text, "answers": answers}
                yield Row(values, f"{path}: question {identity}")


def _has(parent: object, key: str) -> bool:
    return isinstance(parent, dict) and parent.get(key) is not None


def _identity(question: object, count: int, location: str) -> str:
    if not _has(question, "id"):
        return str(count)
    value = cast(dict[str, object], question)["id"]
    return str(value) if type(value) is int else _field(question, "id", str, location)


def _answers(question: dict[str, object], location: str) -> dict[str, list[Any]]:
    texts: list[str] = []
    starts: list[int] = []
    if "is_impossible" not in question or not _field(question, "is_impossible", bool, location):
        for answer, place in _items(question, "answers", f"{location},", "answer"):
            texts.append(_field(answer, "text", str, place))
            starts.append(_field(answer, "answer_start", int, place))
    return {"text": texts, "answer_start": starts}


def _items(parent: object, key: str, prefix: str, noun: str) -> Iterator[tuple[Any, str]]:
    """What is in list `key` of `parent`, each with its location."""
    for number, item in enumerate(_field(parent, key, list, prefix[:-1]), start=1):
        yield item, f"{prefix} {noun} {number}"


def _field(parent: object, key: str, kind: type[Any], location: str) -> Any:
    if not isinstance(parent, dict):
        raise DataError(f"expected an object with '{key}'. Got {type(parent).__name__}", location=location)
    if key not in parent:
        raise DataError(f"'{key}' is missing", location=location, hint="expected SQuAD's own nested JSON")
    value = cast(dict[str, object], parent)[key]
    # The exact type, because a bool is an int too.
    if type(value) is not kind:
        raise DataError(f"'{key}' must be {_NAMES[kind]}. Got {type(value).__name__}", location=location)
    if isinstance(value, str) and _SURROGATE.search(value):
        raise DataError(f"'{key}' is not Unicode: '\\u' escapes half of a surrogate pair", location=location)
    return value


def _parse(path: Path) -> object:
    try:
        return json.loads("".join(line for _, line in read_lines(path, LONGEST_FILE)))
    except json.JSONDecodeError as error:
        message = f"not JSON: {error.msg} at column {error.colno}"
        raise DataError(message, location=f"{path}:{error.lineno}") from error
    except RecursionError as error:
        raise DataError("not readable: the JSON is nested too deeply", location=str(path)) from error
    except ValueError as error:
        raise DataError(f"not JSON: {error}", location=str(path)) from error
