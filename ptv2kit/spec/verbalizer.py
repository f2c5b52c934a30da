"""What a task with `head: verbalizer` must say, as far as its file alone can tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

from pydantic import Field

from ptv2kit.errors import did_you_mean
from ptv2kit.spec.base import Fault, Section
from ptv2kit.spec.template import MASK, parse_template

Words = str | Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
"""The word of a class, or several whose probabilities are added up."""


def words_of(words: Words) -> tuple[str, ...]:
    """The words of a class."""
    return (words,) if isinstance(words, str) else words


def unused_faults(task: Section) -> Iterator[Fault]:
    """Keys that only a verbalizer reads; a resolved file writes their defaults too."""
    for key in ("verbalizer", "verbalizer_tokens"):
        field = type(task).model_fields.get(key)
        if field is not None and key in task.model_fields_set and getattr(task, key) != field.default:
            hint = "set head: verbalizer, or take the key out"
            yield Fault((key,), f"'{key}' needs 'head: verbalizer'", hint, at_key=True)


def mask_faults(texts: Mapping[str, str], where: str) -> Iterator[Fault]:
    """A mask that is missing or there more than once, and templates with nothing else.

    Args:
        texts: the templates by key of `input`.
        where: these keys, for the message.
    """
    counts = {key: sum(part == (True, MASK) for part in parse_template(text).parts) for key, text in texts.items()}
    total = sum(counts.values())
    if total == 0:
        hint = "such as '{text} It was {mask}.'"
        yield Fault(("input", "text"), f"'head' verbalizer needs '{{mask}}' in {where}", hint)
    elif total > 1:
        last = [key for key, count in counts.items() if count][-1]
        yield Fault(("input", last), f"'{{mask}}' must stand once, found it {total} times")
    if all(set(parse_template(text).columns) <= {MASK} for text in texts.values()):
        yield Fault(("input", "text"), "'input' names no column besides '{mask}', such as '{text}'")


def word_faults(verbalizer: Mapping[str, Words] | None, names: Sequence[str] | None) -> Iterator[Fault]:
    """Classes without a word, and words that are empty or the same for two classes.

    Args:
        names: of the classes; None if only the training rows tell them.
    """
    if verbalizer is None:
        hint = 'such as verbalizer: {no: " No", yes: " Yes"}'
        yield Fault(("head",), "'head' verbalizer needs the key 'verbalizer'", hint)
        return
    if names is not None:
        yield from class_faults(verbalizer, names)
    owners: dict[str, str] = {}
    for name, words in verbalizer.items():
        for index, word in enumerate(words_of(words)):
            path = ("verbalizer", name) if isinstance(words, str) else ("verbalizer", name, index)
            if not word.strip():
                yield Fault(path, f"'verbalizer.{name}' has an empty word")
            elif word in owners:
                other = f"both of '{owners[word]}' and" if owners[word] != name else "twice a word"
                yield Fault(path, f"'{word}' is {other} of '{name}'")
            else:
                owners[word] = name


def class_faults(verbalizer: Mapping[str, Words], names: Sequence[str]) -> Iterator[Fault]:
    """Classes that have no word, and words of classes that do not exist."""
    for name in verbalizer:
        if name not in names:
            hint = did_you_mean(name, list(names))
            yield Fault(("verbalizer", name), f"'verbalizer' has a word for '{name}', which is not a class", hint, True)
    lacking = ", ".join(f"'{name}'" for name in names if name not in verbalizer)
    if lacking:
        plural = "classes" if "," in lacking else "class"
        yield Fault(("verbalizer",), f"'verbalizer' has no word for the {plural} {lacking}", at_key=True)
