"""Schedulers that are registered more than once: each makes its job run once too often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from exporter.bullmq.batches import batched
from exporter.bullmq.connection import RedisReader, scored
from exporter.bullmq.keys import Queue
from exporter.bullmq.snapshot import QueueReading

# With the default of 100 schedulers each, one round trip is at most 500 commands.
BATCH = 5

# Data of more bytes are not read: those of the same length are taken as the same.
LARGEST = 16 * 1024


class _Scheduler(NamedTuple):
    queue: Queue
    key: bytes
    at: bytes  # when it runs next, as Redis writes the score

    @property
    def places(self) -> tuple[bytes, bytes]:
        """Where the data of its jobs are: in its template, or else in its next job.

        A repeatable job has no template. The job's id: BullMQ's Repeat.getRepeatDelayedJobId().
        """
        next_job = self.queue.job_key(b"repeat:%b:%b" % (self.key, self.at))
        return self.queue.scheduler_key(self.key), next_job


async def count_duplicates(
    redis: RedisReader, readings: Iterable[QueueReading], most: int
) -> dict[Queue, int]:
    """How many of each queue's schedulers, of the first `most`, do what another one does already.

    That is: add a job of the same name with the same data. A repeatable job's key is made from its
    pattern, so a changed pattern registers a second one beside the first, and BullMQ has changed
    the key's format; Open Archiver had three that synced the same mail (sync-scheduler.ts). No
    entry where the schedulers could not be read. Raises RedisUnavailable.
    """
    counted = [reading for reading in readings if reading.schedulers is not None]
    duplicates = {reading.queue: 0 for reading in counted if reading.schedulers in (0, 1)}
    several = [reading.queue for reading in counted if reading.queue not in duplicates]
    for batch in batched(several if most else (), BATCH):
        answers = await redis.pipeline(
            [("ZRANGE", queue.repeat_key, 0, most - 1, "WITHSCORES") for queue in batch]
        )
        schedulers = [
            _Scheduler(queue, key, at)
            for queue, answer in zip(batch, answers, strict=True)
            if isinstance(answer, list)
            for key, at in scored(answer)
        ]
        names = await _names(redis, schedulers)
        times = Counter((each.queue, name) for each, name in names.items())
        namesakes = [each for each in names if times[each.queue, names[each]] > 1]
        jobs = {
            (each.queue, names[each], data)
            for each, data in zip(namesakes, await _data(redis, namesakes), strict=True)
        }
        for queue, answer in zip(batch, answers, strict=True):
            if isinstance(answer, list):
                duplicates[queue] = sum(each.queue == queue for each in namesakes) - sum(
                    of == queue for of, _, _ in jobs
                )
    return duplicates


async def _names(redis: RedisReader, schedulers: Sequence[_Scheduler]) -> dict[_Scheduler, bytes]:
    """The names of the jobs that they add, but for those that cannot be read."""
    answers = await redis.pipeline([("HGET", each.places[0], "name") for each in schedulers])
    return {
        # Before BullMQ 5.0 there was no hash; the key was `name:jobId:endDate:tz:pattern`.
        each: each.key.partition(b":")[0] if name is None else name
        for each, name in zip(schedulers, answers, strict=True)
        if not isinstance(name, Exception)
    }


async def _data(redis: RedisReader, schedulers: Sequence[_Scheduler]) -> list[Any]:
    """Something for each that is equal if the data of their jobs are."""
    places = [place for each in schedulers for place in each.places]
    lengths = await redis.pipeline([("HSTRLEN", place, "data") for place in places])
    # No data is an empty object: BullMQ leaves that out of a template.
    found = [
        next((at for at in (i, i + 1) if isinstance(lengths[at], int) and lengths[at]), None)
        for i in range(0, len(places), 2)
    ]
    small = [at for at in found if at is not None and lengths[at] <= LARGEST]
    answers = await redis.pipeline([("HGET", places[at], "data") for at in small])
    data = dict(zip(small, answers, strict=True))
    return [b"{}" if at is None else data.get(at, lengths[at]) for at in found]
