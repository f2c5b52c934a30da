"""`ptv2kit convert-glm`: the original GLM's published weights as a folder that `backbone.name` can name."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from ptv2kit.cli.output import show

EXAMPLES = """examples:
  hf download THUDM/glm-2b --local-dir glm-2b-published
  ptv2kit convert-glm glm-2b-published models/glm-2b --dtype bf16
  ptv2kit convert-glm blocklm-xxlarge models/glm-10b --tokenizer glm-2b-published     # Megatron's checkpoint

then, in a recipe: backbone: {name: models/glm-2b}
"""

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "convert-glm",
        help="convert the original GLM (2B, 10B) into a folder that recipes can name",
        description="Write the weights of the original GLM (Du et al., THUDM/glm-2b and glm-10b), as published on the "
        "hub or as a Megatron or DeepSpeed checkpoint, into a new folder: config.json, safetensors, tokenizer. Code of "
        "the hub is never run. Memory is needed for one shard, disk space for the whole.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder of the published weights, or a checkpoint")
    parser.add_argument("target", type=Path, metavar="TARGET", help="folder to write; must not exist")
    parser.add_argument(
        "--dtype",
        choices=["keep", "fp32", "bf16", "fp16"],
        default="keep",
        help="type of the weights (default: keep, as they are)",
    )
    parser.add_argument(
        "--shard-size",
        type=byte_count,
        default="4GB",
        metavar="SIZE",
        help="largest size of a file, such as 500MB (default: 4GB)",
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="FOLDER",
        help="where vocab.json and merges.txt are (default: SOURCE)",
    )
    parser.add_argument(
        "--heads", type=positive, metavar="N", help="attention heads, for a checkpoint of an unpublished size"
    )
    parser.set_defaults(handler=run, trailing="")


def run(args: argparse.Namespace) -> int:
    """Convert, and print what was written.

    Raises:
        ConfigError: the source is no original GLM, the target is there already, or the tokenizer does not fit.
        DataError: a file is missing or malformed, a tensor is missing or not expected, or the disk is too small.
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from ptv2kit.models.glm.checkpoint import find_checkpoint
    from ptv2kit.models.glm.convert import convert
    from ptv2kit.reporting.console import open_console

    console = open_console(stderr=True)
    checkpoint = find_checkpoint(args.source, args.heads)
    sizes = checkpoint.config
    console.print(
        f"{args.source}: {sizes['num_layers']} layers, hidden size {sizes['hidden_size']}, "
        f"{sizes['num_attention_heads']} heads, vocabulary {sizes['vocab_size']:,}",
        soft_wrap=True,
    )
    columns = (TextColumn("writing"), BarColumn(bar_width=24), DownloadColumn(), TransferSpeedColumn())
    shown = console.is_terminal
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=not shown) as progress:
        bar = progress.add_task("writing", total=None)
        made = convert(
            checkpoint,
            args.target,
            tokenizer=args.tokenizer or args.source,
            precision=args.dtype,
            shard_size=args.shard_size,
            on_bytes=lambda done, total: progress.update(bar, completed=done, total=total),
        )
    files = f"{len(made.files)} file{'s' if len(made.files) > 1 else ''}"
    size = f"{made.size / 1e9:.2f} GB" if made.size >= 1e9 else f"{made.size / 1e6:.2f} MB"
    show(f"{args.target}: {made.parameters:,} parameters, {made.dtype}, {size} in {files}")
    return 0


def byte_count(text: str) -> int:
    """`4GB`, `500MB` or `1.5GB` as bytes.

    Raises:
        argparse.ArgumentTypeError: it is something else, or nothing.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(KB|MB|GB)", text.strip().upper())
    size = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    if size < 1:
        raise argparse.ArgumentTypeError(f"expected a size such as 4GB or 500MB, got {text!r}")
    return size


def positive(text: str) -> int:
    """A whole number above 0.

    Raises:
        argparse.ArgumentTypeError: it is something else.
    """
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)
