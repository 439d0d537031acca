"""Job schedulers and old repeatable jobs: what they repeat, and when they ran."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from exporter.concurrency.batches import batched
from exporter.queues.queue import Queue
from exporter.queues.snapshot import Scheduler
from exporter.queues.text import MAX_SAFE_INTEGER, label_text
from exporter.stores.bullmq import repeatables
from exporter.stores.bullmq.keys import repeat_key, scheduler_key
from exporter.stores.bullmq.scripts import load_script
from exporter.stores.redis.client import Command, RedisReader, readable

SCHEDULERS = load_script("schedulers.lua")

# Schedulers that one script call reads: it blocks Redis 7.0 for about 1 ms.
SCHEDULER_BATCH_SIZE = 50

# Longer options of a job are not parsed, and longer data is not read.
MAX_BYTES = 16 * 1024


def places_of(scheduler: Scheduler) -> tuple[bytes, bytes, bytes]:
    """The keys of the data of its jobs: its template, otherwise its next job.

    A repeatable job has no template. The job's id: BullMQ's Repeat.getRepeatDelayedJobId(), and
    Bull's.
    """
    queue, key, at = scheduler.queue, scheduler.key, scheduler.at
    next_job = queue.job_key(b"repeat:%b:%b" % (key, at))
    next_job_of_bull = queue.job_key(repeatables.next_job_id(key, at))
    return scheduler_key(queue, key), next_job, next_job_of_bull


async def read_scheduler_page(
    redis: RedisReader, queue: Queue, *, start: int, limit: int
) -> tuple[int | None, tuple[Scheduler, ...]]:
    """How many schedulers a queue has, and `limit` of them from index `start` on, the next to run
    first; None and an empty sequence if they cannot be read. Raises RedisUnavailable.
    """
    [total] = readable(await redis.pipeline([("ZCARD", repeat_key(queue))]))
    if not isinstance(total, int):
        return None, ()
    number = max(0, min(limit, total - start))
    return total, (await read_schedulers(redis, {queue: number}, start=start)).get(queue, ())


class _Part(NamedTuple):
    """Some of a queue's schedulers: these, or those from one index to another."""

    queue: Queue
    names: Sequence[bytes] = ()
    first: int = 0
    last: int = -1

    @property
    def size(self) -> int:
        return len(self.names) or self.last - self.first + 1

    @property
    def arguments(self) -> Command:
        return (len(self.names), *self.names) if self.names else (0, self.first, self.last)


def _parts(numbers: Mapping[Queue, int], start: int) -> Iterator[_Part]:
    for queue, number in numbers.items():
        for first in range(start, start + number, SCHEDULER_BATCH_SIZE):
            last = min(first + SCHEDULER_BATCH_SIZE, start + number) - 1
            yield _Part(queue, first=first, last=last)


async def read_schedulers(
    redis: RedisReader, numbers: Mapping[Queue, int], *, start: int = 0
) -> dict[Queue, tuple[Scheduler, ...]]:
    """The given number of schedulers of each queue from index `start` on, the next to run first.

    Queues whose schedulers cannot be read have no entry. Raises RedisUnavailable.
    """
    return await _read(redis, _parts(numbers, start))


async def read_named_schedulers(
    redis: RedisReader, names: Mapping[Queue, Sequence[bytes]]
) -> dict[Queue, tuple[Scheduler, ...]]:
    """Those of these schedulers that exist.

    Queues whose schedulers cannot be read have no entry. Raises RedisUnavailable.
    """
    parts = (
        _Part(queue, batch)
        for queue, keys in names.items()
        for batch in batched(keys, SCHEDULER_BATCH_SIZE)
    )
    return await _read(redis, parts)


async def _read(redis: RedisReader, parts: Iterable[_Part]) -> dict[Queue, tuple[Scheduler, ...]]:
    found: dict[Queue, tuple[Scheduler, ...]] = {}
    unreadable: set[Queue] = set()
    for batch in _batches(parts):
        arguments = [argument for part in batch for argument in part.arguments]
        answers = await redis.run(
            SCHEDULERS, [part.queue.base for part in batch], (MAX_BYTES, *arguments)
        )
        for part, rows in zip(batch, answers, strict=True):
            if isinstance(rows, list):
                some = tuple(_scheduler(part.queue, row) for row in rows)
                found[part.queue] = found.get(part.queue, ()) + some
            else:
                unreadable.add(part.queue)
    found = await repeatables.with_runs(redis, found)
    return {queue: some for queue, some in found.items() if queue not in unreadable}


def _batches(parts: Iterable[_Part]) -> Iterator[list[_Part]]:
    """Parts of at most SCHEDULER_BATCH_SIZE schedulers together."""
    batch: list[_Part] = []
    size = 0
    for part in parts:
        number = part.size
        if batch and size + number > SCHEDULER_BATCH_SIZE:
            yield batch
            batch, size = [], 0
        batch.append(part)
        size += number
    if batch:
        yield batch


def _scheduler(queue: Queue, row: Sequence[Any]) -> Scheduler:
    key, label, at, added, last_run, *fields = row
    raw = [field if isinstance(field, bytes) else None for field in fields]
    name, pattern, tz, every, limit, iterations, end_date = raw
    if name is None and not isinstance(fields[0], Exception):
        name, pattern, every, tz, end_date = repeatables.parse_key(key)
    return Scheduler(
        queue,
        key,
        at,
        label_text(label),
        None if name is None else label_text(name),
        label_text(pattern) if pattern else None,
        _whole(every),
        label_text(tz) if tz else None,
        _whole(limit),
        _whole(end_date),
        _whole(iterations),
        _whole(at),
        _whole(added),
        _whole(last_run),
    )


def _whole(raw: Any) -> int | None:
    """A number that BullMQ writes, without its decimal places."""
    if not isinstance(raw, bytes) or not re.fullmatch(rb"[0-9]{1,16}(\.[0-9]+)?", raw):
        return None
    number = int(raw.partition(b".")[0])
    return number if number <= MAX_SAFE_INTEGER else None
