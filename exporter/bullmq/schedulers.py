"""Job schedulers and old repeatable jobs: what they repeat, when they ran, and duplicates."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from exporter.bullmq.batches import batched
from exporter.bullmq.connection import RedisReader, Script, readable
from exporter.bullmq.keys import MAX_SAFE_INTEGER, Queue, label_text
from exporter.bullmq.rounds import Rounds
from exporter.bullmq.snapshot import QueueReading, Scheduler, SchedulerFacts

SCHEDULERS = Script("schedulers.lua")

# Schedulers that one script call reads: it holds Redis 7.0 for about 1 ms.
SCHEDULER_BATCH_SIZE = 50
# Schedulers that are read before it is known whether there is time for more.
READ_BATCH_SIZE = 250
# Schedulers whose data are compared in one round trip.
DATA_BATCH_SIZE = 250

# Schedulers to look at for each one to return: those that have ended come first, for ever.
LOOK_FACTOR = 5  # as in heads.lua

# Longer options of a job are not parsed, and longer data is not read: data of the same length is
# considered equal.
MAX_BYTES = 16 * 1024


class _Facts(NamedTuple):
    """What is known of the schedulers of a queue."""

    schedulers: tuple[Scheduler, ...]
    duplicates: int


class SchedulerReader:
    """Reads the first `most` schedulers of each queue that have not ended, and how many of them are
    duplicates.

    A duplicate is one that adds a job of the same name with the same data as another one does. A
    repeatable job's key is made from its pattern, so a changed pattern registers a second one
    beside the first, and BullMQ has changed the key's format; Open Archiver had three that synced
    the same mail (sync-scheduler.ts).
    """

    def __init__(self, redis: RedisReader, most: int) -> None:
        self._redis, self._most = redis, most
        self._rounds: Rounds[_Facts] = Rounds()

    async def read(self, readings: Iterable[QueueReading], *, seconds: float) -> SchedulerFacts:
        """What is known of these queues after a round. Raises RedisUnavailable."""
        counted = {
            reading.queue: reading.schedulers
            for reading in readings
            if reading.schedulers is not None
        }
        numbers = {queue: number for queue, number in counted.items() if number and self._most}
        known = await self._rounds.read(
            list(numbers),
            partial(self._batches, numbers),
            partial(self._read_batch, numbers),
            seconds=seconds,
        )
        # A single scheduler has no duplicate, whether it could be read or not.
        duplicates = {queue: 0 for queue, number in counted.items() if number in (0, 1)}
        return SchedulerFacts(
            {queue: facts.schedulers for queue, facts in known.items()},
            duplicates | {queue: facts.duplicates for queue, facts in known.items()},
        )

    def _batches(
        self, numbers: Mapping[Queue, int], queues: Iterable[Queue]
    ) -> Iterator[list[Queue]]:
        """Queues of together about READ_BATCH_SIZE schedulers."""
        batch: list[Queue] = []
        size = 0
        for queue in queues:
            batch.append(queue)
            size += min(numbers[queue], self._most)
            if size >= READ_BATCH_SIZE:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    async def _read_batch(
        self, numbers: Mapping[Queue, int], queues: Sequence[Queue]
    ) -> Mapping[Queue, _Facts]:
        most, now = self._most, int(time.time() * 1000)
        first = {queue: min(numbers[queue], most) for queue in queues}
        found = await _read_parts(self._redis, list(_parts(first)))
        # Those that have ended come first, for ever.
        further = {
            queue: min(numbers[queue], LOOK_FACTOR * most) - most
            for queue, some in found.items()
            if numbers[queue] > most and any(each.has_ended(now) for each in some)
        }
        more = await _read_parts(self._redis, list(_parts(further, most)))
        alive = {
            queue: tuple(each for each in (*some, *more.get(queue, ())) if not each.has_ended(now))[
                :most
            ]
            for queue, some in found.items()
        }
        duplicates = await _count_duplicates(self._redis, alive)
        return {queue: _Facts(some, duplicates[queue]) for queue, some in alive.items()}


async def read_scheduler_page(
    redis: RedisReader, queue: Queue, *, start: int, limit: int
) -> tuple[int | None, tuple[Scheduler, ...]]:
    """How many schedulers a queue has, and `limit` of them from index `start` on, the next to run
    first; None and an empty sequence if they cannot be read. Raises RedisUnavailable.
    """
    [total] = readable(await redis.pipeline([("ZCARD", queue.repeat_key)]))
    if not isinstance(total, int):
        return None, ()
    number = max(0, min(limit, total - start))
    parts = list(_parts({queue: number}, start))
    return total, (await _read_parts(redis, parts)).get(queue, ())


class _Part(NamedTuple):
    """A run of a queue's schedulers: the indexes of the first and the last."""

    queue: Queue
    first: int
    last: int


def _parts(numbers: Mapping[Queue, int], start: int = 0) -> Iterator[_Part]:
    for queue, number in numbers.items():
        for first in range(start, start + number, SCHEDULER_BATCH_SIZE):
            yield _Part(queue, first, min(first + SCHEDULER_BATCH_SIZE, start + number) - 1)


async def _read_parts(
    redis: RedisReader, parts: Sequence[_Part]
) -> dict[Queue, tuple[Scheduler, ...]]:
    found: dict[Queue, tuple[Scheduler, ...]] = {}
    unreadable: set[Queue] = set()
    for batch in _batches(parts):
        indexes = [index for part in batch for index in (part.first, part.last)]
        answers = await redis.run(
            SCHEDULERS, [part.queue.base for part in batch], (MAX_BYTES, *indexes)
        )
        for part, rows in zip(batch, answers, strict=True):
            if isinstance(rows, list):
                some = tuple(_scheduler(part.queue, row) for row in rows)
                found[part.queue] = found.get(part.queue, ()) + some
            else:
                unreadable.add(part.queue)
    return {queue: some for queue, some in found.items() if queue not in unreadable}


def _batches(parts: Iterable[_Part]) -> Iterator[list[_Part]]:
    """Parts of at most SCHEDULER_BATCH_SIZE schedulers together."""
    batch: list[_Part] = []
    size = 0
    for part in parts:
        number = part.last - part.first + 1
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
        name, pattern, every, tz, end_date = _of_key(key)
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


def _of_key(key: bytes) -> tuple[bytes, bytes | None, bytes | None, bytes | None, bytes | None]:
    """Name, pattern, every, time zone and end date of a repeatable job without a hash.

    Before BullMQ 5.0 all of it was in the key, `name:jobId:endDate:tz:pattern`, with the interval
    in milliseconds in place of a pattern (getRepeatConcatOptions).
    """
    name, *rest = key.split(b":", 4)
    if len(rest) < 4:
        return name, None, None, None, None
    _, end_date, tz, suffix = rest
    pattern, every = (None, suffix) if suffix.isdigit() else (suffix, None)
    return name, pattern, every, tz or None, end_date or None


def _whole(raw: Any) -> int | None:
    """A number that BullMQ writes, without its decimal places."""
    if not isinstance(raw, bytes) or not re.fullmatch(rb"[0-9]{1,16}(\.[0-9]+)?", raw):
        return None
    number = int(raw.partition(b".")[0])
    return number if number <= MAX_SAFE_INTEGER else None


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
            (each.queue, each.name, of_each) for each, of_each in zip(batch, data, strict=True)
        )
    for queue, number in Counter(queue for queue, _, _ in jobs).items():
        duplicates[queue] -= number
    return duplicates


async def _data(redis: RedisReader, schedulers: Sequence[Scheduler]) -> list[Any]:
    """Something for each that is equal if the data of their jobs are."""
    places = [place for each in schedulers for place in each.places]
    lengths = await redis.pipeline([("HSTRLEN", place, "data") for place in places])
    # No data is an empty object: BullMQ leaves that out of a template.
    found = [
        next((at for at in (i, i + 1) if isinstance(lengths[at], int) and lengths[at]), None)
        for i in range(0, len(places), 2)
    ]
    small = [at for at in found if at is not None and lengths[at] <= MAX_BYTES]
    answers = await redis.pipeline([("HGET", places[at], "data") for at in small])
    data = dict(zip(small, answers, strict=True))
    return [b"{}" if at is None else data.get(at, lengths[at]) for at in found]
