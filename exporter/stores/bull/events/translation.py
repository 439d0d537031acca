"""Makes entries as BullMQ writes them of what Bull's messages say, so that they count the same.

Bull says less: no message has a name; `waiting` is that of a new job, of one that is due and of one
that is retried by hand; `delayed` names no job; and a failed attempt that is tried again without a
backoff is only seen when the job becomes active again. What is missing is known from earlier
messages and from the job's hash, if it is still there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from exporter.queues.event_log import Entry
from exporter.queues.job_facts import number
from exporter.queues.queue_event_counter import QueueEventCounter
from exporter.queues.text import remembered_id
from exporter.queues.tracked_jobs import TrackedJob
from exporter.stores.bull.events import messages
from exporter.stores.bull.events.messages import STALLED_REASON, Heard


class JobHash(NamedTuple):
    """A job's hash, as far as it matters here; all None where it is gone."""

    name: bytes | None = None
    timestamp: bytes | None = None  # when it was made, by the clock of who made it
    attempts_made: bytes | None = None
    retried_on: bytes | None = None  # when it was last retried by hand
    opts: bytes | None = None  # only read where it is needed; empty where it is too long

    @property
    def exists(self) -> bool:
        return self.name is not None

    @property
    def made(self) -> int:
        return number(self.timestamp)

    @property
    def is_untouched(self) -> bool:
        """Whether no attempt has failed."""
        return number(self.attempts_made) <= 0 and self.retried_on is None

    def option(self, name: str) -> int:
        """An option that is a number; 0 without one."""
        try:
            value = json.loads(self.opts or b"{}")[name]
            return int(value) if isinstance(value, int | float) else 0
        except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
            return 0


GONE = JobHash()


class Known(NamedTuple):
    """What is known of the jobs of a queue beyond their messages."""

    hashes: Mapping[bytes, JobHash]
    due: Mapping[int, list[bytes]]  # the delayed jobs by when they are due
    # Since when (epoch ms) all is heard, and whether every job that came since is tracked.
    since: int
    is_complete: bool


def needs_hash(heard: Heard) -> bool:
    """Whether a job's hash is needed to understand this.

    Of a job that is tracked, too: another one may have its id, if it was removed.
    """
    return heard.kind in (messages.FAILED, messages.WAITING)


def needs_options(counter: QueueEventCounter, job_id: bytes, known: JobHash, since: int) -> bool:
    """Whether it takes a job's options to tell that it is new."""
    is_old = known.exists and known.made < since and known.is_untouched
    return is_old and remembered_id(job_id) not in counter.jobs


class Translator:
    """Translates what was heard of one queue, message by message: each depends on those before."""

    def __init__(self, counter: QueueEventCounter, known: Known) -> None:
        self._counter, self._known = counter, known

    def count(self, heard: Heard, at: bytes) -> None:
        """Count a message that came at this time, in the form of the id of an entry."""
        _HANDLERS[heard.kind](self, heard, at)

    def _read(self, at: bytes, kind: bytes, job_id: bytes, *fields: bytes) -> None:
        entry: Entry = (at, [b"event", kind, b"jobId", job_id, *fields])
        self._counter.read([entry])

    def _job(self, job_id: bytes) -> TrackedJob | None:
        return self._counter.jobs.get(remembered_id(job_id))

    def _waiting(self, heard: Heard, at: bytes) -> None:
        job_id = heard.job_id
        if self._is_new(job_id):
            self._add(job_id, at)
            self._read(at, b"waiting", job_id)
            return
        job = self._job(job_id)
        if job is None and self._counter.has_failed(remembered_id(job_id)):
            self._read(at, b"waiting", job_id, b"prev", b"failed")
            return
        if job is not None and job.taken is not None:
            # It has failed, and its backoff is over: it was not seen among the delayed jobs.
            self._fail(job_id, job, at)
        self._read(at, b"waiting", job_id, b"prev", b"delayed")

    def _delayed(self, heard: Heard, at: bytes) -> None:
        """Some job was delayed until then; or the next one that is due is, which may be any."""
        for job_id in self._known.due.get(heard.due, ()):
            if self._is_new(job_id):
                # Without room it would be new again when it is due: it is counted then.
                if self._counter.has_room:
                    self._add(job_id, at)
                    self._read(at, b"delayed", job_id)
                continue
            job = self._job(job_id)
            if job is not None and job.taken is not None:
                self._fail(job_id, job, at)
            elif job is not None and job.ready is not None:
                self._read(at, b"delayed", job_id)  # by a rate limit

    def _active(self, heard: Heard, at: bytes) -> None:
        job_id, job = heard.job_id, self._job(heard.job_id)
        if job is not None and job.taken is not None:
            self._fail(job_id, job, at, is_sure=True)
        elif job is None and self._counter.has_failed(remembered_id(job_id)):
            # Queue.retryJobs() publishes nothing: when it began to wait is not known.
            self._read(at, b"waiting", job_id, b"prev", b"failed")
            self._read(at, b"delayed", job_id)
        self._read(at, b"active", job_id)

    def _stalled(self, heard: Heard, at: bytes) -> None:
        job = self._job(heard.job_id)
        if job is None or job.taken is not None:
            self._read(at, b"waiting", heard.job_id, b"prev", b"active")
        self._read(at, b"stalled", heard.job_id)

    def _completed(self, heard: Heard, at: bytes) -> None:
        self._read(at, b"completed", heard.job_id)

    def _failed(self, heard: Heard, at: bytes) -> None:
        job_id, reason = heard.job_id, heard.reason
        self._read(at, b"failed", job_id, b"failedReason", reason or b"")
        known = self._known.hashes.get(job_id, GONE)
        # Of a job that is gone the far more common case: Job.discard() is rare.
        is_exhausted = not known.exists or number(known.attempts_made) >= known.option("attempts")
        if is_exhausted and reason != STALLED_REASON:
            self._read(at, b"retries-exhausted", job_id)
        if not known.exists:
            # Removed as it failed, it cannot be retried by hand: what has its id next is new.
            self._counter.forget(remembered_id(job_id))

    def _duplicated(self, heard: Heard, at: bytes) -> None:
        self._read(at, b"duplicated", heard.job_id)

    def _debounced(self, heard: Heard, at: bytes) -> None:
        self._read(at, b"deduplicated", heard.job_id)

    def _fail(self, job_id: bytes, job: TrackedJob, at: bytes, *, is_sure: bool = False) -> None:
        """An attempt has ended, and another one follows; it does not wait for it yet.

        Job.moveToDelayed() in a processor looks the same, but for the hash, which is asked where
        the number of attempts before is known.
        """
        if is_sure or self._counter.is_unsure(job):
            self._read(at, b"waiting", job_id, b"prev", b"failed")
        self._read(at, b"delayed", job_id)

    def _add(self, job_id: bytes, at: bytes) -> None:
        known = self._known.hashes.get(job_id, GONE)
        name = () if known.name is None else (b"name", known.name)
        self._read(at, b"added", job_id, *name)
        job = self._job(job_id)
        if job is not None:
            job.made = known.timestamp

    def _is_new(self, job_id: bytes) -> bool:
        """Whether this is the first that is heard of a job, because it was added."""
        known = self._known.hashes.get(job_id, GONE)
        job = self._job(job_id)
        if job is not None:
            if job.made is None or known.timestamp in (None, job.made):
                return False
            # The one before was removed, which no message says.
            self._counter.forget(remembered_id(job_id))
            return True
        if not known.exists:
            return not self._counter.has_failed(remembered_id(job_id))
        if known.retried_on is not None:
            return False
        if self._counter.has_failed(remembered_id(job_id)):
            return True  # the one before was removed
        if known.made >= self._known.since and (self._known.is_complete or known.is_untouched):
            # What has happened to it since, such as failed attempts, is still to be heard.
            return True
        # By its own time it is older. If it was never delayed, it has only just come.
        return known.is_untouched and known.opts is not None and not known.option("delay")


_HANDLERS = {
    messages.WAITING: Translator._waiting,
    messages.ACTIVE: Translator._active,
    messages.COMPLETED: Translator._completed,
    messages.FAILED: Translator._failed,
    messages.DELAYED: Translator._delayed,
    messages.STALLED: Translator._stalled,
    messages.DUPLICATED: Translator._duplicated,
    messages.DEBOUNCED: Translator._debounced,
}
