"""The tracked jobs: those that are not finished, and those that failed recently."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from exporter.queues.tallies import Tally

# Maximum number of recently failed jobs of all queues that are remembered: about 7 MB. Open
# Archiver keeps 5,000 of each of its four queues, to be retried by hand.
MAX_FAILED_JOBS = 20_000

# `TrackedJob.retries` of a job that earlier events have moved, until its hash was read.
UNKNOWN_RETRIES = -1


class TrackedJob:
    """A job that is not finished. Times are ids of entries, because only two of them are ever
    needed as numbers.
    """

    __slots__ = ("made", "ready", "retries", "retry_seen_in_hash", "taken", "tally")

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.ready: bytes | None = None  # when it could be taken, while it waits
        self.taken: bytes | None = None  # when a worker took it, while it is active
        # How many of its attempts have failed so far, including those from before it was tracked;
        # if its hash has more, they are still to be counted. Or UNKNOWN_RETRIES.
        self.retries = 0
        # Whether one of them was counted because the hash showed it: its event may be unread.
        self.retry_seen_in_hash = False
        # When it was created according to its hash, where no event says that a job is removed:
        # another one may have its id then.
        self.made: bytes | None = None

    def note_failed_attempt(self) -> None:
        if self.retries != UNKNOWN_RETRIES:
            self.retries += 1


class FailedJobs:
    """The jobs of all queues that failed recently.

    A retry by hand (Job.retry(), Queue.retryJobs()) moves a job from `failed` back to `wait`. Its
    event is the same as that of a failed attempt in 5.56.3 (not in 5.81.5), and once the job is
    completed and removed, its name is known only from here.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0
        # Queues ordered by the time of their last failure, and their jobs likewise.
        self._by_queue: OrderedDict[bytes, OrderedDict[bytes, TrackedJob]] = OrderedDict()

    def remember(self, base: bytes, job_id: bytes, job: TrackedJob) -> None:
        """Remember a failed job of the queue with this base; forget the oldest one in exchange."""
        jobs = self._by_queue.setdefault(base, OrderedDict())
        self._by_queue.move_to_end(base)
        self._count += job_id not in jobs
        jobs[job_id] = job
        jobs.move_to_end(job_id)
        if self._count > self._limit:
            oldest = next(iter(self._by_queue))
            self._by_queue[oldest].popitem(last=False)
            self._drop_one_of(oldest)

    def take(self, base: bytes, job_id: bytes) -> TrackedJob | None:
        """Return the job and forget it; None if it is unknown."""
        jobs = self._by_queue.get(base)
        job = jobs.pop(job_id, None) if jobs else None
        if job is not None:
            self._drop_one_of(base)
        return job

    def get(self, base: bytes, job_id: bytes) -> TrackedJob | None:
        return self.of_queue(base).get(job_id)

    def of_queue(self, base: bytes) -> Mapping[bytes, TrackedJob]:
        """The jobs of one queue, the oldest first."""
        return self._by_queue.get(base) or {}

    def forget_queue(self, base: bytes) -> None:
        self._count -= len(self._by_queue.pop(base, ()))

    def _drop_one_of(self, base: bytes) -> None:
        self._count -= 1
        if not self._by_queue[base]:
            del self._by_queue[base]


class JobBudget:
    """How many more jobs may be tracked, in all queues together."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self.refused = 0  # jobs that were added while it was used up
        self.failed = FailedJobs(MAX_FAILED_JOBS)
