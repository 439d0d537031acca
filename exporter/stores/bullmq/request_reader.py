"""The reads of the Jobs API from one target."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from exporter.queues.job_detail import JobDetail
from exporter.queues.jobs import Job, Page, ReadLimits
from exporter.queues.queue import Queue, State
from exporter.queues.snapshot import QueueReading, Scheduler
from exporter.queues.text import spellings
from exporter.queues.watched_queues import WatchedQueues
from exporter.settings import Settings
from exporter.stores.bullmq.bull_queues import BullQueues
from exporter.stores.bullmq.job_detail import read_job
from exporter.stores.bullmq.jobs import Scan, existing, read_jobs, read_page
from exporter.stores.bullmq.poll import Poller
from exporter.stores.bullmq.schedulers import read_scheduler_page
from exporter.stores.bullmq.waiting import WaitingJobs
from exporter.stores.redis.client import RedisReader, RedisUnavailable
from exporter.stores.redis.connections import MAX_REPLIES_BYTES
from exporter.stores.redis.eviction_policy import EvictionPolicy
from exporter.stores.request_reads import FAILED_LIMITS, RequestReads

# Connections for requests of the API; further requests wait for one, within the Redis time limit.
API_CONNECTIONS = 8


class RequestReader(RequestReads):
    """Reads for requests, over connections of its own: no poll delays one, and none delays a poll.

    All reads raise RedisUnavailable.
    """

    def __init__(
        self,
        settings: Settings,
        watched: WatchedQueues,
        waiting: WaitingJobs,
        limits: ReadLimits,
        bull_queues: BullQueues,
    ) -> None:
        super().__init__(
            watched,
            address=settings.store_address,
            timeout=settings.redis.timeout,
            unavailable=RedisUnavailable,
        )
        self._settings, self._waiting = settings, waiting
        self._limits, self._bull_queues = limits, bull_queues
        self._redis = RedisReader(
            settings.redis,
            connections=API_CONNECTIONS,
            slot=settings.cluster_slot,
            # A page contains more than its large fields.
            max_bytes=MAX_REPLIES_BYTES + settings.api.max_page_bytes,
        )
        # Without priority for requests, because this is a request.
        self._poller = self._new_poller()
        self._policy = EvictionPolicy(self._redis)

    async def close(self) -> None:
        await self._redis.close()

    def _new_poller(self) -> Poller:
        return Poller(
            self._redis, max_schedulers=0, waiting=self._waiting, bull_queues=self._bull_queues
        )

    def _understanding(self) -> AbstractContextManager[None]:
        return self._redis.understanding()

    def _forget(self) -> None:
        self._poller.forget_all()

    # Which queues

    def find_new(self, name: str, prefix: str | None) -> list[Queue]:
        """Queues of this name that may have been created since the last discovery."""
        settings = self._settings
        if not name or ":" in name or not settings.has_search or not settings.selects(name):
            return []
        return [
            Queue.named(each, name.encode("utf-8", "replace"))
            for each in settings.plain_prefixes
            if prefix in (None, each)
        ]

    # Reads

    async def read_queues(self) -> Sequence[QueueReading]:
        """All watched queues."""
        queues = self._watched.queues
        if queues is None:
            raise RedisUnavailable("the first discovery is not done")
        async with self.answering():
            return await self._poller.poll(queues, configured=self._watched.configured)

    async def read_queue(self, queue: Queue) -> QueueReading:
        """One queue, whether it exists or not."""
        # A separate poller, because that of all queues forgets those that are not in its request.
        poller = self._new_poller()
        with self.understanding():
            (reading,) = await poller.poll([queue], configured=frozenset([queue]))
        return reading

    async def read_page(
        self,
        queue: Queue,
        state: State,
        *,
        start: int,
        limit: int,
        newest_first: bool,
        without: Sequence[str] = (),
    ) -> Page | None:
        """A page of jobs; None if there is no such queue. See jobs.read_page."""
        found = await read_page(
            self._redis,
            queue,
            state,
            start=start,
            limit=limit,
            newest_first=newest_first,
            limits=self._limits,
            without=without,
        )
        # Without `meta` a queue exists while it holds something, or if it is Bull's; whether it is
        # a queue at all, only a search can find out.
        is_bull = found.has_counter and queue in self._bull_queues
        exists = found.has_meta or (
            self._watched.includes(queue) and (is_bull or not found.is_empty)
        )
        return found if exists or queue in self._watched.configured else None

    async def read_jobs(
        self, queue: Queue, state: State, ids: Sequence[bytes], *, without: Sequence[str]
    ) -> Sequence[Job]:
        """Those of these jobs that are still there."""
        with self.understanding():
            return await read_jobs(
                self._redis, queue, state, ids, limits=self._limits, without=without
            )

    async def read_failed(self, queue: Queue, ids: Sequence[bytes]) -> Sequence[Job]:
        """Those of these jobs that still exist, without return values and long fields."""
        return await read_jobs(
            self._redis, queue, State.FAILED, ids, limits=FAILED_LIMITS, without=("returnvalue",)
        )

    async def existing(self, queue: Queue, ids: Sequence[bytes]) -> set[bytes]:
        """Which of these jobs are still there."""
        with self.understanding():
            return await existing(self._redis, queue, ids)

    def scan(self, queue: Queue, state: State, *, newest_first: bool) -> Scan:
        """A reading of all jobs of a state, in batches."""
        return Scan(self._redis, queue, state, newest_first=newest_first, limits=self._limits)

    async def read_job(
        self, queue: Queue, job_id: bytes, *, first_log: int, logs: int, prefixes: Sequence[str]
    ) -> JobDetail | None:
        """One job in full; None if there is none. See job_detail.read_job."""
        for spelling in spellings(job_id):
            found = await read_job(
                self._redis,
                queue,
                spelling,
                first_log=first_log,
                logs=logs,
                prefixes=prefixes,
                queues=self._watched.by_key,
                limits=self._limits,
            )
            if found is not None:
                return found
        return None

    async def find_job(self, queue: Queue, job_id: bytes) -> bytes | None:
        """The job's id as Redis has it; None if there is none."""
        for spelling in spellings(job_id):
            if await self._redis.command("EXISTS", queue.job_key(spelling)):
                return spelling
        return None

    async def read_schedulers(
        self, queue: Queue, *, start: int, limit: int
    ) -> tuple[int | None, Sequence[Scheduler]]:
        """How many schedulers there are, and a page of them. See schedulers.read_scheduler_page."""
        with self.understanding():
            return await read_scheduler_page(self._redis, queue, start=start, limit=limit)

    async def read_eviction_policy(self) -> str | None:
        """Redis's `maxmemory-policy`; None if it may not be read."""
        with self.understanding():
            return await self._policy.read()
