"""`ptv2kit push`: publish a run on the Hugging Face hub."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from ptv2kit.cli.output import show
from ptv2kit.errors import ConfigError
from ptv2kit.exchange.hub import PREFIX, describe, hub_error, published_files
from ptv2kit.models.checkpoints import silence_libraries
from ptv2kit.training.card import card_for
from ptv2kit.training.load_run import read_run


def run(args: argparse.Namespace) -> int:
    """Publish a run.

    Raises:
        ConfigError: the run has not ended, its backbone is on this machine only, or the user did not confirm.
        DataError: the hub cannot be reached, or refuses.
    """
    if args.repository.count("/") != 1 or not all(args.repository.split("/")):
        raise ConfigError(f"'{args.repository}' is not the name of a repository", hint="expected USER/NAME")
    silence_libraries()
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HFValidationError

    folder: Path = args.folder
    resolved = read_run(folder)
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else f"# {resolved.recipe.recipe}\n"
    files = published_files(folder, resolved, card_for(text, PREFIX + args.repository))
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="ptv2kit")
    kind = "public" if args.public else "private"
    lines = [f"to {api.endpoint}/{args.repository}, {kind} if it is new:", *describe(files)]
    show("\n".join(lines), file=sys.stderr)
    if not args.yes:
        _ask()
    try:
        address = api.create_repo(args.repository, private=not args.public, exist_ok=True)
        operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()]
        commit = api.create_commit(args.repository, operations, commit_message=f"Run {folder.resolve().name}")
    except HFValidationError as error:
        raise ConfigError(str(error)) from error
    except Exception as error:
        raise hub_error(error, args.repository) from error
    if args.json:
        show(json.dumps({"url": str(address), "commit": commit.oid, "files": list(files)}, indent=2))
    else:
        show(f"{address}\nptv2kit predict {PREFIX}{args.repository} rows.jsonl")
    return 0


def _ask() -> None:
    if not sys.stdin.isatty():
        raise ConfigError("cannot ask for confirmation: standard input is not a terminal", hint="pass --yes")
    show("Upload? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ConfigError("nothing was uploaded")
