"""Job schedulers and old repeatable jobs."""

from __future__ import annotations

from exporter.prometheus.family import LabelledQueueGauge, QueueGauge

FAMILIES = (
    QueueGauge(
        "bullmq_queue_schedulers",
        "Number of job schedulers and old repeatable jobs of the queue.",
        lambda reading, _: reading.schedulers,
    ),
    QueueGauge(
        "bullmq_queue_duplicate_schedulers",
        "Number of schedulers that add a job of the same name and data as another one does: each "
        "makes the job run once too often.",
        lambda _, beside: beside.duplicate_schedulers,
    ),
    LabelledQueueGauge(
        "bullmq_scheduler_next_run_timestamp_seconds",
        "When the scheduler runs next; the first 100 of a queue, but for those that have ended.",
        "scheduler",
        lambda reading, _: reading.scheduler_runs,
    ),
)
