"""A page of a queue's jobs, in two round trips."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
    exists, _, counts, ids, sizes = await redis.run(
        PAGE,
        [queue.base],
        (state, start, start + limit - 1, "desc" if newest_first else "asc", *UNBOUNDED),
    )
    left_out = _too_large(sizes)
    wanted = [[field for field in FIELDS if field not in large] for large in left_out]
    hashes = await redis.pipeline(
        [
            ("HMGET", queue.job_key(job_id), *fields)
            for job_id, fields in zip(ids, wanted, strict=True)
        ]
    )
    jobs = (
        _job(job_id, state, {**dict(zip(fields, values, strict=True)), **large})
        for job_id, fields, values, large in zip(ids, wanted, hashes, left_out, strict=True)
        if isinstance(values, list) and any(value is not None for value in values)
    )
    return Page(bool(exists), counts_of(counts, []), tuple(jobs))


def _too_large(sizes: Sequence[Sequence[int]]) -> list[dict[str, bytes]]:
    """For each job the fields that are not to be read, and what to show in their place."""
    left, left_out = PAGE_BYTES, []
    for of_job in sizes:
        large = {}
        for field, size in zip(UNBOUNDED, of_job, strict=True):
            if size > min(left, FIELD_BYTES):
                large[field] = b"[left out: %d bytes]" % size
            else:
                left -= size
        left_out.append(large)
    return left_out


def _job(job_id: bytes, state: State, fields: Mapping[str, bytes | None]) -> Job:
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
        timestamp=_integer(fields["timestamp"]),
        processed_on=_integer(fields["processedOn"]),
        finished_on=_integer(fields["finishedOn"]),
        attempts_made=_integer(fields["attemptsMade"]) or _integer(fields["atm"]) or 0,
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


def _integer(raw: bytes | None) -> int | None:
    try:
        number = None if raw is None else int(float(raw))
    except (ValueError, OverflowError):
        return None
    return number if number is not None and abs(number) <= LATEST else None
