"""The workers of each queue."""

from __future__ import annotations

from exporter.metrics.family import QueueGauge

FAMILIES = (
    QueueGauge(
        "bullmq_queue_workers",
        "Number of workers connected, by the names of their connections; absent if the server "
        "does not list them.",
        lambda _, facts: facts.workers,
    ),
    QueueGauge(
        "bullmq_worker_heartbeat_timestamp_seconds",
        "When a worker of Open Archiver last wrote its heartbeat; absent if that was over 10 "
        "minutes ago, or never.",
        lambda reading, _: reading.heartbeat,
    ),
)
