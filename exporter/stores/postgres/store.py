"""A store of the BullMQ queues in one schema of PostgreSQL."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager

from exporter.concurrency.request_priority import RequestPriority
from exporter.deadline import Deadline
from exporter.queues.queue import MAX_BASE_BYTES, Queue
from exporter.queues.redact import Redact, unredacted
from exporter.queues.remark import Remark, listed, missing_names
from exporter.queues.snapshot import QueueReading
from exporter.queues.watched_queues import WatchedQueues
from exporter.settings import Settings
from exporter.stores.base import Findings
from exporter.stores.events.event_follower import surroundings
from exporter.stores.postgres.client import PostgresReader, raw_text
from exporter.stores.postgres.collectors import all_collectors
from exporter.stores.postgres.events.follower import Follower
from exporter.stores.postgres.large_counts import LargeCounts
from exporter.stores.postgres.poll import Poller
from exporter.stores.postgres.request_reader import RequestReader
from exporter.stores.postgres.schema import Schema
from exporter.stores.postgres.statements import load_statement
from exporter.stores.request_reads import read_limits

QUEUES = load_statement("queues.sql")

# Names that one search reads at most, in addition to those that may be watched.
MAX_OTHER_NAMES = 10_000


class PostgresStore:
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
        self._settings = settings
        self.kind, self.address = "PostgreSQL", settings.store_address
        self.timeout = settings.postgres.timeout
        self.limitations: Sequence[Remark] = ()
        # The poll and the events share a connection of their own, so requests of the API never
        # delay them.
        self._polling = PostgresReader(settings.postgres, connections=1)
        self._schema = Schema(self._polling)
        counts = LargeCounts(self._polling)
        self._poller = Poller(
            self._polling,
            self._schema,
            counts,
            max_schedulers=settings.max_schedulers,
            request_priority=request_priority,
        )
        self.collectors = all_collectors(self._polling, settings)
        self.reader = RequestReader(settings, watched, counts, read_limits(settings.api))
        self.events: Follower | None = None
        if settings.events.enabled:
            self.events = Follower(
                self._polling,
                settings.events,
                lambda: watched.queues,
                **surroundings(
                    watched, request_priority, deadline, redact, self.reader.read_failed
                ),
            )

    def understanding(self) -> AbstractContextManager[None]:
        return self._polling.understanding()

    async def search(
        self,
        *,
        pace: float,  # noqa: ARG002 - it is one statement
        known: Sequence[Queue],
        everywhere: bool,  # noqa: ARG002 - all names are read each time
    ) -> Findings:
        return await self._search(self._settings, known)

    async def search_for_named(self, *, pace: float) -> Findings:  # noqa: ARG002 - as above
        everything = self._settings.model_copy(update={"queues": (), "queues_exclude": ()})
        return await self._search(everything, ())

    async def _search(self, settings: Settings, known: Iterable[Queue]) -> Findings:
        await self._schema.check()
        most = settings.max_queues + MAX_OTHER_NAMES
        by_base = {queue.base: queue for queue in known}
        queues, excluded, too_long = [], 0, 0
        for (name,) in await self._polling.read(QUEUES, most=most):
            queue = Queue.named(settings.postgres.schema_name, raw_text(name))
            if not name or len(queue.base) > MAX_BASE_BYTES:
                too_long += bool(name)
            elif not settings.selects(queue.name):
                excluded += 1
            else:
                queues.append(by_base.get(queue.base, queue))
        queues.sort(key=lambda queue: queue.base)
        return Findings(queues=tuple(queues), excluded=excluded, too_long=too_long)

    async def sign_of_new_queue(self) -> None:
        await asyncio.Event().wait()

    async def poll(
        self, queues: Sequence[Queue], *, configured: frozenset[Queue]
    ) -> tuple[QueueReading, ...]:
        return await self._poller.poll(queues, configured=configured)

    def exists(self, queue: Queue) -> bool:
        return self._poller.exists(queue)

    def forget(self) -> None:
        self._poller.forget_all()

    def remarks_on(
        self, findings: Findings, *, named: Iterable[Queue], patient: bool
    ) -> Sequence[Remark]:
        postgres = self._settings.postgres
        nothing = not findings.queues and not findings.excluded
        remarks = []
        if nothing:
            detail = (
                f"in schema {postgres.schema_name} of {self.address}; see "
                f"{postgres.names_of('schema_name')} and {postgres.names_of('database')}"
            )
            level = logging.INFO if patient else logging.WARNING
            remarks.append(Remark(level, "no BullMQ queue found", detail))
        elif names := missing_names(named, findings.queues):
            detail = f"{names}; see {self._settings.names_of('queues')}"
            remarks.append(
                Remark(logging.WARNING, "named queues are not in PostgreSQL (yet)", detail)
            )
        if findings.too_long:
            detail = f"{findings.too_long}, of more than {MAX_BASE_BYTES} bytes"
            remarks.append(
                Remark(logging.INFO, "queues with very long names are not watched", detail)
            )
        return remarks

    async def look_elsewhere(self) -> Remark | None:
        if not (others := await self._schema.others()):
            return None
        detail = f"{listed(others)}; see {self._settings.postgres.names_of('schema_name')}"
        return Remark(logging.INFO, "other schemas hold BullMQ's tables", detail)

    async def check_events(self) -> Remark | None:
        return None

    async def close(self) -> None:
        await asyncio.gather(self._polling.close(), self.reader.close())
