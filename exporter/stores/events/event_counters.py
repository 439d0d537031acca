"""The counters of a target's queues: which queues, what is published, what a restart keeps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from exporter.concurrency.batches import batched
from exporter.concurrency.request_priority import RequestPriority
from exporter.concurrency.supervision import supervise
from exporter.deadline import Deadline
from exporter.queues.event_log import BEGIN, milliseconds
from exporter.queues.failure_evidence import SeenFailures
from exporter.queues.queue import Queue
from exporter.queues.queue_event_counter import CLOCK_SKEW_MS, QueueEventCounter
from exporter.queues.redact import Redact
from exporter.queues.tallies import FinishedJobs, Layout, QueueTallies, Tallies
from exporter.queues.tracked_jobs import JobBudget
from exporter.settings import EventsSettings
from exporter.state.hidden_reasons import hide_counts
from exporter.state.state_file import StateFile
from exporter.state.state_format import EVIDENCE, QUEUES
from exporter.stores.events.failure_details import FailureDetails
from exporter.stores.events.resolver import Resolver
from exporter.stores.events.server_clock import ServerClock, to_monotonic

# Maximum number of removed queues whose position and counts are remembered.
MAX_REMOVED_QUEUES = 2000

# Counters that are copied before requests are served: a third of a ms.
FREEZE_BATCH_SIZE = 100

# Maximum age of counts that are published because newer ones are not saved yet.
MAX_SAVED_AGE_SECONDS = 10.0


class QueueChange(NamedTuple):
    """How the queues to follow differ from those that are followed."""

    queues: tuple[Queue, ...]
    new: Sequence[Queue]
    gone: Sequence[QueueEventCounter]


class EventCounters:
    """Owns the counters. `queues` returns the queues to follow; `searched_at` returns when the
    search began that found them (epoch ms; None: there was no search); `not_watched_until` returns
    the time from which to read a queue that is not new (epoch ms). `stream_of` returns the stream
    of a queue's events, if each queue has its own. `details` is None if failures are not counted by
    reason.

    Readers of events hold `consistent` while counting, so that what is published and saved is of
    one moment.
    """

    def __init__(
        self,
        settings: EventsSettings,
        queues: Callable[[], tuple[Queue, ...] | None],
        *,
        details: FailureDetails | None,
        redact: Redact,
        searched_at: Callable[[], int | None],
        not_watched_until: Callable[[Queue], int | None],
        request_priority: RequestPriority,
        stream_of: Callable[[Queue], bytes] = lambda _: b"",
    ) -> None:
        self._settings, self._queues = settings, queues
        self._searched_at, self._not_watched_until = searched_at, not_watched_until
        self._details, self._redact = details, redact
        self._request_priority = request_priority
        self._stream_of = stream_of
        self._layout = Layout(
            *(
                tuple(round(bound * 1000) for bound in bounds)
                for bounds in (settings.wait_buckets, settings.process_buckets)
            )
        )
        self._budget = JobBudget(settings.max_jobs)
        self._state_file = StateFile(settings.state_file) if settings.state_file else None
        self.clock = ServerClock()
        self.consistent = asyncio.Lock()
        self.by_queue: dict[Queue, QueueEventCounter] = {}
        # Published with the counts; see Tallies.
        self.events_read = self.uncertain_gaps = 0
        self.lag = 0.0
        # Whether the last read succeeded and all of it is counted: otherwise nothing is published.
        self.is_current = False
        # Identifies the event log that the positions in the state file belong to, where it may
        # change.
        self.log_identity: str | None = None
        # If events are pushed and not stored; see Saved.
        self.unheard: float | None = None
        self.heard_until: int | None = None
        self._known: tuple[Queue, ...] | None = None
        self._gone: dict[Queue, QueueEventCounter] = {}
        self._removed = FinishedJobs()  # in queues that were removed
        self._remembered: dict[bytes, Any] = {}
        # The time (epoch ms) up to which the loaded state file contains all queues. And whether it
        # is certainly by the server's clock.
        self._complete_until: tuple[int | None, bool] = (None, False)
        # When the search for `_known` began: by the host's and by the monotonic clock (ms).
        self._searched: tuple[int, float] | None = None
        self._published: Tallies | None = None
        self._published_until = 0.0  # monotonic

    async def run(
        self,
        read: Callable[[], Awaitable[float]],
        *,
        failed: Callable[[], None],
        resolver: Resolver,
        deadline: Deadline,
    ) -> None:
        """Load, call `read` repeatedly until cancelled, then save.

        `read` returns how long to sleep after it (seconds); `failed` is called after it raised.
        """

        def begin_anew() -> None:
            self.is_current = False
            failed()

        try:
            await self._load()
            async with asyncio.TaskGroup() as tasks:
                if self._details is not None:
                    details = self._details.read_some
                    tasks.create_task(supervise("failed jobs cannot be read", details))
                await supervise("events cannot be followed", read, failed=begin_anew)
        finally:
            # Not after counting in part, and not before anything was followed: earlier events are
            # still to be read then.
            if self._state_file is not None:
                is_whole = self.has_begun and resolver.is_done
                await self._state_file.close(self._memory() if is_whole else None, deadline)

    # Which queues

    @property
    def has_begun(self) -> bool:
        """Whether the queues to follow are known."""
        return self._known is not None

    @property
    def begins_now(self) -> bool:
        """Whether earlier events are not to be counted."""
        return self._known is None and self._complete_until[0] is None

    @property
    def untracked_jobs(self) -> int:
        """Number of jobs that could not be tracked."""
        return self._budget.refused

    def note_none(self) -> None:
        """Note that there was no queue at first, so all later ones are new."""
        if self.begins_now:
            self._known = ()

    def find_change(self) -> QueueChange | None:
        """How the queues have changed since the last change that was applied; None if they have
        not, or before they are known.
        """
        queues, searched = self._queues(), self._searched_at()
        if queues is None:
            return None
        self._note_search(searched)
        if queues is self._known:
            return None
        gone = self.by_queue.keys() - set(queues)
        return QueueChange(
            queues,
            new=[queue for queue in queues if queue not in self.by_queue],
            gone=[self.by_queue[queue] for queue in gone],
        )

    def open(self, queue: Queue) -> QueueEventCounter:
        """The counter of a queue that is to be followed from now on, for `apply`."""
        if before := self._gone.pop(queue, None):
            return before
        counter = self._new_counter(queue, self._budget)
        if queue.base in self._remembered:
            counter.remember(self._remembered.pop(queue.base))
            return counter
        # It appeared later, or was not watched: older events do not count.
        since, is_known = self._complete_until
        if self._known is not None:
            unwatched, is_known = self._not_watched_until(queue), self.clock.is_known
            since = None if unwatched is None else self.clock.at(to_monotonic(unwatched))
        if since is not None:
            position = b"%d-0" % max(0, since - CLOCK_SKEW_MS)
            counter.cursor.position, counter.cursor.number = position, None
            if not is_known:
                counter.cursor.doubtful_start = position
        return counter

    def apply(self, change: QueueChange, opened: Sequence[QueueEventCounter]) -> None:
        """Follow the `opened` counters, and no longer those that are gone."""
        first = self._known is None
        for counter in change.gone:
            gone = self._gone[counter.queue] = self.by_queue.pop(counter.queue)
            gone.put_away()
            self._removed = self._removed.plus(gone.take_removed())
        while len(self._gone) > MAX_REMOVED_QUEUES:
            del self._gone[next(iter(self._gone))]
        self.by_queue |= {counter.queue: counter for counter in opened}
        if first:
            for base in self._remembered:
                self._removed = self._removed.plus(self._take_removed(base))
        self._known = change.queues
        # Queues that were removed while the exporter was not running may come back as well.
        while len(self._remembered) > MAX_REMOVED_QUEUES:
            del self._remembered[next(iter(self._remembered))]

    def restart(self) -> None:
        """Note that the event log is another one: its events count by time. How much of the
        previous one was unread is unknown.
        """
        for counter in (*self.by_queue.values(), *self._gone.values()):
            self.uncertain_gaps += counter.cursor.position != BEGIN
            counter.forget_all()
            counter.cursor.restart()
        for memory in self._remembered.values():
            self.uncertain_gaps += memory["position"] != BEGIN
            position = b"%d-0" % milliseconds(memory["position"])
            memory.update(position=position, number=None, ahead=())

    def _new_counter(self, queue: Queue, budget: JobBudget) -> QueueEventCounter:
        return QueueEventCounter(
            queue,
            self._layout,
            budget,
            max_names=self._settings.max_names,
            max_reasons=self._settings.max_reasons,
            stream=self._stream_of(queue),
        )

    def _take_removed(self, base: bytes) -> FinishedJobs:
        """The jobs that finished in a queue that was removed while the exporter was not running."""
        own = JobBudget(self._settings.max_jobs)  # a separate budget for its jobs
        counter = self._new_counter(Queue(base, "", ""), own)
        counter.remember(self._remembered[base])
        removed = counter.take_removed()
        self._remembered[base] = counter.memory()
        return removed

    def _note_search(self, searched: int | None) -> None:
        if searched is None:
            self._searched = None
        elif self._searched is None or self._searched[0] != searched:
            # Converted at once, because the host's clock may be stepped later.
            self._searched = (searched, to_monotonic(searched))

    # What is published

    def now(self) -> int:
        """Epoch ms, by the server's clock if that is known."""
        return self.clock.at(1000 * time.monotonic())

    def seen_failures(self, queue: Queue) -> SeenFailures | None:
        """What was seen of the queue's failures; None if that is not known."""
        if self._details is None or not self.is_current or queue not in self.by_queue:
            return None
        return self._details.seen(queue, self.now())

    async def tallies(self) -> Tallies | None:
        """What was counted so far; None while events cannot be followed.

        With a state file these are the saved counts, so that no counter goes back even if the
        exporter is killed. If saving takes long or fails, they are the current counts, because an
        old count would mean that nothing happens.
        """
        file = self._state_file
        async with self.consistent:
            if not self.is_current:
                return None
            due = file is not None and file.due
            if file is not None and not due and time.monotonic() < self._published_until:
                return self._published
            published_until = time.monotonic() + MAX_SAVED_AGE_SECONDS
            frozen = await self._freeze()
            memory = self._memory() if due else None
        if file is not None and memory is not None:
            await file.save(memory)
        if file is not None:
            frozen = replace(frozen, saves=file.saves)
        self._published, self._published_until = frozen, published_until
        return frozen

    async def _freeze(self) -> Tallies:
        queues: dict[Queue, QueueTallies] = {}
        for batch in batched(tuple(self.by_queue.values()), FREEZE_BATCH_SIZE):
            queues.update({counter.queue: counter.freeze() for counter in batch})
            # Requests are served meanwhile, but what is saved and exposed must be of one moment.
            if self._state_file is None:
                await self._request_priority.yield_to_requests()
        return Tallies(
            layout=self._layout,
            queues=queues,
            events_read=self.events_read,
            lag=self.lag,
            tracked_jobs=self._budget.taken,
            untracked_jobs=self._budget.refused,
            uncertain_gaps=self.uncertain_gaps,
            clock_offset=self.clock.offset,
            removed=self._removed,
            unheard=self.unheard,
        )

    # The state file

    async def _load(self) -> None:
        if self._state_file is None:
            return
        saved = await self._state_file.load(self._layout)
        await hide_counts(saved.queues.values(), self._redact)
        self._remembered = dict(saved.queues)
        self._complete_until = (saved.complete_until, saved.by_server_clock)
        self._removed = saved.removed
        self.log_identity = saved.log_identity
        self.unheard, self.heard_until = saved.unheard, saved.heard_until
        if self._details is not None and saved.evidence is not None:
            self._details.remember(saved.evidence)

    def _memory(self) -> dict[str, Any]:
        return {
            "saved": self.now(),
            "searched": self._searched and self.clock.at(self._searched[1]),
            "by_redis_clock": self.clock.is_known,
            "removed": self._removed,
            "bounds": self._layout.bounds,
            "log": self.log_identity,
            "unheard": self.unheard,
            "heard_until": self.heard_until,
            EVIDENCE: None if self._details is None else self._details.memory(self.now()),
            QUEUES: {
                **self._remembered,
                **{
                    queue.base: counter.memory()
                    for counters in (self._gone, self.by_queue)
                    for queue, counter in counters.items()
                },
            },
        }
