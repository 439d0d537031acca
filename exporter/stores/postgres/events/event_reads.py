"""Reads events of many queues at once, with limits on what one statement returns."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from exporter.queues.event_log import Entry
from exporter.queues.queue import Queue
from exporter.queues.text import MAX_SAFE_INTEGER
from exporter.stores.postgres.client import PostgresReader, Row, raw_text, sendable
from exporter.stores.postgres.errors import TooSlow
from exporter.stores.postgres.statements import load_statement

log = logging.getLogger(__name__)

EVENTS, NEXT_EVENT = load_statement("events.sql"), load_statement("next_event.sql")

# Events that one statement reads, which its queues share, and the minimum for each queue.
MAX_EVENTS = 5000
MIN_EVENTS = 25
# Bytes of all texts that one statement returns, and characters of one text.
MAX_BYTES = 4 << 20
MAX_LENGTH = 65_536
# The number of events is divided by this if a statement takes too long: PostgreSQL has to unpack
# return values of megabytes even to omit them. The number doubles after each statement that is in
# time.
SLOWER = 8


class Wanted(NamedTuple):
    """The events of a queue after an id, without those that were already read."""

    queue: Queue
    start: int
    read: Collection[int]


@dataclass
class Unread:
    """The unread events of a queue, in the order of their ids."""

    ids: list[int] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    is_whole: bool = True  # no further events are left
    skipped: bool = False  # `entries` holds a placeholder for an event that cannot be read


class EventReads:
    """Reads events. Raises PostgresUnavailable."""

    def __init__(self, reader: PostgresReader) -> None:
        self._reader = reader
        self._limit = MAX_EVENTS

    async def read(self, wanted: Sequence[Wanted]) -> dict[Queue, Unread]:
        """Returns unread events of each queue, usually all of them."""
        limit = self._limit
        most = max(min(MIN_EVENTS, limit), limit // len(wanted))
        try:
            rows = await self._read(wanted, most)
        except TooSlow:
            if len(wanted) == most == 1:
                return {wanted[0].queue: await self._skip(wanted[0])}
            self._limit = max(limit // SLOWER, 1)
            log.debug("fewer events at a time", extra={"most": self._limit})
            if len(wanted) == 1 or limit > len(wanted):
                return await self.read(wanted)
            half = len(wanted) // 2
            return await self.read(wanted[:half]) | await self.read(wanted[half:])
        self._limit = min(2 * limit, MAX_EVENTS)
        unread = [Unread() for _ in wanted]
        for at, *event, number in rows:
            each = unread[at]
            each.ids.append(event[0])
            each.entries.append(_entry(event))
            each.is_whole = number < most and number == len(each.ids)
        return {each.queue: found for each, found in zip(wanted, unread, strict=True)}

    async def _read(self, wanted: Sequence[Wanted], most: int) -> list[Row]:
        return await self._reader.read(
            EVENTS,
            at=[*range(len(wanted))],
            names=[sendable(each.queue.raw_name) for each in wanted],
            after=[each.start for each in wanted],
            read=[number for each in wanted for number in each.read if number > each.start],
            most=most,
            bytes=max(MAX_BYTES // len(wanted), MAX_LENGTH),
            length=MAX_LENGTH,
        )

    async def _skip(self, wanted: Wanted) -> Unread:
        """Returns the next event without its contents."""
        [(number, at)] = await self._reader.read(
            NEXT_EVENT,
            queue=sendable(wanted.queue.raw_name),
            after=wanted.start,
            read=[*wanted.read],
        )
        entry = _entry((number, "", at, None, None, None, None))
        return Unread([number], [entry], is_whole=False, skipped=True)


def _entry(event: Sequence[Any]) -> Entry:
    """Returns the event in the form of a stream entry: fields and values alternate."""
    number, kind, at, job_id, name, prev, reason = event
    fields = [b"event", raw_text(kind)]
    if job_id is not None:
        fields += [b"jobId", raw_text(job_id)]
    for key, value in ((b"name", name), (b"failedReason", reason), (b"prev", prev)):
        if value is not None:
            fields += [key, raw_text(value)]
    return b"%d-%d" % (min(max(at, 0), MAX_SAFE_INTEGER), number), fields
