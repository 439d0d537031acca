"""What a poll found: readings of all queues, and what collectors know of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from exporter.queues.limits import NO_LIMITS, QueueLimits
from exporter.queues.queue import Queue, State


@dataclass(frozen=True, slots=True)
class QueueReading:
    """One queue at one moment. A value that could not be read is absent (None, or no entry), never
    0.

    Times are epoch seconds.
    """

    queue: Queue
    counts: Mapping[State, int]
    paused: bool | None = None
    version: str | None = None  # `bullmq:5.56.3`, as the application's BullMQ wrote it
    oldest_waiting: float | None = None
    oldest_active: float | None = None
    oldest_active_locked: bool | None = None  # whether a worker still holds that job
    next_delayed: float | None = None
    schedulers: int | None = None
    scheduler_runs: tuple[tuple[str, float], ...] = ()
    some_schedulers: tuple[bytes, ...] = ()  # those with a run, if there are others
    heartbeat: float | None = None
    limits: QueueLimits = NO_LIMITS
    oldest_waiting_children: float | None = None  # a flow's parent
    unreadable: tuple[tuple[str, str], ...] = ()  # what could not be read, and why


# Why queues are not watched: beyond max_queues; by the settings queues and queues_exclude; of a
# prefix that is not configured; of Bull 3 or 4, whose keys have another layout; of a name with more
# than queue.MAX_BASE_BYTES.
UNWATCHED_LIMIT = "max_queues"
UNWATCHED_EXCLUDED = "excluded"
UNWATCHED_PREFIX = "prefix"
UNWATCHED_BULL = "bull"
UNWATCHED_LONG_NAME = "long_name"

# While a worker is running, a run starts later than planned by less than this, in milliseconds.
LATE_AFTER_MS = 60_000


class Scheduler(NamedTuple):
    """A job scheduler, or an old repeatable job. Times are epoch milliseconds.

    Source: storeJobScheduler in addJobScheduler-11 (5.56.3 and 6.7.0), Repeat.keyToData() for those
    registered before BullMQ 5.0. Unknown values are None.
    """

    queue: Queue
    key: bytes  # its member of `repeat`
    at: bytes  # when it runs next, as Redis writes the score
    label: str  # the key as it is shown
    name: str | None  # of the jobs that it adds
    pattern: str | None  # cron
    every: int | None  # milliseconds
    tz: str | None
    limit: int | None  # of runs
    end_date: int | None
    iterations: int | None
    next_run: int | None
    next_added: int | None  # when the job of that run was added
    last_run: int | None  # when a worker last took a job of it

    def has_ended(self, now: int) -> bool:
        """Whether it has run for the last time, although it remains in `repeat`."""
        if self.next_run is None or self.next_run >= now - LATE_AFTER_MS:
            return False
        is_past = self.end_date is not None and self.end_date < now
        return is_past or (self.limit is not None and (self.iterations or 0) >= self.limit)

    def is_overdue(self, now: int) -> bool:
        """Whether no worker has taken its next job in time.

        For a new scheduler with an interval, 5.56.3 plans the first run at the start of the current
        interval, which may be hours ago.
        """
        if self.next_run is None or self.has_ended(now):
            return False
        return max(self.next_run, self.next_added or 0) < now - LATE_AFTER_MS


class QueueSchedulers(NamedTuple):
    """The schedulers of a queue; `duplicates` is None if they were not compared."""

    schedulers: tuple[Scheduler, ...] = ()
    duplicates: int | None = None


class QueueFacts(NamedTuple):
    """What collectors know of a queue; each field belongs to the collector of the same name.

    They are read less often than readings; the defaults mean unknown.
    """

    workers: int | None = None
    retention: Mapping[State, int] = {}
    schedulers: QueueSchedulers = QueueSchedulers()
    missing_jobs: Mapping[State, int] = {}


class CollectorRun(NamedTuple):
    """How the last run of a collector went; its duration is in seconds."""

    success: bool
    duration: float


@dataclass(frozen=True, slots=True)
class SlowFacts:
    """What collectors know of all queues. `version` changes whenever anything else does.

    A collector that failed has no entry in `by_collector`, and one that has not run none in `runs`.
    """

    version: int = 0
    by_collector: Mapping[str, Mapping[Queue, Any]] = field(default_factory=dict)
    runs: Mapping[str, CollectorRun] = field(default_factory=dict)

    def of(self, queue: Queue) -> QueueFacts:
        """What is known of this queue."""
        known = {name: facts[queue] for name, facts in self.by_collector.items() if queue in facts}
        return QueueFacts(**known)

    def after(self, name: str, run: CollectorRun, found: Mapping[Queue, Any] | None) -> SlowFacts:
        """The facts after another run of this collector; `found` is None if it failed."""
        others = {other: facts for other, facts in self.by_collector.items() if other != name}
        by_collector = others if found is None else others | {name: found}
        return SlowFacts(self.version + 1, by_collector, {**self.runs, name: run})


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The results of the last successful poll."""

    readings: tuple[QueueReading, ...]
    facts: SlowFacts = SlowFacts()
    # When the queues were last searched for (epoch seconds); None if they are named.
    discovered: float | None = None
    # Queues that were found but are not watched, by reason (UNWATCHED_…); None if there is
    # no search.
    unwatched: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one poll went: a snapshot, or why there is none. `duration` is in seconds."""

    snapshot: Snapshot | None
    error: str | None
    duration: float
