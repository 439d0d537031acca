"""One Redis that is watched: who polls it, who follows its events, and what the API reads with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from structlog.contextvars import bind_contextvars

from exporter.bullmq.connection import RedisReader
from exporter.bullmq.events.follower import Follower
from exporter.bullmq.events.tallies import Tallies
from exporter.bullmq.jobs import Limits
from exporter.bullmq.keys import Queue, State
from exporter.bullmq.request_priority import RequestPriority
from exporter.bullmq.request_reader import RequestReader
from exporter.bullmq.supervision import supervise
from exporter.bullmq.waiting import WaitingJobs, ready_by_hash
from exporter.bullmq.watcher import Outcome, Watcher
from exporter.deadline import Deadline
from exporter.settings import Settings

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
    ) -> None:
        self.name, self.settings = name, settings
        slot = settings.cluster_slot
        # The poll has a connection of its own: requests of the API never delay it.
        self._polling = RedisReader(settings.redis, connections=2, slot=slot)
        # And so has the follower, which waits on it for events.
        self._following = RedisReader(settings.redis, connections=1, slot=slot)
        waiting = WaitingJobs(self._ready_times)
        self._publish, self._publish_counts = publish, publish_counts
        # One at a time, so that an older count never replaces a newer one, and a count from before
        # an outage never replaces the page without queues.
        self._publishing = asyncio.Lock()
        self.watcher = Watcher(
            self._polling,
            settings,
            self._publish_poll,
            request_priority,
            waiting,
            compare_clock=self._compare_clock,
        )
        self.reader = RequestReader(settings, self.watcher, waiting, Limits.of(settings.api))
        self._follower: Follower | None = None
        if settings.events.enabled:
            self._follower = Follower(
                self._following,
                settings.events,
                lambda: self.watcher.queues,
                redis_timeout=settings.redis.timeout,
                request_priority=request_priority,
                deadline=deadline,
                searched_at=lambda: self.watcher.searched_at,
                not_watched_until=self.watcher.not_watched_until,
            )

    async def run(self) -> None:
        """Watch and follow until cancelled."""
        if self.name is not None:
            bind_contextvars(target=self.name)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.watcher.run())
            if self._follower is not None:
                tasks.create_task(self._follower.run())
                if self.settings.poll_interval > COUNTS_INTERVAL_SECONDS:
                    # Counters between polls if the poll interval is long.
                    counts = partial(self._publish_counts_again, self._follower)
                    tasks.create_task(supervise("counters cannot be published", counts))

    async def close(self) -> None:
        readers = (self._polling, self._following, self.reader)
        await asyncio.gather(*(each.close() for each in readers))

    def _ready_times(self, queue: Queue, jobs: Sequence[Any]) -> Sequence[float | None]:
        """When waiting jobs became ready, by their events if they are followed."""
        if self._follower is None:
            return ready_by_hash(queue, jobs)
        return self._follower.ready_times(queue, jobs)

    def _compare_clock(self, queue: Queue, state: State, job_id: bytes, at: bytes) -> None:
        if self._follower is not None:
            self._follower.compare_clock(queue, state, job_id, at)

    async def _publish_poll(self, outcome: Outcome) -> None:
        async with self._publishing:
            try:
                tallies = await self._follower.tallies() if self._follower is not None else None
                await self._publish(outcome, tallies)
            except Exception:
                # What was true before must not stay exposed.
                await self._publish(Outcome(None, "not published", outcome.duration), None)
                raise

    async def _publish_counts_again(self, follower: Follower) -> float:
        async with self._publishing:
            await self._publish_counts(await follower.tallies())
        return COUNTS_INTERVAL_SECONDS
