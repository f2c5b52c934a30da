"""`ptv2kit completion`: what a shell needs to complete verbs, options, files and the keys of recipes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ptv2kit.cli.output import show
from ptv2kit.errors import ConfigError, ProjectError
from ptv2kit.spec.load import file_kind
from ptv2kit.spec.recipe import Recipe
from ptv2kit.spec.suite import Suite
from ptv2kit.spec.task import Task
from ptv2kit.spec.validate import known_keys

_KEYS = ("overrides", "words")
_FILES = ("FILE", "RECIPE", "TASK", "SUITE|RUN")


def run(args: argparse.Namespace) -> int:
    """Print the code.

    Raises:
        ConfigError: argcomplete is not installed.
    """
    try:
        from argcomplete.shell_integration import shellcode
    except ImportError as error:
        raise ConfigError(
            "shell completion needs argcomplete", hint="pip install 'ptv2kit[completion]' where ptv2kit is installed"
        ) from error
    show(shellcode(["ptv2kit"], shell=args.shell) + "\n", end="")
    return 0


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that asks how a command line may continue, and end the process.

    Args:
        parser: with all verbs.
    """
    import argcomplete
    from argcomplete.completers import FilesCompleter

    yaml_files = FilesCompleter(("yaml", "yml"))
    for action in _actions(parser):
        completer: Callable[..., Iterable[str]] | None = None
        if action.dest in _KEYS:
            completer = _complete_keys
        elif action.metavar in _FILES and action.type is Path and not action.option_strings:
            completer = yaml_files
        if completer is not None:
            setattr(action, "completer", completer)  # noqa: B010 - argcomplete's own way, which argparse does not know
    argcomplete.autocomplete(parser, always_complete_options=False)


def recipe_keys(path: Path | None) -> list[str]:
    """Every key that a value can be given for on the command line, as `key=`.

    Args:
        path: the file that the command line names; None: a recipe.
    """
    kind = "recipe"
    if path is not None and path.is_file():
        try:
            kind = file_kind(path)
        except ProjectError:
            kind = "recipe"  # a file with a mistake is completed as the most frequent kind
    keys = known_keys(Task) if kind == "task" else known_keys(Recipe)
    keys += known_keys(Suite) if kind == "suite" else []
    sections = {key.rpartition(".")[0] for key in keys}
    return [f"{key}=" for key in dict.fromkeys(keys) if key not in sections and "*" not in key]


def _complete_keys(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    path: Any = getattr(parsed_args, "file", None)
    return [key for key in recipe_keys(path) if key.startswith(prefix)]


def _actions(parser: argparse.ArgumentParser) -> Iterable[argparse.Action]:
    """The arguments of a parser and of all its verbs."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage]
            for below in dict.fromkeys(action.choices.values()):
                yield from _actions(below)
        else:
            yield action
