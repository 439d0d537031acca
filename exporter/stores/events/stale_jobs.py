"""Finds tracked jobs that are gone: Queue.drain() and Queue.clean() write no event for each job."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Container, Iterable, Sequence
from typing import Any, NamedTuple

from exporter.queues.queue import Queue
from exporter.queues.queue_event_counter import QueueEventCounter
from exporter.queues.text import MAX_ID_BYTES
from exporter.queues.tracked_jobs import TrackedJob

# How many jobs one read checks for existence, and how often all of them are checked.
EXISTS_BATCH_SIZE = 500
EXISTS_INTERVAL_SECONDS = 60.0


class Candidate(NamedTuple):
    """A tracked job that may be gone."""

    counter: QueueEventCounter
    job_id: bytes
    job: TrackedJob


class StaleJobs:
    """Checks whether all tracked jobs still exist, some of them with each read."""

    def __init__(self) -> None:
        self._queued: dict[QueueEventCounter, None] = {}  # in order
        self._candidates: deque[Candidate] = deque()
        self._all_queued_at = 0.0  # monotonic

    def check_soon(self, counter: QueueEventCounter) -> None:
        """Check the jobs of this queue before the next check of all jobs."""
        self._queued.setdefault(counter)

    def take_batch(self, counters: Iterable[QueueEventCounter]) -> list[Candidate]:
        """The jobs to check with this read."""
        if time.monotonic() - self._all_queued_at > EXISTS_INTERVAL_SECONDS:
            self._all_queued_at = time.monotonic()
            self._queued |= dict.fromkeys(each for each in counters if each.jobs)
        while self._queued and len(self._candidates) < EXISTS_BATCH_SIZE:
            counter = next(iter(self._queued))
            del self._queued[counter]
            self._candidates.extend(
                Candidate(counter, job_id, job)
                for job_id, job in counter.jobs.items()
                if len(job_id) < MAX_ID_BYTES  # longer ids are shortened, and find nothing
            )
        count = min(EXISTS_BATCH_SIZE, len(self._candidates))
        return [self._candidates.popleft() for _ in range(count)]


def forget_stale(
    candidates: Sequence[Candidate], exist: Iterable[Any], behind: Container[Queue]
) -> None:
    """Forget the jobs that are gone: those of which `exist` is 0 or False.

    Queues with unread events are skipped: one of these may be the job's end. So are jobs with the
    same id that were added meanwhile.
    """
    for (counter, job_id, job), exists in zip(candidates, exist, strict=True):
        gone = exists == 0 and counter.queue not in behind
        if gone and counter.jobs.get(job_id) is job:
            counter.forget(job_id)
