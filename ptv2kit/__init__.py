"""ptv2kit: P-Tuning v2 from YAML."""

from __future__ import annotations

__version__ = "0.1.0"
