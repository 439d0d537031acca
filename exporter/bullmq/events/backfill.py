"""Finds the jobs whose end was missed in the events, among those that the queue still keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator

from exporter.bullmq.connection import RedisReader, RedisRefused, scored
from exporter.bullmq.events import job_facts
from exporter.bullmq.events.job_facts import JobFacts
from exporter.bullmq.events.queue_event_counter import QueueEventCounter
from exporter.bullmq.events.stream import Gap
from exporter.bullmq.events.tallies import Count
from exporter.bullmq.keys import State, remembered_id

# The sets of finished jobs (their scores are `finishedOn`), and what a job there counts as. Failed
# jobs come first: where more are found than can have been missed, it is they that must be reported.
FINISHED = {State.FAILED: Count.FAILED, State.COMPLETED: Count.COMPLETED}

# How many jobs one page reads: 1,000 ids hold Redis 7.0 for 0.3 ms.
PAGE = 1000


async def find_missed_jobs(
    redis: RedisReader, counter: QueueEventCounter, gap: Gap
) -> AsyncIterator[tuple[Count, dict[bytes, JobFacts]]]:
    """Page by page the jobs that finished in the gap without an event that was read, by state.

    At most as many as events were missed. Raises RedisUnavailable.
    """
    left = gap.missed
    seen = counter.seen()
    since, until = counter.search_window(gap)
    for state, count in FINISHED.items():
        key = counter.queue.base + state.encode()
        # By score, not by offset: jobs leave at the lower end while we read.
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
                break  # no set: what it would show stays missed
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
                last = b"(" + last  # a page of one millisecond: the rest of it is left out
            start, at_start = last, {job_id for job_id in scores if scores[job_id] == end}
