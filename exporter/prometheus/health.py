"""The exporter's own metrics."""

from __future__ import annotations

import platform
import time

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from exporter import __version__
from exporter.bullmq.watcher import Outcome


class Health:
    """Counts what the exporter itself does. Low in volume, so prometheus_client renders it."""

    def __init__(self) -> None:
        # A `_created` series for each counter would double them, and Prometheus does not need it.
        disable_created_metrics()
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._up = Gauge(
            "bullmq_up", "1 if the last poll of Redis succeeded.", registry=self.registry
        )
        Gauge(
            "bullmq_exporter_build_info",
            "Always 1; which exporter this is.",
            ["version", "python_version"],
            registry=self.registry,
        ).labels(__version__, platform.python_version()).set(1)
        self._polls = Histogram(
            "bullmq_exporter_poll_duration_seconds",
            "How long polls of all queues took, failed ones too.",
            # From a handful of queues (1 ms) to a Redis that does not answer (time-outs).
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )
        self._errors = Counter(
            "bullmq_exporter_poll_errors_total", "Polls that failed.", registry=self.registry
        )
        self._last_poll = Gauge(
            "bullmq_exporter_last_poll_timestamp_seconds",
            "When the last poll that succeeded ended; 0 before the first.",
            registry=self.registry,
        )
        self._last_discovery = Gauge(
            "bullmq_exporter_last_discovery_timestamp_seconds",
            "When the queues were last searched for; 0 before, and where they are named.",
            registry=self.registry,
        )
        self._queues = Gauge(
            "bullmq_exporter_queues", "Queues that are watched.", registry=self.registry
        )
        self._unreadable = Gauge(
            "bullmq_exporter_unreadable_values",
            "Values that the last poll had to leave out, such as keys of the wrong type.",
            registry=self.registry,
        )
        self.api_requests = Counter(
            "bullmq_exporter_api_requests_total",
            "Requests that the Jobs API has answered.",
            ["route", "status"],
            registry=self.registry,
        )
        self.api_durations = Histogram(
            "bullmq_exporter_api_request_duration_seconds",
            "How long the Jobs API took to answer.",
            ["route"],
            registry=self.registry,
        )

    def record(self, outcome: Outcome) -> None:
        """Take note of a poll."""
        self._polls.observe(outcome.duration)
        if outcome.snapshot is None:
            self._up.set(0)
            self._queues.set(0)
            self._unreadable.set(0)
            self._errors.inc()
            return
        self._up.set(1)
        self._last_poll.set(time.time())
        self._last_discovery.set(outcome.snapshot.discovered or 0)
        self._queues.set(len(outcome.snapshot.readings))
        self._unreadable.set(sum(len(reading.unreadable) for reading in outcome.snapshot.readings))
