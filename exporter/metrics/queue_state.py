"""The state of a queue: its version, whether it is paused, how many jobs it retains."""

from __future__ import annotations

from exporter.metrics.family import LabelledQueueGauge, QueueGauge

FAMILIES = (
    LabelledQueueGauge(
        "bullmq_queue_info",
        "Always 1; the version is that of the BullMQ which last opened the queue.",
        "version",
        lambda reading, _: ((reading.version, 1),) if reading.version else (),
    ),
    QueueGauge(
        "bullmq_queue_paused",
        "1 while the queue is paused, else 0.",
        lambda reading, _: None if reading.paused is None else int(reading.paused),
    ),
    LabelledQueueGauge(
        "bullmq_queue_retention_limit",
        "How many finished jobs of this state are kept; at this count older ones are deleted.",
        "state",
        lambda _, facts: facts.retention.items(),
    ),
)
