"""What happened to jobs: counters and durations by job name, from the queues' event streams."""

from __future__ import annotations

from exporter.metrics.event_family import (
    EventCounter,
    EventFamily,
    EventGauge,
    EventHistogram,
    MissedCounter,
    ReasonCounter,
    ReasonGauge,
)
from exporter.metrics.new_series import FAILURE_REASONS, RETRY_REASONS
from exporter.queues.tallies import Count

FAMILIES: tuple[EventFamily, ...] = (
    EventCounter("bullmq_job_added_total", "Jobs that were added.", Count.ADDED),
    EventCounter("bullmq_job_completed_total", "Jobs that were completed.", Count.COMPLETED),
    EventCounter(
        "bullmq_job_failed_total",
        "Jobs that failed for good; failed attempts that are retried do not count.",
        Count.FAILED,
    ),
    EventCounter(
        "bullmq_job_retried_total",
        "Failed attempts that BullMQ retries; failed jobs that are retried by hand do not count.",
        Count.RETRIED,
    ),
    EventCounter(
        "bullmq_job_stalled_total",
        "Jobs returned to the queue after their worker lost the lock.",
        Count.STALLED,
    ),
    EventCounter(
        "bullmq_job_retries_exhausted_total",
        "Jobs that failed in their last attempt; the others failed for good with attempts left.",
        Count.RETRIES_EXHAUSTED,
    ),
    EventCounter(
        "bullmq_job_deduplicated_total",
        "Adds that deduplication dropped, or that replaced a job that was not due yet; name is "
        "the name of the remaining job.",
        Count.DEDUPLICATED,
    ),
    EventCounter(
        "bullmq_job_duplicated_total",
        "Adds without effect, because the queue already contains a job with the same id; name is "
        "the name of the existing job.",
        Count.DUPLICATED,
    ),
    EventHistogram(
        "bullmq_job_wait_duration_seconds",
        "Time for which ready jobs waited until a worker took them, for each attempt.",
        lambda layout: (layout.wait, layout.wait_bounds),
    ),
    EventHistogram(
        "bullmq_job_process_duration_seconds",
        "How long the last attempt of completed and failed jobs took.",
        lambda layout: (layout.process, layout.process_bounds),
    ),
    MissedCounter(
        "bullmq_exporter_events_missed_total",
        "Events that were trimmed from the queue's stream before they were read.",
    ),
    EventGauge(
        "bullmq_queue_events_off",
        "1 if the queue keeps too few events to be read; absent otherwise.",
        lambda counted: 1 if counted.events_off else None,
    ),
    EventGauge(
        "bullmq_queue_clock_offset_seconds",
        "By how much the clocks of the queue's workers are ahead of Redis's, below 0 if they are "
        "behind: the median of the last 15 jobs that were compared; absent before the first.",
        lambda counted: counted.clock_offset,
    ),
    ReasonCounter(
        FAILURE_REASONS,
        "Jobs that failed for good, by reason; the reasons that occurred most often recently have "
        "a series of their own.",
        lambda reasons: reasons.failed,
    ),
    ReasonCounter(
        RETRY_REASONS,
        "Failed attempts that BullMQ retries, by reason.",
        lambda reasons: reasons.retried,
    ),
    ReasonGauge(
        "bullmq_job_failure_reason_first_seen_timestamp_seconds",
        "When a job or an attempt first failed for this reason; reset after seven days without it.",
        lambda seen: seen.first,
    ),
    ReasonGauge(
        "bullmq_job_failure_reason_last_seen_timestamp_seconds",
        "When a job or an attempt last failed for this reason.",
        lambda seen: seen.last,
    ),
    EventGauge(
        "bullmq_queue_failure_reasons_since_timestamp_seconds",
        "When the exporter began to count failures by reason; absent before the first failure.",
        lambda counted: None if counted.reasons is None else counted.reasons.since / 1000,
    ),
)
