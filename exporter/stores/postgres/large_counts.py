"""Counts of jobs that are too many to be counted at each poll.

Counting a million rows of an index takes PostgreSQL 15 about 100 ms. So finished jobs, and jobs of
other states if a queue has more of them than a poll counts, are counted within a small share of the
time: the oldest count is renewed first. A count of unfinished jobs, which alerts use, is treated as
several times as old as it is. If queues have few jobs, all counts fit into that share and are made
at each poll. A queue without new events is skipped until its counts are MAX_IDLE_SECONDS old,
because everything that adds or removes jobs writes an event. The limit exists because events may be
committed out of order.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import NamedTuple

from exporter.queues.queue import Queue, State
from exporter.stores.postgres.client import PostgresReader, sendable
from exporter.stores.postgres.errors import TooSlow
from exporter.stores.postgres.statements import load_statement

# The share of time that PostgreSQL may spend on counting: 5 ms every 5 s, and twice as much while a
# count is about to become too old to be exposed.
SHARE, LATE_SHARE = 0.001, 0.002
# A count of unfinished jobs is treated as this many times as old as it is.
UNFINISHED_WEIGHT = 8
# Seconds of counting that may be saved up, and those available at the start, when nothing has been
# counted yet.
MAX_CREDIT_SECONDS = 0.05
FIRST_CREDIT_SECONDS = 1.0
# The assumed cost of a row before any rows were counted.
ROW_SECONDS = 0.2e-6
# The assumed cost of one count in addition to the cost of its rows.
COUNT_SECONDS = 20e-6
# Rows that one statement may count, as estimated from the last counts: about a third of its time
# limit.
MAX_ROWS_PER_STATEMENT = 300_000
# A queue without events is counted again after this many seconds.
MAX_IDLE_SECONDS = 60.0
# An older count is not exposed.
MAX_AGE_SECONDS = 600.0
# A count that exceeds the time limit of a statement is tried again after this many seconds. The
# delay doubles with each failure, up to the maximum.
RETRY_SECONDS = 5.0
MAX_RETRY_SECONDS = 3600.0

COUNT = load_statement("large_counts.sql")
FINISHED = (State.COMPLETED, State.FAILED)

# A queue and a state of its jobs; WAITING also stands for PAUSED.
Place = tuple[Queue, State]


class _Known(NamedTuple):
    """The last result of a count: `jobs` is None if they could not be counted."""

    jobs: int | None
    counted_at: float  # monotonic
    mark: object  # the mark of its queue's events at that time
    due: float = 0.0  # monotonic; it is not counted again earlier
    pause: float = RETRY_SECONDS


class LargeCounts:
    """Counts jobs within its share of time, and remembers the results."""

    def __init__(self, reader: PostgresReader) -> None:
        self._reader = reader
        self._known: dict[Place, _Known] = {}
        self._credit = FIRST_CREDIT_SECONDS
        self._credited_at = time.monotonic()
        self._row_seconds = ROW_SECONDS

    def forget(self) -> None:
        self._known.clear()

    def known(self, place: Place) -> int | None:
        """The last count; None if there is none that is recent enough."""
        known = self._known.get(place)
        if known is None or time.monotonic() - known.counted_at > MAX_AGE_SECONDS:
            return None
        return known.jobs

    async def refresh(self, marks: Mapping[Place, object]) -> None:
        """Make those of these counts that are due, and forget all others. A mark changes with new
        events.

        Raises PostgresUnavailable.
        """
        now = time.monotonic()
        share = LATE_SHARE if self._is_late(marks, now) else SHARE
        self._credit += share * (now - self._credited_at)
        self._credited_at = now
        if marks.keys() <= self._known.keys():
            self._credit = min(self._credit, MAX_CREDIT_SECONDS)
        for place in self._known.keys() - marks.keys():
            del self._known[place]
        due = [place for place, mark in marks.items() if self._is_due(place, mark, now)]
        due.sort(key=partial(self._urgency, now), reverse=True)
        while due and self._credit > 0:
            batch: list[Place] = []
            rows = 0
            while due and (not batch or rows + self._rows(due[0]) <= MAX_ROWS_PER_STATEMENT):
                # The remaining credit is spent; the last count may exceed it.
                if batch and rows * self._row_seconds + len(batch) * COUNT_SECONDS > self._credit:
                    break
                rows += self._rows(due[0])
                batch.append(due.pop(0))
            await self._count(batch, marks)

    def _is_late(self, places: Iterable[Place], now: float) -> bool:
        """Whether a count is half as old as it may be."""
        known = [self._known[place] for place in places if place in self._known]
        counted = [each.counted_at for each in known if each.jobs is not None]
        return now - min(counted, default=now) > MAX_AGE_SECONDS / 2

    def _is_due(self, place: Place, mark: object, now: float) -> bool:
        known = self._known.get(place)
        if known is None:
            return True
        return now >= known.due and (
            mark != known.mark or now - known.counted_at >= MAX_IDLE_SECONDS
        )

    def _urgency(self, now: float, place: Place) -> float:
        """The weighted age of a count; one that was never made is treated as very old."""
        known = self._known.get(place)
        age = 2 * MAX_AGE_SECONDS if known is None else now - known.counted_at
        return age if place[1] in FINISHED else UNFINISHED_WEIGHT * age

    def _rows(self, place: Place) -> int:
        known = self._known.get(place)
        # A count that was never made may be large, so one statement makes only a few of them.
        return MAX_ROWS_PER_STATEMENT // 10 if known is None else known.jobs or 0

    async def _count(self, batch: list[Place], marks: Mapping[Place, object]) -> None:
        limit = self._reader.statement_ms / 1000
        try:
            rows = await self._reader.read(
                COUNT,
                at=[*range(len(batch))],
                names=[sendable(queue.raw_name) for queue, _ in batch],
                states=[str(state) for _, state in batch],
            )
        except TooSlow:
            self._credit -= limit
            if len(batch) > 1:
                # Perhaps only one of them is too large, so each is counted alone.
                for place in batch:
                    if self._credit > 0:
                        await self._count([place], marks)
                return
            [place] = batch
            known = self._known.get(place)
            pause = RETRY_SECONDS if known is None else min(2 * known.pause, MAX_RETRY_SECONDS)
            now = time.monotonic()
            self._known[place] = _Known(None, now, marks[place], now + pause, pause)
            return
        now = time.monotonic()
        took = max(seconds for _, _, seconds in rows)
        self._credit -= took
        total = sum(count for _, count, _ in rows)
        if total > MAX_ROWS_PER_STATEMENT // 10:
            self._row_seconds = max(took / total, ROW_SECONDS / 10)
        for at, count, _ in rows:
            self._known[batch[at]] = _Known(count, now, marks[batch[at]])
