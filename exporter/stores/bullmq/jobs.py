"""A page of a queue's jobs, in two round trips; and all of them, batch by batch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import NamedTuple

from exporter.queues.jobs import UNBOUNDED, Job, Page, ReadLimits, too_large
from exporter.queues.json_values import parse_json
from exporter.queues.queue import Queue, State
from exporter.queues.text import MAX_SAFE_INTEGER, text
from exporter.stores.bullmq.sample import Counted, counts_of
from exporter.stores.bullmq.scripts import load_script
from exporter.stores.redis.client import RedisReader, packed_word, readable

PAGE = load_script("page.lua")

# The fields that are read of a job's hash. Attempts are `atm` since BullMQ 5.0 and `attemptsMade`
# before.
FIELDS = (
    "name",
    "data",
    "timestamp",
    "processedOn",
    "finishedOn",
    "attemptsMade",
    "atm",
    "failedReason",
    "stacktrace",
    "returnvalue",
)


# All jobs of a state are read in batches of this size, which block Redis for 0.6 ms each, up to
# this number. Open Archiver keeps 5,000 failed jobs; elsewhere there may be millions.
SCAN_BATCH = 100
SCAN_JOBS = 20_000
# A batch of more bytes is shortened: parsing and searching it blocks this process, not Redis.
SCAN_BATCH_BYTES = 512 << 10
# Bytes of jobs that are parsed before yielding to other tasks: up to 5 ms.
PARSE_BATCH_BYTES = 256 << 10
# How many jobs of a batch are read again with the next one: if none of them is still there, jobs in
# between may have been skipped. And how often in a row the scan goes back for that.
SCAN_OVERLAP = 10
SCAN_RETURNS = 3


async def read_page(
    redis: RedisReader,
    queue: Queue,
    state: State,
    *,
    start: int,
    limit: int,
    newest_first: bool,
    limits: ReadLimits,
    without: Sequence[str] = (),
    whole_within: int | None = None,
) -> Page:
    """At most `limit` jobs from index `start` on, oldest first or newest first.

    Fields in `without` are not read. With `whole_within` a page of more bytes ends early, but
    contains at least one job. A job that is removed between the two round trips is omitted. Raises
    RedisUnavailable.
    """
    order = "desc" if newest_first else "asc"
    # Without sizes all of them fit, as on nearly all pages.
    fits = min(limits.field_bytes, limits.page_bytes, whole_within or limits.page_bytes)
    has_meta, has_id, has_schedulers, sizes_of_states, ids, sizes = await redis.run(
        PAGE, [queue.base], (state, start, start + limit - 1, order, fits, *UNBOUNDED)
    )
    ended = len(ids) < limit
    if whole_within is not None and sizes:
        fitting = _fitting(sizes, whole_within, limits)
        ended = ended and fitting >= len(ids)
        ids, sizes = ids[:fitting], sizes[:fitting]
    jobs = await _read(redis, queue, state, ids, sizes=sizes, limits=limits, without=without)
    missing = 0
    # Callers that read all jobs continue; jobs that may have vanished meanwhile are checked again.
    if whole_within is None and len(jobs) < len(ids):
        without_data = set(ids) - {job.raw_id for job in jobs}
        *_, listed, _ = await redis.run(
            PAGE, [queue.base], (state, start, start + limit - 1, order, fits, *UNBOUNDED)
        )
        missing = await _count_missing(redis, queue, without_data & set(listed))
    return Page(
        has_meta == 1,
        has_schedulers == 1,
        counts_of(Counted._make((*sizes_of_states, 0)), []),
        jobs,
        tuple(ids),
        ended,
        missing,
        has_counter=has_id == 1,
    )


async def _count_missing(redis: RedisReader, queue: Queue, ids: set[bytes]) -> int:
    """How many of these, which were listed a moment ago, still have no hash."""
    return len(ids - await existing(redis, queue, tuple(ids)))


async def existing(redis: RedisReader, queue: Queue, ids: Sequence[bytes]) -> set[bytes]:
    """Which of these jobs have a hash. Raises RedisUnavailable."""
    exist = readable(await redis.pipeline([("EXISTS", queue.job_key(job_id)) for job_id in ids]))
    return {job_id for job_id, number in zip(ids, exist, strict=True) if number}


async def read_jobs(
    redis: RedisReader,
    queue: Queue,
    state: State,
    ids: Sequence[bytes],
    *,
    limits: ReadLimits,
    without: Sequence[str],
) -> tuple[Job, ...]:
    """Those of these jobs that still exist. Raises RedisUnavailable."""
    replies = readable(
        await redis.pipeline(
            [("HSTRLEN", queue.job_key(job_id), field) for job_id in ids for field in UNBOUNDED]
        )
    )
    lengths = [size if isinstance(size, int) else 0 for size in replies]
    each = len(UNBOUNDED)
    sizes = [lengths[at : at + each] for at in range(0, len(lengths), each)]
    return await _read(redis, queue, state, ids, sizes=sizes, limits=limits, without=without)


async def _read(
    redis: RedisReader,
    queue: Queue,
    state: State,
    ids: Sequence[bytes],
    *,
    sizes: Sequence[Sequence[int]],
    limits: ReadLimits,
    without: Sequence[str],
) -> tuple[Job, ...]:
    if not ids:
        return ()
    left_out = too_large(sizes, UNBOUNDED, limits) if sizes else [{}] * len(ids)
    unread = dict.fromkeys(without)
    # Nearly always these fields are read for all jobs, and packing them here takes half the time.
    usual = _Reading.of([field for field in FIELDS if field not in unread])
    readings = [
        _Reading.of([field for field in usual.fields if field not in large]) if large else usual
        for large in left_out
    ]
    commands = b"".join(
        [
            b"%b%b%b" % (reading.begin, packed_word(queue.job_key(job_id)), reading.end)
            for job_id, reading in zip(ids, readings, strict=True)
        ]
    )
    hashes = readable(await redis.packed(commands, len(ids)))
    jobs = []
    unparsed = 0
    for job_id, reading, values, large in zip(ids, readings, hashes, left_out, strict=True):
        if isinstance(values, list) and values.count(None) < len(values):
            unparsed += sum(map(len, filter(None, values)))
            if unparsed > PARSE_BATCH_BYTES:
                await asyncio.sleep(0)  # let requests be served
                unparsed = 0
            row = values
            if large or unread:
                fields = dict(zip(reading.fields, values, strict=True)) | large | unread
                row = [fields[field] for field in FIELDS]
            jobs.append(job_of(job_id, state, row))
    return tuple(jobs)


class _Reading(NamedTuple):
    """An HMGET of these fields, packed in two parts, between which the key belongs."""

    fields: Sequence[str]
    begin: bytes
    end: bytes

    @classmethod
    def of(cls, fields: Sequence[str]) -> _Reading:
        end = b"".join(packed_word(field.encode()) for field in fields)
        return cls(fields, b"*%d\r\n%b" % (2 + len(fields), packed_word(b"HMGET")), end)


class Scan:
    """All jobs of one state, newest or oldest first, within limits of time and number.

    Read in batches, so that neither Redis nor this process is blocked for long. Jobs that are added
    or removed meanwhile move the others: no job is returned twice, and if some may have been
    skipped, the scan is not complete.
    """

    def __init__(
        self,
        redis: RedisReader,
        queue: Queue,
        state: State,
        *,
        newest_first: bool,
        limits: ReadLimits,
    ) -> None:
        self._redis, self.queue, self.state = redis, queue, state
        self._newest_first, self._limits = newest_first, limits
        self.counts: Mapping[State, int] = {}  # of the queue, when the scan began
        self.seen = 0
        self.complete = False  # whether every job was seen

    async def jobs(self) -> AsyncGenerator[Job, None]:
        """Each job once. Raises RedisUnavailable."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._limits.scan_seconds
        known: set[bytes] = set()
        last: frozenset[bytes] = frozenset()
        start = returns = 0
        gap = False
        while self.seen < SCAN_JOBS and loop.time() <= deadline:
            page = await read_page(
                self._redis,
                self.queue,
                self.state,
                start=start,
                limit=SCAN_BATCH,
                newest_first=self._newest_first,
                limits=self._limits,
                whole_within=SCAN_BATCH_BYTES,
            )
            self.counts = self.counts or page.counts
            if last and last.isdisjoint(page.ids):
                if start and returns < SCAN_RETURNS:
                    returns, start = returns + 1, max(0, start - SCAN_BATCH)
                    continue
                gap = True
            returns = 0
            for job in page.jobs:
                if job.raw_id not in known:
                    known.add(job.raw_id)
                    self.seen += 1
                    yield job
            if page.ended:
                self.complete = not gap
                return
            # Advance by at least one, or a batch of one job would be read forever.
            overlap = min(SCAN_OVERLAP, len(page.ids) - 1)
            last = frozenset(page.ids[len(page.ids) - overlap :])
            start += len(page.ids) - overlap


def _fitting(sizes: Sequence[Sequence[int]], max_bytes: int, limits: ReadLimits) -> int:
    """How many of the jobs fit into `max_bytes` together; at least one."""
    left = max_bytes
    for number, job_sizes in enumerate(sizes):
        left -= sum(size for size in job_sizes if size <= limits.field_bytes)
        if left < 0 and number:
            return number
    return len(sizes)


def job_of(job_id: bytes, state: State | None, values: Sequence[bytes | None]) -> Job:
    """A job from its hash; `values` are those of FIELDS, in their order."""
    name, data, added, processed, finished, made, started, reason, stacktrace, returned = values
    traces = parse_json(stacktrace or b"[]")
    # By index, because access by name takes twice as long.
    return Job(
        text(job_id),
        job_id,
        text(name or b""),
        # BullMQ writes '{}' where an application gives no data.
        {} if data is None else parse_json(data),
        state,
        # BullMQ treats an empty reason as none.
        text(reason) if reason else None,
        integer(added),
        integer(processed),
        integer(finished),
        integer(made) or integer(started) or 0,
        traces if isinstance(traces, list) else [traces],
        parse_json(returned),
    )


def integer(raw: bytes | None) -> int | None:
    """A whole number as BullMQ writes it; None for anything else."""
    if raw is None:
        return None
    if len(raw) < 16 and raw.isdigit():
        return int(raw)
    try:
        number = int(raw) if raw.isdigit() else int(float(raw))
    except (ValueError, OverflowError):
        return None
    return number if abs(number) <= MAX_SAFE_INTEGER else None
