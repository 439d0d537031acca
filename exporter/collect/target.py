"""One watched target: its store, the watcher that polls it, its events, its reader for the API."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from structlog.contextvars import bind_contextvars

from exporter.collect.watcher import Watcher, watched_queues
from exporter.concurrency.request_priority import RequestPriority
from exporter.concurrency.supervision import supervise
from exporter.deadline import Deadline
from exporter.queues.failure_evidence import SeenFailures
from exporter.queues.queue import Queue
from exporter.queues.redact import Redact, unredacted
from exporter.queues.snapshot import Outcome
from exporter.queues.tallies import Tallies
from exporter.settings import Settings
from exporter.stores import open_store
from exporter.stores.base import EventCounts

# Seconds between two publications of counters if the poll interval is longer.
COUNTS_INTERVAL_SECONDS = 5.0

Publish = Callable[[Outcome, Tallies | None], Awaitable[None]]
PublishCounts = Callable[[Tallies | None], Awaitable[None]]


class Target:
    """Passes each poll with the counts up to it to `publish`, and the counts between two polls to
    `publish_counts`. Nothing is shared with others: a target that is slow or away
    delays none.

    `name` is None where there is only one, which then needs none.
    """

    def __init__(
        self,
        name: str | None,
        settings: Settings,
        publish: Publish,
        publish_counts: PublishCounts,
        request_priority: RequestPriority,
        *,
        deadline: Deadline,
        redact: Redact = unredacted,
    ) -> None:
        self.name, self.settings = name, settings
        self._publish, self._publish_counts = publish, publish_counts
        # One at a time, so that an older count never replaces a newer one, and a count from before
        # an outage never replaces the page without queues.
        self._publishing = asyncio.Lock()
        watched = watched_queues(settings)
        self._store = open_store(
            settings, watched, request_priority, deadline=deadline, redact=redact
        )
        self._events, self.reader = self._store.events, self._store.reader
        self.watcher = Watcher(self._store, watched, settings, self._publish_poll, request_priority)

    @property
    def timeout(self) -> float:
        """The time limit of one call of its store, in seconds."""
        return self._store.timeout

    def seen_failures(self, queue: Queue) -> SeenFailures | None:
        """What was seen of the queue's failures; None if that is not known."""
        return None if self._events is None else self._events.seen_failures(queue)

    async def run(self) -> None:
        """Watch and follow until cancelled."""
        if self.name is not None:
            bind_contextvars(target=self.name)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.watcher.run())
            if self._events is not None:
                tasks.create_task(self._events.run())
                if self.settings.poll_interval > COUNTS_INTERVAL_SECONDS:
                    # Counters between polls if the poll interval is long.
                    counts = partial(self._publish_counts_again, self._events)
                    tasks.create_task(supervise("counters cannot be published", counts))

    async def close(self) -> None:
        await self._store.close()

    async def _publish_poll(self, outcome: Outcome) -> None:
        async with self._publishing:
            try:
                tallies = await self._events.tallies() if self._events is not None else None
                await self._publish(outcome, tallies)
            except Exception:
                # What was true before must not stay exposed.
                await self._publish(Outcome(None, "not published", outcome.duration), None)
                raise

    async def _publish_counts_again(self, events: EventCounts) -> float:
        async with self._publishing:
            await self._publish_counts(await events.tallies())
        return COUNTS_INTERVAL_SECONDS
