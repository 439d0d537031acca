"""Joins the counts of two kinds of queues in one target, each of which has its own follower."""

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
    """Counts of a kind of queue that most targets do not have."""

    @property
    def has_begun(self) -> bool:
        """Whether there is, or was, such a queue."""


class JoinedCounts:
    """See stores.base.EventCounts. Without a queue of the rare kind, only the usual counts."""

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
        """Returns what was counted so far, from whichever followers have values; None if neither
        has.
        """
        usual = await self._usual.tallies()
        if not self._rare.has_begun:
            return usual
        rare = await self._rare.tallies()
        if usual is None and rare is None:
            return None
        is_complete = usual is not None and rare is not None
        # The counters over all queues keep their values: Prometheus would take a lower value for a
        # reset, and the old value, once it is back, for an increase.
        self._usual_last = usual = usual or _without_queues(self._usual_last)
        self._rare_last = rare = rare or _without_queues(self._rare_last)
        if usual is None or rare is None:
            [known] = [each for each in (usual, rare) if each is not None]
            return replace(known, is_complete=False)
        return replace(_joined(usual, rare), is_complete=is_complete)

    def seen_failures(self, queue: Queue) -> SeenFailures | None:
        """Returns the failures that were seen in the queue; None if they are not known."""
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
        # Only streams show how much the host's clock differs from the server's.
        clock_offset=usual.clock_offset,
        uncertain_gaps=usual.uncertain_gaps + rare.uncertain_gaps,
        saves=_of_both(usual.saves, rare.saves),
        unheard=rare.unheard,
    )


def _of_both(first: Saves | None, second: Saves | None) -> Saves | None:
    """Returns the time of the older save, and the number of all failed saves."""
    if first is None or second is None:
        return first or second
    return Saves(min(first.last, second.last), first.failed + second.failed)
