"""Pydantic's errors as problems at a line and column, in the words of the YAML file."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from ptv2kit.errors import Problem, did_you_mean
from ptv2kit.spec.base import Section
from ptv2kit.spec.merge import Merged, dotted
from ptv2kit.spec.names import UPSTREAM
from ptv2kit.spec.recipe import A_SHARE, PER_CLASS, SCORED, STEPS
from ptv2kit.spec.rows import DERIVATION_KEYS, derivation_kind
from ptv2kit.spec.task import scheme_of
from ptv2kit.spec.task_base import LANGUAGE
from ptv2kit.spec.yaml import KeyPath

REMOVED: Mapping[KeyPath, str] = {
    ("train", "cache_tokens"): "sub-words are made anew by each run",
    ("train", "packing"): "batches are sorted by length, which leaves about 2 % of padding",
    ("train", "parallel_trials"): "--jobs trains several trials at one time",
}
"""Keys of earlier versions, and what to do without them. The resolved recipe of an old run may still have them."""

_EXPECTED = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_PATTERNS = {
    PER_CLASS: "a number of rows, or text such as '16 per class'",
    STEPS: "a number of epochs, or text such as '200 steps'",
    A_SHARE: "a share such as '10%'",
    SCORED: "validation, test or test_<name>",
    LANGUAGE: "a language such as 'en' or 'zh-Hant'",
}
"""What a text should be, by the pattern that it does not match; all others are names."""
_BOUNDS = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


def validate(adapter: TypeAdapter[Any], merged: Merged, annotation: Any) -> tuple[Any, list[Problem]]:
    """Validate merged values.

    Args:
        merged: the values and where they stand.
        annotation: the type, whose keys hints may name.

    Returns:
        The validated object or None, and every problem, those of merging included.
    """
    try:
        return adapter.validate_python(merged.values), list(merged.problems)
    except ValidationError as error:
        said = {problem.location for problem in merged.problems if problem.location != "command line"}
        found = _problems(error.errors(include_url=False), merged, known_keys(annotation))
        return None, [*merged.problems, *(problem for problem in found if problem.location not in said)]


def without_removed(merged: Merged) -> Merged:
    """Drop the keys that an earlier version wrote into a run's resolved recipe and that mean nothing any more."""
    values = copy.deepcopy(merged.values)
    for *above, leaf in REMOVED:
        section: Any = values
        for part in above:
            section = section.get(part, {}) if isinstance(section, dict) else {}
        if isinstance(section, dict):
            section.pop(leaf, None)
    return replace(merged, values=values)


def known_keys(annotation: Any, prefix: str = "") -> list[str]:
    """Every key below a section's type, dotted, unions joined; `*` stands for a name that the user chooses."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        keys: list[str] = []
        for name, field in annotation.model_fields.items():
            keys += [f"{prefix}{name}", *known_keys(field.annotation, f"{prefix}{name}.")]
        return keys
    below = f"{prefix}*." if get_origin(annotation) is dict else prefix
    return list(dict.fromkeys(key for part in get_args(annotation) for key in known_keys(part, below)))


def describe(value: Any) -> str:
    """A value as a message calls it: `text 'ten'`, `a list`, `7`."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case str():
            return f"text '{value}'"
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case _:
            return str(value)


def _problems(errors: list[Any], merged: Merged, known: list[str]) -> list[Problem]:
    groups: dict[KeyPath, dict[str, list[Any]]] = {}
    for error in errors:
        if error["type"] == "too_short" and len(error["input"]) >= error["ctx"]["min_length"]:
            continue  # its items are counted after validation, and they have errors of their own
        path, branch_path, branch = _yaml_path(error, merged.values)
        error["path"] = path
        groups.setdefault(branch_path if branch else path, {}).setdefault(branch, []).append(error)
    found: list[Problem] = []
    for path, branches in groups.items():
        plain = branches.pop("", [])
        found += [_problem(error, merged, known) for error in plain]
        fitting = [
            branch
            for branch in branches.values()
            if not any(error["path"] == path and _is_type_error(error) for error in branch)
        ]
        if fitting:
            found += [_problem(error, merged, known) for error in fitting[0]]
        elif branches:
            choices = " or ".join(dict.fromkeys(_expectation(branch[0]) for branch in branches.values()))
            value = next(iter(branches.values()))[0]["input"]
            message = f"'{dotted(path)}' must be {choices}, found {describe(value)}"
            found.append(merged.place(path).problem(message, _union_hint(path, value, choices)))
    return found


def _yaml_path(error: Any, values: Any) -> tuple[KeyPath, KeyPath, str]:
    """The way to the fault in the YAML, and to the union and its branch that pydantic names on the way, if any."""
    # Pydantic's way names besides keys and items the tag of a discriminated union (`classes`) and the branch of a
    # plain one (`list[str]`), which no YAML has: only what the values have is part of the path.
    path: KeyPath = ()
    branch_path: KeyPath = ()
    branch = ""
    node = values
    parts: list[Any] = list(error["loc"])
    tagged: set[KeyPath] = set()
    for index, part in enumerate(parts):
        if path not in tagged and part == _tag(path, node):
            tagged.add(path)
        elif (isinstance(node, dict) and part in node) or (
            isinstance(node, list) and isinstance(part, int) and part < len(node)
        ):
            node = node[part]
            path = (*path, part)
        elif error["type"] == "missing" and index == len(parts) - 1:
            path = (*path, part)
        elif re.search(r"[\[\-]|^(int|str|float|bool)$", str(part)) and part != "[key]":
            branch_path, branch = path, str(part)
    return path, branch_path, branch


def _tag(path: KeyPath, node: Any) -> Any:
    """What pydantic puts into the way at a section of several kinds; a key of the same name may stand beside it."""
    if path == ():
        return scheme_of(node)
    if len(path) == 2 and path[0] == "derive":
        return derivation_kind(node)
    return node.get("source") if path == ("data",) and isinstance(node, dict) else None


def _union_hint(path: KeyPath, value: Any, choices: str) -> str:
    if path == ("task",) and isinstance(value, dict):
        return "the keys of a task are set in the task's own file"
    hint = did_you_mean(value, re.findall(r"'([^']*)'", choices)) if isinstance(value, str) else ""
    return hint if hint.startswith("did") else ""


def _is_type_error(error: Any) -> bool:
    return error["type"] in _EXPECTED or error["type"] == "literal_error"


def _expectation(error: Any) -> str:
    if error["type"] == "literal_error":
        return str(error["ctx"]["expected"])
    return _EXPECTED[error["type"]]


def _problem(error: Any, merged: Merged, known: list[str]) -> Problem:
    path: KeyPath = error["path"]
    name, kind, context = dotted(path), error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return merged.key(path).problem(f"unknown key '{name}'", _unknown_key_hint(path, known))
    if kind == "missing":
        return merged.key(path[:-1]).problem(f"missing key '{name}'")
    value = error["input"]
    place = merged.place(path)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _tag_problem(path, kind, context, merged)
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", context["expected"])
        message = f"'{name}' must be {'one of: ' if len(choices) > 1 else ''}{', '.join(choices)}"
        hint = did_you_mean(value, choices) if isinstance(value, str) else ""
        return place.problem(f"{message}; found {describe(value)}", hint if hint.startswith("did") else "")
    if kind in _EXPECTED:
        return place.problem(f"'{name}' must be {_EXPECTED[kind]}, found {describe(value)}", _type_hint(kind, value))
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        return place.problem(f"'{name}' must be {words} {describe(context[key])}, found {describe(value)}")
    if kind in ("too_short", "string_too_short"):
        unit = "items" if kind == "too_short" else "characters"
        return place.problem(f"'{name}' must have at least {context['min_length']} {unit}")
    if kind == "string_pattern_mismatch":
        words = _PATTERNS.get(context["pattern"], "letters, digits, '_', '.' and '-'")
        return place.problem(f"'{name}' must be {words}, found {describe(value)}")
    if kind == "finite_number":
        return place.problem(f"'{name}' must be a finite number, found {describe(value)}")
    return place.problem(f"'{name}': {str(error['msg']).removeprefix('Value error, ')}")


def _tag_problem(path: KeyPath, kind: str, context: Any, merged: Merged) -> Problem:
    """The key that says which kind of section it is, such as `data.source`, is missing or unknown."""
    key = str(context["discriminator"]).strip("'")
    if key == "derivation_kind()":
        message = f"'{dotted(path)}' must have one of the keys {', '.join(DERIVATION_KEYS)}"
        return merged.place(path).problem(message, "they say how the column is made")
    tag_path: KeyPath = ("labels", "scheme") if key == "scheme_of()" else (*path, key)
    name, parent = dotted(tag_path), tag_path[:-1]
    section: Any = merged.values
    for part in parent:
        section = section.get(part, {}) if isinstance(part, str) else section[part]
    if not isinstance(section, dict):
        return merged.place(parent).problem(f"'{dotted(parent)}' must be a mapping, found {describe(section)}")
    if kind == "union_tag_not_found":
        if tag_path[-1] in section:
            return merged.place(tag_path).problem(f"'{name}' must be text, found {describe(section[tag_path[-1]])}")
        missing = name if parent in merged.keys else dotted(parent)
        return merged.key(parent).problem(f"missing key '{missing}'")
    choices = re.findall(r"'([^']*)'", context["expected_tags"])
    hint = did_you_mean(str(context["tag"]), choices)
    message = f"'{name}' must be one of: {', '.join(choices)}; found text '{context['tag']}'"
    return merged.place(tag_path).problem(message, hint if hint.startswith("did") else "")


def _unknown_key_hint(path: KeyPath, known: list[str]) -> str:
    leaf = str(path[-1])
    if leaf == "trust_remote_code":
        return "code from a model repository is never run; there is no such key"
    if path in REMOVED:
        return f"'{dotted(path)}' is gone since 0.2: {REMOVED[path]}; leave it out"
    if leaf in UPSTREAM:
        return f"here it is {UPSTREAM[leaf]}"
    above = [str(part) for part in path[:-1] if not isinstance(part, int)]
    siblings = [key.rpartition(".")[2] for key in known if _names_section(key.split(".")[:-1], above)]
    if leaf in siblings:
        return f"another kind of '{dotted(path[:-1])}' has this key, this one has not"
    close = difflib.get_close_matches(leaf, siblings, n=1)
    if close:
        return f"did you mean '{dotted((*path[:-1], close[0]))}'?"
    by_leaf: dict[str, str] = {}
    for key in known:
        if "*" in key:
            continue
        by_leaf.setdefault(key.rpartition(".")[2], key)
    elsewhere = difflib.get_close_matches(leaf, list(by_leaf), n=1, cutoff=0.8)
    if elsewhere:
        return f"did you mean '{by_leaf[elsewhere[0]]}'?"
    return "known here: " + ", ".join(siblings) if siblings else ""


def _names_section(pattern: list[str], names: list[str]) -> bool:
    return len(pattern) == len(names) and all(a in ("*", b) for a, b in zip(pattern, names, strict=True))


def _type_hint(kind: str, value: Any) -> str:
    if kind == "string_type" and isinstance(value, bool | int | float):
        return f'quote it: "{describe(value)}"'
    if kind in ("tuple_type", "list_type") and isinstance(value, str):
        return f"write [{value}]"
    return ""
