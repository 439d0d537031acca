"""Positions in a stream, and what was missed of it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from exporter.bullmq.connection import mapped

Entry = tuple[bytes, Sequence[bytes]]  # its id, and its fields and values in turn

BEGIN = b"0-0"


def milliseconds(entry_id: bytes) -> int:
    """When the entry was written, by Redis's clock, in epoch milliseconds."""
    return int(entry_id[: entry_id.index(b"-")])


def order(entry_id: bytes) -> tuple[int, int]:
    """What entry ids sort by."""
    time, _, sequence = entry_id.partition(b"-")
    return int(time), int(sequence)


class StreamInfo(NamedTuple):
    """A stream by XINFO STREAM."""

    length: int
    first: bytes | None  # id of the oldest entry that is still there
    last: bytes  # id of the newest entry that ever was
    added: int | None  # entries ever added; None before Redis 7.0

    @classmethod
    def of(cls, reply: Mapping[bytes, Any] | Sequence[Any]) -> StreamInfo:
        told = mapped(reply)
        first = told.get(b"first-entry")
        added = told.get(b"entries-added")
        return cls(
            length=told[b"length"],
            first=first[0] if first else None,
            last=told[b"last-generated-id"],
            added=added,
        )


class Gap(NamedTuple):
    """Events that were trimmed before they were read: how many, and between which times (ms)."""

    missed: int
    since: int
    until: int


@dataclass
class Place:
    """How far a stream was read, and whether all of it.

    Redis 7.0 counts the entries that were ever added to a stream, so the number of the entry at our
    position is known, and with it how many were trimmed (or deleted) unread: exactly, however late
    one looks. (`max-deleted-entry-id` does not tell: on Redis 7.0 and Valkey 9.1 XTRIM leaves it.)
    An older server only shows that the position was trimmed: then at least one is said.
    """

    position: bytes = BEGIN
    number: int | None = 0  # of the entry at `position`; None where it is not known
    # As of the last check:
    first: bytes | None = None
    length: int = 0
    checked: bytes = BEGIN  # the position

    def start(self, info: StreamInfo) -> None:
        """Begin behind the last entry."""
        self.position, self.number = info.last, info.added
        self._note(info)

    def advance(self, entries: Sequence[Entry]) -> None:
        if entries:
            self.position = entries[-1][0]
            if self.number is not None:
                self.number += len(entries)

    def check(self, info: StreamInfo, entries: Sequence[Entry], *, complete: bool) -> Gap | None:
        """Compare with the stream as it stood just before `entries` were read.

        Call it before `advance`. `complete`: nothing came behind `entries` when they were read.
        """
        since = milliseconds(self.checked)
        gap = None
        if complete or (entries and order(entries[-1][0]) >= order(info.last)):
            unread = bisect_right(entries, order(info.last), key=lambda entry: order(entry[0]))
            gap = self._compare(info.added, unread, since, milliseconds(info.last))
        trimmed = info.first is not None and order(info.first) > order(self.position)
        if info.first is not None and trimmed:
            until = milliseconds(info.first)
            if info.added is not None:
                gap = gap or self._compare(info.added, info.length, since, until)
            elif self.position != BEGIN and self.first is not None:
                gap = Gap(1, since, until)
        self._note(info)
        return gap

    def _compare(self, added: int | None, unread: int, since: int, until: int) -> Gap | None:
        """`unread`: how many entries there are behind our position, of `added` in all."""
        known, self.number = self.number, None if added is None else added - unread
        if known is None or self.number is None or self.number <= known:
            # Fewer than we know of: the stream was deleted and made anew.
            return None
        return Gap(self.number - known, since, until)

    def vanish(self) -> None:
        """There is no stream (any more)."""
        self.number, self.first, self.length, self.checked = 0, None, 0, self.position

    @property
    def is_entry(self) -> bool:
        """Whether the position is that of an entry that was read, or the stream's end as it was.

        False for a mere time, from which on a queue is read that was not followed before.
        """
        return self.number is not None or self.first is not None

    def has_gone_back(self, info: StreamInfo) -> bool:
        """Whether the newest entry is older than what was read: see `go_back`."""
        return order(info.last) < order(self.position)

    def go_back(self, info: StreamInfo) -> bool:
        """Follow a stream whose ids went back; True if it is a new one, to be read from its start.

        Otherwise it is an older copy of the same stream, as after the failover to a replica that
        lagged, or the restore of a backup: its entries have been counted, and reading them again
        would count them twice. A new stream has never been trimmed (until it is as long as its
        limit), and its first entry is not the one that we know.
        """
        if info.added is not None:
            untrimmed = info.added == info.length
        else:
            untrimmed = info.length < self.length
        anew = info.length > 0 and self.is_entry and untrimmed and info.first != self.first
        if anew:
            self.position, self.number = BEGIN, 0
            self._note(info)
        else:
            self.start(info)
        return anew

    def _note(self, info: StreamInfo) -> None:
        self.first, self.length, self.checked = info.first, info.length, self.position
