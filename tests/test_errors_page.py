"""docs/errors.md speaks of every error that the package can raise, and of no other."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
KINDS = {"ConfigError", "DataError", "TrainingError", "OutOfMemoryError", "ExpectationMissedError", "Problem"}
LINE = re.compile(r"^\| (`.*?`) \| .* \| .* \|$", re.MULTILINE)


def template(node: ast.expr) -> str | None:
    """A text with `…` for what is filled in; None if it is made elsewhere."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(template(part) or "…" for part in parts)
        case ast.BinOp(left=left, right=right):
            first, second = template(left), template(right)
            return None if first is None or second is None else first + second
    return None


@cache
def nodes() -> list[tuple[str, ast.AST]]:
    files = sorted((ROOT / "ptv2kit").rglob("*.py"))
    return [(path.name, node) for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]


@cache
def messages() -> dict[str, str]:
    """Every message of an error, and where it is raised."""
    found: dict[str, str] = {}
    for file, node in nodes():
        if isinstance(node, ast.Call) and node.args and ast.unparse(node.func) in KINDS:
            text = template(node.args[0])
            if text is not None:
                found[text] = f"{file}:{node.lineno}"
    return found


def phrases() -> list[str]:
    """What the page is searched for; a lone `…` stands for messages that another library words."""
    cells = LINE.findall((ROOT / "docs" / "errors.md").read_text())
    return [phrase for cell in cells for phrase in re.findall(r"`([^`]+)`", cell)]


def pattern(phrase: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in phrase.split("…")))


def test_every_message_is_on_the_page() -> None:
    known = [pattern(phrase) for phrase in phrases() if phrase.strip("…:' ")]
    left = {
        text: where
        for text, where in messages().items()
        if text.strip("…:' ") and not any(p.search(text) for p in known)
    }
    assert not left, f"describe them in docs/errors.md: {left}"


def test_no_phrase_speaks_of_everything() -> None:
    for phrase in phrases():
        fitting = [text for text in messages() if phrase.strip("…:' ") and pattern(phrase).search(text)]
        assert len(fitting) <= 10, phrase


def test_every_phrase_of_the_page_is_a_message() -> None:
    texts = [template(node) for _, node in nodes() if isinstance(node, ast.JoinedStr | ast.Constant)]
    whole = "\n".join(text for text in texts if text)
    assert [phrase for phrase in phrases() if not pattern(phrase).search(whole)] == []
