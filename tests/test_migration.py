"""The page for those who come from other tools names keys that there are, and says what the hints say."""

from __future__ import annotations

import re
from pathlib import Path

from ptv2kit.spec.recipe import Recipe
from ptv2kit.spec.task import Task
from ptv2kit.spec.validate import UPSTREAM, known_keys

PAGE = Path(__file__).parents[1] / "docs" / "migration.md"
KEYS = {*known_keys(Recipe), *known_keys(Task)}
SECTIONS = {key.partition(".")[0] for key in KEYS if "." in key}


def named(text: str) -> list[str]:
    """The dotted keys in a text."""
    return [key for key in re.findall(r"\b[a-z_]+\.[a-z_]+\b", text) if key.partition(".")[0] in SECTIONS]


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_key_of_the_page_exists() -> None:
    found = [key for row in rows() for key in named(row[1])]
    assert len(found) > 25
    assert not set(found) - KEYS


def test_the_page_says_what_the_hints_say() -> None:
    page = {name: row[1] for row in rows() for name in re.findall(r"`-*([a-z_]+)[`=\" ]", row[0])}
    for name, hint in UPSTREAM.items():
        if name in page:
            assert set(named(page[name])) & set(named(hint)) or page[name].strip("`") in hint, name
    assert len(set(page) & set(UPSTREAM)) > 12
