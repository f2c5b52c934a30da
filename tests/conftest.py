"""Fixtures that several test files share."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with golden numbers and real data that lies beside a developer's checkout."""
    if not SHARED.is_dir():
        pytest.skip("the folder ../shared with golden numbers and real data is not here")
    return SHARED
