"""The notebook runs from top to bottom, as its reader would run it but for the number of rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "python.ipynb"
SHORT = '{"train.epochs": 2, "limit.train": 400}'
SHORTER = '{"train.epochs": 1, "limit.train": 200, "limit.validation": 40}'


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    names: dict[str, Any] = {}
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    [short] = [number for number, source in enumerate(sources) if SHORT in source]
    sources[short] = sources[short].replace(SHORT, SHORTER)
    for source in sources:
        exec(compile(source, "python.ipynb", "exec"), names)
    assert not any(cell.get("outputs") for cell in cells), "outputs are not committed"
    assert names["run"].score > 10
    assert names["answer"]["spans"]
    assert set(names["scores"]) == {12, 13}
    assert "did you mean 'train.epochs'?" in capsys.readouterr().out
