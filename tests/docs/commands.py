"""The commands of the README and of the documentation's pages, as a shell would split them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "benchmarks" / "LOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_LOOP = re.compile(r"for (\w+) in ([^;\n]+)(?:;|\n)\s*do\s(.*?)(?:;|\n)\s*done", re.DOTALL)
_VARIABLE = re.compile(r"^[A-Z_]+=\S*$")


@dataclass(frozen=True)
class Command:
    """One command.

    Args:
        page: that it stands on.
        words: as the shell hands them on, without variables in front and redirections behind.
    """

    page: str
    words: tuple[str, ...]

    @property
    def text(self) -> str:
        return shlex.join(self.words)


def blocks(kind: str, page: Path) -> list[str]:
    """The code blocks of a page that are of a kind, such as `sh`."""
    return [text for found, text in _BLOCK.findall(page.read_text(encoding="utf-8")) if found == kind]


def commands() -> list[Command]:
    """Every command of every page; loops are unrolled. Pages that only work as a whole are left out."""
    found: dict[Command, None] = {}
    for page in PAGES:
        if page.name == "first-ten-minutes.md":
            continue
        for block in blocks("sh", page):
            for words in _split(_LOOP.sub(_unrolled, block)):
                found[Command(str(page.relative_to(ROOT)), words)] = None
    return list(found)


def _unrolled(loop: re.Match[str]) -> str:
    name, values, body = loop.groups()
    return "\n".join(body.replace(f"${name}", value) for value in values.split())


def _split(block: str) -> Iterator[tuple[str, ...]]:
    pending = ""
    for line in block.splitlines():
        pending += line + "\n"
        try:
            words = shlex.split(pending, comments=True)
        except ValueError:  # a quote is still open
            continue
        pending = ""
        for part in _parts(words):
            while part and _VARIABLE.match(part[0]):
                part = part[1:]
            if ">" in part:
                part = part[: part.index(">")]
            if part and part[0] != "export":
                yield tuple(part)
    assert not pending, f"a quote is never closed: {pending}"


def _parts(words: list[str]) -> Iterator[list[str]]:
    """The commands between `&&`, `||` and `;`."""
    part: list[str] = []
    for word in words:
        if word in ("&&", "||", ";"):
            yield part
            part = []
        else:
            part.append(word)
    yield part
