"""Draw what a command leaves on a terminal: `python docs/images/record.py FILE.svg ptv2kit doctor`."""

from __future__ import annotations

import os
import pty
import re
import sys
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 120
CONTROL = re.compile(r"\x1b\[\?25[lh]|\x1b\]8;[^\x1b]*\x1b\\")
MOVE = re.compile(r"(\r|\n|\x1b\[2K|\x1b\[\d+A)")


def run(command: list[str]) -> str:
    """All that the command writes to a terminal of its own."""
    os.environ |= {"COLUMNS": str(WIDTH), "TERM": "xterm-256color"}
    parts: list[bytes] = []

    def read(descriptor: int) -> bytes:
        parts.append(os.read(descriptor, 65536))
        return parts[-1]

    status = pty.spawn(command, read)
    if status:
        sys.exit(os.waitstatus_to_exitcode(status))
    return b"".join(parts).decode()


def last_screen(written: str) -> list[str]:
    """The lines that stay, where progress was drawn over and over in the same place."""
    lines, row = [""], 0
    for part in MOVE.split(CONTROL.sub("", written)):
        if part == "\n":
            row += 1
            if row == len(lines):
                lines.append("")
        elif part == "\r":
            continue
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part.startswith("\x1b[") and part.endswith("A"):
            row -= int(part[2:-1])
        elif part:
            lines[row] = part if lines[row] == "" else lines[row] + part
    return lines


def draw(command: list[str], lines: list[str], path: Path) -> None:
    """Write the picture; it loads no font from anywhere."""
    console = Console(record=True, width=WIDTH, file=StringIO(), force_terminal=True, legacy_windows=False)
    console.print(Text.from_ansi("$ " + " ".join(command)))
    for line in lines:
        console.print(Text.from_ansi(line), soft_wrap=True)
    picture = console.export_svg(title="ptv2kit")
    path.write_text(re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL), encoding="utf-8")


def main() -> None:
    """Run the command, and draw it."""
    target, command = Path(sys.argv[1]), sys.argv[2:]
    draw(command, last_screen(run(command)), target)


if __name__ == "__main__":
    main()
