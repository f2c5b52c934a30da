"""Data sets of the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ptv2kit.data.rows import Row
from ptv2kit.errors import DataError
from ptv2kit.files import is_file, is_folder
from ptv2kit.machine import reach_hub
from ptv2kit.spec.sources import HubSource


def never(_: Sequence[str]) -> bool:
    """Leave class labels outside sequences as they are: the default of `takes_names`."""
    return False


def hub_address(source: HubSource, hub_split: str) -> str:
    """`hub:path@revision/name:split`, without what the task leaves open."""
    revision = "" if source.revision is None else f"@{source.revision}"
    name = "" if source.name is None else f"/{source.name}"
    return f"hub:{source.path}{revision}{name}:{hub_split}"


def read_hub(
    source: HubSource,
    hub_split: str,
    mirror: str,
    split: str,
    takes_names: Callable[[Sequence[str]], bool] = never,
) -> Iterator[Row]:
    """One row for each row of the data set. Class labels inside sequences become their names.

    Args:
        mirror: folder of the data root, for the hint at it.
        split: our name of the split, for the hint at a mirror.
        takes_names: whether labels outside sequences, which have these names, become names too.

    Raises:
        DataError: the data set is not to be had, or a label in a sequence has no name.
    """
    address = hub_address(source, hub_split)
    hint = f"without a network, put its rows in '<data root>/{mirror}/{split}.jsonl.gz' and give the root "
    with _loading(source.path, address, f"{hint}with --data-root or PTV2KIT_DATA"):
        import datasets

        if is_file(Path(source.path) / "state.json"):  # one split, written by `save_to_disk`
            dataset: Any = datasets.load_from_disk(source.path)
        else:
            dataset = datasets.load_dataset(source.path, source.name, revision=source.revision, split=hub_split)
    features: Mapping[str, Any] = dataset.features.to_dict()
    for number, values in enumerate(dataset, start=1):
        location = f"{address}: row {number}"
        yield Row({**values, **named_labels(values, features, takes_names, location)}, location)


def split_names(path: str, name: str | None) -> list[str]:
    """The splits of a data set.

    Args:
        path: repository, or a folder that `datasets` can read.
        name: configuration within the repository.

    Raises:
        DataError: the data set cannot be loaded.
    """
    if is_file(Path(path) / "state.json"):
        return ["train"]
    hint = "it needs a network; a repository with several configurations needs --config NAME"
    with _loading(path, f"hub:{path}", hint):
        import datasets

        return [str(split) for split in datasets.get_dataset_split_names(path, name)]


@contextmanager
def _loading(path: str, address: str, hint: str) -> Generator[None]:
    """Ask whether the hub answers, and turn what `datasets` raises into a `DataError`.

    Only this source needs `datasets`, whose import takes seconds.
    """
    if not is_folder(Path(path)):
        reach_hub()
    try:
        yield
    # Network, authentication, cache and format faults have no common class below Exception.
    except Exception as error:
        cause = next(iter(str(error).strip().splitlines()), "no reason given")
        message = f"the data set cannot be loaded: {type(error).__name__}: {cause}"
        raise DataError(message, location=address, hint=hint) from error


def named_labels(
    values: Mapping[str, Any],
    features: Mapping[str, Any],
    takes_names: Callable[[Sequence[str]], bool],
    location: str,
) -> dict[str, Any]:
    """The columns of a row that hold class labels, with names in place of integers.

    Args:
        features: of the columns, as `datasets` describes them in JSON.
        takes_names: whether labels outside sequences, which have these names, become names.

    Raises:
        DataError: a label in a sequence has no name.
    """
    return {
        name: _named(values[name], feature, False, takes_names, location)
        for name, feature in features.items()
        if name in values
    }


def fingerprint_of_rows(rows: Iterable[Row]) -> str:
    """SHA-256 of the rows' values as lines of JSON with sorted keys, in hexadecimal.

    The data set's own fingerprint depends on the cache's layout; this one is the same wherever the rows are.
    """
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row.values, sort_keys=True, default=repr).encode() + b"\n")
    return digest.hexdigest()


def _named(
    value: Any, feature: Any, in_sequence: bool, takes_names: Callable[[Sequence[str]], bool], location: str
) -> Any:
    """`value` with class labels replaced by their names, as `named_labels` says."""
    if value is None or not isinstance(feature, dict):
        return value
    kind, inner = feature.get("_type"), feature.get("feature")
    if kind == "ClassLabel":
        names: list[str] = feature["names"]
        if not (in_sequence or takes_names(names)):
            return value
        if not 0 <= value < len(names):
            if not in_sequence:
                return value  # -1 stands for a label that is held back; it is reported where it is read
            raise DataError(f"label {value} has no name; there are {len(names)}", location=location)
        return names[value]
    if kind in ("List", "LargeList", "Sequence") and isinstance(value, list):
        return [_named(item, inner, True, takes_names, location) for item in value]
    if kind is None and isinstance(value, dict):
        return {
            name: _named(value[name], of_field, in_sequence, takes_names, location)
            for name, of_field in feature.items()
            if name in value
        }
    return value
