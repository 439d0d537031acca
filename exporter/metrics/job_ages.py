"""Since when jobs wait or run: timestamps, so that an age is correct when it is queried."""

from __future__ import annotations

from exporter.metrics.family import QueueGauge

FAMILIES = (
    QueueGauge(
        "bullmq_queue_oldest_waiting_timestamp_seconds",
        "When the job that has waited the longest became ready, of those at the ends of the queue; "
        "absent while none waits, the queue is paused, or it is unknown.",
        lambda reading, _: reading.oldest_waiting,
    ),
    QueueGauge(
        "bullmq_queue_oldest_active_timestamp_seconds",
        "When the job that has been active the longest was taken; absent while none is active.",
        lambda reading, _: reading.oldest_active,
    ),
    QueueGauge(
        "bullmq_queue_oldest_active_locked",
        "1 while a worker holds the lock of the job that has been active the longest, else 0: its "
        "worker is gone or stuck; absent while none is active.",
        lambda reading, _: (
            None if reading.oldest_active_locked is None else int(reading.oldest_active_locked)
        ),
    ),
    QueueGauge(
        "bullmq_queue_next_delayed_timestamp_seconds",
        "When the next delayed job is due, in the past if it is overdue; absent while none is.",
        lambda reading, _: reading.next_delayed,
    ),
    QueueGauge(
        "bullmq_queue_oldest_waiting_children_timestamp_seconds",
        "When the longest-waiting parent of a flow began to wait for its children; absent while "
        "none waits.",
        lambda reading, _: reading.oldest_waiting_children,
    ),
)
