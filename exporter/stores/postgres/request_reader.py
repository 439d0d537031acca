"""Reads for requests to the Jobs API from one PostgreSQL, one for each kind of request."""

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
from exporter.stores.postgres.client import PostgresReader, raw_text, sendable
from exporter.stores.postgres.errors import PostgresUnavailable
from exporter.stores.postgres.job_detail import read_job
from exporter.stores.postgres.jobs import Scan, read_jobs, read_page
from exporter.stores.postgres.large_counts import LargeCounts
from exporter.stores.postgres.poll import Poller
from exporter.stores.postgres.schedulers import read_scheduler_page
from exporter.stores.postgres.schema import Schema
from exporter.stores.postgres.statements import load_statement
from exporter.stores.request_reads import FAILED_LIMITS, RequestReads

EXISTING = load_statement("existing.sql")

# Connections for requests of the API; further requests wait for one, within the time limit.
API_CONNECTIONS = 2
# How long one statement of a request may take (ms).
STATEMENT_MS = 1000


class RequestReader(RequestReads):
    """Reads for requests, over its own connections: polls and requests do not delay each other.

    All reads raise PostgresUnavailable.
    """

    def __init__(
        self,
        settings: Settings,
        watched: WatchedQueues,
        large_counts: LargeCounts,
        limits: ReadLimits,
    ) -> None:
        super().__init__(
            watched,
            address=settings.store_address,
            timeout=settings.postgres.timeout,
            unavailable=PostgresUnavailable,
        )
        self._settings = settings
        self._large_counts, self._limits = large_counts, limits
        self._postgres = PostgresReader(
            settings.postgres, connections=API_CONNECTIONS, statement_ms=STATEMENT_MS
        )
        # Without a request priority, because this poller serves the requests.
        self._poller = Poller(
            self._postgres,
            Schema(self._postgres),
            large_counts,
            max_schedulers=0,
            counts_large=False,
        )

    async def close(self) -> None:
        await self._postgres.close()

    def _understanding(self) -> AbstractContextManager[None]:
        return self._postgres.understanding()

    # Which queues

    def find_new(self, name: str, prefix: str | None) -> list[Queue]:
        """Queues of this name that may have been created since the last discovery."""
        settings = self._settings
        schema = settings.postgres.schema_name
        raw_name = name.encode("utf-8", "replace")
        if not name or sendable(raw_name) is None or prefix not in (None, schema):
            return []
        if not settings.has_search or not settings.selects(name):
            return []
        return [Queue.named(schema, raw_name)]

    # Reads

    async def read_queues(self) -> Sequence[QueueReading]:
        """All watched queues."""
        queues = self._watched.queues
        if queues is None:
            raise PostgresUnavailable("the first discovery is not done")
        async with self.answering():
            return await self._poller.poll(queues, configured=self._watched.configured)

    async def read_queue(self, queue: Queue) -> QueueReading:
        """One queue, even if it does not exist."""
        with self.understanding():
            return await self._poller.poll_one(queue)

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
        """Returns a page of jobs; None if there is no such queue. See jobs.read_page."""
        found = await read_page(
            self._postgres,
            queue,
            state,
            start=start,
            limit=limit,
            newest_first=newest_first,
            limits=self._limits,
            large_counts=self._large_counts,
            without=without,
        )
        return found if found.has_meta or queue in self._watched.configured else None

    async def read_jobs(
        self, queue: Queue, state: State, ids: Sequence[bytes], *, without: Sequence[str]
    ) -> Sequence[Job]:
        """Returns those of these jobs that still exist."""
        with self.understanding():
            return await read_jobs(
                self._postgres, queue, state, ids, limits=self._limits, without=without
            )

    async def read_failed(self, queue: Queue, ids: Sequence[bytes]) -> Sequence[Job]:
        """Returns those of these jobs that still exist, without return values and long fields."""
        return await read_jobs(
            self._postgres,
            queue,
            State.FAILED,
            ids,
            limits=FAILED_LIMITS,
            without=("returnvalue",),
        )

    async def existing(self, queue: Queue, ids: Sequence[bytes]) -> set[bytes]:
        """Returns the ids of those of these jobs that still exist."""
        texts = [text for text in map(sendable, ids) if text is not None]
        with self.understanding():
            rows = await self._postgres.read(EXISTING, queue=sendable(queue.raw_name), ids=texts)
        return {raw_text(job_id) for (job_id,) in rows}

    def scan(self, queue: Queue, state: State, *, newest_first: bool) -> Scan:
        """Returns a scan of all jobs of a state, in batches."""
        return Scan(
            self._postgres,
            queue,
            state,
            newest_first=newest_first,
            limits=self._limits,
            large_counts=self._large_counts,
        )

    async def read_job(
        self,
        queue: Queue,
        job_id: bytes,
        *,
        first_log: int,
        logs: int,
        prefixes: Sequence[str],  # noqa: ARG002 - relatives are in the same schema
    ) -> JobDetail | None:
        """Returns one job in full; None if it does not exist. See job_detail.read_job."""
        for spelling in spellings(job_id):
            if (text := sendable(spelling)) is None:
                continue
            found = await read_job(
                self._postgres, queue, text, first_log=first_log, logs=logs, limits=self._limits
            )
            if found is not None:
                return found
        return None

    async def find_job(self, queue: Queue, job_id: bytes) -> bytes | None:
        """Returns the job's id as PostgreSQL stores it; None if there is no such job."""
        existing = await self.existing(queue, spellings(job_id))
        return next((spelling for spelling in spellings(job_id) if spelling in existing), None)

    async def read_schedulers(
        self, queue: Queue, *, start: int, limit: int
    ) -> tuple[int | None, Sequence[Scheduler]]:
        """The number of schedulers, and a page of them. See schedulers.read_scheduler_page."""
        with self.understanding():
            return await read_scheduler_page(self._postgres, queue, start=start, limit=limit)

    async def read_eviction_policy(self) -> str | None:
        """Returns None: PostgreSQL removes no data when it is full."""
        return None
