"""Real data sets are read whole: counts and fingerprints as their README states them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ptv2kit.data.sources import SplitData, read_split
from ptv2kit.spec.task_base import TaskBase

SPLITS = {"train": "train", "validation": "validation"}
LARGE = ("multirc", "srl_ewt")


def read(shared: Path, name: str, split: str) -> SplitData:
    task = TaskBase.model_validate({"task": name, "data": {"source": "hub", "path": f"none/{name}", "splits": SPLITS}})
    assert split in ("train", "validation")
    return read_split(task, split, task_path=shared / "t.yaml", data_root=shared / "data")


def stated(shared: Path, name: str, split: str) -> tuple[int, str]:
    """Rows and SHA-256 of a file, from the README's table."""
    pattern = rf"^\| {name}/{split}\.jsonl\.gz \| (\d+) \| \d+ \| ([0-9a-f]{{64}}) \|$"
    match = re.search(pattern, (shared / "data" / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert match, f"the README states nothing of {name}/{split}"
    return int(match.group(1)), match.group(2)


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize(
    "name",
    [
        *("boolq", "cb", "copa", "rte", "squad", "squad_v2", "sst2", "uner_ewt", "wic", "wikigold", "wnut17", "wsc"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE),
    ],
)
def test_all_rows_are_read(shared: Path, name: str, split: str) -> None:
    data = read(shared, name, split)
    assert (len(data.rows), data.fingerprint) == stated(shared, name, split)


def test_columns_of_words(shared: Path) -> None:
    for row in read(shared, "wnut17", "validation").rows:
        assert len(row.words("tokens")) == len(row.words("ner_tags"))


def test_conll_sample(shared: Path) -> None:
    data = {
        "source": "conll",
        "splits": {"train": "train.txt", "validation": "train.txt"},
        "columns": {"word": 0, "tag": -1},
    }
    task = TaskBase.model_validate({"task": "conll03", "data": data})
    folder = shared / "data" / "format_samples" / "conll03"
    rows = read_split(task, "train", task_path=folder / "t.yaml", data_root=None).rows
    assert rows
    assert all(set(row.values) == {"word", "tag"} for row in rows)
    assert not any("-DOCSTART-" in row.words("word") for row in rows)
