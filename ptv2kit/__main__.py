"""`python -m ptv2kit`."""

from __future__ import annotations

from ptv2kit.cli.main import entry_point

if __name__ == "__main__":
    entry_point()
