"""The metrics that Prometheus reads."""

from __future__ import annotations

from typing import final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@final
class Meters:
    """Counters of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "ptv2kit_requests", "Requests by route and status", ["route", "status"], registry=self._registry
        )
        self.request_seconds = Histogram(
            "ptv2kit_request_seconds", "Time to answer a request", ["route"], buckets=_SECONDS, registry=self._registry
        )
        self.rows = Counter("ptv2kit_rows", "Rows that were answered", ["prompt"], registry=self._registry)
        self.faulty_rows = Counter(
            "ptv2kit_faulty_rows", "Rows that could not be answered", ["prompt"], registry=self._registry
        )
        self.batch_rows = Histogram(
            "ptv2kit_batch_rows", "Rows that were computed together", buckets=_ROWS, registry=self._registry
        )
        self.batch_prompts = Histogram(
            "ptv2kit_batch_prompts", "Prompts in a batch", buckets=(1, 2, 3, 4, 8, 16), registry=self._registry
        )
        self.batch_seconds = Histogram(
            "ptv2kit_batch_seconds", "Time to compute a batch", buckets=_SECONDS, registry=self._registry
        )
        self.waiting = Gauge("ptv2kit_waiting_rows", "Rows without an answer yet", registry=self._registry)
        self.prompts = Gauge("ptv2kit_prompts", "Prompts that are served", registry=self._registry)

    def forget(self, prompt: str) -> None:
        """Drop the series of a prompt that is no longer served."""
        for counter in (self.rows, self.faulty_rows):
            counter.remove(prompt)

    def text(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self._registry)
