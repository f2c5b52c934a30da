"""`ptv2kit preview`: rows of a task as the model will see them."""

from __future__ import annotations

import argparse
import json
import random
from typing import TYPE_CHECKING, Any

from ptv2kit.cli.output import show
from ptv2kit.cli.subject import Subject, find_subjects
from ptv2kit.cli.terminal import open_console
from ptv2kit.data.preview import InputView, preview_row, words_shown
from ptv2kit.data.sources import read_split
from ptv2kit.errors import ConfigError, visible

if TYPE_CHECKING:
    from rich.text import Text


_SHOWN_CUT = 12
_COLOURS = ("green", "yellow", "magenta", "cyan", "blue", "bright_red", "bright_green", "bright_magenta")


def run(args: argparse.Namespace) -> int:
    """Show rows.

    Raises:
        ConfigError: the file is wrong, or asks for what is not there.
        DataError: the data could not be loaded, or a shown row is malformed.
    """
    if (
        args.rows < 1
        or (args.row is not None and args.row < 1)
        or (args.max_length is not None and args.max_length < 8)
    ):
        raise ConfigError("-n and --row must be at least 1, --max-length at least 8")
    if args.shuffle and args.row is not None:
        raise ConfigError("--row and --shuffle exclude each other")
    subjects = find_subjects(args.resolved, args.backbone, args.max_length)
    names = [subject.resolved.task.task for subject in subjects]
    if args.task is not None and args.task not in names:
        raise ConfigError(f"--task {args.task}: the file has no such task", hint=f"it has {', '.join(names)}")
    chosen = [subject for subject in subjects if args.task in (None, subject.resolved.task.task)]
    shown = [_preview(subject, args, named=len(chosen) > 1) for subject in chosen]
    if args.json:
        show(json.dumps(shown[0] if len(shown) == 1 else {"tasks": shown}, indent=2, ensure_ascii=False))
    return 0


def _preview(subject: Subject, args: argparse.Namespace, *, named: bool) -> dict[str, Any]:
    """Rows of one task, printed unless JSON is asked for."""
    task, slots = subject.resolved.task, subject.prompt_length
    where = {"task_path": subject.resolved.path, "data_root": args.data_root}
    rows = read_split(task, args.split, **where).rows
    train = rows if args.split == "train" else read_split(task, "train", **where).rows
    scheme, untruncated, subwords = subject.schemes(train)
    start = (args.row or 1) - 1
    if start >= len(rows):
        raise ConfigError(f"--row {args.row}: split '{args.split}' has {len(rows)} rows")
    chosen = random.Random(0).sample(rows, min(args.rows, len(rows))) if args.shuffle else rows[start:][: args.rows]
    views = [preview_row(scheme, untruncated, subwords, row) for row in chosen]
    if args.json:
        about = {"task": task.task, "split": args.split, "max_length": subject.max_length, "prompt_length": slots}
        words = {"verbalizer": words_shown(scheme, subwords)} if scheme.words else {}
        return {**about, **words, "rows": [view.to_json() for view in views]}

    console = open_console()
    colours = _colours(scheme.names)
    if named:
        console.print(f"{task.task}:", style="bold underline")
    if task.head == "verbalizer":
        console.print(_cloze_legend(words_shown(scheme, subwords)))
    else:
        console.print(_legend(bool(scheme.marks(scheme.encode(chosen[0], 0)[0]))))
    for view in views:
        console.print()
        console.print(f"{view.location}" + (f"  →  {view.target}" if view.target else ""), style="bold", soft_wrap=True)
        for shown in view.inputs:
            console.print(_line(shown, slots, colours))
    if named:
        console.print()
    return {}


def _colours(names: tuple[str, ...]) -> dict[str, str]:
    """A colour for each span type, class or answer."""
    types = list(dict.fromkeys(_type_of(name) for name in names if name != "O"))
    return {"answer": "green"} | {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(types)}


def _type_of(label: str) -> str:
    return label[2:] if label[:2] in ("B-", "I-") else label


def _legend(labelled: bool) -> Text:
    from rich.text import Text

    scored = "label after a sub-word: its target; plain: could be one; (in brackets): not scored"
    return Text(f"▒ prompt slot; {scored if labelled else 'the row has one target'}; ~crossed~: cut off", style="dim")


def _cloze_legend(words: dict[str, list[list[str]]]) -> Text:
    from rich.text import Text

    text = Text("▒ prompt slot; label after a sub-word: what is predicted there; ~crossed~: cut off", style="dim")
    for name, of_class in words.items():
        text.append(f"\n{name}: {' or '.join(' '.join(word) for word in of_class)}", style="bold")
    return text


def _line(view: InputView, slots: int, colours: dict[str, str]) -> Text:
    """An input as one wrapped line."""
    from rich.text import Text

    mark = "" if view.right is None else ("✓ " if view.right else "✗ ")
    line = Text("  ")
    if view.title:
        line.append(f"{mark}{visible(view.title)}: ", style="bold green" if view.right else "bold")
    line.append(f"▒ x {slots} " if slots else "▒… ", style="blue")
    labelled = any(not token.scored for token in view.tokens if not token.cut)
    shown_cut = 0
    for token in view.tokens:
        if token.cut:
            shown_cut += 1
            if shown_cut > _SHOWN_CUT:
                continue
            line.append(f"~{visible(token.text)}~", style="red strike")
        elif token.label:
            colour = colours.get(_type_of(token.label), "green")
            line.append(visible(token.text), style=f"bold {colour}").append(f"/{visible(token.label)}", style=colour)
        elif labelled and not token.scored:
            line.append(f"({visible(token.text)})", style="dim")
        else:
            line.append(visible(token.text))
        line.append(" ")
    if view.cut:
        line.append(f"[{view.cut} sub-words cut off]", style="red")
    return line
