"""`ptv2kit schema`: the JSON Schema and the key reference of task, recipe and suite files."""

from __future__ import annotations

import argparse
import json

from ptv2kit.cli.output import show
from ptv2kit.spec.schema import json_schema, key_reference


def run(args: argparse.Namespace) -> int:
    """Print the schema."""
    text = key_reference(args.kind) if args.markdown else json.dumps(json_schema(args.kind), indent=2) + "\n"
    show(text, end="")
    return 0
