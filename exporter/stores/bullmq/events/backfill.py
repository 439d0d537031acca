"""Counts kept jobs whose final event was missed."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator, Container, Iterable, Mapping
from typing import NamedTuple

from exporter.queues.event_log import Gap
from exporter.queues.job_facts import JobFacts
from exporter.queues.queue import Queue, State
from exporter.queues.queue_event_counter import CLOCK_SKEW_MS, QueueEventCounter
from exporter.queues.tallies import Count
from exporter.queues.text import remembered_id
from exporter.stores.bullmq.events import job_facts
from exporter.stores.bullmq.events.scarce_events import ScarceEvents
from exporter.stores.redis.client import RedisReader, RedisRefused, scored

log = logging.getLogger(__name__)

# The sets of finished jobs (their scores are `finishedOn`), and what a job there counts as. Failed
# jobs come first: if more jobs are found than can have been missed, failures are the ones that must
# be reported.
FINISHED = {State.FAILED: Count.FAILED, State.COMPLETED: Count.COMPLETED}

# How many jobs one page reads: 1,000 ids block Redis 7.0 for 0.3 ms.
PAGE = 1000


class _Running(NamedTuple):
    """The gap that is being filled, and its pages that are still to be read."""

    counter: QueueEventCounter
    gap: Gap
    pages: AsyncIterator[tuple[Count, dict[bytes, JobFacts]]]


class Backfill:
    """Fills gaps one after the other. `consistent` is held while anything is counted.

    `scarce` is None if it is unknown how many events were missed: then all jobs that finished in a
    gap are counted.
    """

    def __init__(
        self, redis: RedisReader, scarce: ScarceEvents | None, consistent: asyncio.Lock
    ) -> None:
        self._redis, self._scarce, self._consistent = redis, scarce, consistent
        self._gapped: set[Queue] = set()
        self._running: _Running | None = None

    @property
    def is_running(self) -> bool:
        return self._running is not None

    def note_gap(self, queue: Queue) -> None:
        """Note that the counter of this queue has a gap."""
        self._gapped.add(queue)

    def restart(self, counters: Iterable[QueueEventCounter]) -> None:
        """Fill the gaps of these counters: other queues are watched now."""
        self._gapped = {counter.queue for counter in counters if counter.gaps}

    async def run_page(
        self, counters: Mapping[Queue, QueueEventCounter], behind: Container[Queue]
    ) -> None:
        """Count some of the finished jobs whose events were missed, as far as they are kept.

        One page in each step of the follower, so that the streams are read meanwhile. Raises
        RedisUnavailable.
        """
        if self._running is None:
            self._running = self._next(counters, behind)
        if self._running is None:
            return
        counter, gap, pages = self._running
        try:
            async for count, found in pages:
                async with self._consistent:
                    counter.backfill(count, found)
                    if self._scarce is not None:
                        self._scarce.note_backfilled(counter, count, found.values())
                is_off = self._scarce is not None and self._scarce.is_off(counter)
                log.log(
                    logging.DEBUG if is_off else logging.WARNING,
                    "missed jobs are counted, as far as they are kept",
                    extra={"queue": counter.queue.name, "what": count.name, "count": len(found)},
                )
                return
        except BaseException:
            self._running = None  # start again; no job is counted twice
            raise
        async with self._consistent:
            if gap in counter.gaps:
                counter.gaps.remove(gap)
        self._running = None

    def _next(
        self, counters: Mapping[Queue, QueueEventCounter], behind: Container[Queue]
    ) -> _Running | None:
        now = time.monotonic()
        for queue in tuple(self._gapped):
            counter = counters.get(queue)
            if counter is None or not counter.gaps:
                self._gapped.discard(queue)
                continue
            # If there are no further events, the clock shows that the end of a gap has passed.
            waited = now - counter.gap_noted_at >= 3 * CLOCK_SKEW_MS / 1000
            for gap in counter.gaps:
                if counter.is_past(gap) or (waited and queue not in behind):
                    limit = sys.maxsize if self._scarce is None else gap.missed
                    pages = find_missed_jobs(self._redis, counter, gap, limit)
                    return _Running(counter, gap, pages)
        return None


async def find_missed_jobs(
    redis: RedisReader, counter: QueueEventCounter, gap: Gap, limit: int
) -> AsyncIterator[tuple[Count, dict[bytes, JobFacts]]]:
    """Page by page the jobs that finished in the gap without an event that was read, by state.

    At most `limit`: no more than events were missed. Raises RedisUnavailable.
    """
    left = limit
    seen = counter.seen()
    since, until = counter.search_window(gap)
    for state, count in FINISHED.items():
        key = counter.queue.base + state.encode()
        # By score, not by offset, because jobs are removed at the lower end meanwhile.
        start, at_start = b"%d" % since, set[bytes]()
        while left > 0:
            try:
                row = scored(
                    await redis.command(
                        b"ZRANGEBYSCORE", key, start, until, "WITHSCORES", "LIMIT", 0, PAGE
                    )
                )
            except RedisRefused as error:
                if "WRONGTYPE" not in str(error):
                    raise
                break  # not a set: its jobs stay missed
            scores = dict(row)
            new = scores.keys() - at_start
            missed = [job_id for job_id in new if remembered_id(job_id) not in seen]
            if missed:
                found = await job_facts.ask(redis, counter.queue, missed[:left])
                left -= len(found)
                yield count, found
            if len(scores) < PAGE:
                break
            end = last = row[-1][1]
            if at_start >= scores.keys():
                last = b"(" + last  # all of one millisecond: its rest is skipped
            start, at_start = last, {job_id for job_id in scores if scores[job_id] == end}
