"""Formulas as MathML, which browsers show without a script from somewhere else."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

_FORMULA = re.compile(r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<latex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL)


def on_page_content(page_html: str, /, **_: Any) -> str:
    """What MkDocs calls for each page, with the body that was made of its Markdown."""
    return _FORMULA.sub(_as_mathml, page_html)


def _as_mathml(found: re.Match[str]) -> str:
    display = "block" if found["tag"] == "div" else "inline"
    return convert(html.unescape(found["latex"]), display=display)
