"""The strict loader."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptv2kit.errors import ConfigError
from ptv2kit.spec.yaml import load_document, parse_value, scalar


def load(tmp_path: Path, text: str | bytes) -> dict[str, Any]:
    path = tmp_path / "file.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    document = load_document(path)
    if document.problems:
        raise ConfigError(document.problems)
    return document.values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("n", "n"),
        ("2026-01-01", "2026-01-01"),
        ("12:30", "12:30"),
        ("0o17", "0o17"),
        ("1_000", "1_000"),
        ("017", 17),
        ("1e-3", 0.001),
        ("2e-5", 2e-5),
        ("5E3", 5000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("-3", -3),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'1e-3'", "1e-3"),
        ('"true"', "true"),
        ("[1, no]", [1, "no"]),
        ("{a: {b: 1e-3}}", {"a": {"b": 0.001}}),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    found = parse_value(text)
    assert found == value
    assert type(found) is type(value)


def test_infinite_and_no_number() -> None:
    assert scalar("-.inf") == float("-inf")
    assert str(scalar(".nan")) == "nan"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", ":3:1: error: duplicate key 'a'"),
        ("a: {b: 1, b: 2}\n", ":1:11: error: duplicate key 'b'"),
        ("a: !!python/object:os.system x\n", ":1:4: error: tags ('tag:yaml.org,2002:python/object:os.system')"),
        ("!!str a: x\n", ":1:1: error: tags ('tag:yaml.org,2002:str') are not allowed"),
        ("a: !mine x\n", ":1:4: error: tags ('!mine') are not allowed"),
        ("a: &x 1\nb: *x\n", ":1:4: error: anchors (&name) are not allowed"),
        ("a: 1\n<<: {b: 2}\n", ":2:1: error: merge keys (<<) are not allowed"),
        ("a: 1\n---\nb: 2\n", ":2:1: error: no valid YAML"),
        ("- 1\n", ":1:1: error: expected a mapping of keys to values, found a list"),
        ("", ":1:1: error: expected a mapping of keys to values, found nothing"),
        ("a: [1\nb: 2\n", ":2:2: error: no valid YAML"),
        ("a:\n\t- 1\n", ":2:1: error: no valid YAML"),
        ("a: \x07\n", ":1: error: character U+0007 is not allowed"),
        (b"a: 1\nb: \xff\n", ":2: error: the file is not UTF-8"),
        ("? [1]\n: 2\n", ":1:3: error: a key must be text"),
        ("a: " + "[" * 40 + "]" * 40 + "\n", ":1:35: error: nested deeper than 32 levels"),
        ("a: " + "x" * 1_000_001, "error: the file has more than 1,000,000 bytes"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert message in str(caught.value)


def test_an_alias_bomb_is_refused_before_it_is_built(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
    with pytest.raises(ConfigError, match="anchors"):
        load(tmp_path, "\n".join(lines))


def test_all_duplicate_keys_are_shown_at_once_with_source_line_and_caret(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "a: 1\na: 2\nb: {c: 1,   c: 2}\n")
    path = tmp_path / "file.yaml"
    assert str(caught.value) == (
        f"{path}:2:1: error: duplicate key 'a'\n    a: 2\n    ^\n  hint: it is set before, in line 1\n"
        f"{path}:3:13: error: duplicate key 'c'\n    b: {{c: 1,   c: 2}}\n                ^\n"
        "  hint: it is set before, in line 3"
    )


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.yaml: error: cannot read the file: No such file"):
        load_document(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigError, match="Is a directory"):
        load_document(tmp_path)


def test_positions_of_keys_and_values(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("a:\n  b: [1, {c: 2}]\n")
    document = load_document(path)
    assert str(document.keys[("a", "b")]) == f"{path}:2:3"
    assert str(document.places[("a", "b", 0)]) == f"{path}:2:7"
    assert str(document.places[("a", "b", 1, "c")]) == f"{path}:2:14"


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    assert load(tmp_path, "\ufeffa: 1\n") == {"a": 1}


@given(st.text(max_size=60))
def test_no_text_makes_it_fail_otherwise(text: str) -> None:
    with contextlib.suppress(ConfigError):
        parse_value(text)
