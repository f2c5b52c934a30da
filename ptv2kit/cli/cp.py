"""`ptv2kit cp`: copy a task, recipe or suite of the catalog to change it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ptv2kit.cli.output import show

EXAMPLES = """examples:
  ptv2kit cp rte                       # tasks/rte.yaml, which 'task: rte' then finds before the catalog's
  ptv2kit cp glm-10b-boolq             # recipes/glm-10b-boolq.yaml, with recipes/base/glm.yaml that it extends
  ptv2kit cp mini/table3 my-study      # a suite with the recipes that it names, into my-study/
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "cp",
        help="copy a task, recipe or suite of the catalog to change it",
        description="Copy a file of the catalog, with what it extends or names, into the folders tasks and recipes of "
        "a project, where its name finds it before the catalog's. Nothing is overwritten.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="as 'ptv2kit ls tasks', 'ls recipes' or 'ls suites' shows it")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="FOLDER", help="default: this one")
    parser.add_argument("--kind", choices=("task", "recipe", "suite"), help="of a name that several kinds have")
    parser.set_defaults(handler=run, trailing="")


def run(args: argparse.Namespace) -> int:
    """Copy, and print the files that were written.

    Raises:
        ConfigError: there is no such name, several kinds have it, or the file is already there.
    """
    from ptv2kit.config.catalog import catalog_entry, copy_entry

    for path in copy_entry(catalog_entry(args.name, args.kind), args.folder):
        show(path)
    return 0
