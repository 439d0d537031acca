"""What the hashes of jobs hold beyond the events."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from exporter.bullmq.batches import batched
from exporter.bullmq.connection import Command, RedisReader, RedisRefused, expected
from exporter.bullmq.keys import MAX_SAFE_INTEGER, Queue
from exporter.bullmq.options import read_options

FIELDS = ("name", "atm", "attemptsMade", "ats", "processedOn", "finishedOn")


# How many jobs one pipeline asks for.
BATCH = 1000
# How often a job that moves while it is read is read again.
MAX_READS = 5


class JobFacts(NamedTuple):
    """A job's hash, as far as it matters here; all None where it is gone."""

    name: bytes | None
    atm: bytes | None  # attempts made
    attempts_made: bytes | None  # the same, before 5.0
    ats: bytes | None  # attempts started; None before 5.0
    processed_on: bytes | None
    finished_on: bytes | None
    # Read only for jobs that need it: whether a worker holds the job now, whether its last failed
    # attempt left a reason (the text may be megabytes), and its options.
    locked: bool = False
    has_failed_reason: bool = False
    opts: bytes | None = None

    @property
    def exists(self) -> bool:
        return self.name is not None

    @property
    def retries(self) -> int:
        """How many attempts have failed and were followed by another one, or will be."""
        made = number(self.atm or self.attempts_made)
        # The attempt that finished the job is counted too.
        return made - 1 if self.finished_on else made

    @property
    def every_start_failed(self) -> bool:
        """Whether there were finished attempts, and all of them failed.

        A start raises `ats` (prepareJobForProcessing), the failed attempt that ends it `atm`
        (retryJob, moveToDelayed, moveToFinished). A job that is given back for another reason (rate
        limit, DelayedError, stalled) has more starts than attempts for the rest of its life.
        """
        failed = number(self.atm)
        return failed > 0 and failed == number(self.ats) - self.locked

    @property
    def attempts(self) -> int:
        """The maximum number of attempts, if its options contain it."""
        try:
            return int(json.loads(self.opts or b"{}")["attempts"])
        except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
            return 0

    @property
    def started(self) -> int:
        """When its last attempt began, by the worker's clock in epoch ms; 0 if none has."""
        return number(self.processed_on)

    @property
    def finished(self) -> int:
        """When it finished, by the worker's clock in epoch ms; 0 if it has not."""
        return number(self.finished_on)


NO_JOB = JobFacts(None, None, None, None, None, None)


def number(raw: bytes | None) -> int:
    """A whole number that BullMQ wrote; 0 if it is none."""
    try:
        whole = int(raw or 0)
    except ValueError:
        return 0
    # BullMQ cannot count that far, and the state file cannot store it.
    return whole if abs(whole) <= MAX_SAFE_INTEGER else 0


async def ask(
    redis: RedisReader,
    queue: Queue,
    job_ids: Iterable[bytes],
    *,
    in_detail: Collection[bytes] = (),
) -> dict[bytes, JobFacts]:
    """The facts of each job; all facts for those `in_detail`. Raises RedisUnavailable."""
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
    return facts


async def _add_details(
    redis: RedisReader, queue: Queue, job_ids: Collection[bytes], facts: dict[bytes, JobFacts]
) -> list[bytes]:
    """Adds the facts of keys that change together with the hash; gives the jobs that have moved.

    A worker may start or end an attempt between two commands. With a lock from after it and a hash
    from before it, a failed attempt looks like a job that was given back. If the hash is the same
    before and after the lock was read, no attempt started or ended between.
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
    """Raises TypeError or ValueError where it is no answer to HMGET."""
    if not isinstance(answer, Exception):
        name, atm, attempts_made, ats, processed_on, finished_on = expected(
            answer, bytes, type(None)
        )
        return JobFacts(name, atm, attempts_made, ats, processed_on, finished_on)
    if "WRONGTYPE" in str(answer):
        return NO_JOB
    raise RedisRefused(f"Redis refused HMGET: {answer}")
