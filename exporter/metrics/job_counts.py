"""How many jobs each queue holds, by state."""

from __future__ import annotations

from exporter.metrics.family import LabelledQueueGauge

FAMILIES = (
    LabelledQueueGauge(
        # The same name and labels as in BullMQ's own Queue.exportPrometheusMetrics().
        "bullmq_job_count",
        "Number of jobs in the queue by state; completed and failed only as many as are retained.",
        "state",
        lambda reading, _: reading.counts.items(),
    ),
    LabelledQueueGauge(
        "bullmq_queue_missing_jobs",
        "Number of listed jobs whose data was evicted or deleted, among the 5 at each end of each "
        "state; absent for a state without jobs.",
        "state",
        # Missing jobs that an earlier round found may have been removed in the meantime.
        lambda reading, facts: (
            (state, min(number, reading.counts[state]))
            for state, number in facts.missing_jobs.items()
            if reading.counts.get(state)
        ),
    ),
)
