"""The schedulers of each queue, and how many of them are duplicates."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from exporter.concurrency.batches import batched
from exporter.concurrency.rounds import ReadInRounds
from exporter.queues.queue import Queue
from exporter.queues.snapshot import QueueReading, QueueSchedulers, Scheduler
from exporter.settings import Settings
from exporter.stores.bullmq.schedulers import (
    MAX_BYTES,
    places_of,
    read_named_schedulers,
    read_schedulers,
)
from exporter.stores.redis.client import RedisReader

# Schedulers that are read before checking whether there is time for more.
READ_BATCH_SIZE = 250
# Schedulers whose data are compared in one round trip. Data of the same length over MAX_BYTES is
# considered equal.
DATA_BATCH_SIZE = 250

# Schedulers to look at for each one to return: those that have ended stay first forever.
ENDED_FACTOR = 5  # as in edges.lua


class Schedulers(ReadInRounds[QueueSchedulers]):
    """Reads `max_schedulers` schedulers of each queue that have not ended, the same as the poll,
    and counts how many of them are duplicates.

    A duplicate is one that adds a job of the same name with the same data as another one does. A
    repeatable job's key is made from its pattern, so a changed pattern registers a second one
    next to the first, and BullMQ has changed the key's format; Open Archiver had three that synced
    the same mail (sync-scheduler.ts).
    """

    name = "schedulers"
    max_share = 1.0
    problem = "schedulers cannot be read"
    consequence = (
        "bullmq_queue_duplicate_schedulers and bullmq_scheduler_last_run_timestamp_seconds, "
        "_interval_seconds and _info are absent and BullMQScheduleDuplicated cannot fire"
    )

    def __init__(self, redis: RedisReader, settings: Settings) -> None:
        super().__init__(settings.discovery_interval)
        self._redis, self._limit = redis, settings.max_schedulers

    async def collect(
        self, readings: Sequence[QueueReading], *, seconds: float
    ) -> Mapping[Queue, QueueSchedulers]:
        """The schedulers that are known after a round. Raises RedisUnavailable."""
        counted = {
            reading.queue: reading.schedulers
            for reading in readings
            if reading.schedulers is not None
        }
        numbers = {queue: number for queue, number in counted.items() if number and self._limit}
        some = {each.queue: each.some_schedulers for each in readings if each.some_schedulers}
        known = await self._rounds.read(
            list(numbers),
            partial(self._batches, numbers),
            partial(self._read_batch, numbers, some),
            seconds=seconds,
        )
        # A single scheduler has no duplicate, whether it could be read or not.
        single = {
            queue: QueueSchedulers((), duplicates=0)
            for queue, number in counted.items()
            if number in (0, 1)
        }
        return single | dict(known)

    def _batches(
        self, numbers: Mapping[Queue, int], queues: Iterable[Queue]
    ) -> Iterator[list[Queue]]:
        """Batches of queues that together have about READ_BATCH_SIZE schedulers."""
        batch: list[Queue] = []
        size = 0
        for queue in queues:
            batch.append(queue)
            size += min(numbers[queue], self._limit)
            if size >= READ_BATCH_SIZE:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    async def _read_batch(
        self,
        numbers: Mapping[Queue, int],
        some: Mapping[Queue, Sequence[bytes]],
        queues: Sequence[Queue],
    ) -> Mapping[Queue, QueueSchedulers]:
        limit, now = self._limit, int(time.time() * 1000)
        named = {queue: some[queue] for queue in queues if queue in some}
        first = {queue: min(numbers[queue], limit) for queue in queues if queue not in some}
        found = await read_schedulers(self._redis, first)
        # Those that have ended stay first forever.
        further = {
            queue: min(numbers[queue], ENDED_FACTOR * limit) - limit
            for queue, schedulers in found.items()
            if numbers[queue] > limit and any(each.has_ended(now) for each in schedulers)
        }
        more = await read_schedulers(self._redis, further, start=limit)
        found = {queue: (*schedulers, *more.get(queue, ())) for queue, schedulers in found.items()}
        found |= await read_named_schedulers(self._redis, named)
        alive = {
            queue: tuple(each for each in schedulers if not each.has_ended(now))[:limit]
            for queue, schedulers in found.items()
        }
        duplicates = await _count_duplicates(self._redis, alive)
        return {
            queue: QueueSchedulers(schedulers, duplicates[queue])
            for queue, schedulers in alive.items()
        }


async def _count_duplicates(
    redis: RedisReader, found: Mapping[Queue, Sequence[Scheduler]]
) -> dict[Queue, int]:
    # Without those whose name cannot be read.
    named = [each for some in found.values() for each in some if each.name is not None]
    times = Counter((each.queue, each.name) for each in named)
    namesakes = [each for each in named if times[each.queue, each.name] > 1]
    duplicates = dict.fromkeys(found, 0)
    duplicates.update(Counter(each.queue for each in namesakes))
    jobs: set[tuple[Queue, str | None, Any]] = set()
    for batch in batched(namesakes, DATA_BATCH_SIZE):
        data = await _data(redis, batch)
        jobs.update(
            (each.queue, each.name, job_data) for each, job_data in zip(batch, data, strict=True)
        )
    for queue, number in Counter(queue for queue, _, _ in jobs).items():
        duplicates[queue] -= number
    return duplicates


async def _data(redis: RedisReader, schedulers: Sequence[Scheduler]) -> list[Any]:
    """A value for each that is equal for schedulers with equal job data."""
    places = [place for each in schedulers for place in places_of(each)]
    lengths = await redis.pipeline([("HSTRLEN", place, "data") for place in places])
    # No data is an empty object: BullMQ leaves that out of a template.
    found = [
        next((at for at in range(i, i + 3) if isinstance(lengths[at], int) and lengths[at]), None)
        for i in range(0, len(places), 3)
    ]
    small = [at for at in found if at is not None and lengths[at] <= MAX_BYTES]
    answers = await redis.pipeline([("HGET", places[at], "data") for at in small])
    data = dict(zip(small, answers, strict=True))
    return [b"{}" if at is None else data.get(at, lengths[at]) for at in found]
