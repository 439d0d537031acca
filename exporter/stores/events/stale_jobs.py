"""Finds tracked jobs that are gone: Queue.drain() and Queue.clean() write no event of them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Container, Iterable, Sequence
from typing import Any, NamedTuple

from exporter.queues.queue import Queue
from exporter.queues.queue_event_counter import QueueEventCounter
from exporter.queues.text import MAX_ID_BYTES
from exporter.queues.tracked_jobs import TrackedJob

# Jobs of which one read asks whether they still exist, and how often all of them are asked for.
EXISTS_BATCH_SIZE = 500
EXISTS_INTERVAL_SECONDS = 60.0


class Candidate(NamedTuple):
    """A tracked job that may be gone."""

    counter: QueueEventCounter
    job_id: bytes
    job: TrackedJob


class StaleJobs:
    """Asks in turn for all tracked jobs whether they still exist, some with each read."""

    def __init__(self) -> None:
        self._queued: dict[QueueEventCounter, None] = {}  # in order
        self._candidates: deque[Candidate] = deque()
        self._all_queued_at = 0.0  # monotonic

    def check_soon(self, counter: QueueEventCounter) -> None:
        """Ask for the jobs of this queue before the next time that all are asked for."""
        self._queued.setdefault(counter)

    def take_batch(self, counters: Iterable[QueueEventCounter]) -> list[Candidate]:
        """The jobs to ask for with this read."""
        if time.monotonic() - self._all_queued_at > EXISTS_INTERVAL_SECONDS:
            self._all_queued_at = time.monotonic()
            self._queued |= dict.fromkeys(each for each in counters if each.jobs)
        while self._queued and len(self._candidates) < EXISTS_BATCH_SIZE:
            counter = next(iter(self._queued))
            del self._queued[counter]
            self._candidates.extend(
                Candidate(counter, job_id, job)
                for job_id, job in counter.jobs.items()
                if len(job_id) < MAX_ID_BYTES  # longer ones are not found by these
            )
        count = min(EXISTS_BATCH_SIZE, len(self._candidates))
        return [self._candidates.popleft() for _ in range(count)]


def forget_stale(
    candidates: Sequence[Candidate], exist: Iterable[Any], behind: Container[Queue]
) -> None:
    """Forget the jobs that are gone: those of which `exist` is 0 or False.

    Not in queues that have events to read: one of them may be the job's end. Nor one of the same id
    that was added meanwhile.
    """
    for (counter, job_id, job), exists in zip(candidates, exist, strict=True):
        gone = exists == 0 and counter.queue not in behind
        if gone and counter.jobs.get(job_id) is job:
            counter.forget(job_id)
