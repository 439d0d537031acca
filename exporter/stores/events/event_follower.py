"""The common part of following events, whatever they are read from."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TypedDict, Unpack

from exporter.concurrency.request_priority import RequestPriority
from exporter.deadline import Deadline
from exporter.queues.failure_evidence import SeenFailures
from exporter.queues.queue import Queue
from exporter.queues.queue_event_counter import QueueEventCounter
from exporter.queues.redact import Redact, unredacted
from exporter.queues.tallies import Tallies
from exporter.queues.watched_queues import WatchedQueues
from exporter.settings import EventsSettings
from exporter.stores.events.event_counters import EventCounters
from exporter.stores.events.failure_details import FailureDetails, ReadJobs, no_jobs
from exporter.stores.events.resolver import AskFacts, Resolver


class Surroundings(TypedDict, total=False):
    """What a follower needs from the rest of the program; see EventCounters. `read_jobs` reads
    failed jobs, over other connections.
    """

    request_priority: RequestPriority | None
    deadline: Deadline | None
    searched_at: Callable[[], int | None]
    not_watched_until: Callable[[Queue], int | None]
    redact: Redact
    read_jobs: ReadJobs


def surroundings(
    watched: WatchedQueues,
    request_priority: RequestPriority,
    deadline: Deadline | None,
    redact: Redact,
    read_jobs: ReadJobs,
) -> Surroundings:
    """What the follower of a store's `watched` queues is given."""
    return Surroundings(
        searched_at=lambda: watched.searched_at,
        not_watched_until=watched.not_watched_until,
        request_priority=request_priority,
        deadline=deadline,
        redact=redact,
        read_jobs=read_jobs,
    )


class EventFollower(ABC):
    """See stores.base.EventCounts. `queues` returns the queues to follow; `ask` reads what is known
    of jobs beyond their events.
    """

    def __init__(
        self,
        settings: EventsSettings,
        queues: Callable[[], tuple[Queue, ...] | None],
        ask: AskFacts,
        *,
        stream_of: Callable[[Queue], bytes] = lambda _: b"",
        **around: Unpack[Surroundings],
    ) -> None:
        self._request_priority = around.get("request_priority") or RequestPriority()
        self._deadline = around.get("deadline") or Deadline()
        redact = around.get("redact", unredacted)
        details: FailureDetails | None = None  # None if failures are not counted by reason
        if settings.max_reasons:
            read_jobs = around.get("read_jobs", no_jobs)
            details = FailureDetails(int(1000 * time.time()), read_jobs, redact)
        self._counts = EventCounters(
            settings,
            queues,
            details=details,
            redact=redact,
            searched_at=around.get("searched_at", lambda: None),
            not_watched_until=around.get("not_watched_until", lambda _: None),
            request_priority=self._request_priority,
            stream_of=stream_of,
        )
        self._resolver = Resolver(
            ask,
            details,
            redact=redact,
            request_priority=self._request_priority,
            now=self._counts.now,
        )
        # Counters whose jobs' hashes may be ahead of the events that were read.
        self._ahead: set[QueueEventCounter] = set()

    @abstractmethod
    def _understanding(self) -> AbstractContextManager[None]:
        """Within it a reply that cannot be understood raises StoreInvalidReply."""

    @abstractmethod
    async def _step(self) -> float:
        """Read new events once; return how long to sleep before the next time, in seconds."""

    @abstractmethod
    def _begin_anew(self) -> None:
        """Prepare the next step, after one that failed."""

    async def run(self) -> None:
        """Follow until cancelled, then save."""
        await self._counts.run(
            self._run_step,
            failed=self._begin_anew,
            resolver=self._resolver,
            deadline=self._deadline,
        )

    async def tallies(self) -> Tallies | None:
        """See EventCounters.tallies."""
        return await self._counts.tallies()

    def seen_failures(self, queue: Queue) -> SeenFailures | None:
        """What was seen of the queue's failures; None if that is not known."""
        return self._counts.seen_failures(queue)

    @property
    def _counters(self) -> Mapping[Queue, QueueEventCounter]:
        return self._counts.by_queue

    async def _run_step(self) -> float:
        with self._understanding():
            return await self._step()

    async def _resolve(self) -> None:
        """Read names, and resolve ambiguous transitions."""
        async for counter in self._resolver.resolve():
            if counter.is_ahead:
                self._ahead.add(counter)

    def _note_caught_up(self, counters: Iterable[QueueEventCounter]) -> None:
        """Note that these were read to the end since they were last resolved."""
        for counter in self._ahead.intersection(counters):
            self._ahead.remove(counter)
            counter.note_caught_up()
