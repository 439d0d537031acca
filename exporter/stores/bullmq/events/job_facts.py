"""Reads what the hashes of jobs contain beyond the events."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from exporter.concurrency.batches import batched
from exporter.queues.job_facts import NO_JOB, JobFacts
from exporter.queues.queue import Queue
from exporter.stores.bullmq.options import read_field, read_options
from exporter.stores.redis.client import Command, RedisReader, RedisRefused, expected

FIELDS = ("name", "atm", "attemptsMade", "ats", "processedOn", "finishedOn")


# How many jobs one pipeline reads.
BATCH = 1000
# Longer reasons (bytes) are not read, and count as unknown: 1,000 of them take 64 MB.
MAX_REASON_BYTES = 64 * 1024
# How often a job is read again if it moves meanwhile.
MAX_READS = 5


async def ask(
    redis: RedisReader,
    queue: Queue,
    job_ids: Iterable[bytes],
    *,
    in_detail: Collection[bytes] = (),
    with_reason: Collection[bytes] = (),
) -> dict[bytes, JobFacts]:
    """The facts of each job: all facts of those `in_detail`, and the reason of the last failure of
    those `with_reason`. Raises RedisUnavailable.
    """
    facts: dict[bytes, JobFacts] = {}
    for batch in batched(job_ids, BATCH):
        answers = await redis.pipeline([_fields_of(queue, job_id) for job_id in batch])
        for job_id, answer in zip(batch, answers, strict=True):
            facts[job_id] = _facts(answer)
        detailed = [job_id for job_id in batch if job_id in in_detail and facts[job_id].exists]
        for _ in range(MAX_READS):
            if not detailed:
                break
            detailed = await _add_details(redis, queue, detailed, facts)
        asked = [job_id for job_id in batch if job_id in with_reason and facts[job_id].exists]
        if asked:
            keys = [queue.job_key(job_id) for job_id in asked]
            reasons = await read_field(redis, keys, b"failedReason", MAX_REASON_BYTES)
            for job_id, reason in zip(asked, reasons, strict=True):
                facts[job_id] = facts[job_id]._replace(failed_reason=reason or None)
    return facts


async def _add_details(
    redis: RedisReader, queue: Queue, job_ids: Collection[bytes], facts: dict[bytes, JobFacts]
) -> list[bytes]:
    """Add the facts of keys that change together with the hash; return the jobs that have moved.

    A worker may start or end an attempt between two commands. With a hash from before and a lock
    from after that, a failed attempt looks like a job that was returned to the queue. If the hash
    is the same before and after the lock was read, no attempt started or ended between.
    """
    commands = []
    for job_id in job_ids:
        key = queue.job_key(job_id)
        commands += [
            (b"EXISTS", key + b":lock"),
            (b"HEXISTS", key, b"failedReason"),
            _fields_of(queue, job_id),
        ]
    options = await read_options(redis, [queue.job_key(job_id) for job_id in job_ids])
    answers = batched(await redis.pipeline(commands), 3)
    moved = []
    for job_id, opts, (lock, reason, fields) in zip(job_ids, options, answers, strict=True):
        before, now = facts[job_id], _facts(fields)
        if before._replace(locked=False, has_failed_reason=False, opts=None) != now:
            moved.append(job_id)
        facts[job_id] = now._replace(
            locked=lock == 1,
            has_failed_reason=reason == 1,
            opts=opts,
        )
    return moved


def _fields_of(queue: Queue, job_id: bytes) -> Command:
    return (b"HMGET", queue.job_key(job_id), *FIELDS)


def _facts(answer: Any) -> JobFacts:
    """Raises TypeError or ValueError if it is not an answer to HMGET."""
    if not isinstance(answer, Exception):
        name, atm, attempts_made, ats, processed_on, finished_on = expected(
            answer, bytes, type(None)
        )
        return JobFacts(name, atm, attempts_made, ats, processed_on, finished_on)
    if "WRONGTYPE" in str(answer):
        return NO_JOB
    raise RedisRefused(f"Redis refused HMGET: {answer}")
