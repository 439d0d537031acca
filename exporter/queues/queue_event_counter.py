"""Counts a queue's events by job name, and tracks the jobs that are not finished.

The meaning of each event is taken from the XADDs in BullMQ's Lua scripts, 5.56.3 and 6.7.0. Both
write `event <type> jobId <id>` first, then the fields of that type.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from types import MappingProxyType
from typing import Any, NamedTuple

from exporter.queues.event_log import Cursor, Entry, Gap, milliseconds
from exporter.queues.failure_evidence import FailedAttempt
from exporter.queues.failure_reasons import FoldedReason
from exporter.queues.job_facts import JobFacts
from exporter.queues.queue import Queue, State
from exporter.queues.reason_counts import QueueReasons
from exporter.queues.tallies import (
    OTHER,
    UNKNOWN,
    Count,
    FinishedJobs,
    Layout,
    QueueTallies,
    Tally,
)
from exporter.queues.text import MAX_LABEL_BYTES, MAX_SAFE_INTEGER, label_text, remembered_id
from exporter.queues.tracked_jobs import UNKNOWN_RETRIES, JobBudget, TrackedJob
from exporter.queues.worker_clock import WorkerClock

# Plain numbers, because an IntEnum's members cost the loop below a tenth of its time.
ADDED, COMPLETED, FAILED, RETRIED, STALLED, RETRIES_EXHAUSTED, DEDUPLICATED, DUPLICATED = map(
    int, Count
)

# By how much `finishedOn` may differ from the time of its event (ms): a worker's clock differs from
# that of Redis, and is looked at before the script runs.
CLOCK_SKEW_MS = 2000

# Maximum number of ids of finished jobs that are remembered to backfill gaps: over 5 s of the
# fastest worker that was measured (7,675 jobs a second). If there are more, the earliest part of a
# gap is not backfilled.
MAX_FINISHED_JOBS = 50_000

# Maximum number of gaps that wait to be backfilled; beyond it two are merged.
MAX_GAPS = 20


# The reason with which 5.x fails a parent that is about to wait for its children
# (moveToWaitingChildren), without counting an attempt.
CHILDREN_FAILED = b"children are failed"
# Reasons of jobs that failed though no attempt did; the other one is of moveStalledJobsToWait.
NO_ATTEMPT_FAILED = frozenset((CHILDREN_FAILED, b"job stalled more than allowable limit"))

# Seconds without an event after which the ids of finished jobs are dropped.
IDLE_SECONDS = 60.0


class AmbiguousTransition(NamedTuple):
    """A job that ceased to be active: was that a failed attempt, which is retried?

    Its hash shows that, by the attempts made. The stream does not: in 6.x `waiting` with `prev` =
    `active` is a retry as well as a job put back because of a rate limit, and in any version
    `delayed` is a retry's backoff as well as Job.moveToDelayed(). If it is not known that the job
    was active, 5.x has one more case: `waiting` with `prev` = `failed` is a failed attempt as well
    as Job.retry() of a failed job.

    The hash may be ahead of the events: a 5.x job that is put back because of a rate limit, and
    fails before its hash is read, shows a failed attempt whose `waiting` with `prev` = `failed` is
    still to be read. From then on the hash decides about those events as well, so that none counts
    twice.
    """

    job_id: bytes
    job: TrackedJob
    prev: bytes  # that of its `waiting`, `active` or `failed`; empty for its `delayed`
    at: bytes  # id of the entry
    # Whether `job.retries` cannot be compared with: it is unknown, or from a hash that may include
    # failures of unread events.
    is_unsure: bool


class ReadReason(NamedTuple):
    """A redacted reason: as it is grouped, and its `excerpt`."""

    folded: FoldedReason
    text: bytes


class UnreadFailure(NamedTuple):
    """A failed attempt whose reason is still to be read."""

    at: int  # epoch ms
    job_id: bytes
    job: TrackedJob
    attempts: int | None  # failed attempts of the job; None: unknown
    raw_reason: bytes | None = None  # None: no reason, or, for a retried attempt, in the hash


class QueueEventCounter:
    """Counts what happens to the jobs of one queue."""

    def __init__(
        self,
        queue: Queue,
        layout: Layout,
        budget: JobBudget,
        *,
        max_names: int,
        max_reasons: int = 0,
        stream: bytes = b"",
    ) -> None:
        self.queue = queue
        self.stream = stream
        self.cursor = Cursor()
        self.jobs: dict[bytes, TrackedJob] = {}
        self.tallies: dict[str, Tally] = {}
        self.missed = 0
        self.gaps: list[Gap] = []  # those that are not backfilled yet
        self.cleaned = False  # jobs may be gone without an event
        self._events_off = False
        self._restored = False
        self._taken_removed = FinishedJobs()  # the sum of what `take_removed` has returned
        # None as soon as anything is counted: in read, pass_over, resolve, note_gap, backfill and
        # compare_clock, and when the queue is removed or restored.
        self._frozen: QueueTallies | None = None
        self._layout = layout
        self._budget = budget
        self._max_names = max_names
        # Counts by reason; None if reasons are not counted. Still to be counted there: failed jobs,
        # whose events contain the reason, and failed attempts, whose hashes will.
        self._reasons = QueueReasons(max_reasons, int(1000 * time.time())) if max_reasons else None
        self._failures: list[UnreadFailure] = []
        self._failed_attempts: list[UnreadFailure] = []
        self._by_name: dict[bytes, Tally] = {}
        self._nameless: list[tuple[bytes, TrackedJob]] = []
        self._ambiguous: list[AmbiguousTransition] = []
        # Jobs whose `retries` come from the hash, and may include failures of unread events.
        self._ahead: set[TrackedJob] = set()
        # Those of them with a further failure that was read: their hashes must be read again.
        self._stale: list[tuple[bytes, TrackedJob]] = []
        # Jobs that were retried by hand, perhaps with their attempts reset to 0.
        self._again: list[tuple[bytes, TrackedJob]] = []
        # `prev` of the `waiting` that a failed attempt writes in this queue, once one was seen:
        # b"failed" (5.56.3) or b"active" (5.81.5, 6.x).
        self._retry_prev: bytes | None = None
        self._debounced: bytes | None = None  # the job of the latest `debounced`
        # The time (ms, by Redis's clock) since which every job that became ready is tracked; None
        # if not all are.
        self._complete_since: int | None = None
        self._last_failed: tuple[bytes, TrackedJob] | None = None
        self._last_finished = (b"", b"")  # the job, and the id of the event
        self._worker_clock = WorkerClock()
        # Jobs whose end was read, for as long as that matters for backfilling a gap: lists, each
        # with the time of the last entry before it. No deque, because an empty one takes 760 bytes,
        # which is 8 MB for 10,000 queues.
        self._finished: list[tuple[int, list[bytes]]] = [(0, [])]
        self._read_at = time.monotonic()
        self.gap_noted_at = self._read_at  # monotonic, of the last one

    # Reading

    def start(self, since: int) -> None:
        """Note that everything after this time (ms) will be read."""
        self._complete_since = since
        self._finished = [(since, [])]

    def read(self, entries: Sequence[Entry]) -> None:
        """Count these entries. Whoever calls this advances the cursor."""
        self._frozen = None
        self._read_at = time.monotonic()
        for entry_id, fields in entries:
            # A type without a handler (`progress`, `drained`, one of a later version) only counts
            # as read.
            handle = _HANDLERS.get(fields[1])
            if handle is not None and len(fields) > 3 and fields[2] == b"jobId":
                handle(self, entry_id, remembered_id(fields[3]), fields)
            elif fields[1] == b"cleaned":
                self.cleaned = True

    def pass_over(self, entries: Sequence[Entry]) -> None:
        """Count as missed these entries, of which some or all could not be counted."""
        self.note_missed(len(entries))

    def note_missed(self, number: int) -> None:
        """Count missed events; what is known of unfinished jobs may be wrong after them."""
        self._frozen = None
        self.missed += number
        self.forget_all()

    def _added(self, _: bytes, job_id: bytes, fields: Sequence[bytes]) -> None:
        if len(fields) < 6:
            self._job(job_id).tally.values[ADDED] += 1
            return
        name = fields[5]
        tally = self._by_name.get(name) or self._tally_of(name)
        tally.values[ADDED] += 1
        if self._nameless and self._nameless[-1][0] == job_id and job_id not in self.jobs:
            # It replaced another job, which the previous `deduplicated` reported.
            tally.add(self._nameless.pop()[1].tally)
        if not self._track(job_id, TrackedJob(tally)):
            self._budget.refused += 1
            # A job with the same id may have failed and been removed.
            self._budget.failed.take(self.queue.base, job_id)

    def _deduplicated(self, _: bytes, job_id: bytes, fields: Sequence[bytes]) -> None:
        """Job `job_id` exists already, or replaces one that was not due yet.

        For one dropped add 5.x writes `debounced`, then `deduplicated` (deduplicateJob); older
        versions write only `debounced`, 6.x only `deduplicated`.
        """
        counted = self._debounced
        self._debounced = job_id if fields[1] == b"debounced" else None
        if fields[1] == b"debounced" or counted != job_id:
            self._tally_of_job(job_id).values[DEDUPLICATED] += 1

    def _duplicated(self, _: bytes, job_id: bytes, __: Sequence[bytes]) -> None:
        # Nothing was added: a job with this id exists already (handleDuplicatedJob).
        self._tally_of_job(job_id).values[DUPLICATED] += 1

    def _waiting(self, entry_id: bytes, job_id: bytes, fields: Sequence[bytes]) -> None:
        prev = fields[5] if len(fields) > 5 else b""
        job = self.jobs.get(job_id)
        if job is None:
            job = self._retried_by_hand(job_id) if prev == b"failed" else None
            if job is None:
                job = self._job(job_id)
                if prev in (b"active", b"failed"):
                    self._note_ambiguous(job_id, job, prev, entry_id)
        elif job.taken is not None and prev == b"failed":
            # 5.x: the attempt failed, and the next one follows without a backoff.
            self._retry_prev = prev
            if job.retry_seen_in_hash and job not in self._ahead:
                self._note_ambiguous(job_id, job, prev, entry_id)  # it may be this one
            else:
                self._count_failed_attempt(job_id, job, entry_id)
                if job in self._ahead:
                    self._stale.append((job_id, job))
        elif job.taken is not None and prev == b"active":
            self._note_ambiguous(job_id, job, prev, entry_id)
        job.ready, job.taken = entry_id, None

    def _retried_by_hand(self, job_id: bytes) -> TrackedJob | None:
        """A job that failed and is tracked again; None if it is not known to have failed."""
        job = self._budget.failed.take(self.queue.base, job_id)
        if job is not None:
            # Its hash includes the last failed attempt.
            job.note_failed_attempt()
            self._again.append((job_id, job))
            self._track(job_id, job)
        return job

    def _delayed(self, entry_id: bytes, job_id: bytes, _: Sequence[bytes]) -> None:
        known = self.jobs.get(job_id)
        job = known or self._job(job_id)
        if known is None or known.taken is not None:
            self._note_ambiguous(job_id, job, b"", entry_id)
        job.ready = job.taken = None

    def _count_failed_attempt(self, job_id: bytes, job: TrackedJob, at: bytes) -> None:
        job.tally.values[RETRIED] += 1
        job.note_failed_attempt()
        if self._reasons is not None:
            attempts = self._known_attempts(job)
            self._failed_attempts.append(UnreadFailure(milliseconds(at), job_id, job, attempts))

    def _note_ambiguous(self, job_id: bytes, job: TrackedJob, prev: bytes, at: bytes) -> None:
        self._ambiguous.append(AmbiguousTransition(job_id, job, prev, at, self.is_unsure(job)))

    def _active(self, entry_id: bytes, job_id: bytes, _: Sequence[bytes]) -> None:
        job = self.jobs.get(job_id) or self._job(job_id)
        if job.ready is not None:
            layout = self._layout
            waited = milliseconds(entry_id) - milliseconds(job.ready)
            job.tally.observe(layout.wait, layout.wait_bounds, waited, job_id, entry_id)
            job.ready = None
        job.taken = entry_id

    def _completed(self, entry_id: bytes, job_id: bytes, _: Sequence[bytes]) -> None:
        self._finish(entry_id, job_id).tally.values[COMPLETED] += 1

    def _known_attempts(self, job: TrackedJob) -> int | None:
        """How many of its attempts failed, if the events show that."""
        return None if job.retries == UNKNOWN_RETRIES or job in self._ahead else job.retries

    def _failed(self, entry_id: bytes, job_id: bytes, fields: Sequence[bytes]) -> None:
        before = self._known_attempts(known) if (known := self.jobs.get(job_id)) else None
        job = self._finish(entry_id, job_id)
        job.tally.values[FAILED] += 1
        if self._reasons is not None:
            reason = fields[5] if len(fields) > 5 and fields[4] == b"failedReason" else None
            attempts = None if before is None or reason in NO_ATTEMPT_FAILED else before + 1
            failure = UnreadFailure(milliseconds(entry_id), job_id, job, attempts, reason)
            self._failures.append(failure)
        job.tally.exemplars[FAILED] = (job_id, 1000, entry_id)
        job.ready = job.taken = None
        if len(fields) > 5 and fields[5] == CHILDREN_FAILED and job.retries > 0:
            job.retries -= 1  # its hash does not include its last attempt
        self._last_failed = (job_id, job)
        self._budget.failed.remember(self.queue.base, job_id, job)

    def _finish(self, entry_id: bytes, job_id: bytes) -> TrackedJob:
        job = self.jobs.pop(job_id, None)
        if job is None:
            job = self._nameless_job(job_id)
        else:
            self._budget.taken -= 1
            self._ahead.discard(job)
        if job.taken is not None:
            layout = self._layout
            took = milliseconds(entry_id) - milliseconds(job.taken)
            job.tally.observe(layout.process, layout.process_bounds, took, job_id, entry_id)
        self._finished[-1][1].append(job_id)
        self._last_finished = (job_id, entry_id)
        return job

    def _retries_exhausted(self, _: bytes, job_id: bytes, __: Sequence[bytes]) -> None:
        # Written together with the job's `failed`: in Redis just after it, in PostgreSQL those of
        # other transactions may come between.
        last = self._last_failed
        tally = last[1].tally if last and last[0] == job_id else self._tally_of_job(job_id)
        tally.values[RETRIES_EXHAUSTED] += 1

    def _stalled(self, entry_id: bytes, job_id: bytes, __: Sequence[bytes]) -> None:
        # In Redis the same script has written the job's `waiting`, `prev` = `active`, just before.
        if self._ambiguous and self._ambiguous[-1].job_id == job_id:
            self._ambiguous.pop()
        job = self.jobs.get(job_id) or self._job(job_id)
        job.tally.values[STALLED] += 1
        if job.taken is not None:
            job.ready, job.taken = entry_id, None  # in PostgreSQL this is the only event

    def _waiting_children(self, _: bytes, job_id: bytes, __: Sequence[bytes]) -> None:
        if job := self.jobs.get(job_id):
            job.ready = job.taken = None

    def _removed(self, _: bytes, job_id: bytes, __: Sequence[bytes]) -> None:
        self.forget(job_id)

    # Jobs

    def is_unsure(self, job: TrackedJob) -> bool:
        """Whether the number of its failures is unknown, or may include those of unread events."""
        return job.retries == UNKNOWN_RETRIES or job in self._ahead

    def has_failed(self, job_id: bytes) -> bool:
        """Whether the job is known to have failed for good, and was not retried since."""
        return self._budget.failed.get(self.queue.base, job_id) is not None

    @property
    def has_room(self) -> bool:
        """Whether one more job can be tracked."""
        return self._budget.taken < self._budget.limit

    def _track(self, job_id: bytes, job: TrackedJob) -> bool:
        """Keep track of a job; False if the budget is used up."""
        if job_id not in self.jobs:
            # A new job is refused instead of dropping an old one: in a backlog that is longer than
            # the limit the old ones are taken next.
            if self._budget.taken >= self._budget.limit:
                self._complete_since = None
                return False
            self._budget.taken += 1
        self.jobs[job_id] = job
        return True

    def _job(self, job_id: bytes) -> TrackedJob:
        """A job that was added before its queue was followed, or when the budget was used up."""
        job = self._nameless_job(job_id)
        self._track(job_id, job)
        return job

    def _nameless_job(self, job_id: bytes) -> TrackedJob:
        # It is counted in a tally of its own until its name is known.
        job = TrackedJob(Tally(UNKNOWN, self._layout.size))
        job.retries = UNKNOWN_RETRIES
        self._nameless.append((job_id, job))
        return job

    def _tally_of_job(self, job_id: bytes) -> Tally:
        """The tally of a job whose state the event does not change; it may be finished."""
        job = self.jobs.get(job_id) or self._budget.failed.get(self.queue.base, job_id)
        return (job or self._nameless_job(job_id)).tally

    def forget(self, job_id: bytes) -> None:
        """Stop tracking this job."""
        if self.jobs.pop(job_id, None):
            self._budget.taken -= 1
        else:
            self._budget.failed.take(self.queue.base, job_id)

    def put_away(self) -> None:
        """Note that the queue is gone, and its series with it.

        If it comes back, its counters continue where they were, and nothing is read twice: it may
        have been created again before it was found to be gone, and some of its events counted.
        """
        self._frozen = None
        self.forget_all()
        self._restored, self._events_off = True, False
        for tally in self.tallies.values():
            tally.mark_restored()
        if self._reasons is not None:
            self._reasons.mark_restored()

    def take_removed(self) -> FinishedJobs:
        """The jobs that finished since the queue appeared or was last removed."""
        before = self._taken_removed
        self._taken_removed = FinishedJobs.of(tally.values for tally in self.tallies.values())
        return self._taken_removed.minus(before)

    def forget_all(self) -> None:
        """Stop tracking all jobs; what was counted stays."""
        self._complete_since = None
        self._budget.taken -= len(self.jobs)
        self.jobs.clear()
        self._ahead.clear()
        self._budget.failed.forget_queue(self.queue.base)

    def ready_at(self, job_id: bytes, by_hash: float | None) -> float | None:
        """When a waiting job became ready, in ms by Redis's clock; None if unknown.

        `by_hash` is the time by its hash, by the clocks of its producer and its workers.
        """
        if (job := self.jobs.get(job_id)) is not None:
            # Without a time, it returned to `wait` after the events were read.
            return None if job.ready is None else milliseconds(job.ready)
        if by_hash is None or self._complete_since is None:
            return by_hash
        return min(by_hash, self._complete_since)

    def compare_clock(self, state: State, job_id: bytes, at: int) -> None:
        """Compare a worker's clock with Redis's: when it moved a job to this state (ms).

        That is the start of a job that is active, or the end of the job that finished last.
        """
        moved: bytes | None = None
        if state is not State.ACTIVE:
            finished_id, entry_id = self._last_finished
            moved = entry_id if finished_id == remembered_id(job_id) else None
        elif job := self.jobs.get(job_id):
            moved = job.taken
        if moved is None or milliseconds(moved) > MAX_SAFE_INTEGER:  # no clock's time
            return
        if self._worker_clock.compare(at, milliseconds(moved)):
            self._frozen = None

    # Names and ambiguous transitions

    def unresolved(self) -> set[bytes]:
        """Ids of the jobs whose `JobFacts` are needed before the counts are right."""
        asked = (*self._nameless, *self._again, *self._stale)
        return (
            {job_id for job_id, _ in asked}
            | {transition.job_id for transition in self._ambiguous}
            | {attempt.job_id for attempt in self._failed_attempts}
        )

    def unresolved_in_detail(self) -> set[bytes]:
        """Jobs for which all facts are needed, because the number of their failures is unsure."""
        return {each.job_id for each in self._ambiguous if each.is_unsure}

    def unresolved_reasons(self) -> set[bytes]:
        """Jobs for which the reason of their last failed attempt is needed."""
        if self._reasons is None:
            return set()
        attempts = {attempt.job_id for attempt in self._failed_attempts}
        return attempts | {transition.job_id for transition in self._ambiguous}

    def unread_reasons(self, facts: Mapping[bytes, JobFacts]) -> set[bytes]:
        """The raw reasons that `resolve` needs in folded form."""
        asked = self.unresolved_reasons()
        attempt_reasons = {facts[job_id].failed_reason for job_id in asked}
        return {
            raw for raw in {*attempt_reasons, *(each.raw_reason for each in self._failures)} if raw
        }

    @property
    def is_unresolved(self) -> bool:
        """Whether `resolve` has something to do."""
        # Without making sets, because each read asks this for each queue that had events.
        return any(
            (
                *(self._failures, self._failed_attempts),
                *(self._ambiguous, self._nameless, self._again, self._stale),
            )
        )

    @property
    def is_ahead(self) -> bool:
        """Whether hashes may include failures of unread events."""
        return bool(self._ahead)

    def note_caught_up(self) -> None:
        """Note that everything written before the last `resolve` has been read."""
        self._ahead.clear()

    def resolve(
        self,
        facts: Mapping[bytes, JobFacts],
        reasons: Mapping[bytes, ReadReason | None] = MappingProxyType({}),
    ) -> list[FailedAttempt]:
        """Finish counting with the facts of all `unresolved`, and all `unread_reasons`.

        Returns the failed attempts whose reasons are known, and are counted now.
        """
        self._frozen = None
        for job_id, job in self._again:
            if facts[job_id].exists and facts[job_id].retries < job.retries:
                # Reset (6.x: `resetAttemptsMade`); failures since then are still to be counted.
                job.retries = 0
        unsure = dict(self._stale)
        for transition in self._ambiguous:
            self._decide(transition, facts[transition.job_id])
            if transition.is_unsure:
                unsure[transition.job_id] = transition.job
        for job_id, job in self._nameless:
            scratch, job.tally = job.tally, self._tally_of(facts[job_id].name)
            job.tally.add(scratch)
            if job.retries == UNKNOWN_RETRIES:
                unsure[job_id] = job
        for job_id, job in unsure.items():
            job.retries = facts[job_id].retries
            # Without failures none can be counted twice, or not at all.
            if job.retries > 0 and self.jobs.get(job_id) is job:
                self._ahead.add(job)
        self._ambiguous, self._nameless, self._again, self._stale = [], [], [], []
        return self._count_reasons(facts, reasons)

    def _count_reasons(
        self, facts: Mapping[bytes, JobFacts], reasons: Mapping[bytes, ReadReason | None]
    ) -> list[FailedAttempt]:
        failures, attempts = self._failures, self._failed_attempts
        self._failures, self._failed_attempts = [], []
        if self._reasons is None:
            return []
        raw_reasons = [each.raw_reason for each in failures]
        raw_reasons += [facts[each.job_id].failed_reason for each in attempts]
        known = []
        for index, (each, raw) in enumerate(zip((*failures, *attempts), raw_reasons, strict=True)):
            is_final = index < len(failures)
            count = self._reasons.count_failed if is_final else self._reasons.count_retried
            reason = reasons.get(raw) if raw else None
            count(reason and reason.folded, each.at)
            if reason is not None:
                name = None if each.job.tally.name == UNKNOWN else each.job.tally.name
                known.append(
                    FailedAttempt(each.job_id, name, each.at, each.attempts, is_final, *reason)
                )
        # In the order of time, so that the newest are kept.
        return sorted(known, key=attrgetter("at"))

    def _decide(self, transition: AmbiguousTransition, facts: JobFacts) -> None:
        job, prev = transition.job, transition.prev
        if not facts.exists:
            # Assume the far more common reason: an automatic retry or, if it is not known to have
            # been active, a retry by hand.
            failed = prev != b"failed" and (prev != b"active" or self._retry_prev != b"failed")
        elif not transition.is_unsure:
            failed = facts.retries > job.retries
        elif prev == b"failed":
            failed = self._retry_prev != b"active" and _was_active(facts, transition.at)
        else:
            # It is unknown how many attempts had failed before this one. It certainly failed only
            # if all attempts did, or if more have failed than when the hash was first read.
            failed = facts.every_start_failed or UNKNOWN_RETRIES < job.retries < facts.retries
        if not failed:
            return
        self._count_failed_attempt(transition.job_id, job, transition.at)
        job.retry_seen_in_hash = facts.exists
        if prev and facts.exists:
            self._retry_prev = prev

    def _tally_of(self, raw_name: bytes | None) -> Tally:
        if raw_name is not None and (tally := self._by_name.get(raw_name)):
            return tally
        name = UNKNOWN if raw_name is None else label_text(raw_name)
        if name not in self.tallies and name != UNKNOWN:
            names = len(self.tallies) - (UNKNOWN in self.tallies) - (OTHER in self.tallies)
            name = name if names < self._max_names else OTHER
        tally = self.tallies.get(name)
        if tally is None:
            tally = self.tallies[name] = Tally(name, self._layout.size)
        if raw_name is not None and name != OTHER and len(raw_name) <= MAX_LABEL_BYTES:
            self._by_name[raw_name] = tally
        return tally

    # Gaps

    def note_gap(self, gap: Gap) -> None:
        """Note a gap that `backfill` may fill."""
        self.note_missed(gap.missed)
        self.gaps.append(gap)
        self.gap_noted_at = time.monotonic()
        if len(self.gaps) > MAX_GAPS:
            first, second = self.gaps[:2]
            self.gaps[:2] = [Gap(first.missed + second.missed, first.since, second.until)]

    def note_check(self) -> None:
        """Note that the cursor was checked: ids of jobs that finished long before are no longer
        needed.
        """
        read = milliseconds(self.cursor.position)
        idle = time.monotonic() - self._read_at
        if not self.gaps and idle >= IDLE_SECONDS:
            # Events that are missed from now on happen now or later.
            self._finished = [(read + int(1000 * idle) - 3 * CLOCK_SKEW_MS, [])]
            return
        if read - self._finished[-1][0] >= CLOCK_SKEW_MS:
            self._finished.append((read, []))
        needed = min([read, *(gap.since for gap in self.gaps)]) - 2 * CLOCK_SKEW_MS
        known = sum(len(job_ids) for _, job_ids in self._finished)
        while len(self._finished) > 1 and (
            self._finished[1][0] <= needed or known > MAX_FINISHED_JOBS
        ):
            known -= len(self._finished.pop(0)[1])

    def search_window(self, gap: Gap) -> tuple[int, int]:
        """The range of `finishedOn` (ms) in which jobs of the gap can be distinguished from others.

        A job whose end was read is known from `seen` if its entry is not older than the first list
        of `_finished`, and the two clocks differ by at most CLOCK_SKEW_MS.
        """
        since = max(gap.since - CLOCK_SKEW_MS, self._finished[0][0] + CLOCK_SKEW_MS)
        return since, gap.until + CLOCK_SKEW_MS

    def is_past(self, gap: Gap) -> bool:
        """Whether all has been read that may have finished within the gap's `search_window`."""
        return milliseconds(self.cursor.position) >= gap.until + 2 * CLOCK_SKEW_MS

    def seen(self) -> set[bytes]:
        """The jobs whose end was recently read or backfilled."""
        return {job_id for _, job_ids in self._finished for job_id in job_ids}

    def backfill(self, count: Count, found: Mapping[bytes, JobFacts]) -> None:
        """Count finished jobs whose events were missed."""
        self._frozen = None
        found = {remembered_id(job_id): facts for job_id, facts in found.items()}
        for job_id, facts in found.items():
            tally = self._tally_of(facts.name)
            tally.values[count] += 1
            self.forget(job_id)
            if count is Count.FAILED:
                job = TrackedJob(tally)
                job.retries = facts.retries
                self._budget.failed.remember(self.queue.base, job_id, job)
        self._count_unknown_reasons(count, len(found))
        # So that they are not found again when another gap is backfilled, or this one after an
        # error.
        self._finished[-1][1].extend(found)

    def counted(self, count: Count) -> int:
        """How many jobs of all names have this count."""
        return sum(tally.values[count] for tally in self.tallies.values())

    def count_unknown(self, count: Count, number: int) -> None:
        """Count jobs of which only the number is known."""
        self._frozen = None
        self._tally_of(None).values[count] += number
        self._count_unknown_reasons(count, number)

    def _count_unknown_reasons(self, count: Count, number: int) -> None:
        if self._reasons is not None and count is Count.FAILED:
            self._reasons.failed.count_unknown(number)

    def note_events_off(self, off: bool) -> None:
        """Note whether the queue keeps too few events to be read."""
        self._frozen, self._events_off = None, off

    # Snapshots

    def freeze(self) -> QueueTallies:
        """A copy of what is counted; the same object as before while nothing was counted."""
        if self._frozen is None:
            self._frozen = QueueTallies(
                by_name={name: tally.freeze() for name, tally in self.tallies.items()},
                missed=self.missed,
                restored=self._restored,
                events_off=self._events_off,
                clock_offset=self._worker_clock.offset,
                reasons=None if self._reasons is None else self._reasons.freeze(),
            )
        return self._frozen

    def memory(self) -> dict[str, Any]:
        """Everything in plain values, for `remember`."""
        return {
            "position": self.cursor.position,
            "number": self.cursor.number,
            "first": self.cursor.first,
            "length": self.cursor.length,
            "ahead": tuple(self.cursor.ahead),
            "missed": self.missed,
            "gaps": self.gaps,
            "finished": self._finished,
            "tallies": {name: tally.values for name, tally in self.tallies.items()},
            "jobs": [
                (job_id, job.tally.name, job.ready, job.taken, job.retries)
                for job_id, job in self.jobs.items()
            ],
            "failed": [
                (job_id, job.tally.name, job.retries)
                for job_id, job in self._budget.failed.of_queue(self.queue.base).items()
            ],
            "complete_since": self._complete_since,
            "retry_prev": self._retry_prev,
            "debounced": self._debounced,
            "removed": self._taken_removed,
            "reasons": None if self._reasons is None else self._reasons.memory(),
        }

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Restore a `memory`. Raises KeyError, TypeError or ValueError if it is not one."""
        self._frozen = None
        cursor = self.cursor
        cursor.position, cursor.number = memory["position"], memory["number"]
        cursor.first, cursor.length = memory["first"], memory["length"]
        cursor.checked = cursor.position
        cursor.ahead = frozenset(memory.get("ahead", ()))
        self.missed = memory["missed"]
        self._restored = True
        self.gaps = [Gap(*gap) for gap in memory["gaps"]]
        self._finished = [(int(at), list(job_ids)) for at, job_ids in memory["finished"]]
        for name, values in memory["tallies"].items():
            tally = self.tallies[name] = Tally(name, self._layout.size, restored=True)
            tally.values[: len(values)] = values
            if name not in (UNKNOWN, OTHER):
                self._by_name[name.encode()] = tally
        since = memory.get("complete_since")
        self._complete_since = None if since is None else int(since)
        for job_id, name, ready, taken, retries in memory["jobs"]:
            job = TrackedJob(self.tallies[name])
            job.ready, job.taken, job.retries = ready, taken, retries
            self._track(job_id, job)
        for job_id, name, retries in memory.get("failed", ()):
            job = TrackedJob(self.tallies[name])
            job.retries = retries
            self._budget.failed.remember(self.queue.base, job_id, job)
        self._retry_prev = memory.get("retry_prev")
        self._debounced = memory.get("debounced")
        self._taken_removed = FinishedJobs(*memory.get("removed", ()))
        if self._reasons is not None:
            if reasons := memory.get("reasons"):
                self._reasons.remember(reasons)
            self._reasons.complete(
                failed=self.counted(Count.FAILED), retried=self.counted(Count.RETRIED)
            )
            # Otherwise what happened long ago would be an increase now.
            self._reasons.mark_restored()


def _was_active(facts: JobFacts, at: bytes) -> bool:
    """Whether a job that then became `waiting`, with `prev` = `failed`, was active until then.

    Job.retry() and Queue.retryJobs() delete `processedOn` and `failedReason` of the job that they
    take out of `failed` (reprocessJob, moveJobsToWait). They exist again only after the job was
    tried once more and failed: then only the worker's clock shows it, unless no attempt was left.
    """
    return (
        facts.has_failed_reason
        and facts.retries < facts.attempts
        and 0 < facts.started < milliseconds(at)
    )


# One table for all counters: one in each would take 14 MB for 10,000 queues.
_HANDLERS: Mapping[bytes, Callable[[QueueEventCounter, bytes, bytes, Sequence[bytes]], None]] = {
    b"added": QueueEventCounter._added,
    b"waiting": QueueEventCounter._waiting,
    b"active": QueueEventCounter._active,
    b"completed": QueueEventCounter._completed,
    b"failed": QueueEventCounter._failed,
    b"delayed": QueueEventCounter._delayed,
    b"stalled": QueueEventCounter._stalled,
    b"retries-exhausted": QueueEventCounter._retries_exhausted,
    b"waiting-children": QueueEventCounter._waiting_children,
    b"removed": QueueEventCounter._removed,
    b"deduplicated": QueueEventCounter._deduplicated,
    b"debounced": QueueEventCounter._deduplicated,
    b"duplicated": QueueEventCounter._duplicated,
}
