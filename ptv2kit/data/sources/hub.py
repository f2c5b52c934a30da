"""Data sets of the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

from ptv2kit.config.sources import HubSource
from ptv2kit.data.rows import Row
from ptv2kit.errors import DataError


def hub_address(source: HubSource, hub_split: str) -> str:
    """`hub:path@revision/name:split`, without what the task leaves open."""
    revision = "" if source.revision is None else f"@{source.revision}"
    name = "" if source.name is None else f"/{source.name}"
    return f"hub:{source.path}{revision}{name}:{hub_split}"


def read_hub(source: HubSource, hub_split: str, mirror: str, split: str) -> Iterator[Row]:
    """One row for each row of the data set. Class labels inside sequences become their names, others stay integers.

    Args:
        source: the data set.
        hub_split: the repository's name of the split.
        mirror: folder of the data root, for the hint at it.
        split: our name of the split, for the hint at a mirror.

    Raises:
        DataError: the data set is not to be had, or a label in a sequence has no name.
    """
    # Only this source needs datasets, whose import takes seconds.
    import datasets

    address = hub_address(source, hub_split)
    try:
        dataset: Any = datasets.load_dataset(source.path, source.name, revision=source.revision, split=hub_split)
    # Network, authentication, cache and format faults have no common class below Exception.
    except Exception as error:
        cause = next(iter(str(error).strip().splitlines()), "no reason given")
        raise DataError(
            f"the data set cannot be loaded: {type(error).__name__}: {cause}",
            location=address,
            hint=f"without a network, put its rows in '<data root>/{mirror}/{split}.jsonl.gz' and give the root "
            "with --data-root or PTV2KIT_DATA",
        ) from error
    for number, values in enumerate(dataset, start=1):
        location = f"{address}: row {number}"
        yield Row(
            {name: _named(value, dataset.features[name], False, location) for name, value in values.items()}, location
        )


def fingerprint_of_rows(rows: Iterable[Row]) -> str:
    """SHA-256 of the rows' values as lines of JSON with sorted keys, in hexadecimal.

    The data set's own fingerprint depends on the cache's layout; this one is the same wherever the rows are.
    """
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row.values, sort_keys=True, default=repr).encode() + b"\n")
    return digest.hexdigest()


def _named(value: Any, feature: Any, in_sequence: bool, location: str) -> Any:
    """`value` with the class labels inside sequences replaced by their names."""
    import datasets

    if value is None:
        return None
    if isinstance(feature, datasets.ClassLabel):
        if not in_sequence:
            return value
        if not 0 <= value < len(feature.names):
            raise DataError(f"label {value} has no name; there are {len(feature.names)}", location=location)
        return feature.names[value]
    if isinstance(feature, dict):
        return {name: _named(value[name], inner, in_sequence, location) for name, inner in feature.items()}
    if isinstance(feature, datasets.List | datasets.LargeList):
        return [_named(item, feature.feature, True, location) for item in value]
    return value
