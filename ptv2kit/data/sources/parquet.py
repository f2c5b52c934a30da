"""Apache Parquet files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ptv2kit.data.rows import Row
from ptv2kit.data.sources.hub import named_labels, never
from ptv2kit.data.sources.lines import unreadable
from ptv2kit.errors import DataError


def read_parquet(path: Path, takes_names: Callable[[Sequence[str]], bool] = never) -> Iterator[Row]:
    """One row for each row of the file; lists and structs become lists and mappings.

    Class labels, whose names `datasets` writes into the file, become names as those of the hub do.

    Args:
        takes_names: whether the labels of a column, which has these names, become names.

    Raises:
        DataError: the file is unreadable, no Parquet file, or has two columns of one name.
    """
    # Only this format needs pyarrow, whose import takes longer than reading a small file.
    import pyarrow
    import pyarrow.parquet

    try:
        handle = path.open("rb")
    except OSError as error:
        raise unreadable(path, error) from error
    number = 0
    try:
        with handle, pyarrow.parquet.ParquetFile(handle) as file:
            names: list[str] = file.schema_arrow.names
            repeated = [name for index, name in enumerate(names) if name in names[:index]]
            if repeated:
                raise DataError(f"column '{repeated[0]}' occurs twice", location=str(path))
            features = _features(file.schema_arrow.metadata)
            for batch in file.iter_batches():
                for values in batch.to_pylist():
                    number += 1
                    location = f"{path}: row {number}"
                    yield Row({**values, **named_labels(values, features, takes_names, location)}, location)
    # pyarrow tells damaged pages by a plain OSError, and values that Python has no name for by the other two.
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        cause = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise DataError(
            f"not a readable Parquet file; it could be read up to row {number}: {cause}", location=str(path)
        ) from error


def _features(metadata: Mapping[bytes, bytes] | None) -> Mapping[str, Any]:
    """The columns with class labels, as `datasets` describes them in the file's metadata; empty if it did not."""
    text = (metadata or {}).get(b"huggingface", b"{}")
    try:
        described: Any = json.loads(text)
    except ValueError:
        return {}
    info: Any = described.get("info") if isinstance(described, dict) else None
    features: Any = info.get("features") if isinstance(info, dict) else None
    return features if isinstance(features, dict) else {}
