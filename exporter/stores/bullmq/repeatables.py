"""Repeatable jobs, which have no hash of their own: Bull's, and those from before BullMQ 5.0."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import orjson

from exporter.queues.queue import Queue
from exporter.queues.snapshot import Scheduler
from exporter.stores.bullmq.options import read_field, read_options
from exporter.stores.redis.client import RedisReader

# Longer values are not times.
MAX_TIME_BYTES = 40


class RepeatKey(NamedTuple):
    """The description of a repeatable job that its member of `repeat` contains."""

    name: bytes
    pattern: bytes | None = None
    every: bytes | None = None  # milliseconds
    tz: bytes | None = None
    end_date: bytes | None = None  # epoch milliseconds


def parse_key(key: bytes) -> RepeatKey:
    """The parts of a key, all of which are in the key itself.

    Before BullMQ 5.0 it is `name:jobId:endDate:tz:pattern`, with the interval in milliseconds in
    place of a pattern (getRepeatConcatOptions). Bull omits the time zone if there is an interval:
    `name:jobId:endDate:every` (4.16.5: getRepeatKey).
    """
    name, *rest = key.split(b":", 4)
    if len(rest) == 3 and rest[2].isdigit():
        return RepeatKey(name, every=rest[2], end_date=rest[1] or None)
    if len(rest) < 4:
        return RepeatKey(name)
    _, end_date, tz, suffix = rest
    pattern, every = (None, suffix) if suffix.isdigit() else (suffix, None)
    return RepeatKey(name, pattern, every, tz or None, end_date or None)


def next_job_id(key: bytes, at: bytes) -> bytes:
    """The id of the job that runs at a time, as Bull makes it (4.16.5: getRepeatJobId)."""
    name, _, rest = key.partition(b":")
    job_id, _, _ = rest.partition(b":")
    namespace = _md5(key)
    return b"repeat:%b:%b" % (_md5(b"%b%b:%b" % (name, job_id, namespace)), at)


def _md5(value: bytes) -> bytes:
    return hashlib.md5(value, usedforsecurity=False).hexdigest().encode()


async def with_runs(
    redis: RedisReader, found: Mapping[Queue, tuple[Scheduler, ...]]
) -> dict[Queue, tuple[Scheduler, ...]]:
    """The schedulers with what the next jobs of Bull's show: when they were added, and when the
    last run was, because a worker adds the next job when it takes the one before. Raises
    RedisUnavailable.
    """
    unknown = [
        each
        for schedulers in found.values()
        for each in schedulers
        if each.next_added is None and each.last_run is None and each.iterations is None
    ]
    if not unknown:
        return dict(found)
    keys = [each.queue.job_key(next_job_id(each.key, each.at)) for each in unknown]
    added = await read_field(redis, keys, b"timestamp", MAX_TIME_BYTES)
    taken = await read_field(redis, keys, b"processedOn", MAX_TIME_BYTES)
    options = await read_options(redis, keys)
    known = {}
    for each, added_at, taken_at, opts in zip(unknown, added, taken, options, strict=True):
        count, limit = _repeated(opts)
        next_added, last_run = _time(added_at), _time(taken_at)
        if last_run is None and (count or 0) > 1:
            last_run = next_added
        known[each.queue, each.key] = each._replace(
            next_added=next_added, last_run=last_run, iterations=count, limit=each.limit or limit
        )
    return {
        queue: tuple(known.get((queue, each.key), each) for each in schedulers)
        for queue, schedulers in found.items()
    }


async def find_ended(
    redis: RedisReader, overdue: Sequence[tuple[Queue, bytes, bytes]]
) -> set[tuple[Queue, bytes]]:
    """Those of these keys and next runs that have reached their limit: they stay in `repeat` with
    their last run. This is unknown if the last job is gone. Raises RedisUnavailable.
    """
    keys = [queue.job_key(next_job_id(key, at)) for queue, key, at in overdue]
    ended = set()
    for (queue, key, _), opts in zip(overdue, await read_options(redis, keys), strict=True):
        count, limit = _repeated(opts)
        if count is not None and limit is not None and count >= limit:
            ended.add((queue, key))
    return ended


def _repeated(options: bytes | None) -> tuple[int | None, int | None]:
    """The number of the run, 1 for the first, and of all runs, from a job's options."""
    try:
        repeat = orjson.loads(options or b"")["repeat"]
        count, limit = repeat.get("count"), repeat.get("limit")
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
        return None, None
    return (
        count if type(count) is int else None,
        limit if type(limit) is int else None,
    )


def _time(raw: bytes | None) -> int | None:
    return int(raw) if raw and raw.isdigit() and len(raw) <= 16 else None
