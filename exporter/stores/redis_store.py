"""A store of the queues in one Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from exporter.concurrency.request_priority import RequestPriority
from exporter.deadline import Deadline
from exporter.queues.queue import Queue, State
from exporter.queues.redact import Redact, unredacted
from exporter.queues.remark import Remark
from exporter.queues.snapshot import QueueReading
from exporter.queues.watched_queues import WatchedQueues
from exporter.settings import EventsSettings, Settings
from exporter.stores.base import EventCounts, Findings
from exporter.stores.bull.events.follower import BullFollower
from exporter.stores.bull.events.subscription import check_hearing
from exporter.stores.bullmq.bull_queues import BullQueues
from exporter.stores.bullmq.collectors import all_collectors
from exporter.stores.bullmq.discovery import Search
from exporter.stores.bullmq.events.follower import Follower
from exporter.stores.bullmq.poll import Poller
from exporter.stores.bullmq.remarks import IN_A_CLUSTER, other_databases, remarks_on
from exporter.stores.bullmq.request_reader import RequestReader
from exporter.stores.bullmq.waiting import WaitingJobs, ready_by_hash
from exporter.stores.events.event_follower import surroundings
from exporter.stores.events.joined_counts import JoinedCounts
from exporter.stores.redis.client import RedisReader
from exporter.stores.request_reads import read_limits


class RedisStore:
    """See stores.base.Store."""

    def __init__(
        self,
        settings: Settings,
        watched: WatchedQueues,
        request_priority: RequestPriority,
        *,
        deadline: Deadline | None = None,
        redact: Redact = unredacted,
    ) -> None:
        self._settings, self._watched = settings, watched
        self._request_priority = request_priority
        self.kind, self.address = "Redis", settings.store_address
        self.timeout = settings.redis.timeout
        self.limitations = (IN_A_CLUSTER,) if settings.redis.cluster else ()
        slot = settings.cluster_slot
        # The poll has a connection of its own: requests of the API never delay it.
        self._polling = RedisReader(settings.redis, connections=2, slot=slot)
        # The follower also has its own connection, on which it waits for events.
        self._following = RedisReader(settings.redis, connections=1, slot=slot)
        self._bull_queues = BullQueues()
        self._identify_due = 0.0  # monotonic
        waiting = WaitingJobs(self._ready_times)
        self._poller = Poller(
            self._polling,
            max_schedulers=settings.max_schedulers,
            request_priority=request_priority,
            waiting=waiting,
            compare_clock=self._compare_clock,
            bull_queues=self._bull_queues,
        )
        self._search = self._searching(settings)
        self.collectors = all_collectors(
            self._polling, settings, request_priority, self._compare_clock, self._bull_queues
        )
        self.reader = RequestReader(
            settings, watched, waiting, read_limits(settings.api), self._bull_queues
        )
        # Bull's events take two more connections, which are opened once there is a Bull queue.
        self._hearing = RedisReader(settings.redis, connections=1, slot=slot)
        self._follower: Follower | None = None
        self._bull_follower: BullFollower | None = None
        self.events: EventCounts | None = None
        if settings.events.enabled:
            around = surroundings(
                watched, request_priority, deadline, redact, self.reader.read_failed
            )
            self._follower = Follower(
                self._following,
                settings.events,
                lambda: self._bull_queues.split(watched.queues)[0],
                redis_timeout=settings.redis.timeout,
                **around,
            )
            self._bull_follower = BullFollower(
                self._hearing,
                _events_of_bull(settings.events),
                lambda: self._bull_queues.split(watched.queues)[1],
                redis_settings=settings.redis,
                **around,
            )
            self.events = JoinedCounts(self._follower, self._bull_follower)

    def understanding(self) -> AbstractContextManager[None]:
        return self._polling.understanding()

    def _searching(self, settings: Settings) -> Search:
        return Search(
            self._polling,
            settings,
            limit=settings.max_queues,
            request_priority=self._request_priority,
            bull_queues=self._bull_queues,
        )

    async def search(self, *, pace: float, known: Sequence[Queue], everywhere: bool) -> Findings:
        findings = await self._search.run(pace=pace, known=known, everywhere=everywhere)
        self._bull_queues.keep((*findings.queues, *known))
        return findings

    async def search_for_named(self, *, pace: float) -> Findings:
        all_names = self._settings.model_copy(update={"queues": (), "queues_exclude": ()})
        return await self._searching(all_names).run(pace=pace, everywhere=True)

    async def sign_of_new_queue(self) -> None:
        if self._bull_follower is None:
            await asyncio.Event().wait()
        else:
            await self._bull_follower.sign_of_new_queue()

    async def poll(
        self, queues: Sequence[Queue], *, configured: frozenset[Queue]
    ) -> tuple[QueueReading, ...]:
        if not self._settings.has_search:
            await self._identify(queues)
        return await self._poller.poll(queues, configured=configured)

    async def _identify(self, queues: Sequence[Queue]) -> None:
        """Find out from time to time which of the named queues are Bull's."""
        if self._identify_due <= time.monotonic():
            await self._search.identify(queues)
            self._identify_due = time.monotonic() + self._settings.discovery_interval

    def exists(self, queue: Queue) -> bool:
        return self._poller.exists(queue)

    def forget(self) -> None:
        self._poller.forget_all()

    def remarks_on(
        self, findings: Findings, *, named: Iterable[Queue], patient: bool
    ) -> Sequence[Remark]:
        return remarks_on(self._settings, findings, named=named, patient=patient)

    async def look_elsewhere(self) -> Remark | None:
        return await other_databases(self._polling, self._settings)

    async def check_events(self) -> Remark | None:
        bull = self._bull_queues.split(self._watched.queues)[1]
        if not bull or not self._settings.events.enabled:
            return None
        return await check_hearing(self._settings.redis, bull, slot=self._settings.cluster_slot)

    async def close(self) -> None:
        readers = (self._polling, self._following, self._hearing, self.reader)
        await asyncio.gather(*(each.close() for each in readers))

    def _ready_times(self, queue: Queue, jobs: Sequence[Any]) -> Sequence[float | None]:
        """Returns when waiting jobs became ready, from their events if those are followed."""
        if self._follower is None:
            return ready_by_hash(queue, jobs)
        return self._follower.ready_times(queue, jobs)

    def _compare_clock(self, queue: Queue, state: State, job_id: bytes, at: bytes) -> None:
        if self._follower is not None:
            self._follower.compare_clock(queue, state, job_id, at)


def _events_of_bull(settings: EventsSettings) -> EventsSettings:
    """Returns the settings with a separate state file: the two are saved at different times."""
    if settings.state_file is None:
        return settings
    return settings.model_copy(update={"state_file": Path(f"{settings.state_file}.bull")})
