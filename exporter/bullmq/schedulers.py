"""Schedulers that are registered more than once: each makes its job run once too often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice

from exporter.bullmq.connection import RedisReader
from exporter.bullmq.keys import Queue

BATCH = 50


async def count_duplicates(
    redis: RedisReader, queues: Sequence[Queue], most: int
) -> dict[Queue, int]:
    """How many of each queue's schedulers, of the first `most`, do what another one does already.

    That is: add a job of the same name with the same data. A repeatable job's key is made from its
    pattern, so a changed pattern registers a second one beside the first, and BullMQ has changed
    the key's format; Open Archiver had three that synced the same mail (sync-scheduler.ts). No
    entry where the schedulers could not be read. Raises RedisUnavailable.
    """
    found: dict[Queue, int] = {}
    remaining = iter(queues)
    while most and (batch := list(islice(remaining, BATCH))):
        schedulers = await redis.pipeline(
            [("ZRANGE", queue.repeat_key, 0, most - 1, "WITHSCORES") for queue in batch]
        )
        places = [
            (queue, key, at)
            for queue, answer in zip(batch, schedulers, strict=True)
            if isinstance(answer, list)
            for key, at in zip(answer[::2], answer[1::2], strict=True)
        ]
        # A scheduler has a template. A repeatable job has none: its data stand in its next job.
        hashes = await redis.pipeline(
            [
                command
                for queue, key, at in places
                for command in (
                    ("HMGET", queue.scheduler_key(key), "name", "data"),
                    ("HGET", queue.job_key(_next_job_id(key, at)), "data"),
                )
            ]
        )
        jobs: dict[Queue, Counter[tuple[bytes, bytes]]] = {queue: Counter() for queue in batch}
        for (queue, key, _), template, next_data in zip(
            places, hashes[::2], hashes[1::2], strict=True
        ):
            if isinstance(template, Exception):
                continue
            name, data = template
            data = data or next_data
            jobs[queue][name or _name_in(key), data if isinstance(data, bytes) else b"{}"] += 1
        for queue, answer in zip(batch, schedulers, strict=True):
            if isinstance(answer, list):
                found[queue] = jobs[queue].total() - len(jobs[queue])
    return found


def _next_job_id(key: bytes, at: bytes) -> bytes:
    """Its id while it waits for its time (BullMQ: Repeat.getRepeatDelayedJobId, JobScheduler)."""
    return b"repeat:%b:%b" % (key, at)


def _name_in(key: bytes) -> bytes:
    """Before BullMQ 5.0 there was no hash; the key was `name:jobId:endDate:tz:pattern`."""
    return key.partition(b":")[0]
