"""What limits how fast a queue's jobs are taken."""

from __future__ import annotations

from exporter.prometheus.family import QueueGauge

FAMILIES = (
    QueueGauge(
        "bullmq_queue_concurrency_limit",
        "How many jobs all workers of the queue together may have active at once "
        "(setGlobalConcurrency); absent where that is not limited.",
        lambda reading, _: reading.limits.concurrency,
    ),
    QueueGauge(
        "bullmq_queue_rate_limit_max",
        "How many jobs may be taken within each bullmq_queue_rate_limit_duration_seconds "
        "(setGlobalRateLimit); absent where only a worker's own limiter, or nothing, limits that.",
        lambda reading, _: reading.limits.rate_max,
    ),
    QueueGauge(
        "bullmq_queue_rate_limit_duration_seconds",
        "The time within which bullmq_queue_rate_limit_max jobs may be taken.",
        lambda reading, _: reading.limits.rate_duration,
    ),
    QueueGauge(
        "bullmq_queue_rate_limited_until_timestamp_seconds",
        "Until when no job is taken, since the rate limit is reached or rateLimit() was called; "
        "absent, or in the past, while it is not.",
        lambda reading, _: reading.limits.rate_limited_until,
    ),
    QueueGauge(
        "bullmq_queue_rate_limit_window_end_timestamp_seconds",
        "When the current window of a worker's own limiter ends. Its maximum is not stored in "
        "Redis, so whether it is reached is not known; absent where the maximum is known.",
        lambda reading, _: reading.limits.rate_window_end,
    ),
)
