"""Translates Bull's messages into entries as BullMQ writes them, so that both count the same.

Bull publishes less: no message contains the job's name; `waiting` is published for a new job, for
one that is due and for one that is retried by hand; `delayed` names no job; and a failed attempt
that is tried again without a backoff is only seen when the job becomes active again. What is
missing is taken from earlier messages and from the job's hash, if it still exists.
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
    """The fields of a job's hash that are needed here; all None if the job is gone."""

    name: bytes | None = None
    timestamp: bytes | None = None  # when it was added, by the clock of the client that added it
    attempts_made: bytes | None = None
    retried_on: bytes | None = None  # when it was last retried by hand
    opts: bytes | None = None  # only read if needed; empty if too long

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
        """Returns an option that is a number; 0 if there is none."""
        try:
            value = json.loads(self.opts or b"{}")[name]
            return int(value) if isinstance(value, int | float) else 0
        except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
            return 0


GONE = JobHash()


class Known(NamedTuple):
    """What is known about the jobs of a queue in addition to their messages."""

    hashes: Mapping[bytes, JobHash]
    due: Mapping[int, list[bytes]]  # the delayed jobs by when they are due
    # Since when (epoch ms) everything is heard, and whether every job that was added since is
    # tracked.
    since: int
    is_complete: bool


def needs_hash(heard: Heard) -> bool:
    """Whether a job's hash is needed to interpret this message.

    This includes tracked jobs: if one was removed, a new job may have its id.
    """
    return heard.kind in (messages.FAILED, messages.WAITING)


def needs_options(counter: QueueEventCounter, job_id: bytes, known: JobHash, since: int) -> bool:
    """Whether a job's options are needed to tell whether it is new."""
    is_old = known.exists and known.made < since and known.is_untouched
    return is_old and remembered_id(job_id) not in counter.jobs


class Translator:
    """Translates the messages of one queue in order, because each depends on those before it."""

    def __init__(self, counter: QueueEventCounter, known: Known) -> None:
        self._counter, self._known = counter, known

    def count(self, heard: Heard, at: bytes) -> None:
        """Count a message that arrived at this time, given in the form of an entry's id."""
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
        """A job was delayed until this time, or this is when the next delayed job is due.

        The message does not show which of the two it is, nor which job: any job that is due then is
        checked.
        """
        for job_id in self._known.due.get(heard.due, ()):
            if self._is_new(job_id):
                # If no more jobs can be tracked, it would be new again when it is due: it is
                # counted then.
                if self._counter.has_room:
                    self._add(job_id, at)
                    self._read(at, b"delayed", job_id)
                continue
            job = self._job(job_id)
            if job is not None and job.taken is not None:
                self._fail(job_id, job, at)
            elif job is not None and job.ready is not None:
                self._read(at, b"delayed", job_id)  # delayed by a rate limit

    def _active(self, heard: Heard, at: bytes) -> None:
        job_id, job = heard.job_id, self._job(heard.job_id)
        if job is not None and job.taken is not None:
            self._fail(job_id, job, at, is_sure=True)
        elif job is None and self._counter.has_failed(remembered_id(job_id)):
            # Queue.retryJobs() publishes nothing, so it is not known when the job began to wait.
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
        # For a job that is gone, this assumes the far more common case: Job.discard() is rare.
        is_exhausted = not known.exists or number(known.attempts_made) >= known.option("attempts")
        if is_exhausted and reason != STALLED_REASON:
            self._read(at, b"retries-exhausted", job_id)
        if not known.exists:
            # A job that was removed when it failed cannot be retried by hand: the next job with its
            # id is new.
            self._counter.forget(remembered_id(job_id))

    def _duplicated(self, heard: Heard, at: bytes) -> None:
        self._read(at, b"duplicated", heard.job_id)

    def _debounced(self, heard: Heard, at: bytes) -> None:
        self._read(at, b"deduplicated", heard.job_id)

    def _fail(self, job_id: bytes, job: TrackedJob, at: bytes, *, is_sure: bool = False) -> None:
        """An attempt has ended and another one follows, for which the job does not wait yet.

        Job.moveToDelayed() in a processor looks the same except in the hash, which is read if the
        previous number of attempts is known.
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
        """Whether this is the first message about a job that was just added."""
        known = self._known.hashes.get(job_id, GONE)
        job = self._job(job_id)
        if job is not None:
            if job.made is None or known.timestamp in (None, job.made):
                return False
            # The previous job with this id was removed, which no message reports.
            self._counter.forget(remembered_id(job_id))
            return True
        if not known.exists:
            return not self._counter.has_failed(remembered_id(job_id))
        if known.retried_on is not None:
            return False
        if self._counter.has_failed(remembered_id(job_id)):
            return True  # the previous job with this id was removed
        if known.made >= self._known.since and (self._known.is_complete or known.is_untouched):
            # Messages about what has happened to it since, such as failed attempts, are still to
            # come.
            return True
        # By its own timestamp it is older. If it was never delayed, it has only just been added.
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
