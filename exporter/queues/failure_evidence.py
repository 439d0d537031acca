"""What was seen of failures, by reason: kept longer than the jobs, which are often removed at once.

For each reason: when it was seen, how often in each hour, in which jobs, and the newest of these
jobs with their full reason and stack trace. Bounded in bytes: the reasons that have not occurred
for the longest time are dropped first.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from exporter.queues.failure_reasons import FoldedReason
from exporter.queues.reason_counts import FORGET_AFTER_MS
from exporter.queues.redact import Redact
from exporter.queues.text import text

HOUR_MS = 3_600_000
HOURS = 24

# Maximum number of jobs of a reason, and of bytes of the reason and the stack trace of each.
MAX_JOBS = 3
MAX_TEXT_BYTES = 4000
# Maximum number of job names and of sources that are counted for a reason.
MAX_NAMES = 10
# Bytes of memory for a reason, for all reasons of a queue, and for all queues. A queue with ever
# new reasons takes at most a quarter, so that the others keep theirs.
MAX_REASON_BYTES = 32 << 10
MAX_QUEUE_BYTES = 4 << 20
MAX_BYTES = 16 << 20
# What a reason and a job take in addition to their texts (CPython 3.11, measured).
REASON_BYTES = 2500
JOB_BYTES = 800
NAME_BYTES = 150


class FailedAttempt(NamedTuple):
    """One failed attempt, from its event; hidden values are already removed."""

    raw_id: bytes  # of the job
    name: str | None  # None: unknown
    at: int  # epoch ms, by Redis's clock
    attempts: int | None  # failed attempts of the job by then; None: unknown
    is_final: bool  # whether no other attempt follows
    reason: FoldedReason
    text: bytes  # the reason in full, see `excerpt`


class JobEvidence(NamedTuple):
    """A job that failed; texts are UTF-8 of at most MAX_TEXT_BYTES, without what is hidden.

    Bytes, because Python may need four times as many for a str.
    """

    raw_id: bytes
    name: str | None
    at: int
    attempts: int | None
    is_final: bool
    text: bytes
    trace: bytes | None  # of the last attempt that could be read; None if none could
    source: str | None  # the ingestion source, if the job's data could be read


class ReasonEvidence(NamedTuple):
    """What is known of one reason. `failed` and `retried` are numbers of jobs that failed for good,
    and of failed attempts that are retried, in each of the last 24 hours, the oldest first; the
    last hour is not over. Times are epoch ms.
    """

    reason: FoldedReason
    first_seen: int
    last_seen: int
    failed: Sequence[int]
    retried: Sequence[int]
    names: Mapping[str, int]  # jobs that failed for good
    sources: Mapping[str, int]  # ingestion sources of the jobs whose data were read
    jobs: Sequence[JobEvidence]  # the newest first
    hour: int  # the last one, numbered since the epoch

    def failed_since(self, since: int | None) -> int:
        """How many jobs failed in the hours from that time on, of the last 24."""
        if since is None:
            return sum(self.failed)
        hours = self.hour - since // HOUR_MS + 1
        return sum(self.failed[-hours:]) if hours > 0 else 0


def excerpt(text: str) -> bytes:
    """The beginning of a text, with a mark if anything is missing."""
    encoded = text[: MAX_TEXT_BYTES + 1].encode("utf-8", "backslashreplace")
    if len(encoded) <= MAX_TEXT_BYTES:
        return encoded
    mark = "…".encode()
    whole = encoded[: MAX_TEXT_BYTES - len(mark)].decode("utf-8", "ignore")
    return whole.encode() + mark


class SeenFailures(NamedTuple):
    """What was seen of the failures of a queue, since when (epoch ms)."""

    since: int
    reasons: Sequence[ReasonEvidence]


class FailureEvidence:
    """The evidence of all queues of a target, at most `max_bytes` of it."""

    def __init__(
        self,
        since: int,
        *,
        max_bytes: int = MAX_BYTES,
        max_queue_bytes: int = MAX_QUEUE_BYTES,
    ) -> None:
        self.since = since  # epoch ms: what failed before was not seen
        self.size = 0  # bytes
        self._max_bytes, self._max_queue_bytes = max_bytes, max_queue_bytes
        self._queues: dict[bytes, _QueueEvidence] = {}
        # All reasons, the one that has not failed for the longest time first.
        self._order: OrderedDict[tuple[bytes, str], None] = OrderedDict()

    def note(self, base: bytes, attempt: FailedAttempt, now: int) -> None:
        """Note a failed attempt in the queue with this base."""
        fingerprint = attempt.reason.fingerprint
        queue = self._queues.setdefault(base, _QueueEvidence())
        kept = queue.reasons.get(fingerprint)
        # Somebody may have chosen the id of the event, and clocks differ by a little.
        at = attempt.at if attempt.at <= now + HOUR_MS else now
        if kept is not None and at - kept.last_seen > FORGET_AFTER_MS:
            self._drop(base, fingerprint)
            queue, kept = self._queues.setdefault(base, _QueueEvidence()), None
        if kept is None:
            kept = queue.reasons[fingerprint] = _Reason(attempt.reason, at)
            self._resize(queue, kept.size)
        before = kept.size
        kept.note(attempt, at)
        queue.reasons.move_to_end(fingerprint)
        self._order[base, fingerprint] = None
        self._order.move_to_end((base, fingerprint))
        self._resize(queue, kept.size - before)
        self._limit(base, queue)

    def add_details(
        self,
        base: bytes,
        attempt: FailedAttempt,
        *,
        name: str,
        attempts: int,
        trace: bytes | None,
        source: str | None,
    ) -> None:
        """Add what the hash of an attempt's job says, if its reason is still kept."""
        queue = self._queues.get(base)
        kept = queue and queue.reasons.get(attempt.reason.fingerprint)
        if not queue or not kept:
            return
        before = kept.size
        kept.add_details(attempt, name=name, attempts=attempts, trace=trace, source=source)
        self._resize(queue, kept.size - before)
        self._limit(base, queue)

    def of_queue(self, base: bytes, now: int) -> SeenFailures:
        """What is known of a queue's failures, by reasons that were seen within seven days."""
        queue = self._queues.get(base)
        reasons = [
            each.freeze(now)
            for each in (queue.reasons.values() if queue else ())
            if now - each.last_seen <= FORGET_AFTER_MS
        ]
        return SeenFailures(self.since, reasons)

    def memory(self, now: int) -> dict[str, Any]:
        """Everything in plain values, for `remember`."""
        while self._order:
            base, fingerprint = next(iter(self._order))
            if now - self._queues[base].reasons[fingerprint].last_seen <= FORGET_AFTER_MS:
                break
            self._drop(base, fingerprint)
        return {
            "since": self.since,
            "reasons": [
                (base, *self._queues[base].reasons[fingerprint].memory())
                for base, fingerprint in self._order
            ],
        }

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Restore a `memory`. The limits may be lower now."""
        self.since = memory["since"]
        for base, *values in memory["reasons"]:
            kept = _Reason.remembered(values)
            queue = self._queues.setdefault(base, _QueueEvidence())
            queue.reasons[kept.reason.fingerprint] = kept
            self._order[base, kept.reason.fingerprint] = None
            self._resize(queue, kept.size)
            self._limit(base, queue)

    def kept(self) -> Sequence[tuple[bytes, str]]:
        """The reasons that are kept, as base of the queue and fingerprint."""
        return tuple(self._order)

    async def redact(self, base: bytes, fingerprint: str, redact: Redact) -> None:
        """Apply the current redaction to what is kept of a reason."""
        queue = self._queues.get(base)
        kept = queue and queue.reasons.get(fingerprint)
        if not queue or not kept:
            return
        grown = await kept.redact(redact)
        # It may have been dropped meanwhile.
        if queue.reasons.get(fingerprint) is kept:
            self._resize(queue, grown)
            self._limit(base, queue)

    def _limit(self, base: bytes, queue: _QueueEvidence) -> None:
        while queue.size > self._max_queue_bytes:
            self._drop(base, next(iter(queue.reasons)))
        while self.size > self._max_bytes:
            self._drop(*next(iter(self._order)))

    def _drop(self, base: bytes, fingerprint: str) -> None:
        queue = self._queues[base]
        self._resize(queue, -queue.reasons.pop(fingerprint).size)
        del self._order[base, fingerprint]
        if not queue.reasons:
            del self._queues[base]

    def _resize(self, queue: _QueueEvidence, by: int) -> None:
        queue.size += by
        self.size += by


class _QueueEvidence:
    __slots__ = ("reasons", "size")

    def __init__(self) -> None:
        # By fingerprint, the one that has not failed for the longest time first.
        self.reasons: OrderedDict[str, _Reason] = OrderedDict()
        self.size = 0


class _Hours:
    """Numbers of the last 24 hours, which are numbered since the epoch."""

    __slots__ = ("_counts", "_newest")

    def __init__(self, counts: Iterable[tuple[int, int]] = ()) -> None:
        self._newest, self._counts = 0, [0] * HOURS  # at index `hour % HOURS`
        for hour, number in counts:
            self.add(hour, number)

    def add(self, hour: int, number: int = 1) -> None:
        if hour > self._newest:
            for passed in range(max(self._newest, hour - HOURS) + 1, hour + 1):
                self._counts[passed % HOURS] = 0
            self._newest = hour
        if hour > self._newest - HOURS:
            self._counts[hour % HOURS] += number

    def until(self, hour: int) -> tuple[int, ...]:
        """The numbers of 24 hours up to this one, the oldest first."""
        return tuple(
            self._counts[each % HOURS] if self._newest - HOURS < each <= self._newest else 0
            for each in range(hour - HOURS + 1, hour + 1)
        )

    def memory(self) -> tuple[tuple[int, int], ...]:
        """The hours that are not 0, and their numbers."""
        first = self._newest - HOURS + 1
        numbers = enumerate(self.until(self._newest), first)
        return tuple((hour, number) for hour, number in numbers if number)


class _Names:
    """Counts by name, for at most MAX_NAMES names."""

    __slots__ = ("counts", "size")

    def __init__(self, counts: Iterable[tuple[str, int]] = ()) -> None:
        self.counts = dict(counts)
        self.size = sum(map(self._size_of, self.counts))

    def add(self, name: str) -> None:
        if name in self.counts:
            self.counts[name] += 1
        elif len(self.counts) < MAX_NAMES:
            self.counts[name] = 1
            self.size += self._size_of(name)

    def memory(self) -> tuple[tuple[str, int], ...]:
        return tuple(self.counts.items())

    @staticmethod
    def _size_of(name: str) -> int:
        return NAME_BYTES + _text_bytes(name)


class _Reason:
    __slots__ = (
        *("_failed", "_jobs", "_memory", "_names", "_own_size", "_retried", "_sources"),
        *("first_seen", "last_seen", "reason", "size"),
    )

    def __init__(self, reason: FoldedReason, first_seen: int) -> None:
        self.reason = reason
        self.first_seen = self.last_seen = first_seen
        self._failed, self._retried = _Hours(), _Hours()
        self._names, self._sources = _Names(), _Names()
        self._jobs: list[JobEvidence] = []  # the newest first
        # Cached until something changes, because each save requests those of all reasons.
        self._memory: tuple[Any, ...] | None = None
        self._own_size = REASON_BYTES + _text_bytes(reason.text)
        self.size = self._measured()

    def note(self, attempt: FailedAttempt, at: int) -> None:
        self.last_seen = max(self.last_seen, at)
        (self._failed if attempt.is_final else self._retried).add(at // HOUR_MS)
        if attempt.name is not None and attempt.is_final:
            self._names.add(attempt.name)
        before = self._find(attempt.raw_id)
        # A job counts once, when it fails for good. By then it may have been removed.
        if before is not None and before.source is not None and attempt.is_final:
            self._sources.add(before.source)
        job = JobEvidence(
            *(attempt.raw_id, attempt.name, at, attempt.attempts, attempt.is_final, attempt.text),
            # The trace of an earlier attempt: after the last one the job may have been removed at
            # once.
            trace=before and before.trace,
            source=before and before.source,
        )
        self._keep([job, *(each for each in self._jobs if each is not before)])

    def add_details(
        self,
        attempt: FailedAttempt,
        *,
        name: str,
        attempts: int,
        trace: bytes | None,
        source: str | None,
    ) -> None:
        before = self._find(attempt.raw_id)
        if source is not None and attempt.is_final and (before is None or before.source is None):
            self._sources.add(source)
        if attempt.name is None and attempt.is_final:
            self._names.add(name)
        if before is None:  # other jobs have failed since
            at = min(attempt.at, self.last_seen)
            values = (attempt.raw_id, name, at, attempts, attempt.is_final, attempt.text)
            self._keep([*self._jobs, JobEvidence(*values, trace, source)])
            return
        job = before._replace(
            name=name, attempts=attempts, trace=trace or before.trace, source=source
        )
        self._keep([job if each is before else each for each in self._jobs])

    def freeze(self, now: int) -> ReasonEvidence:
        # A failure may have a later time if the clock is behind.
        hour = max(now, self.last_seen) // HOUR_MS
        return ReasonEvidence(
            self.reason,
            self.first_seen,
            self.last_seen,
            self._failed.until(hour),
            self._retried.until(hour),
            dict(self._names.counts),
            dict(self._sources.counts),
            tuple(self._jobs),
            hour,
        )

    def memory(self) -> tuple[Any, ...]:
        if self._memory is None:
            self._memory = (
                *(self.reason.fingerprint, self.reason.text, self.first_seen, self.last_seen),
                *(self._failed.memory(), self._retried.memory()),
                *(self._names.memory(), self._sources.memory(), tuple(self._jobs)),
            )
        return self._memory

    @classmethod
    def remembered(cls, memory: Sequence[Any]) -> _Reason:
        fingerprint, text, first_seen, last_seen, failed, retried, names, sources, jobs = memory
        reason = cls(FoldedReason(text, fingerprint), first_seen)
        reason.last_seen = last_seen
        reason._failed, reason._retried = _Hours(failed), _Hours(retried)
        reason._names, reason._sources = _Names(names), _Names(sources)
        reason._keep([JobEvidence(*job) for job in jobs])
        return reason

    async def redact(self, redact: Redact) -> int:
        """Hide what is to be hidden in all texts; returns by how much it has grown. Names and ids
        of jobs are never hidden.
        """
        shown = await redact(self.reason.text)
        while True:
            jobs, counts = self._jobs, Counter[str]()
            redacted = [await _redacted_job(job, redact) for job in jobs]
            for source, number in tuple(self._sources.counts.items()):
                counts[await _redacted_source(source, redact)] += number
            if jobs is self._jobs:  # otherwise another one has failed meanwhile
                break
        before = self.size
        self.reason = FoldedReason(shown, self.reason.fingerprint)
        self._own_size = REASON_BYTES + _text_bytes(shown)
        self._sources = _Names(counts.items())
        self._keep(redacted)
        return self.size - before

    def _find(self, raw_id: bytes) -> JobEvidence | None:
        return next((job for job in self._jobs if job.raw_id == raw_id), None)

    def _keep(self, jobs: Sequence[JobEvidence]) -> None:
        """Keep the newest of these, one with a stack trace among them if there is any."""
        kept = list(jobs[:MAX_JOBS])
        traced = next((job for job in jobs if job.trace is not None), None)
        if traced is not None and traced not in kept:
            kept[-1] = traced
        self._jobs, self._memory = kept, None
        self.size = self._measured()
        while self.size > MAX_REASON_BYTES and len(self._jobs) > 1:
            self._jobs.pop()
            self.size = self._measured()

    def _measured(self) -> int:
        jobs = sum(
            JOB_BYTES + len(job.raw_id) + len(job.text) + len(job.trace or b"")
            for job in self._jobs
        )
        return self._own_size + self._names.size + self._sources.size + jobs


async def _redacted_job(job: JobEvidence, redact: Redact) -> JobEvidence:
    trace = job.trace and excerpt(await redact(text(job.trace)))
    source = None if job.source is None else await _redacted_source(job.source, redact)
    return job._replace(text=excerpt(await redact(text(job.text))), trace=trace, source=source)


async def _redacted_source(source: str, redact: Redact) -> str:
    """Redact a source as the value of its key in the job's data."""
    shown = await redact({"ingestionSourceId": source})
    return str(next(iter(shown.values())))


def _text_bytes(text: str) -> int:
    """The maximum memory of a text: up to 4 bytes for each character, plus its UTF-8 once it is
    saved.
    """
    return 5 * len(text.encode())
