"""The option `--data-root`, which several verbs have."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def add_data_root(parser: argparse.ArgumentParser) -> None:
    """Add the option; its default is the environment variable."""
    parser.add_argument(
        "--data-root",
        type=Path,
        default=Path(os.environ["PTV2KIT_DATA"]) if os.environ.get("PTV2KIT_DATA") else None,
        metavar="DIR",
        help="where data files are looked up first (default: $PTV2KIT_DATA)",
    )
