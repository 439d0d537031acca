"""Resolves what events do not show, from the jobs' hashes: names, attempts, reasons."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping
from typing import Protocol

from exporter.concurrency.batches import batched
from exporter.concurrency.request_priority import RequestPriority
from exporter.queues.failure_evidence import excerpt
from exporter.queues.failure_reasons import fold
from exporter.queues.job_facts import JobFacts
from exporter.queues.queue import Queue
from exporter.queues.queue_event_counter import QueueEventCounter, ReadReason
from exporter.queues.redact import Redact
from exporter.queues.text import text
from exporter.stores.events.failure_details import FailureDetails

# Reasons that are folded before requests are served: up to 1 ms, because most of them are short.
FOLD_BATCH_SIZE = 20


class AskFacts(Protocol):
    """Reads what is known of jobs beyond their events. Raises StoreUnavailable."""

    def __call__(
        self,
        queue: Queue,
        job_ids: Iterable[bytes],
        *,
        in_detail: Collection[bytes],
        with_reason: Collection[bytes],
    ) -> Awaitable[Mapping[bytes, JobFacts]]:
        """The facts of each job; all facts for those `in_detail`, and why those `with_reason` last
        failed.
        """
        ...


class Resolver:
    """Finishes counters that have `is_unresolved`; `now` returns epoch ms."""

    def __init__(
        self,
        ask: AskFacts,
        details: FailureDetails | None,
        *,
        redact: Redact,
        request_priority: RequestPriority,
        now: Callable[[], int],
    ) -> None:
        self._ask, self._details, self._redact = ask, details, redact
        self._request_priority, self._now = request_priority, now
        self._unresolved: list[QueueEventCounter] = []

    @property
    def is_done(self) -> bool:
        """Whether every counter is resolved."""
        return not self._unresolved

    def note(self, counter: QueueEventCounter) -> None:
        """Note a counter that has read events."""
        if counter.is_unresolved:
            self._unresolved.append(counter)

    async def resolve(self) -> AsyncGenerator[QueueEventCounter]:
        """Read the facts of unresolved jobs, and yield each counter once it is resolved.

        Raises StoreUnavailable; the rest is done the next time.
        """
        while self._unresolved:
            counter = self._unresolved[-1]
            facts = await self._ask(
                counter.queue,
                counter.unresolved(),
                in_detail=counter.unresolved_in_detail(),
                with_reason=counter.unresolved_reasons(),
            )
            # From here on nothing waits for the store, so a failure and its reason are counted
            # together.
            failed = counter.resolve(facts, await self._read_reasons(counter.unread_reasons(facts)))
            self._unresolved.pop()
            if self._details is not None:
                self._details.note(counter.queue, failed, self._now())
            yield counter

    async def _read_reasons(self, raw_reasons: Iterable[bytes]) -> dict[bytes, ReadReason | None]:
        read: dict[bytes, ReadReason | None] = {}
        for batch in batched(raw_reasons, FOLD_BATCH_SIZE):
            for raw in batch:
                # As in the API: hidden values must not affect a fingerprint either.
                shown = await self._redact(text(raw))
                folded = fold(shown)
                read[raw] = ReadReason(folded, excerpt(shown)) if folded.text else None
            await self._request_priority.yield_to_requests()
        return read
