"""The counts of two kinds of queues in one target, each followed in its own way."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Protocol

from exporter.queues.failure_evidence import SeenFailures
from exporter.queues.queue import Queue
from exporter.queues.tallies import Saves, Tallies


class Counts(Protocol):
    """See stores.base.EventCounts."""

    async def run(self) -> None: ...

    async def tallies(self) -> Tallies | None: ...

    def seen_failures(self, queue: Queue) -> SeenFailures | None: ...


class RareCounts(Counts, Protocol):
    """Counts of a kind of queues that most targets have none of."""

    @property
    def has_begun(self) -> bool:
        """Whether there is, or was, such a queue."""


class JoinedCounts:
    """See stores.base.EventCounts. While there is no queue of the rare kind, the others' alone."""

    def __init__(self, usual: Counts, rare: RareCounts) -> None:
        self._usual, self._rare = usual, rare
        self._usual_last: Tallies | None = None
        self._rare_last: Tallies | None = None

    async def run(self) -> None:
        """Follow both until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._usual.run())
            tasks.create_task(self._rare.run())

    async def tallies(self) -> Tallies | None:
        """What was counted so far, as far as it is followed; None if nothing is."""
        usual = await self._usual.tallies()
        if not self._rare.has_begun:
            return usual
        rare = await self._rare.tallies()
        if usual is None and rare is None:
            return None
        is_complete = usual is not None and rare is not None
        # The counters over all queues go on where they were: less would be a restart to Prometheus,
        # and the old value, once it is back, an increase.
        self._usual_last = usual = usual or _without_queues(self._usual_last)
        self._rare_last = rare = rare or _without_queues(self._rare_last)
        if usual is None or rare is None:
            [known] = [each for each in (usual, rare) if each is not None]
            return replace(known, is_complete=False)
        return replace(_joined(usual, rare), is_complete=is_complete)

    def seen_failures(self, queue: Queue) -> SeenFailures | None:
        """What was seen of the queue's failures; None if that is not known."""
        seen = self._usual.seen_failures(queue)
        return self._rare.seen_failures(queue) if seen is None else seen


def _without_queues(tallies: Tallies | None) -> Tallies | None:
    return tallies and replace(
        tallies, queues={}, lag=0.0, tracked_jobs=0, clock_offset=None, saves=None
    )


def _joined(usual: Tallies, rare: Tallies) -> Tallies:
    return Tallies(
        layout=usual.layout,
        queues={**usual.queues, **rare.queues},
        events_read=usual.events_read + rare.events_read,
        lag=max(usual.lag, rare.lag),
        tracked_jobs=usual.tracked_jobs + rare.tracked_jobs,
        untracked_jobs=usual.untracked_jobs + rare.untracked_jobs,
        removed=usual.removed.plus(rare.removed),
        # By how much the host's clock differs from the server's is seen in streams alone.
        clock_offset=usual.clock_offset,
        uncertain_gaps=usual.uncertain_gaps + rare.uncertain_gaps,
        saves=_of_both(usual.saves, rare.saves),
        unheard=rare.unheard,
    )


def _of_both(first: Saves | None, second: Saves | None) -> Saves | None:
    """The older save, and all that failed."""
    if first is None or second is None:
        return first or second
    return Saves(min(first.last, second.last), first.failed + second.failed)
