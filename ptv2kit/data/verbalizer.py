"""A verbalizer's words in a backbone's vocabulary, and what makes a mask impossible to fill."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from ptv2kit.data.tokens import Subwords, Words
from ptv2kit.errors import ConfigError, Problem
from ptv2kit.spec.merge import Merged
from ptv2kit.spec.task import AnyTask, ChoicesTask, ClassesTask
from ptv2kit.spec.template import MASK, parse_template
from ptv2kit.spec.verbalizer import class_faults, words_of
from ptv2kit.spec.yaml import KeyPath

_NUMBERS = ("no tokens", "one token", "two tokens", "three tokens", "four tokens", "five tokens")


def check_task_words(task: AnyTask, subwords: Subwords, merged: Merged | None) -> None:
    """Make sure, before rows are read, that a task's mask can be filled and its words can be told from each other.

    Args:
        task: any; one with a linear head is right.
        merged: the task's file, so that problems have a place.

    Raises:
        ConfigError: with every problem.
    """
    if task.head == "linear":
        return
    finder = _Finder(task, subwords, merged)
    finder.check_text()
    finder.find(list(task.class_words or {}))
    finder.finish()


def find_words(task: ClassesTask, names: Sequence[str], subwords: Subwords) -> Words:
    """The words of each class.

    Raises:
        ConfigError: see `check_task_words`; or a class has no word.
    """
    problems = [Problem(fault.message, hint=fault.hint) for fault in class_faults(task.verbalizer or {}, names)]
    if problems:
        raise ConfigError(problems)
    finder = _Finder(task, subwords, None)
    finder.check_text()
    found = finder.find(names)
    finder.finish()
    return found


def check_text(task: ChoicesTask, subwords: Subwords) -> None:
    """Make sure that a text's mask can be filled.

    Raises:
        ConfigError: it cannot.
    """
    finder = _Finder(task, subwords, None)
    finder.check_text()
    finder.finish()


def word_ids(text: str, subwords: Subwords) -> tuple[int, ...]:
    """An answer's tokens.

    Raises:
        ValueError: it is empty, or the vocabulary cannot write it.
    """
    ids = subwords.word(text)
    if not ids or not text.strip():
        raise ValueError(f"the answer {text!r} has no token")
    if subwords.unknown_id in ids:
        raise ValueError(f"the answer {text!r} is not in this vocabulary")
    return ids


@final
class _Finder:
    """Collects the problems of one task's mask and words.

    Args:
        task: with a verbalizer.
        merged: where the task is written, if that is known.
    """

    def __init__(self, task: AnyTask, subwords: Subwords, merged: Merged | None) -> None:
        self._task = task
        self._subwords = subwords
        self._merged = merged
        self._problems: list[Problem] = []

    def finish(self) -> None:
        """Raise if anything was found."""
        if self._problems:
            raise ConfigError(self._problems)

    def check_text(self) -> None:
        """Whether the backbone can fill a mask where the template has it."""
        match self._subwords.filling:
            case "masks":
                if self._subwords.mask is None:
                    self._add(("head",), "the backbone's tokenizer has no mask token, which 'head' verbalizer needs")
            case "continuation":
                key, text = list(self._task.mask_texts.items())[-1]
                parts = parse_template(text).parts
                behind = [part for part in parts if part[1].strip(" ") or part[0]]
                if not behind or behind[-1] != (True, MASK):
                    hint = "write the mask at the end: '{passage} Question: {question}? Answer: {mask}'"
                    self._add(
                        ("input", key), "a decoder continues a text: '{mask}' must stand at the input's end", hint
                    )
            case "blank":
                pass

    def find(self, names: Sequence[str]) -> Words:
        """The words of each class; a problem for each that cannot be used."""
        verbalizer = self._task.class_words or {}
        owners: dict[tuple[int, ...], tuple[str, str]] = {}
        found: list[tuple[tuple[int, ...], ...]] = []
        for name in names:
            written = verbalizer[name]
            of_class: list[tuple[int, ...]] = []
            for index, word in enumerate(words_of(written)):
                path: KeyPath = ("verbalizer", name) if isinstance(written, str) else ("verbalizer", name, index)
                ids = self._ids(word, path)
                if ids is None:
                    continue
                if ids in owners:
                    tokens = ", ".join(map(repr, self._subwords.tokens(ids)))
                    other, of = owners[ids]
                    self._add(
                        path, f"'{word}' of '{name}' and '{other}' of '{of}' are the same in this vocabulary: {tokens}"
                    )
                owners.setdefault(ids, (word, name))
                of_class.append(ids)
            found.append(tuple(of_class))
        return tuple(found)

    def _ids(self, word: str, path: KeyPath) -> tuple[int, ...] | None:
        try:
            ids = word_ids(word, self._subwords)
        except ValueError as error:
            self._add(path, str(error).replace("the answer ", "the word "))
            return None
        if len(ids) > 1 and self._task.words_are_one_token:
            count = _NUMBERS[len(ids)] if len(ids) < len(_NUMBERS) else f"{len(ids)} tokens"
            tokens = ", ".join(map(repr, self._subwords.tokens(ids)))
            hint = "take a word that is one token, or set verbalizer_tokens: any"
            self._add(path, f"'{word}' is {count} in this vocabulary: {tokens}", hint)
        return ids

    def _add(self, path: KeyPath, message: str, hint: str = "") -> None:
        place = None if self._merged is None else self._merged.place(path)
        self._problems.append(Problem(message, hint=hint) if place is None else place.problem(message, hint))
