"""Apache Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ptv2kit.data.rows import Row
from ptv2kit.data.sources.lines import unreadable
from ptv2kit.errors import DataError


def read_parquet(path: Path) -> Iterator[Row]:
    """One row for each row of the file; lists and structs become lists and mappings.

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
            for batch in file.iter_batches():
                for values in batch.to_pylist():
                    number += 1
                    yield Row(values, f"{path}: row {number}")
    # pyarrow tells damaged pages by a plain OSError, and values that Python has no name for by the other two.
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        cause = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise DataError(
            f"not a readable Parquet file; it could be read up to row {number}: {cause}", location=str(path)
        ) from error
