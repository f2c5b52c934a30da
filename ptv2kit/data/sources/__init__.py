"""Where rows come from: one module a format, and `read_split`, which knows them all."""

from __future__ import annotations

from ptv2kit.data.sources.formats import read_rows
from ptv2kit.data.sources.split import (
    Located,
    OpenSplit,
    SplitData,
    classes_of,
    locate_split,
    matching_files,
    read_file,
    read_split,
    read_split_if_here,
    read_splits,
)

__all__ = [
    "Located",
    "OpenSplit",
    "SplitData",
    "classes_of",
    "locate_split",
    "matching_files",
    "read_file",
    "read_rows",
    "read_split",
    "read_split_if_here",
    "read_splits",
]
