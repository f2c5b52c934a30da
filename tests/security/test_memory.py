"""Bombs in a process with little memory: they end with an error, not with the machine."""

from __future__ import annotations

import gzip
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from ptv2kit.spec.expansion import Expansion
from tests.security.test_yaml_files import BOMBS, doubling

ROOT = Path(__file__).parents[2]
_LIMIT = 6 << 30
"""Of addresses, of which torch and its libraries take a good part without touching them."""


def limited(*words: str, memory: int = _LIMIT) -> subprocess.CompletedProcess[str]:
    """A command with a limit of memory and of time."""
    return subprocess.run(
        [sys.executable, "-m", "ptv2kit", *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (memory, memory)),
    )


@pytest.mark.night
@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_in_yaml_need_no_memory(tmp_path: Path, bomb: str) -> None:
    path = tmp_path / "bomb.yaml"
    path.write_text(f"recipe: x\n{BOMBS[bomb][0]}")
    ending = limited("validate", str(path), memory=1 << 30)
    assert ending.returncode == 2, ending.stderr
    assert "bomb.yaml" in ending.stderr
    assert "Traceback" not in ending.stderr


@pytest.mark.night
def test_a_gzip_bomb_of_one_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b'{"text": "')
        for _ in range(512):
            file.write(b"x" * (1 << 22))
    assert path.stat().st_size < 1 << 24
    (tmp_path / "task.yaml").write_text(
        "task: t\ndata: {source: jsonl, splits: {train: rows.jsonl.gz, validation: rows.jsonl.gz}}\n"
        "input: {text: '{text}', max_length: 16}\nlabels: {scheme: classes, column: label, names: [no, yes]}\n"
    )
    ending = limited("validate", str(tmp_path / "task.yaml"), "--data")
    assert ending.returncode == 3, ending.stderr
    assert "rows.jsonl.gz:1: error: the line is longer than 256 MiB" in ending.stderr


@pytest.mark.night
def test_rows_are_not_kept_in_memory(tmp_path: Path) -> None:
    """A file of 400 MB is counted and checked in less memory than a quarter of it."""

    def peak(rows: int) -> int:
        row = json.dumps({"text": "a short text", "label": "no", "other": "x" * 40_000}).encode() + b"\n"
        with gzip.open(tmp_path / "rows.jsonl.gz", "wb", compresslevel=1) as file:
            for _ in range(rows):
                file.write(row)
        code = (
            "import resource, subprocess, sys\n"
            "subprocess.run([sys.executable, '-m', 'ptv2kit', 'validate', 'task.yaml', '--data'], check=True)\n"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        measured = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
        )
        return int(measured.stdout.split()[-1]) << 10

    (tmp_path / "task.yaml").write_text(
        "task: t\ndata: {source: jsonl, splits: {train: rows.jsonl.gz, validation: rows.jsonl.gz}}\n"
        "input: {text: '{text}', max_length: 16}\nlabels: {scheme: classes, column: label, names: [no, yes]}\n"
    )
    assert peak(10_000) - peak(10) < 100 << 20


def test_references_are_counted_before_they_are_put_in() -> None:
    values = {key: value for key, _, value in (line.partition(": ") for line in doubling(20).splitlines())}
    with pytest.raises(ValueError, match=r"more than 1,000,000 characters"):
        Expansion(values).add("${a0}")
    Expansion(values).add("${a10}")
