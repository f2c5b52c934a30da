"""`ptv2kit serve`: trained prompts over HTTP, any number of them on one backbone."""

from __future__ import annotations

import argparse
import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from ptv2kit.cli.subject import positive
from ptv2kit.cli.terminal import open_console
from ptv2kit.errors import ConfigError, DataError
from ptv2kit.exchange.hub import find_run
from ptv2kit.models.checkpoints import silence_libraries
from ptv2kit.serve.settings import Settings
from ptv2kit.training.load_together import LoadedRuns

if TYPE_CHECKING:
    from rich.console import Console

TOKEN = "PTV2KIT_TOKEN"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_NAMED = re.compile(r"([\w.-]{1,100})=(.+)")


def run(args: argparse.Namespace) -> int:
    """Serve until a signal comes.

    Raises:
        ConfigError: an option or a run cannot be used, the port is taken, or FastAPI is not installed.
        DataError: a file of a run is torn, or the backbone could not be loaded.
    """
    messages = open_console(stderr=True, quiet=args.quiet)
    settings = _settings(args)
    try:
        from ptv2kit.serve.app import build_app
        from ptv2kit.serve.server import build_server
    except ImportError as error:
        raise ConfigError(
            f"a server needs {error.name}", hint="pip install 'ptv2kit[serve]' where ptv2kit is installed"
        ) from error
    # The port is taken first: it is cheaper to find out than a backbone is to load.
    with _listen(args.host, args.port) as listening:
        runs = _load(args.runs, args.device, messages)
        app = build_app(runs, settings, debug=args.debug)
        host, port = listening.getsockname()[:2]
        where = f"[{host}]" if ":" in host else host
        server = build_server(app, settings)
        if args.host not in _LOOPBACK and settings.token is None:
            open_console(stderr=True).print(
                f"warning: {where} can be reached from other machines, and no token is asked for: set --token-file",
                soft_wrap=True,
            )
        messages.print(
            f"{', '.join(runs.names)}: http://{where}:{port}/predict, described at http://{where}:{port}/docs",
            soft_wrap=True,
        )
        try:
            server.run(sockets=[listening])
        except KeyboardInterrupt:
            messages.print("stopped")
            return 130
    return 0


def _settings(args: argparse.Namespace) -> Settings:
    """The limits.

    Raises:
        ConfigError: one is out of range, or the token or the folder is not there.
    """
    for option in ("batch_tokens", "queue", "max_rows", "max_characters", "max_body", "max_header"):
        positive(f"--{option.replace('_', '-')}", getattr(args, option))
    if not 0 <= args.max_wait <= 10_000:
        raise ConfigError(f"--max-wait must be from 0 to 10000 milliseconds. Got {args.max_wait:g}")
    for option in ("timeout", "header_timeout"):
        if not getattr(args, option) > 0:
            raise ConfigError(f"--{option.replace('_', '-')} must be above 0. Got {getattr(args, option):g}")
    if not 0 <= args.grace <= 3600:
        raise ConfigError(f"--grace must be from 0 to 3600 seconds. Got {args.grace:g}")
    if not 0 <= args.port <= 65535:
        raise ConfigError(f"--port must be from 0 to 65535. Got {args.port}")
    manage = None if args.manage is None else Path(args.manage)
    if manage is not None and not manage.is_dir():
        raise ConfigError(f"--manage: there is no folder '{manage}'")
    token = _token(args.token_file)
    return Settings(
        batch_tokens=args.batch_tokens,
        max_wait=args.max_wait / 1000,
        queue=args.queue,
        max_rows=args.max_rows,
        max_characters=args.max_characters,
        max_body=args.max_body,
        max_header=args.max_header,
        header_timeout=args.header_timeout,
        grace=args.grace,
        timeout=args.timeout,
        token=token,
        manage=manage,
        local_only=token is None and args.host in _LOOPBACK,
    )


def _token(file: str | None) -> str | None:
    """The token that clients must send, from a file or the environment.

    Raises:
        ConfigError: it is empty, or no plain characters.
        DataError: the file cannot be read.
    """
    where = f"the file '{file}'" if file is not None else f"the variable {TOKEN}"
    if file is not None:
        try:
            text = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"the token cannot be read: {error}", location=file) from error
    elif (given := os.environ.get(TOKEN)) is not None:
        text = given.strip()
    else:
        return None
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigError(
            f"{where} holds no token", hint="make one: python -c 'import secrets; show(secrets.token_urlsafe(32))'"
        )
    return text


def _listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections.

    Raises:
        ConfigError: the address is none of this machine, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}, port {port}: {error.strerror or error}", hint="choose another --port or --host"
        ) from error


def _load(words: list[str], device: str, messages: Console) -> LoadedRuns:
    """All runs, the backbone once.

    Raises:
        ConfigError: a run cannot be used, or two have the same name or different backbones.
        DataError: a file of a run is torn, or the backbone could not be loaded.
    """
    silence_libraries()
    runs = LoadedRuns(device)
    for word in words:
        named = None if Path(word).exists() else _NAMED.fullmatch(word)
        name, folder = (None, word) if named is None else (named[1], named[2])
        for added in runs.add(find_run(folder), name):
            task = runs.prompted(added).task
            messages.print(f"{added}: {task.labels.scheme}, of {folder}", soft_wrap=True)
    messages.print(f"backbone: {runs.backbone}", soft_wrap=True)
    return runs
