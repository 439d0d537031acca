"""Counts finished jobs from other data of queues whose streams keep too few events to be read."""

from __future__ import annotations

import logging
from collections.abc import Collection, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from exporter.queues.event_log import TINY_MAX_LEN, milliseconds
from exporter.queues.job_facts import JobFacts
from exporter.queues.queue import Queue
from exporter.queues.queue_event_counter import CLOCK_SKEW_MS, QueueEventCounter
from exporter.queues.tallies import Count
from exporter.stores.bullmq.keys import meta_key
from exporter.stores.redis.client import RedisReader, readable

log = logging.getLogger(__name__)

# If its limit does not show that a queue keeps too few events (TINY_MAX_LEN), checks do: the stream
# has at most TINY_LENGTH entries, and most new ones were missed MAX_POOR_CHECKS times in a row.
# This ends after MIN_GOOD_CHECKS checks that found new events and none missed.
TINY_LENGTH = 2 * TINY_MAX_LEN
MAX_POOR_CHECKS = 3
MIN_GOOD_CHECKS = 12

# BullMQ's own counts, if a worker has the option `metrics`: collectMetrics.lua of 5.56.3 and 6.7.0
# adds 1 to `count` when a job finishes, in the same script that writes its event.
METRICS = {Count.COMPLETED: b"metrics:completed", Count.FAILED: b"metrics:failed"}


@dataclass
class _Sample:
    """BullMQ's own counts at one moment, and the time up to which events had been read then."""

    at: int  # ms
    counts: dict[Count, int]
    checked: bool = False  # whether the stream was checked since, so that all gaps are known


@dataclass
class _Base:
    """The basis of comparison: the first sample, and our own counts at that moment."""

    sample: _Sample
    ours: dict[Count, int]


@dataclass
class _Scarce:
    """What is known of one queue."""

    poor_checks: int = 0
    good_checks: int = 0
    max_len: int | None = None
    off: bool = False
    base: _Base | None = None
    sample: _Sample | None = None  # not applied yet


class ScarceEvents:
    """Detects queues that keep too few events, and counts the jobs that finish there.

    BullMQ's counts show how many jobs have finished since they were first read. If we have counted
    fewer, from events and from the sets of finished jobs, the rest is counted without a name. A
    sample is applied when all earlier events have been read and all earlier gaps have been
    backfilled, so that no job is counted twice.
    """

    def __init__(self, redis: RedisReader) -> None:
        self._redis = redis
        self._known: dict[QueueEventCounter, _Scarce] = {}
        self._due: set[QueueEventCounter] = set()  # to be read next

    def is_off(self, counter: QueueEventCounter) -> bool:
        known = self._known.get(counter)
        return known is not None and known.off

    @property
    def off(self) -> Collection[QueueEventCounter]:
        """The queues that keep too few events."""
        return [counter for counter, known in self._known.items() if known.off]

    def forget(self, counter: QueueEventCounter) -> None:
        """Forget a queue that was removed."""
        self._known.pop(counter, None)
        self._due.discard(counter)

    def note_check(self, counter: QueueEventCounter, missed: int, read: int, length: int) -> None:
        """Note how many events a check found missed and read, and the stream's current length."""
        known = self._known.get(counter)
        if known is None:
            if not missed or length > TINY_LENGTH:
                return
            known = self._known[counter] = _Scarce()
        if missed > read:
            known.poor_checks, known.good_checks = known.poor_checks + 1, 0
        elif read and not missed:
            known.poor_checks, known.good_checks = 0, known.good_checks + 1
        if known.sample is not None:
            known.sample.checked = True
        self._due.add(counter)

    def note_backfilled(
        self, counter: QueueEventCounter, count: Count, found: Iterable[JobFacts]
    ) -> None:
        """Note that jobs of a gap were counted; those from before `base` belong to it.

        A job that finished about when `base` was taken may be in the counts after it, whatever the
        gap: it is assumed to be, so that none is counted twice.
        """
        known = self._known.get(counter)
        if known and known.base:
            before = known.base.sample.at - CLOCK_SKEW_MS
            known.base.ours[count] += sum(each.finished <= before for each in found)

    def apply(self, behind: Container[Queue]) -> None:
        """Count what the samples show, except for queues with unread events."""
        for counter, known in self._known.items():
            sample = known.sample
            if sample is None or not sample.checked or counter.queue in behind:
                continue
            if all(gap.since > sample.at for gap in counter.gaps):
                known.sample = None
                self._apply(counter, known, sample)

    def _apply(self, counter: QueueEventCounter, known: _Scarce, sample: _Sample) -> None:
        base = known.base
        if base is None:
            return
        for count, number in sample.counts.items():
            before = base.sample.counts[count]
            if number < before:
                known.base = None  # the queue was created again
                return
            more = base.ours[count] + number - before - counter.counted(count)
            if more > 0:
                counter.count_unknown(count, more)

    async def ask(self) -> None:
        """Read `maxLen` and BullMQ's counts of the queues that were checked.

        Raises RedisUnavailable.
        """
        due, self._due = [each for each in self._due if each in self._known], set()
        if not due:
            return
        answers = readable(
            await self._redis.pipeline(
                [
                    command
                    for counter in due
                    for command in (
                        (b"HGET", meta_key(counter.queue), b"opts.maxLenEvents"),
                        *(
                            (b"HGET", counter.queue.base + key, b"count")
                            for key in METRICS.values()
                        ),
                    )
                ]
            )
        )
        for at, counter in enumerate(due):
            max_len, *counts = answers[at * 3 : at * 3 + 3]
            known = self._known[counter]
            known.max_len = _number(max_len)
            self._decide(counter, known)
            if self.is_off(counter):  # it may have been forgotten
                self._take(counter, known, [_number(count) for count in counts])

    def _take(
        self, counter: QueueEventCounter, known: _Scarce, numbers: Sequence[int | None]
    ) -> None:
        # Without a hash, no worker with the option has finished a job yet: the count is 0.
        counts = {count: number or 0 for count, number in zip(METRICS, numbers, strict=True)}
        sample = _Sample(milliseconds(counter.cursor.position), counts)
        if known.base is None:
            # Jobs that finished since the last read are assumed to be counted: it is better to
            # count too few than some twice.
            known.base = _Base(sample, {count: counter.counted(count) for count in METRICS})
        elif known.sample is None:
            known.sample = sample

    def _decide(self, counter: QueueEventCounter, known: _Scarce) -> None:
        """Decide whether the queue keeps too few events, and log when that changes."""
        tiny = known.max_len is not None and known.max_len <= TINY_MAX_LEN
        poor = known.poor_checks >= MAX_POOR_CHECKS
        if not known.off and not tiny and not poor:
            if known.good_checks >= MIN_GOOD_CHECKS:
                self.forget(counter)
            return
        if not known.off:
            known.off = True
            log.warning(
                "the queue keeps too few events to be read; set streams.events.maxLen of its Queue "
                "to 10000",
                extra={"queue": counter.queue.name, "max_len": known.max_len},
            )
            counter.note_events_off(True)
        elif not tiny and known.good_checks >= MIN_GOOD_CHECKS:
            log.info("the queue keeps enough events again", extra={"queue": counter.queue.name})
            counter.note_events_off(False)
            self.forget(counter)


def _number(raw: Any) -> int | None:
    try:
        return int(raw)
    except (TypeError, ValueError):
        return None
