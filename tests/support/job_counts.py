"""Jobs by state, as exposed and as BullMQ counts them."""

from __future__ import annotations

from typing import Any

from tests.support.exporters import Exporter


def expected_counts(truth: dict[str, Any], paused: bool) -> dict[str, int]:
    """BullMQ's counts by our rule: what is not taken until the queue is resumed is paused."""
    counts = {"paused": 0} | truth["counts"]
    if paused and counts["waiting"]:  # 6.x leaves the jobs in `wait`
        counts["paused"] += counts["waiting"]
        counts["waiting"] = 0
    return dict(counts)


def reported_counts(exporter: Exporter, queue: str, **labels: str) -> dict[str, float]:
    samples = exporter.metrics.samples("bullmq_job_count", queue=queue, **labels)
    return {state: value for (state,), value in samples.items()}
