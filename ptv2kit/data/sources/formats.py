"""Read one file in the format that a task names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from ptv2kit.data.rows import Fault, Row, raise_fault
from ptv2kit.data.sources.conll import read_conll
from ptv2kit.data.sources.conll04 import read_conll04
from ptv2kit.data.sources.conll05 import read_conll05
from ptv2kit.data.sources.documents import read_brat, read_fasttext, read_text
from ptv2kit.data.sources.gold_conll import read_gold_conll
from ptv2kit.data.sources.hub import never
from ptv2kit.data.sources.jsonl import read_jsonl
from ptv2kit.data.sources.parquet import read_parquet
from ptv2kit.data.sources.squad import read_squad
from ptv2kit.data.sources.srl_lines import read_srl_lines
from ptv2kit.data.sources.table import read_table
from ptv2kit.errors import DataError
from ptv2kit.spec.plugins import load_plugin
from ptv2kit.spec.sources import (
    BratSource,
    Conll04Source,
    Conll05Source,
    ConllSource,
    DataSource,
    FastTextSource,
    GoldConllSource,
    HubSource,
    JsonlSource,
    ParquetSource,
    PluginSource,
    SquadSource,
    SrlLinesSource,
    TableSource,
    TextsSource,
)


def read_rows(
    path: Path,
    source: DataSource,
    on_fault: Fault = raise_fault,
    takes_names: Callable[[Sequence[str]], bool] = never,
) -> Iterator[Row]:
    """The rows of one file in the format of `source`; a hub data set's mirror is JSON lines.

    Args:
        on_fault: told of a malformed row; formats whose rows cannot be told apart after a fault raise instead.
        takes_names: see `TaskBase.takes_names`.

    Raises:
        DataError: the file is unreadable or malformed.
    """
    match source:
        case HubSource():
            return read_jsonl(path, on_fault=on_fault)
        case JsonlSource():
            return read_jsonl(path, on_fault=on_fault, records=source.records)
        case TableSource():
            return read_table(path, source, on_fault=on_fault)
        case ParquetSource():
            return read_parquet(path, takes_names)
        case ConllSource():
            return read_conll(path, source, on_fault=on_fault)
        case SquadSource():
            return read_squad(path, on_fault=on_fault)
        case Conll04Source():
            return read_conll04(path, source)
        case Conll05Source():
            return read_conll05(path, source)
        case GoldConllSource():
            return read_gold_conll(path, source)
        case SrlLinesSource():
            return read_srl_lines(path)
        case FastTextSource():
            return read_fasttext(path, source, on_fault=on_fault)
        case TextsSource():
            return read_text(path, source, on_fault=on_fault)
        case BratSource():
            return read_brat(path, source, on_fault=on_fault)
        case PluginSource():
            return _read_by_plugin(path, source.reader)


def _read_by_plugin(path: Path, reader: str) -> Iterator[Row]:
    """The rows that a reader of another package gives."""
    read = load_plugin("ptv2kit.readers", reader)
    try:
        for number, values in enumerate(read(path), start=1):
            if not isinstance(values, dict):
                raise DataError(
                    f"reader '{reader}' gave {values!r}. Expected a mapping", location=f"{path}: row {number}"
                )
            yield Row(cast(dict[str, Any], values), f"{path}: row {number}")
    except (ValueError, OSError, UnicodeError) as error:
        raise DataError(f"reader '{reader}': {error}", location=str(path)) from error
