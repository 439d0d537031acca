"""Evidence of failures, completed from the hashes of the newest jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from exporter.queues.errors import StoreUnavailable
from exporter.queues.failure_evidence import (
    FailedAttempt,
    FailureEvidence,
    SeenFailures,
    excerpt,
)
from exporter.queues.jobs import Job
from exporter.queues.queue import Queue
from exporter.queues.redact import Redact
from exporter.queues.text import shorten

# Maximum number of jobs whose hashes are read at once, in a second, and that wait to be read;
# others are dropped.
BATCH_SIZE = 10
READS_PER_SECOND = 10
MAX_WAITING = 100

# Reads those of these jobs that still exist. Raises StoreUnavailable.
ReadJobs = Callable[[Queue, Sequence[bytes]], Awaitable[Sequence[Job]]]


async def no_jobs(_: Queue, __: Sequence[bytes]) -> Sequence[Job]:
    """Reads none."""
    return ()


class FailureDetails:
    """Keeps the evidence, and adds stack traces and ingestion sources while the jobs exist.

    Reading hashes never delays an event: it is done by `run`, over another connection.
    """

    def __init__(self, since: int, read_jobs: ReadJobs, redact: Redact) -> None:
        self._read_jobs, self._redact = read_jobs, redact
        self._evidence = FailureEvidence(since)
        # The newest failure of each reason whose job was not read yet, by queue and fingerprint.
        self._waiting: dict[tuple[Queue, str], FailedAttempt] = {}
        self._woken = asyncio.Event()
        # Restored evidence that may contain what is to be hidden now.
        self._unredacted: list[tuple[bytes, str]] = []

    def note(self, queue: Queue, attempts: Iterable[FailedAttempt], now: int) -> None:
        """Note failed attempts; the last of them are the newest."""
        for attempt in attempts:
            self._evidence.note(queue.base, attempt, now)
            key = (queue, attempt.reason.fingerprint)
            if key in self._waiting or len(self._waiting) < MAX_WAITING:
                self._waiting[key] = attempt
                self._woken.set()

    async def read_some(self) -> float:
        """Wait for jobs and read a batch of them; return how long to sleep then, in seconds."""
        await self._woken.wait()
        await self._redact_remembered()
        batch = list(self._waiting.items())[:BATCH_SIZE]
        by_queue: dict[Queue, dict[bytes, FailedAttempt]] = {}
        for key, attempt in batch:
            del self._waiting[key]
            by_queue.setdefault(key[0], {})[attempt.raw_id] = attempt
        if not self._waiting:
            self._woken.clear()
        for queue, attempts in by_queue.items():
            try:
                jobs = await self._read_jobs(queue, list(attempts))
            except StoreUnavailable:
                continue  # The poll reports an outage.
            for job in jobs:
                await self._add(queue, attempts[job.raw_id], job)
        return len(batch) / READS_PER_SECOND

    async def _add(self, queue: Queue, attempt: FailedAttempt, job: Job) -> None:
        if excerpt(await self._redact(job.failed_reason or "")) != attempt.text:
            return  # It has failed again, for another reason.
        newest = await self._redact(job.stacktrace[-1]) if job.stacktrace else None
        data = await self._redact(job.data)
        source = job._replace(data=data).ingestion_source
        if isinstance(source, str):
            source = shorten(source.encode("utf-8", "replace").decode())
        self._evidence.add_details(
            queue.base,
            attempt,
            name=shorten(job.name),
            attempts=job.attempts_made,
            trace=excerpt(newest) if isinstance(newest, str) and newest else None,
            source=source if isinstance(source, str) else None,
        )

    def seen(self, queue: Queue, now: int) -> SeenFailures:
        """What was seen of a queue's failures."""
        return self._evidence.of_queue(queue.base, now)

    def memory(self, now: int) -> dict[str, Any]:
        """Everything in plain values, for `remember`."""
        return self._evidence.memory(now)

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Restore a `memory`. It may be from before redaction was turned on, so the next
        `read_some` redacts it again.
        """
        self._evidence.remember(memory)
        self._unredacted = list(self._evidence.kept())
        self._woken.set()

    async def _redact_remembered(self) -> None:
        while self._unredacted:
            await self._evidence.redact(*self._unredacted[-1], self._redact)
            self._unredacted.pop()
            await asyncio.sleep(0)  # let requests run
