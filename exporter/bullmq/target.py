"""One Redis that is watched: who polls it, who follows its events, and what the API reads with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from structlog.contextvars import bind_contextvars

from exporter.bullmq.connection import RedisReader
from exporter.bullmq.events.follower import Follower
from exporter.bullmq.events.tallies import Tallies
from exporter.bullmq.keys import Queue
from exporter.bullmq.poll import Poller
from exporter.bullmq.turns import Turns
from exporter.bullmq.waiting import WaitingJobs, ready_by_hash
from exporter.bullmq.watcher import Outcome, Watcher
from exporter.settings import Settings

# Connections for requests of the API; further requests wait for one, within the Redis time limit.
API_CONNECTIONS = 8

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
        turns: Turns,
    ) -> None:
        self.name, self.settings = name, settings
        slot = settings.cluster_slot
        # The poll has a connection of its own: requests of the API never delay it.
        self._polling = RedisReader(settings.redis, connections=2, slot=slot)
        # And so has the follower, which waits on it for events.
        self._following = RedisReader(settings.redis, connections=1, slot=slot)
        self.reading = RedisReader(settings.redis, connections=API_CONNECTIONS, slot=slot)
        # It gives way to none: a request asks it.
        self.waiting = waiting = WaitingJobs(self._ready_times)
        self.lister = Poller(self.reading, max_schedulers=0, waiting=waiting)
        self._publish, self._publish_counts = publish, publish_counts
        # One at a time, so that an older count never replaces a newer one, and a count from before
        # an outage never replaces the page without queues.
        self._publishing = asyncio.Lock()
        self.watcher = Watcher(self._polling, settings, self._told, turns, waiting)
        self._follower: Follower | None = None
        if settings.events.enabled:
            self._follower = Follower(
                self._following,
                settings.events,
                lambda: self.watcher.queues,
                redis_timeout=settings.redis.timeout,
                turns=turns,
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
                    tasks.create_task(self._publish_counts_forever(self._follower))

    async def close(self) -> None:
        for redis in (self._polling, self._following, self.reading):
            await redis.close()

    def _ready_times(self, queue: Queue, jobs: Sequence[Any]) -> Sequence[float | None]:
        """When waiting jobs became ready, by their events if they are followed."""
        if self._follower is None:
            return ready_by_hash(queue, jobs)
        return self._follower.ready_times(queue, jobs)

    async def _told(self, outcome: Outcome) -> None:
        async with self._publishing:
            tallies = await self._follower.tallies() if self._follower is not None else None
            await self._publish(outcome, tallies)

    async def _publish_counts_forever(self, follower: Follower) -> None:
        """Publish counters between polls if the poll interval is long."""
        while True:
            await asyncio.sleep(COUNTS_INTERVAL_SECONDS)
            async with self._publishing:
                await self._publish_counts(await follower.tallies())
