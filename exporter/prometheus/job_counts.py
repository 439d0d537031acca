"""How many jobs each queue holds, by state."""

from __future__ import annotations

from exporter.prometheus.family import LabelledQueueGauge

FAMILIES = (
    LabelledQueueGauge(
        # The name and labels of BullMQ's own Queue.exportPrometheusMetrics().
        "bullmq_job_count",
        "Number of jobs in the queue by state; completed and failed only as many as are retained.",
        "state",
        lambda reading, _: reading.counts.items(),
    ),
)
