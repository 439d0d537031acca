"""New counters show 0 to Prometheus first; otherwise their first count would be lost.

Prometheus does not count the first value of a series as an increase, so a first failure that
appears together with its series would be lost. A new series therefore shows 0 to Prometheus for one
scrape interval, whoever else reads the page meanwhile. This depends on time only, because two
Prometheus servers behind one address cannot be distinguished.
"""

from __future__ import annotations

from collections.abc import Mapping

from exporter.concurrency.batches import batched
from exporter.metrics.family import COMPARE_BATCH_SIZE, Work
from exporter.queues.queue import Queue
from exporter.queues.tallies import QueueTallies, Tallies

# Scrapes are not always on time.
TOLERANCE = 1.1

FAILURE_REASONS = "bullmq_job_failure_reasons_total"
RETRY_REASONS = "bullmq_job_retry_reasons_total"

# A job's name, a family by reason and a fingerprint, or None for the counter of the queue itself.
Name = str | tuple[str, str] | None
# The series that show 0.
Held = Mapping[Queue, frozenset[Name]]


class NewSeries:
    """The series of one target that are new to Prometheus.

    `scrape_interval` is the longest time between two scrapes, in seconds; 0 holds nothing back.
    """

    def __init__(self, scrape_interval: float) -> None:
        self._hold = scrape_interval * TOLERANCE
        self._known: Mapping[Queue, QueueTallies] = {}
        self._held: dict[Queue, dict[Name, float]] = {}  # until when they are held, monotonic

    def update(self, tallies: Tallies, *, scraped: bool, now: float) -> Work[Held]:
        """The series that show 0 among what is published now (a monotonic time).

        `scraped`: whether any Prometheus has scraped us yet; before that all are new.
        """
        if not self._hold:
            return {}
        known = self._known if scraped else {}
        for some in batched(tallies.queues.items(), COMPARE_BATCH_SIZE):
            yield
            for queue, counted in some:
                before = known.get(queue)
                if before is not counted and (new := _names(counted) - _names(before)):
                    until = self._held.setdefault(queue, {})
                    until.update(dict.fromkeys(new, now + self._hold))
        if scraped:
            self._known = tallies.queues
        for queue in [queue for queue, until in self._held.items() if min(until.values()) <= now]:
            left = {name: at for name, at in self._held.pop(queue).items() if at > now}
            if left:
                self._held[queue] = left
        return {queue: frozenset(until) for queue, until in self._held.items()}


def _names(counted: QueueTallies | None) -> set[Name]:
    """The series that are new in this process: restored ones are known to Prometheus."""
    if counted is None:
        return set()
    names: set[Name] = {name for name, tally in counted.by_name.items() if not tally.restored}
    if counted.reasons is not None:
        for family, by_reason in (
            (FAILURE_REASONS, counted.reasons.failed),
            (RETRY_REASONS, counted.reasons.retried),
        ):
            names |= {(family, each) for each, count in by_reason.items() if not count.restored}
    return names if counted.restored else {None, *names}
