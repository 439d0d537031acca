"""What jobs' hashes tell beyond the events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from exporter.bullmq.batches import batched
from exporter.bullmq.connection import RedisReader, RedisRefused
from exporter.bullmq.keys import Queue

FIELDS = ("name", "atm", "attemptsMade", "processedOn", "finishedOn")

# How many jobs one pipeline asks for.
BATCH = 1000


class JobFacts(NamedTuple):
    """A job's hash, as far as it matters here; all None where it is gone."""

    name: bytes | None
    atm: bytes | None  # attempts made
    attempts_made: bytes | None  # the same, before 5.0
    processed_on: bytes | None
    finished_on: bytes | None

    @property
    def exists(self) -> bool:
        return self.name is not None

    @property
    def retries(self) -> int:
        """How many attempts have failed and were followed by another one, or will be."""
        made = _number(self.atm or self.attempts_made)
        # The attempt that finished the job is counted too.
        return made - 1 if self.finished_on else made

    @property
    def started(self) -> int:
        """When its last attempt began, by the worker's clock in epoch ms; 0 if none has."""
        return _number(self.processed_on)


NO_JOB = JobFacts(None, None, None, None, None)


def _number(raw: bytes | None) -> int:
    try:
        return int(raw or 0)
    except ValueError:
        return 0


async def ask(redis: RedisReader, queue: Queue, job_ids: Iterable[bytes]) -> dict[bytes, JobFacts]:
    """The facts of each job. Raises RedisUnavailable."""
    facts: dict[bytes, JobFacts] = {}
    for batch in batched(job_ids, BATCH):
        answers = await redis.pipeline(
            [(b"HMGET", queue.job_key(job_id), *FIELDS) for job_id in batch]
        )
        for job_id, answer in zip(batch, answers, strict=True):
            if not isinstance(answer, Exception):
                facts[job_id] = JobFacts(*answer)
            elif "WRONGTYPE" in str(answer):
                facts[job_id] = NO_JOB
            else:
                raise RedisRefused(f"Redis refused HMGET: {answer}")
    return facts
