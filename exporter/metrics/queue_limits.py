"""What limits how fast a queue's jobs are taken."""

from __future__ import annotations

from exporter.metrics.family import QueueGauge

FAMILIES = (
    QueueGauge(
        "bullmq_queue_concurrency_limit",
        "Maximum number of active jobs of all workers of the queue together "
        "(setGlobalConcurrency); absent if there is no limit.",
        lambda reading, _: reading.limits.concurrency,
    ),
    QueueGauge(
        "bullmq_queue_rate_limit_max",
        "Maximum number of jobs that workers take within bullmq_queue_rate_limit_duration_seconds "
        "(setGlobalRateLimit); absent if only a worker's own limiter, or nothing, limits the rate.",
        lambda reading, _: reading.limits.rate_max,
    ),
    QueueGauge(
        "bullmq_queue_rate_limit_duration_seconds",
        "Time window of bullmq_queue_rate_limit_max.",
        lambda reading, _: reading.limits.rate_duration,
    ),
    QueueGauge(
        "bullmq_queue_rate_limited_until_timestamp_seconds",
        "When the current rate limit ends: no job is taken before, because the limit is reached or "
        "rateLimit() was called; absent, or in the past, if the queue is not rate limited.",
        lambda reading, _: reading.limits.rate_limited_until,
    ),
    QueueGauge(
        "bullmq_queue_rate_limit_window_end_timestamp_seconds",
        "When the current window of a worker's own limiter ends. Its maximum is not stored in "
        "Redis, so it is unknown whether the limit is reached; absent if the maximum is known.",
        lambda reading, _: reading.limits.rate_window_end,
    ),
)
