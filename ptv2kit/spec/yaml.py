"""One strict YAML loader that remembers where everything stands.

YAML 1.2 scalars (`no`, `on` and dates are text, `1e-3` is a number); no tags, anchors, aliases, merge keys or duplicate
keys; one document with a mapping at its top.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import yaml

from ptv2kit.errors import ConfigError, Problem

KeyPath = tuple[str | int, ...]
"""Way to a value from the top: keys of mappings and indices of lists."""

_LARGEST = 1_000_000
_DEEPEST = 32
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_NULL = re.compile(r"~|null|Null|NULL|")
_INT = re.compile(r"[-+]?[0-9]{1,40}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SURROGATE = re.compile("[\ud800-\udfff]")
_INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@final
@dataclass(frozen=True)
class Position:
    """A place in a file, counted from 1, and the line's text."""

    path: str
    line: int
    column: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}"

    def problem(self, message: str, hint: str = "") -> Problem:
        """A problem at this place, with the source line and a caret below it."""
        indent = len(self.text) - len(self.text.lstrip())
        caret = " " * max(0, self.column - 1 - indent) + "^"
        return Problem(message, location=str(self), excerpt=f"{self.text.strip()}\n{caret}", hint=hint)


@final
@dataclass(frozen=True)
class Document:
    """A file that was read.

    Args:
        values: plain mappings, lists and scalars.
        keys: where each key stands.
        places: where each value begins.
        problems: what was refused but did not keep the rest from being read, such as a duplicate key.
    """

    path: Path
    values: dict[str, Any]
    keys: Mapping[KeyPath, Position]
    places: Mapping[KeyPath, Position]
    problems: tuple[Problem, ...]


@final
class _Loader(yaml.SafeLoader):
    """PyYAML's parser without its YAML 1.1 guesses: every plain scalar arrives as text."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own class attribute


def load_document(path: Path) -> Document:
    """Read a YAML file.

    Raises:
        ConfigError: the file cannot be read, or is not YAML.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)  # no more, because a device has no end
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL character
        reason = error.strerror if isinstance(error, OSError) else None
        raise ConfigError(f"cannot read the file: {reason or error}", location=str(path)) from error
    if len(content) > _LARGEST:
        raise ConfigError(f"the file has more than {_LARGEST:,} bytes", location=str(path))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError("the file is not UTF-8", location=f"{path}:{line}") from error
    return Document(path, *_parsed(str(path), text))


@functools.lru_cache(maxsize=64)
def _parsed(
    name: str, text: str
) -> tuple[dict[str, Any], dict[KeyPath, Position], dict[KeyPath, Position], tuple[Problem, ...]]:
    """What a file says, read once: a suite's cells share many files. What is returned must not be changed."""
    reader = _Reader(name, text)
    values = reader.read()
    return values, reader.keys, reader.places, tuple(reader.problems)


def parse_value(text: str) -> Any:
    """A value from the command line, by the same rules.

    Raises:
        ConfigError: it is not YAML, or uses something that is refused.
    """
    return _Reader("command line", text).read_value()


@final
class _Reader:
    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._text = text
        self._lines = text.splitlines()
        self.problems: list[Problem] = []
        self.keys: dict[KeyPath, Position] = {}
        self.places: dict[KeyPath, Position] = {}

    def read(self) -> dict[str, Any]:
        node = self._compose()
        if not isinstance(node, yaml.MappingNode):
            place = Position(self._name, 1, 1, "") if node is None else self._position(node.start_mark)
            found = "nothing" if node is None else "a list" if isinstance(node, yaml.SequenceNode) else "a single value"
            raise ConfigError([place.problem(f"expected a mapping of keys to values, found {found}")])
        return self._build(node, ())

    def read_value(self) -> Any:
        node = self._compose()
        value = None if node is None else self._build(node, ())
        if self.problems:
            raise ConfigError(self.problems)
        return value

    def _compose(self) -> yaml.Node | None:
        try:
            self._refuse_anchors()
            loader = _Loader(self._text)
            try:
                return loader.get_single_node()
            finally:
                loader.dispose()
        except yaml.reader.ReaderError as error:
            line = self._text[: error.position].count("\n") + 1
            code = f"U+{ord(self._text[error.position]):04X}"
            raise ConfigError(f"character {code} is not allowed in YAML", location=f"{self._name}:{line}") from error
        # PyYAML turns escapes such as "\\UFFFFFFFF" and the numbers of %YAML into integers and characters unchecked.
        except (ValueError, OverflowError) as error:
            raise ConfigError(f"no valid YAML: {error}", location=self._name) from error
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            message = " ".join(part for part in (error.context, error.problem) if part)
            if mark is None:
                raise ConfigError(message, location=self._name) from error
            hint = "indent with spaces" if "\\t" in message else ""
            raise ConfigError([self._position(mark).problem(f"no valid YAML: {message}", hint)]) from error

    def _refuse_anchors(self) -> None:
        """Look at the events before anything is built: aliases can blow up, nesting can exhaust the stack."""
        depth = 0
        for event in yaml.parse(self._text, Loader=_Loader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                what = "aliases (*name)" if isinstance(event, yaml.AliasEvent) else "anchors (&name)"
                place = self._position(event.start_mark)
                raise ConfigError([place.problem(f"{what} are not allowed", "use 'extends', or ${key}")])
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise ConfigError([self._position(event.start_mark).problem(f"nested deeper than {_DEEPEST} levels")])

    def _build(self, node: yaml.Node, path: KeyPath) -> Any:
        self.places[path] = self._position(node.start_mark)
        self._refuse_tag(node)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._build(item, (*path, index)) for index, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        self._refuse_surrogates(node)
        return node.value if node.style else scalar(node.value)

    def _refuse_surrogates(self, node: yaml.ScalarNode) -> None:
        """An escaped half of a surrogate pair parses, but no file or terminal can hold it."""
        if _SURROGATE.search(node.value):
            self.problems.append(self._position(node.start_mark).problem("'\\u' escapes half of a surrogate pair"))
            node.value = _SURROGATE.sub("\ufffd", node.value)

    def _refuse_tag(self, node: yaml.Node) -> None:
        start = node.start_mark.index
        if not node.tag.startswith("tag:yaml.org,2002:") or self._text[start : start + 1] == "!":
            self.problems.append(self._position(node.start_mark).problem(f"tags ('{node.tag}') are not allowed"))

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place = self._position(key_node.start_mark)
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(place.problem("a key must be text"))
                continue
            self._refuse_tag(key_node)
            self._refuse_surrogates(key_node)
            key = str(key_node.value)
            if key == "<<" and not key_node.style:
                self.problems.append(place.problem("merge keys (<<) are not allowed", "use 'extends'"))
            elif key in values:
                first = self.keys[(*path, key)]
                self.problems.append(place.problem(f"duplicate key '{key}'", f"it is set before, in line {first.line}"))
            else:
                self.keys[(*path, key)] = place
                values[key] = self._build(value_node, (*path, key))
        return values

    def _position(self, mark: Any) -> Position:
        text = self._lines[mark.line] if mark.line < len(self._lines) else ""
        return Position(self._name, mark.line + 1, mark.column + 1, text)


def quoted(text: str) -> str:
    """A text in double quotes as this loader reads it back: what cannot be printed is escaped."""
    kept = {'"': '\\"', "\\": "\\\\", "\t": "\\t", "\n": "\\n"}
    shown = (kept.get(letter) or (letter if letter.isprintable() else f"\\U{ord(letter):08X}") for letter in text)
    return '"' + "".join(shown) + '"'


def scalar(text: str) -> Any:
    """A plain scalar by YAML 1.2's core schema, without octal and hexadecimal numbers."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITE.fullmatch(text):
        return float(text.replace(".", "", 1))
    return text
