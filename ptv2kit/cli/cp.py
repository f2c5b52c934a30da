"""`ptv2kit cp`: copy a task, recipe or suite of the catalog to change it."""

from __future__ import annotations

import argparse

from ptv2kit.cli.output import show
from ptv2kit.spec.catalog import catalog_entry, copy_entry


def run(args: argparse.Namespace) -> int:
    """Copy, and print the files that were written.

    Raises:
        ConfigError: there is no such name, several kinds have it, or the file is already there.
    """
    for path in copy_entry(catalog_entry(args.name, args.kind), args.folder):
        show(path)
    return 0
