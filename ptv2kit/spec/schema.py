"""The JSON Schema of task, recipe and suite files, and the key reference that is made from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import TypeAdapter

from ptv2kit.spec.recipe import Recipe
from ptv2kit.spec.suite import Suite
from ptv2kit.spec.task import Task

Kind = Literal["task", "recipe", "suite"]

_ADAPTERS: Mapping[Kind, TypeAdapter[Any]] = {
    "task": TypeAdapter(Task),
    "recipe": TypeAdapter(Recipe),
    "suite": TypeAdapter(Suite),
}
_LOADER_KEYS: Mapping[str, str] = {"extends": "A file of the same kind whose values this one starts from."}
"""Keys that the loader takes out before validation."""
_SPLITS = "splits"  # every source has them; they get one table


def json_schema(kind: Kind) -> dict[str, Any]:
    """The JSON Schema of a task, recipe or suite file, for editors; the first line of a file can name it.

    It requires little: what a file lacks may come from its parent, which the loader merges before it validates.
    """
    schema = _ADAPTERS[kind].json_schema()
    sections = [schema] if "properties" in schema else [schema["$defs"][_name(ref)] for ref in schema["oneOf"]]
    # The kinds of a task's sections are told apart by what they require; all others have one kind each.
    for section in [*sections, *(schema["$defs"].values() if kind != "task" else [])]:
        section.pop("required", None)
    for section in sections:
        for key, text in _LOADER_KEYS.items():
            section["properties"][key] = {"type": "string", "description": text}
    if "oneOf" in schema:
        schema["anyOf"] = schema.pop("oneOf")  # a file that is still being written may fit several
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"ptv2kit {kind}", **schema}


def key_reference(kind: Kind) -> str:
    """Every key of a task, recipe or suite file with type, default and meaning, as Markdown."""
    schema = _ADAPTERS[kind].json_schema()
    definitions: dict[str, Any] = schema.get("$defs", {})
    lines = [f"# Keys of a {kind} file", "", f"Made by `ptv2kit schema {kind} --markdown`; do not edit.", ""]
    sections = [schema] if "properties" in schema else [definitions[_name(ref)] for ref in schema["oneOf"]]
    common = set.intersection(*({*section["properties"]} for section in sections))
    if kind == "task":
        common -= {"input", "labels", "metrics"}  # each scheme has its own
    lines += _table(sections[0], definitions, common)
    if kind == "task":
        lines += [
            "## data.splits",
            "",
            _sentence(definitions["Splits"]),
            "",
            *_table(definitions["Splits"], definitions),
        ]
    for title, section in _branches(sections[0], definitions, common):
        lines += [f"## {title}", "", _sentence(section), "", *_table(section, definitions)]
    for section in sections if len(sections) > 1 else []:
        scheme = definitions[_name(section["properties"]["labels"])]["properties"]["scheme"]["const"]
        own = {*section["properties"]} - common
        lines += [f"## labels.scheme: {scheme}", "", _sentence(section), "", *_table(section, definitions, own)]
    return "\n".join(lines).rstrip() + "\n"


def _table(section: Any, definitions: Any, only: set[str] | None = None) -> list[str]:
    lines = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for key, field, required in _keys(section, definitions, "", only):
        default = "" if required else f"`{_value(field.get('default'))}`" if "default" in field else ""
        meaning = " ".join(str(field.get("description", "")).split()).replace("|", "\\|")
        lines.append(f"| `{key}` | {_type(field, definitions)} | {'required' if required else default} | {meaning} |")
    return [*lines, ""]


def _keys(section: Any, definitions: Any, prefix: str, only: set[str] | None) -> Iterator[tuple[str, Any, bool]]:
    """Dotted keys of a section; those of sections within it follow theirs, unless there are several kinds."""
    for key, field in section["properties"].items():
        if only is not None and key not in only:
            continue
        yield f"{prefix}{key}", field, key in section.get("required", [])
        inner = [part for part in field.get("anyOf", [field]) if "$ref" in part]
        if len(inner) == 1 and key != _SPLITS:
            yield from _keys(definitions[_name(inner[0])], definitions, f"{prefix}{key}.", None)
        elif isinstance(field.get("additionalProperties"), dict) and "$ref" in field["additionalProperties"]:
            yield from _keys(definitions[_name(field["additionalProperties"])], definitions, f"{prefix}{key}.*.", None)
        elif "$ref" in field.get("items", {}):
            yield from _keys(definitions[_name(field["items"])], definitions, f"{prefix}{key}[].", None)


def _branches(section: Any, definitions: Any, only: set[str]) -> Iterator[tuple[str, Any]]:
    """The kinds of each key that has several, with the title of their table."""
    for key, field in section["properties"].items():
        several = field.get("oneOf") or field.get("additionalProperties", {})
        refs = several.get("oneOf", []) if isinstance(several, dict) else several if isinstance(several, list) else []
        for ref in refs if key in only else []:
            inner = definitions[_name(ref)]
            tag = inner["properties"].get("source", {})
            tags = [tag["const"]] if "const" in tag else tag.get("enum", [])
            yield (f"{key}.source: {', '.join(tags)}" if tags else f"{key}: {inner['title'].lower()}"), inner


def _type(field: Any, definitions: Any) -> str:
    """What a value may be, in words."""
    if "const" in field or "enum" in field:
        return ", ".join(f"`{_value(value)}`" for value in field.get("enum", [field.get("const")]))
    parts = field.get("anyOf") or field.get("oneOf")
    if parts:
        return " or ".join(dict.fromkeys(_type(part, definitions) for part in parts))
    if "$ref" in field:
        return "mapping"
    match field.get("type"):
        case "array":
            return f"list of {_type(field['items'], definitions)}" if field.get("items") else "list"
        case "object":
            return "mapping"
        case "string":
            return "text"
        case "boolean":
            return "`true`, `false`"
        case "null":
            return "`null`"
        case kind:
            low = field.get("minimum", field.get("exclusiveMinimum"))
            high = field.get("maximum", field.get("exclusiveMaximum"))
            bounds = [f"{'≥' if 'minimum' in field else '>'} {low:g}"] if low is not None else []
            bounds += [f"{'≤' if 'maximum' in field else '<'} {high:g}"] if high is not None else []
            return f"{kind} {', '.join(bounds)}".strip()


def _value(value: Any) -> str:
    """A value as YAML writes it."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
        case dict():
            return "{" + ", ".join(f"{key}: {_value(item)}" for key, item in value.items()) + "}"
        case _:
            return str(value)


def _sentence(section: Any) -> str:
    return " ".join(str(section.get("description", "")).split())


def _name(ref: Mapping[str, str]) -> str:
    return ref["$ref"].rpartition("/")[2]
