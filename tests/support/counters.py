"""Counters as the exporter exposes them, and as BullMQ's workers wrote them down."""

from __future__ import annotations

from tests.support.exporters import Exporter
from tests.support.waiting import eventually

COUNTERS = ("added", "completed", "failed", "retried", "stalled", "retries_exhausted")


Truth = dict[str, dict[str, dict[str, int]]]


def reported(exporter: Exporter) -> Truth:
    """What the counters say, by queue, job name and counter; without the zeros."""
    counted: Truth = {}
    for family in exporter.metrics.families().values():
        what = family.name.removeprefix("bullmq_job_").removesuffix("_total")
        if what in COUNTERS:
            for sample in family.samples:
                if sample.value:
                    of_queue = counted.setdefault(sample.labels["queue"], {})
                    of_queue.setdefault(sample.labels["name"], {})[what] = int(sample.value)
    return counted


def wait_following(exporter: Exporter) -> Exporter:
    """What happens to the queues that there are is counted from then on."""
    read = "bullmq_exporter_events_read_total"
    eventually(lambda: exporter.metrics.value(read) is not None)
    return exporter


def total(exporter: Exporter, metric: str, **labels: str) -> float:
    return sum(exporter.metrics.samples(metric, **labels).values())


def assert_counted(exporter: Exporter, truth: Truth) -> None:
    def right() -> bool:
        assert reported(exporter) == truth
        return True

    eventually(right)
