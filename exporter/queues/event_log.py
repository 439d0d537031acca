"""Positions in a queue's event log, and what was missed of it."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from exporter.queues.text import MAX_SAFE_INTEGER

Entry = tuple[bytes, Sequence[bytes]]  # its id, then its fields and values alternately


BEGIN = b"0-0"


# With a `streams.events.maxLen` up to this, a reader that polls twice a second misses most events
# of a busy queue.
TINY_MAX_LEN = 100

# Entries that MAXLEN ~ removes at a time (stream-node-max-entries, the default of all servers).
NODE_ENTRIES = 100


def milliseconds(entry_id: bytes) -> int:
    """When the entry was written, by Redis's clock, in epoch milliseconds."""
    return int(entry_id[: entry_id.index(b"-")])


def order(entry_id: bytes) -> tuple[int, int]:
    """The sort key of an entry id."""
    time, _, sequence = entry_id.partition(b"-")
    return int(time), int(sequence)


_IDS = re.compile(rb"(?:[0-9]{1,20}-[0-9]{1,20}\n)+")


_MAX_ID = (2**64 - 1, 2**64 - 1)


def check_ids(ids: Sequence[bytes]) -> None:
    """Raises ValueError or TypeError if these are no ids of entries in their order."""
    if not _IDS.fullmatch(b"\n".join(ids) + b"\n"):
        raise ValueError("not ids of entries")
    # They are in order as bytes, too, unless a number has gained a digit.
    if ids != sorted(ids) and ids != sorted(ids, key=order):
        raise ValueError("ids of entries that do not increase")
    if order(ids[-1]) > _MAX_ID:
        raise ValueError("an id beyond the largest possible one")


def check_entries(entries: Sequence[Entry], position: bytes) -> None:
    """Raises ValueError or TypeError if these cannot be what follows `position` in a stream.

    To be called before any of them is counted: if only some were counted, nobody would know which.
    """
    if not entries:
        return
    ids = [entry_id for entry_id, _ in entries]
    check_ids([position, *ids])
    if len(set(ids)) < len(ids):
        raise ValueError("a repeated entry")
    if order(entries[0][0]) <= order(position):
        raise ValueError("an entry that was already read")
    if min([len(fields) for _, fields in entries]) < 2:
        raise ValueError("an entry without an event")
    b"".join(chain.from_iterable([fields for _, fields in entries]))  # raises if one is not bytes


class StreamInfo(NamedTuple):
    """A stream as XINFO STREAM describes it."""

    length: int
    first: bytes | None  # id of the oldest entry that is still there
    last: bytes  # id of the newest entry that was ever added
    added: int | None  # entries ever added; None if unknown

    def checked(self) -> StreamInfo:
        """Raises ValueError if no stream can have these numbers: nothing may be computed from them.

        Redis before 7.0 has no `added`. XSETID may set it to any number below 2^63, which the next
        entry makes negative in replies: a number that no stream reaches by itself counts as
        unknown, too.
        """
        check_ids([self.last] if self.first is None else [self.first, self.last])
        if type(self.length) is not int or type(self.added) not in (int, type(None)):
            raise ValueError("XINFO: numbers that no stream has")
        if self.length < 0:
            raise ValueError("XINFO: a stream of a negative length")
        is_known = self.added is not None and 0 <= self.added <= MAX_SAFE_INTEGER
        return self if is_known else self._replace(added=None)


class Gap(NamedTuple):
    """Events that were trimmed before they were read: how many, and between which times (ms)."""

    missed: int
    since: int
    until: int


class UncertainGap(Gap):
    """A gap in which more events may be missing than the proven number, `missed`."""

    __slots__ = ()


@dataclass
class Cursor:
    """How far a stream was read, and what was missed.

    Redis 7.0 counts the entries that were ever added to a stream, so the number of the entry at our
    position is known, and with it how many were trimmed (or deleted) unread: exactly, however late
    one looks. (`max-deleted-entry-id` does not help: on Redis 7.0 and Valkey 9.1 XTRIM leaves it.)
    An older server only shows that the position was trimmed: then at least one is reported.

    A stream may also have been deleted and created again between two checks. If that is detected,
    all trimmed entries of the new one are missed, but the number of unread ones of the old is
    unknown: such a gap is an UncertainGap, as is every gap on an older server.
    """

    position: bytes = BEGIN
    number: int | None = 0  # of the entry at `position`; None if unknown
    # As of the last check:
    first: bytes | None = None
    length: int = 0
    checked: bytes = BEGIN  # the position
    read: int = 0  # entries that were read since the last check
    # The time from which reading began, if it is from a clock that may have been wrong; until the
    # first check.
    doubtful_start: bytes | None = None
    # Entries beyond the position that were already read, in a log whose entries may appear in
    # another order than their numbers.
    ahead: frozenset[int] = frozenset()

    def start(self, info: StreamInfo) -> None:
        """Begin behind the last entry."""
        self.position, self.number = info.last, info.added
        self._note(info)

    def advance(self, entries: Sequence[Entry]) -> None:
        if entries:
            self.position = entries[-1][0]
            self.read += len(entries)
            if self.number is not None:
                self.number += len(entries)

    def check(self, info: StreamInfo, entries: Sequence[Entry], *, complete: bool) -> Gap | None:
        """Compare with the stream as it was just before `entries` were read.

        Call it before `advance`. `complete`: nothing came behind `entries` when they were read.
        """
        since = milliseconds(self.checked)
        trimmed = info.first is not None and order(info.first) > order(self.position)
        gap = None
        if complete or (entries and order(entries[-1][0]) >= order(info.last)):
            unread = bisect_right(entries, order(info.last), key=lambda entry: order(entry[0]))
            gap = self._compare(info, unread, since, milliseconds(info.last))
            if unread == 0 and order(info.last) > order(self.position) and not entries:
                # All new entries are gone, and no older ones can follow.
                self.position = info.last
        if info.first is not None and trimmed:
            until = milliseconds(info.first)
            if info.added is not None:
                gap = gap or self._compare(info, info.length, since, until)
            elif self.position != BEGIN and self.first is not None:
                gap = UncertainGap(1, since, until)
        self._note(info)
        return gap

    def _compare(self, info: StreamInfo, unread: int, since: int, until: int) -> Gap | None:
        """`unread`: how many of all entries ever added come after our position.

        An UncertainGap may have no entry that is proven to be missed.
        """
        added = info.added
        known, self.number = self.number, None if added is None else added - unread
        if known is None or self.number is None:
            return None
        if self.number < known:
            # Fewer than known: the stream was deleted and created again, or it is an older copy,
            # which contains only what had been read by then. Entries read since may belong to the
            # new one.
            if info.first is not None and order(info.first) <= order(self.checked):
                return None
            # How many entries of the old one were unread when it was deleted is unknown.
            return UncertainGap(max(0, self.number - self.read), since, until)
        missed = self.number - known
        # XADD's MAXLEN does not make a stream shorter than that. Either it was trimmed by hand, or
        # it is a new one, of which these are missed and as many more as were known of the old one.
        if info.length + NODE_ENTRIES < self.length and (missed or unread or self.read):
            return UncertainGap(missed, since, until)
        return Gap(missed, since, until) if missed else None

    def has_doubtful_start(self, info: StreamInfo) -> bool:
        """Whether entries were skipped by a clock that may have been wrong; True only once."""
        start, self.doubtful_start = self.doubtful_start, None
        return start is not None and info.first is not None and order(info.first) <= order(start)

    def vanish(self) -> None:
        """Note that there is no stream (any more)."""
        self.number, self.first, self.length, self.checked = 0, None, 0, self.position
        self.read = 0

    @property
    def is_entry(self) -> bool:
        """Whether the position is that of a read entry, or the end of the stream at some time.

        False for a time from which a queue is read that was not followed before.
        """
        return self.number is not None or self.first is not None

    def restart(self) -> None:
        """Continue by time only: the log is another one, which may use the same numbers again."""
        self.vanish()
        self.position, self.number = b"%d-0" % milliseconds(self.position), None
        self.ahead = frozenset()

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
        self.read = 0
