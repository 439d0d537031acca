"""A page of a queue's jobs, in two round trips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from exporter.bullmq.connection import RedisReader, Script
from exporter.bullmq.keys import Queue, State, text
from exporter.bullmq.poll import counts_of

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


@dataclass(frozen=True, slots=True)
class Job:
    """A job as BullMQ's Job.fromJSON reads its hash. Times are epoch milliseconds."""

    id: str
    name: str
    data: Any
    state: State
    failed_reason: str | None
    timestamp: int | None
    processed_on: int | None
    finished_on: int | None
    attempts_made: int
    stacktrace: list[Any]
    return_value: Any


@dataclass(frozen=True, slots=True)
class Page:
    """Part of the jobs of one state, and the counts of the same moment."""

    exists: bool  # whether Redis knows the queue
    counts: Mapping[State, int]
    jobs: tuple[Job, ...]


async def read_page(
    redis: RedisReader, queue: Queue, state: State, *, start: int, limit: int, newest_first: bool
) -> Page:
    """At most `limit` jobs from index `start` on, oldest first or newest first.

    A job that is removed between the two round trips is left out. Raises RedisUnavailable.
    """
    exists, _, counts, ids = await redis.run(
        PAGE,
        [queue.base],
        (state, start, start + limit - 1, "desc" if newest_first else "asc"),
    )
    hashes = (
        await redis.pipeline([("HMGET", queue.job_key(job_id), *FIELDS) for job_id in ids])
        if ids
        else []
    )
    jobs = (
        _job(job_id, state, values)
        for job_id, values in zip(ids, hashes, strict=True)
        if isinstance(values, list) and any(value is not None for value in values)
    )
    return Page(bool(exists), counts_of(counts, []), tuple(jobs))


def _job(job_id: bytes, state: State, values: Sequence[bytes | None]) -> Job:
    fields = dict(zip(FIELDS, values, strict=True))
    reason = fields["failedReason"]
    traces = parse_json(fields["stacktrace"])
    return Job(
        id=text(job_id),
        name=text(fields["name"] or b""),
        # BullMQ writes '{}' where an application gives no data.
        data={} if fields["data"] is None else parse_json(fields["data"]),
        state=state,
        # BullMQ takes an empty reason for none.
        failed_reason=text(reason) if reason else None,
        timestamp=_integer(fields["timestamp"]),
        processed_on=_integer(fields["processedOn"]),
        finished_on=_integer(fields["finishedOn"]),
        attempts_made=_integer(fields["attemptsMade"]) or _integer(fields["atm"]) or 0,
        stacktrace=traces if isinstance(traces, list) else [],
        return_value=parse_json(fields["returnvalue"]),
    )


def parse_json(raw: bytes | None) -> Any:
    """JSON as it is; what is not JSON, as the string it is."""
    if raw is None:
        return None
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return text(raw)


def _integer(raw: bytes | None) -> int | None:
    try:
        return None if raw is None else int(float(raw))
    except (ValueError, OverflowError):
        return None
