"""The command `ptv2kit`: finds the verb, prints errors, decides the exit code. Imports nothing heavy."""

from __future__ import annotations

import atexit
import errno
import importlib
import io
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO, final

from ptv2kit.cli.imports import let_threads_sleep, without_collections
from ptv2kit.cli.options import build_parser
from ptv2kit.cli.output import show
from ptv2kit.errors import ConfigError, OutOfMemoryError, ProjectError
from ptv2kit.spec.names import key_for

REMOVED_VERBS = {"convert-glm": "name the published folder, such as THUDM/glm-10b, as backbone.name; it loads directly"}
"""Verbs of earlier versions, and what to do instead."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: words after `ptv2kit`; None: the process's own.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] and words[0] in REMOVED_VERBS:
        show(f"error: 'ptv2kit {words[0]}' is gone since 0.2: {REMOVED_VERBS[words[0]]}", file=sys.stderr)
        return ConfigError.exit_code
    parser = build_parser()
    if not words:
        show(parser.format_help(), end="")
        return 0
    args, rest = parser.parse_known_args(words)
    if rest and (not args.trailing or any(word.startswith("-") for word in rest)):
        show(f"error: unrecognized arguments: {' '.join(rest)}", file=sys.stderr)
        show(f"  hint: {_option_hint(rest, args.trailing, words)}", file=sys.stderr)
        return ConfigError.exit_code
    if rest:  # argparse gives up on words that stand behind an option, such as `run FILE --dry-run key=value`
        setattr(args, args.trailing, [*getattr(args, args.trailing), *rest])
    notes = logging.getLogger("ptv2kit")
    if not notes.handlers:
        notes.addHandler(_Notes(logging.WARNING))
    args.command_line = words
    try:
        if args.first:
            _function(f"ptv2kit.cli.first:{args.first}")(args)
        code: int = _function(args.handler)(args)
        sys.stdout.flush()
        return code
    except ProjectError as error:
        if args.debug:
            traceback.print_exc()
        show(error, file=sys.stderr)
        return error.exit_code
    except MemoryError:
        if args.debug:
            traceback.print_exc()
        show("error: out of memory", file=sys.stderr)
        show("  hint: is a file as large as it should be? 'ptv2kit --debug …' says which one", file=sys.stderr)
        return OutOfMemoryError.exit_code
    except KeyboardInterrupt:
        show("error: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        _let_output_go()
        return 1
    except UnicodeEncodeError as error:
        if args.debug:
            traceback.print_exc()
        name = error.object[max(0, error.start - 20) : error.end + 20]
        show(f"error: this locale cannot write {name!r}, which is part of a path or a text", file=sys.stderr)
        show("  hint: set PYTHONUTF8=1, or a locale with UTF-8 such as LC_ALL=C.UTF-8", file=sys.stderr)
        return 2
    except Exception as error:  # noqa: BLE001 - the last resort of a command line
        if args.debug:
            traceback.print_exc()
        # What is written to files has messages of its own, which name them.
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            show(f"error: the output of this command cannot be written: {error.strerror}", file=sys.stderr)
            _let_output_go()
            return 1
        show(f"error: internal error: {type(error).__name__}: {error}", file=sys.stderr)
        show("  hint: run again with 'ptv2kit --debug …' and report what it prints", file=sys.stderr)
        return 1


def _let_output_go() -> None:
    """Send nowhere what is still in the buffer of an output that takes no more.

    Without this, Python would try once more while it shuts down, and complain.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _option_hint(rest: Sequence[str], trailing: str, words: Sequence[str]) -> str:
    """What to write instead of an option that there is not, such as `train.learning_rate=1e-3`."""
    option = next((word for word in rest if word.startswith("-")), None)
    if option is None:
        return "'ptv2kit VERB --help' shows what may be given"
    name, _, value = option.lstrip("-").partition("=")
    key = key_for(name.replace("-", "_")) if trailing else ""
    if not key:
        return "'ptv2kit --help' and 'ptv2kit VERB --help' list the options"
    after = words[words.index(option) + 1 :]  # argparse of some versions takes the value for an override
    value = value or (after[0] if after and not after[0].startswith("-") else "VALUE")
    return f"values of a recipe are given without dashes: {key}={value}"


def _function(name: str) -> Callable[..., Any]:
    """Import `module:function`. Only what a verb needs is loaded: torch takes seconds."""
    module, _, function = name.partition(":")
    let_threads_sleep()
    with without_collections(module):
        return getattr(importlib.import_module(module), function)


def _unraisable(fault: sys.UnraisableHookArgs) -> None:
    """Without memory a half-read file cannot even be closed in order; the error itself says what ran out."""
    if not isinstance(fault.exc_value, MemoryError):
        sys.__unraisablehook__(fault)


@final
class _LastingStream(io.TextIOBase):
    """A stream that loses what it is given once its reader has gone away or its disk is full, instead of failing.

    Messages are of no use to a training whose reader has gone, and must not end it; its log has them too.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._gone = False

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Of the stream."""
        return self._stream.encoding

    def write(self, text: str) -> int:
        """Write what can be written."""
        if not self._gone:
            try:
                return self._stream.write(text)
            except (OSError, ValueError):
                self._gone = True
        return len(text)

    def flush(self) -> None:
        """Flush if there is still something to flush to."""
        if not self._gone:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._gone = True

    def isatty(self) -> bool:
        """Whether it is a terminal that is still there."""
        return not self._gone and self._stream.isatty()

    def fileno(self) -> int:
        """Of the stream."""
        return self._stream.fileno()


@final
class _Notes(logging.Handler):
    """Shows what the package's own modules warn of."""

    def emit(self, record: logging.LogRecord) -> None:
        """A line on stderr, whichever that is by now."""
        show(record.getMessage(), file=sys.stderr)


def entry_point() -> NoReturn:
    """The console script."""
    codes: list[int] = []

    def leave() -> None:
        """End without taking a million objects and the libraries' threads apart.

        That takes a tenth of a second, now and then a process group's threads abort in it, and extensions that look
        for their own objects, as torch's compiler does, would call those that `gc.freeze` keeps leaked.
        """
        if not codes:
            return
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError:  # Python says it on its own way out
            return
        os._exit(codes[0])

    atexit.register(leave)  # what others register later is called before
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as services and `>&-` start a command
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - as long as the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show '→' is no reason to fail
    sys.stderr = _LastingStream(sys.stderr)
    if "_ARGCOMPLETE" in os.environ:
        _function("ptv2kit.cli.completion:complete")(build_parser())
    if "--debug" not in sys.argv:
        sys.unraisablehook = _unraisable
    codes.append(main())
    sys.exit(codes[0])
