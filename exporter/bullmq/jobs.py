"""A page of a queue's jobs, in two round trips; and all of them, page by page."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from exporter.bullmq.connection import RedisReader, Script
from exporter.bullmq.keys import Queue, State, text
from exporter.bullmq.poll import LATEST, counts_of

PAGE = Script("page.lua")

# What is read of a job's hash. Attempts are `atm` since BullMQ 5.0 and `attemptsMade` before.
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
# The fields that an application can fill with anything, and how many bytes of one field and of all
# of them a page holds: 1,000 jobs of 353 kB each kept the process busy for 16 s and took 3 GB. What
# is more is left out, and said to be.
UNBOUNDED = ("data", "failedReason", "stacktrace", "returnvalue")
FIELD_BYTES = 1 << 20
PAGE_BYTES = 16 << 20

# All jobs of a state are read in such pages, which hold Redis for 0.6 ms each, and no further than
# this. Open Archiver keeps 5,000 failed jobs; elsewhere there may be millions.
SCAN_BATCH = 100
SCAN_SECONDS = 5.0
SCAN_JOBS = 20_000
SCAN_FIELD_BYTES = 64 << 10
SCAN_BATCH_BYTES = 2 << 20


@dataclass(frozen=True, slots=True)
class Job:
    """A job as BullMQ's Job.fromJSON reads its hash. Times are epoch milliseconds."""

    id: str
    name: str
    data: Any
    state: State | None  # None: in none of the queue's lists
    failed_reason: str | None
    timestamp: int | None
    processed_on: int | None
    finished_on: int | None
    attempts_made: int
    stacktrace: list[Any]
    return_value: Any

    @property
    def ingestion_source(self) -> Any:
        """Which mail source of Open Archiver the job is for, or None."""
        return self.data.get("ingestionSourceId") if isinstance(self.data, dict) else None


@dataclass(frozen=True, slots=True)
class Page:
    """Part of the jobs of one state, and the counts of the same moment."""

    exists: bool  # whether Redis knows the queue
    counts: Mapping[State, int]
    jobs: tuple[Job, ...]
    listed: int = 0  # how many ids there were, those of vanished jobs among them


async def read_page(
    redis: RedisReader,
    queue: Queue,
    state: State,
    *,
    start: int,
    limit: int,
    newest_first: bool,
    field_bytes: int = FIELD_BYTES,
    page_bytes: int = PAGE_BYTES,
) -> Page:
    """At most `limit` jobs from index `start` on, oldest first or newest first.

    A job that is removed between the two round trips is left out. Raises RedisUnavailable.
    """
    exists, _, counts, ids, sizes = await redis.run(
        PAGE,
        [queue.base],
        (state, start, start + limit - 1, "desc" if newest_first else "asc", *UNBOUNDED),
    )
    left_out = too_large(sizes, UNBOUNDED, field_bytes, page_bytes)
    wanted = [[field for field in FIELDS if field not in large] for large in left_out]
    hashes = await redis.pipeline(
        [
            ("HMGET", queue.job_key(job_id), *fields)
            for job_id, fields in zip(ids, wanted, strict=True)
        ]
    )
    jobs = (
        job_of(job_id, state, {**dict(zip(fields, values, strict=True)), **large})
        for job_id, fields, values, large in zip(ids, wanted, hashes, left_out, strict=True)
        if isinstance(values, list) and any(value is not None for value in values)
    )
    return Page(bool(exists), counts_of(counts, []), tuple(jobs), len(ids))


class Scan:
    """All jobs of one state, newest or oldest first, within a time and a number.

    Pages follow one another, so that neither Redis nor we are held for long. What is added in the
    meantime moves the rest down: a job that was seen already is not seen again.
    """

    def __init__(
        self, redis: RedisReader, queue: Queue, state: State, *, newest_first: bool
    ) -> None:
        self._redis, self.queue, self._state = redis, queue, state
        self._newest_first = newest_first
        self.counts: Mapping[State, int] = {}  # of the queue, when it began
        self.seen = 0
        self.complete = False  # whether the end was reached

    async def jobs(self) -> AsyncGenerator[Job, None]:
        """Each job once. Raises RedisUnavailable."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SCAN_SECONDS
        known: set[str] = set()
        for start in range(0, SCAN_JOBS, SCAN_BATCH):
            page = await read_page(
                self._redis,
                self.queue,
                self._state,
                start=start,
                limit=SCAN_BATCH,
                newest_first=self._newest_first,
                field_bytes=SCAN_FIELD_BYTES,
                page_bytes=SCAN_BATCH_BYTES,
            )
            self.counts = self.counts or page.counts
            for job in page.jobs:
                if job.id not in known:
                    known.add(job.id)
                    self.seen += 1
                    yield job
            if page.listed < SCAN_BATCH:
                self.complete = True
                return
            if loop.time() > deadline:
                return


def too_large(
    sizes: Sequence[Sequence[int]], fields: Sequence[str], field_bytes: int, all_bytes: int
) -> list[dict[str, bytes]]:
    """For each job the fields that are not to be read, and what to show in their place."""
    left, left_out = all_bytes, []
    for of_job in sizes:
        large = {}
        for field, size in zip(fields, of_job, strict=True):
            if size > min(left, field_bytes):
                large[field] = b"[left out: %d bytes]" % size
            else:
                left -= size
        left_out.append(large)
    return left_out


def job_of(job_id: bytes, state: State | None, fields: Mapping[str, bytes | None]) -> Job:
    """A job from the FIELDS of its hash."""
    reason = fields["failedReason"]
    traces = parse_json(fields["stacktrace"] or b"[]")
    return Job(
        id=text(job_id),
        name=text(fields["name"] or b""),
        # BullMQ writes '{}' where an application gives no data.
        data={} if fields["data"] is None else parse_json(fields["data"]),
        state=state,
        # BullMQ takes an empty reason for none.
        failed_reason=text(reason) if reason else None,
        timestamp=integer(fields["timestamp"]),
        processed_on=integer(fields["processedOn"]),
        finished_on=integer(fields["finishedOn"]),
        attempts_made=integer(fields["attemptsMade"]) or integer(fields["atm"]) or 0,
        stacktrace=traces if isinstance(traces, list) else [traces],
        return_value=parse_json(fields["returnvalue"]),
    )


def parse_json(raw: bytes | None) -> Any:
    """JSON as it is; what is not JSON, as the string it is."""
    if raw is None:
        return None
    try:
        value = orjson.loads(raw)
        # orjson reads deeper than it writes (1,024 levels, 254).
        if raw.count(b"[") + raw.count(b"{") > 250:
            orjson.dumps(value)
    except orjson.JSONDecodeError:
        return _with_lone_surrogates(raw)
    except TypeError:
        return text(raw)
    return value


def _with_lone_surrogates(raw: bytes) -> Any:
    r"""JSON that holds half of a surrogate pair, such as a text that was cut within an emoji.

    JSON.stringify writes it as `\ud83d`, which orjson refuses; it is shown as U+FFFD.
    """
    if rb"\ud" not in raw.lower():
        return text(raw)
    try:
        written = json.dumps(json.loads(raw), ensure_ascii=False)
        return orjson.loads(written.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    except (ValueError, RecursionError):
        return text(raw)


def integer(raw: bytes | None) -> int | None:
    """A whole number as BullMQ writes it; None where it is none."""
    try:
        number = None if raw is None else int(float(raw))
    except (ValueError, OverflowError):
        return None
    return number if number is not None and abs(number) <= LATEST else None
