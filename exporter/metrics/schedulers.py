"""Job schedulers and old repeatable jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from exporter.metrics.family import LabelledQueueGauge, QueueGauge, QueueInfo
from exporter.queues.snapshot import QueueFacts, Scheduler


def _each(
    facts: QueueFacts, read: Callable[[Scheduler], int | None]
) -> Iterator[tuple[str, float]]:
    """Convert a value of each scheduler from milliseconds to seconds."""
    for label, scheduler in _by_label(facts):
        if (value := read(scheduler)) is not None:
            yield label, value / 1000


def _by_label(facts: QueueFacts) -> Iterator[tuple[str, Scheduler]]:
    # By the exposed name: two samples must not have the same labels.
    yield from {each.label: each for each in facts.schedulers.schedulers}.items()


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
        lambda _, facts: facts.schedulers.duplicates,
    ),
    LabelledQueueGauge(
        "bullmq_scheduler_next_run_timestamp_seconds",
        "When the scheduler runs next; at most 100 of a queue that have not ended: those that are "
        "overdue first, then those that were reported before.",
        "scheduler",
        lambda reading, _: reading.scheduler_runs,
    ),
    LabelledQueueGauge(
        "bullmq_scheduler_last_run_timestamp_seconds",
        "When a worker last took a job of the scheduler; absent until its first run after it was "
        "registered, and for repeatable jobs of BullMQ before 5.0.",
        "scheduler",
        lambda _, facts: _each(facts, lambda scheduler: scheduler.last_run),
    ),
    LabelledQueueGauge(
        "bullmq_scheduler_interval_seconds",
        "Interval of the scheduler; absent if it has a cron pattern instead.",
        "scheduler",
        lambda _, facts: _each(facts, lambda scheduler: scheduler.every),
    ),
    QueueInfo(
        "bullmq_scheduler_info",
        "Always 1; cron pattern and time zone of the scheduler, empty if it has none.",
        ("scheduler", "pattern", "tz"),
        lambda _, facts: (
            (label, scheduler.pattern or "", scheduler.tz or "")
            for label, scheduler in _by_label(facts)
        ),
    ),
)
