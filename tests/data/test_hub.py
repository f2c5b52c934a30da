"""Data sets of the hub: mirrors under the data root, the datasets library, and its failures. Nothing is downloaded."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

from ptv2kit.data.sources import Located, locate_split, read_split
from ptv2kit.errors import DataError
from ptv2kit.spec.task_base import TaskBase

SPLITS = {"train": "train", "validation": "dev"}
FEATURES = datasets.Features(
    {
        "label": datasets.ClassLabel(names=["no", "yes"]),
        "tags": datasets.List(datasets.ClassLabel(names=["O", "B-X"])),
        "spans": datasets.List({"kind": datasets.ClassLabel(names=["k0", "k1"]), "at": datasets.Value("int64")}),
        "meta": {"label": datasets.ClassLabel(names=["no", "yes"]), "word": datasets.Value("string")},
    }
)
STORED = [
    {"label": 1, "tags": [0, 1], "spans": [{"kind": 1, "at": 5}], "meta": {"label": 0, "word": "a"}},
    {"label": -1, "tags": None, "spans": [], "meta": {"label": 1, "word": None}},
]
READ = [
    {"label": 1, "tags": ["O", "B-X"], "spans": [{"kind": "k1", "at": 5}], "meta": {"label": 0, "word": "a"}},
    {"label": -1, "tags": None, "spans": [], "meta": {"label": 1, "word": None}},
]


def task(path: str = "org/set", **data: Any) -> TaskBase:
    return TaskBase.model_validate({"task": "demo", "data": {"source": "hub", "path": path, "splits": SPLITS, **data}})


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The calls of `load_dataset`, which answers with a data set in memory."""
    seen: list[Any] = []

    def load(*args: Any, **settings: Any) -> datasets.Dataset:
        seen.append((args, settings))
        return datasets.Dataset.from_list(STORED, features=FEATURES)

    monkeypatch.setattr(datasets, "load_dataset", load)
    return seen


def test_hub_request_and_labels(tmp_path: Path, calls: list[Any]) -> None:
    spec = task(name="conf", revision="abc123")
    data = read_split(spec, "validation", task_path=tmp_path / "t.yaml", data_root=tmp_path)
    assert calls == [(("org/set", "conf"), {"revision": "abc123", "split": "dev"})]
    assert data.name == "validation"
    assert data.source == "hub:org/set@abc123/conf:dev"
    assert [row.values for row in data.rows] == READ
    assert [row.location for row in data.rows] == [f"{data.source}: row 1", f"{data.source}: row 2"]


def test_fingerprint_is_that_of_the_rows(tmp_path: Path, calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    where: dict[str, Any] = {"task_path": tmp_path / "t.yaml", "data_root": None}
    first = read_split(task(), "train", **where)
    again = read_split(task(name="other"), "train", **where)
    assert first.source == "hub:org/set:train"
    assert len(first.fingerprint) == 64
    assert first.fingerprint == again.fingerprint
    monkeypatch.setitem(STORED[0], "label", 0)
    assert read_split(task(), "train", **where).fingerprint != first.fingerprint
    assert len(calls) == 3


def test_label_without_a_name_in_a_sequence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = datasets.Features({"tags": datasets.List(datasets.ClassLabel(names=["O", "B-X"]))})
    stored = datasets.Dataset.from_list([{"tags": [0]}, {"tags": [1, -1]}], features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: stored)
    with pytest.raises(DataError) as info:
        read_split(task(), "train", task_path=tmp_path / "t.yaml", data_root=None)
    assert str(info.value) == "hub:org/set:train: row 2: error: label -1 has no name; there are 2"


def test_a_mirror_is_read_instead(tmp_path: Path, calls: list[Any]) -> None:
    where: dict[str, Any] = {"task_path": tmp_path / "t.yaml", "data_root": tmp_path}
    assert locate_split(task(), "validation", **where) is None
    plain, zipped = tmp_path / "demo" / "validation.jsonl", tmp_path / "demo" / "validation.jsonl.gz"
    plain.parent.mkdir()
    plain.write_text('{"a": "plain"}\n')
    assert read_split(task(), "validation", **where).rows[0].values == {"a": "plain"}
    zipped.write_bytes(gzip.compress(b'{"a": "zipped"}\n'))
    assert locate_split(task(), "validation", **where) == Located(zipped, (zipped,))
    data = read_split(task(), "validation", **where)
    assert (data.source, data.rows[0].values) == (str(zipped), {"a": "zipped"})
    assert calls == []
    assert locate_split(task(), "train", **where) is None


@pytest.mark.parametrize(
    ("failure", "cause"),
    [
        (
            ConnectionError("Couldn't reach 'org/set' on the Hub\nsecond line"),
            "ConnectionError: Couldn't reach 'org/set'",
        ),
        (ValueError(""), "ValueError: no reason given"),
        (RuntimeError("Dataset scripts are no longer supported"), "RuntimeError: Dataset scripts"),
    ],
)
def test_failure_is_one_line_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception, cause: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise failure

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataError) as info:
        read_split(task(), "validation", task_path=tmp_path / "t.yaml", data_root=None)
    (problem,) = info.value.problems
    assert problem.location == "hub:org/set:dev"
    assert problem.message.startswith(f"the data set cannot be loaded: {cause}")
    assert "\n" not in problem.message
    assert "'<data root>/demo/validation.jsonl.gz'" in problem.hint
    assert info.value.__cause__ is failure


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_datasets_itself_reads_a_local_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    folder = tmp_path / "repository"
    folder.mkdir()
    if kind == "parquet":
        datasets.Dataset.from_list(STORED, features=FEATURES).to_parquet(folder / "train.parquet")
    else:
        (folder / "train.jsonl").write_text("".join(json.dumps({"a": [number]}) + "\n" for number in range(3)))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    data = read_split(task(str(folder)), "train", task_path=tmp_path / "t.yaml", data_root=None)
    assert [row.values for row in data.rows] == (READ if kind == "parquet" else [{"a": [n]} for n in range(3)])


def test_files_are_read_without_importing_torch_or_datasets(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n')
    program = f"""
import sys
from pathlib import Path
from ptv2kit.spec.task_base import TaskBase
from ptv2kit.data.sources import read_split
data = {{"source": "jsonl", "splits": {{"train": "a.jsonl", "validation": "a.jsonl"}}}}
task = TaskBase.model_validate({{"task": "t", "data": data}})
assert len(read_split(task, "train", task_path=Path({str(tmp_path / "t.yaml")!r}), data_root=None).rows) == 1
loaded = [name for name in ("torch", "datasets", "pyarrow", "transformers") if name in sys.modules]
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
