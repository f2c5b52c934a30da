"""What a task with `head: verbalizer` must say, as far as its file alone can tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ptv2kit.config.merge import Merged
from ptv2kit.config.task import ChoicesTask, ClassesTask, Words
from ptv2kit.config.template import parse_template
from ptv2kit.config.yaml import KeyPath
from ptv2kit.errors import Problem, did_you_mean

MASK = "mask"
"""What stands in braces where a verbalizer's word belongs; a column of this name is hidden by it."""


def words_of(words: Words) -> tuple[str, ...]:
    """The words of a class."""
    return (words,) if isinstance(words, str) else words


def check_verbalizer(task: ClassesTask | ChoicesTask, merged: Merged) -> list[Problem]:
    """The contradictions of a task's head, its words and its mask."""
    if task.head == "linear":
        return _check_unused(task, merged)
    problems = _check_mask(task, merged)
    made: list[KeyPath] = [("derive", name) for name in task.derive if name == MASK]
    made += [("expand", number, "item") for number, step in enumerate(task.expand) if step.item == MASK]
    message = "a column 'mask' would be hidden by '{mask}', where the words belong"
    problems += [merged.key(path).problem(message, "give the column another name") for path in made]
    if isinstance(task, ChoicesTask):
        return problems
    if task.verbalizer is None:
        hint = 'such as verbalizer: {no: " No", yes: " Yes"}'
        return [*problems, merged.place(("head",)).problem("'head' verbalizer needs the key 'verbalizer'", hint)]
    names = task.labels.names
    if names != "from_train":
        known = tuple(dict.fromkeys(names.values())) if isinstance(names, dict) else names
        problems += check_classes(task.verbalizer, known, merged)
    return problems + _check_words(task.verbalizer, merged)


def check_classes(verbalizer: Mapping[str, Words], names: Sequence[str], merged: Merged | None) -> list[Problem]:
    """Classes that have no word, and words of classes that are not there.

    Args:
        verbalizer: the words of each class.
        merged: where they are written, if that is known.
    """
    problems = [
        _problem(merged, ("verbalizer", name), f"'verbalizer' has a word for '{name}', which is not a class", hint)
        for name in verbalizer
        if name not in names
        for hint in (did_you_mean(name, list(names)),)
    ]
    lacking = [name for name in names if name not in verbalizer]
    if lacking:
        which = ", ".join(f"'{name}'" for name in lacking)
        plural = "classes" if len(lacking) > 1 else "class"
        problems.append(_problem(merged, ("verbalizer",), f"'verbalizer' has no word for the {plural} {which}"))
    return problems


def _problem(merged: Merged | None, path: KeyPath, message: str, hint: str = "") -> Problem:
    return Problem(message, hint=hint) if merged is None else merged.key(path).problem(message, hint)


def _check_unused(task: ClassesTask | ChoicesTask, merged: Merged) -> list[Problem]:
    keys = [key for key in ("verbalizer", "verbalizer_tokens") if key in task.model_fields_set]
    # A resolved file writes defaults too.
    defaults = {key: type(task).model_fields[key].default for key in keys}
    return [
        merged.key((key,)).problem(f"'{key}' needs 'head: verbalizer'", "set head: verbalizer, or take the key out")
        for key in keys
        if task.model_dump(include={key})[key] != defaults[key]
    ]


def _check_mask(task: ClassesTask | ChoicesTask, merged: Merged) -> list[Problem]:
    """`{mask}` stands once, and not in a choice."""
    section = task.input.model_dump(include={"text", "pair"}, exclude_none=True)
    texts: dict[str, str] = {key: str(text) for key, text in section.items()}
    counts = {key: _masks(text) for key, text in texts.items()}
    where = " or ".join(f"'input.{key}'" for key in ("text", *(("pair",) if isinstance(task, ClassesTask) else ())))
    problems: list[Problem] = []
    if sum(counts.values()) == 0:
        hint = "such as '{text} It was {mask}.'"
        problems.append(merged.place(("input", "text")).problem(f"'head' verbalizer needs '{{mask}}' in {where}", hint))
    elif sum(counts.values()) > 1:
        last = [key for key, count in counts.items() if count][-1]
        problems.append(
            merged.place(("input", last)).problem(f"'{{mask}}' must stand once, found it {sum(counts.values())} times")
        )
    if all(set(parse_template(text).columns) <= {MASK} for text in texts.values()):
        problems.append(
            merged.place(("input", "text")).problem("'input' names no column besides '{mask}', such as '{text}'")
        )
    if isinstance(task, ChoicesTask):
        if task.input.truncate == "pair":
            place = merged.place(("input", "truncate"))
            problems.append(place.problem("'input.truncate' is pair, but a choice that fills a mask is never cut off"))
        problems += [
            merged.place(("input", "choices", index)).problem(
                "a choice cannot hold '{mask}': it is what fills the mask in 'input.text'"
            )
            for index, choice in enumerate(task.input.choices)
            if _masks(choice)
        ]
    return problems


def _masks(text: str) -> int:
    return sum(is_column and part == MASK for is_column, part in parse_template(text).parts)


def _check_words(verbalizer: Mapping[str, Words], merged: Merged) -> list[Problem]:
    """Words that are empty, or the same for two classes."""
    problems: list[Problem] = []
    owners: dict[str, str] = {}
    for name, words in verbalizer.items():
        for index, word in enumerate(words_of(words)):
            path: KeyPath = ("verbalizer", name) if isinstance(words, str) else ("verbalizer", name, index)
            place = merged.place(path)
            if not word.strip():
                problems.append(place.problem(f"'verbalizer.{name}' has an empty word"))
            elif word in owners:
                other = f"both of '{owners[word]}' and" if owners[word] != name else "twice a word"
                problems.append(place.problem(f"'{word}' is {other} of '{name}'"))
            else:
                owners[word] = name
    return problems
