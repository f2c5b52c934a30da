"""Bad files: whole ones that are damaged, and ones that were never meant well."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st

_PIECES = [
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\x1f\x8b",
    b"\r",
    b"\t",
    b"\n\n",
    b"\x85",
    "\u2028".encode(),
    "\ufeff".encode(),
    "\N{NO-BREAK SPACE}".encode(),
    "²".encode(),
    b'"',
    b"'",
    b"{",
    b"}",
    b"[[[[",
    b"${a}",
    b"${oc.env:HOME}",
    b"&a ",
    b"*a",
    b"<<: ",
    b"!!python/object/apply:os.system [id] ",
    b"!!binary ",
    b"? ",
    b"---\n",
    b"%YAML 1.1\n---\n",
    b'"\\uD800"',
    b'"\\UFFFFFFFF"',
    b'"\\0"',
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"9" * 60,
    b"9" * 5000,
    b"-1",
    b".inf",
    b"null",
    b"true",
    b"../../../etc/passwd",
    b"/dev/null",
    b"**x",
    b"[",
    b"-DOCSTART-",
    b"|||",
    b"(V*",
    b"*)",
]

_edit = st.tuples(
    st.sampled_from(["insert", "replace", "delete", "truncate", "repeat", "swap", "flip"]),
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 1, exclude_max=True),
    st.one_of(st.sampled_from(_PIECES), st.binary(min_size=1, max_size=4)),
)


def damaged(whole: bytes, most: int = 4) -> st.SearchStrategy[bytes]:
    """The content with a few edits: bytes flipped, cut, repeated or moved, and pieces that mean something put in."""
    return st.lists(_edit, min_size=1, max_size=most).map(lambda edits: _applied(whole, edits))


def _applied(content: bytes, edits: list[tuple[str, float, float, bytes]]) -> bytes:
    for kind, where, until, piece in edits:
        start = int(where * (len(content) + 1))
        end = min(len(content), start + 1 + int(until * 24))
        content = _EDITS[kind](content, start, end, piece)
    return content


_EDITS: dict[str, Callable[[bytes, int, int, bytes], bytes]] = {
    "insert": lambda content, start, end, piece: content[:start] + piece + content[start:],
    "replace": lambda content, start, end, piece: content[:start] + piece + content[end:],
    "delete": lambda content, start, end, piece: content[:start] + content[end:],
    "truncate": lambda content, start, end, piece: content[:start],
    "repeat": lambda content, start, end, piece: content[:end] + content[start:],
    "swap": lambda content, start, end, piece: content[end:] + content[:end],
    "flip": lambda content, start, end, piece: (
        content[:start] + bytes(byte ^ piece[0] for byte in content[start:end]) + content[end:]
    ),
}
