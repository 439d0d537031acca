"""Reads facts about Bull's jobs that its messages do not contain, from the hashes of the jobs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from exporter.concurrency.batches import batched
from exporter.queues.job_facts import JobFacts, number
from exporter.queues.queue import Queue
from exporter.stores.bull.events.translation import JobHash
from exporter.stores.bullmq.events import job_facts
from exporter.stores.bullmq.options import read_options
from exporter.stores.redis.client import RedisReader, expected, readable

_FIELDS = ("name", "timestamp", "attemptsMade", "retriedOn")


async def ask(
    redis: RedisReader,
    queue: Queue,
    job_ids: Iterable[bytes],
    *,
    in_detail: Collection[bytes] = (),
    with_reason: Collection[bytes] = (),
) -> dict[bytes, JobFacts]:
    """Returns the facts as for BullMQ, with `attempts_made` as BullMQ counts them: Bull counts only
    failed attempts, so one is added for the attempt that completed the job. Raises
    RedisUnavailable.
    """
    facts = await job_facts.ask(redis, queue, job_ids, in_detail=in_detail, with_reason=with_reason)
    finished = [job_id for job_id, each in facts.items() if each.finished_on]
    for batch in batched(finished, job_facts.BATCH):
        commands = [(b"HEXISTS", queue.job_key(job_id), b"returnvalue") for job_id in batch]
        for job_id, is_completed in zip(batch, await redis.pipeline(commands), strict=True):
            if is_completed == 1:
                made = number(facts[job_id].attempts_made) + 1
                facts[job_id] = facts[job_id]._replace(attempts_made=b"%d" % made)
    return facts


async def read_hashes(redis: RedisReader, jobs: Sequence[tuple[Queue, bytes]]) -> list[JobHash]:
    """Returns the hash of each job, without its options. Raises RedisUnavailable."""
    hashes: list[JobHash] = []
    for batch in batched(jobs, job_facts.BATCH):
        commands = [(b"HMGET", queue.job_key(job_id), *_FIELDS) for queue, job_id in batch]
        for answer in readable(await redis.pipeline(commands)):
            if isinstance(answer, Exception):
                hashes.append(JobHash())  # the key holds something else
            else:
                name, timestamp, made, retried = expected(answer, bytes, type(None))
                hashes.append(JobHash(name, timestamp, made, retried))
    return hashes


async def read_job_options(
    redis: RedisReader, jobs: Sequence[tuple[Queue, bytes]]
) -> list[bytes | None]:
    """Returns the options of each job: None if it has none, empty if they are too long.

    Raises RedisUnavailable.
    """
    return await read_options(redis, [queue.job_key(job_id) for queue, job_id in jobs])
