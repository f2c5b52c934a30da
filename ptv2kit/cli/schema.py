"""`ptv2kit schema`: the JSON Schema and the key reference of task, recipe and suite files."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ptv2kit.cli.output import show

EXAMPLES = """examples:
  ptv2kit schema task > task.json         # then, in a task file: # yaml-language-server: $schema=task.json
  ptv2kit schema recipe --markdown | less
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "schema",
        help="print every key of task, recipe or suite files",
        description="Print the JSON Schema of task, recipe or suite files, for editors, or a table of all keys.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=["task", "recipe", "suite"], help="which kind of file")
    parser.add_argument("--markdown", action="store_true", help="a table of keys, values, defaults and meanings")
    parser.set_defaults(handler=run, trailing="")


def run(args: argparse.Namespace) -> int:
    """Print the schema."""
    from ptv2kit.config.schema import json_schema, key_reference

    text = key_reference(args.kind) if args.markdown else json.dumps(json_schema(args.kind), indent=2) + "\n"
    show(text, end="")
    return 0
