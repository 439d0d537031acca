"""Positions in an event log: what was missed is counted exactly, whatever is trimmed when."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.queues.event_log import (
    BEGIN,
    NODE_ENTRIES,
    Cursor,
    Entry,
    Gap,
    StreamInfo,
    UncertainGap,
    check_entries,
    check_ids,
    milliseconds,
    order,
)
from exporter.queues.text import MAX_SAFE_INTEGER

EVENT = (b"event", b"added")


def entry(number: int) -> Entry:
    return b"%d-0" % number, EVENT


class Stream:
    """An event log as Redis keeps it."""

    def __init__(self, *, counts_added: bool = True) -> None:
        self.entries: list[Entry] = []
        self.added, self._counts_added = 0, counts_added

    def add(self, number: int) -> None:
        for _ in range(number):
            self.added += 1
            self.entries.append(entry(1000 + self.added))

    def trim(self, length: int) -> None:
        del self.entries[: max(0, len(self.entries) - length)]

    @property
    def info(self) -> StreamInfo:
        first = self.entries[0][0] if self.entries else None
        last = b"%d-0" % (1000 + self.added) if self.added else BEGIN
        added = self.added if self._counts_added else None
        return StreamInfo(len(self.entries), first, last, added)

    def after(self, position: bytes, limit: int) -> list[Entry]:
        return [each for each in self.entries if order(each[0]) > order(position)][:limit]


# Entries that are added, how many the stream then keeps, and how many are read at most.
ROUNDS = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 20)), max_size=30
)


@given(ROUNDS, st.booleans())
@settings(max_examples=300)
def test_each_entry_is_read_or_missed_once(
    rounds: list[tuple[int, int, int]], begins_late: bool
) -> None:
    stream, cursor, read, missed = Stream(), Cursor(), 0, 0
    if begins_late:
        stream.add(7)
        cursor.start(stream.info)
    before = stream.added if begins_late else 0
    for added, kept, limit in [*rounds, (1, 30, 100)]:
        stream.add(added)
        stream.trim(kept)
        found = stream.after(cursor.position, limit)
        is_whole = len(found) < limit
        gap = cursor.check(stream.info, found, complete=is_whole)
        if gap is not None:
            missed += gap.missed
        cursor.advance(found)
        read += len(found)
        if is_whole:
            assert before + read + missed == stream.added
    assert cursor.number == stream.added
    assert cursor.position == stream.info.last


def test_a_gap_lies_between_what_was_read_and_what_is_still_there() -> None:
    stream, cursor = Stream(), Cursor()
    stream.add(10)
    cursor.start(stream.info)
    stream.add(1000)
    stream.trim(950)
    gap = cursor.check(stream.info, stream.after(cursor.position, 5), complete=False)
    assert gap == Gap(missed=50, since=1010, until=milliseconds(stream.entries[0][0]))


def test_a_server_that_does_not_count_entries_shows_that_some_are_missed_and_not_how_many() -> None:
    stream, cursor = Stream(counts_added=False), Cursor()
    stream.add(5)
    cursor.start(stream.info)
    assert cursor.number is None
    stream.add(20)
    stream.trim(22)
    found = stream.after(cursor.position, 100)
    assert cursor.check(stream.info, found, complete=True) is None
    cursor.advance(found)
    stream.add(20)
    stream.trim(10)
    found = stream.after(cursor.position, 100)
    assert isinstance(gap := cursor.check(stream.info, found, complete=True), UncertainGap)
    assert gap.missed == 1


def test_a_stream_that_was_deleted_and_created_again_leaves_an_uncertain_gap() -> None:
    stream, cursor = Stream(), Cursor()
    stream.add(50)
    cursor.start(stream.info)
    found = [entry(number) for number in range(2001, 2011)]
    gap = cursor.check(StreamInfo(10, b"2001-0", b"2010-0", 10), found, complete=True)
    assert isinstance(gap, UncertainGap)
    assert gap.missed == 0, "all ten are there to be read"
    cursor.advance(found)
    assert (cursor.position, cursor.number) == (b"2010-0", 10)


def test_a_stream_that_vanished_is_read_from_its_start_when_it_is_back() -> None:
    stream, cursor = Stream(), Cursor()
    stream.add(3)
    cursor.start(stream.info)
    cursor.vanish()
    info = StreamInfo(2, b"2001-0", b"2002-0", 2)
    found = [entry(2001), entry(2002)]
    assert cursor.check(info, found, complete=True) is None
    # One of three was trimmed before it was seen.
    cursor.vanish()
    found = [entry(3002), entry(3003)]
    info = StreamInfo(2, b"3002-0", b"3003-0", 3)
    gap = cursor.check(info, found, complete=True)
    assert gap is not None
    assert gap.missed == 1


def test_an_older_copy_of_a_stream_is_not_read_again_and_a_new_one_is() -> None:
    stream, cursor = Stream(), Cursor()
    stream.add(20)
    stream.trim(15)
    cursor.start(stream.info)
    copy = stream.info._replace(length=10, last=b"1015-0", added=15)
    assert cursor.has_gone_back(copy)
    assert not cursor.go_back(copy)
    assert (cursor.position, cursor.number) == (b"1015-0", 15)
    new = StreamInfo(4, b"900-0", b"903-0", 4)
    assert cursor.has_gone_back(new)
    assert cursor.go_back(new)
    assert (cursor.position, cursor.number) == (BEGIN, 0)
    assert not cursor.has_gone_back(new)


def test_a_stream_that_was_trimmed_by_hand_may_hide_more() -> None:
    stream, cursor = Stream(), Cursor()
    stream.add(2 * NODE_ENTRIES)
    cursor.start(stream.info)
    stream.add(10)
    stream.trim(5)
    gap = cursor.check(stream.info, stream.after(cursor.position, 100), complete=True)
    assert isinstance(gap, UncertainGap)
    assert gap.missed == 5


def test_a_start_by_a_doubtful_clock_is_reported_once_if_entries_were_skipped() -> None:
    stream = Stream()
    stream.add(10)
    cursor = Cursor(position=b"1005-0", number=None, doubtful_start=b"1005-0")
    assert not cursor.is_entry
    assert cursor.has_doubtful_start(stream.info)
    assert not cursor.has_doubtful_start(stream.info)
    nothing_skipped = Cursor(position=b"500-0", number=None, doubtful_start=b"500-0")
    assert not nothing_skipped.has_doubtful_start(stream.info)


@pytest.mark.parametrize(
    "ids",
    [
        [b"5"],
        [b"5-"],
        [b"-5"],
        [b"a-0"],
        [b"5-0\n6-0"],
        ["5-0".encode("utf-16")],
        [b"9-0", b"8-0"],
        [b"8-1", b"8-0"],
        [b"1" * 21 + b"-0"],
        [b"18446744073709551616-0"],
    ],
)
def test_what_are_no_ids_of_entries_is_refused(ids: list[bytes]) -> None:
    with pytest.raises(ValueError, match="id"):
        check_ids(ids)


def test_the_largest_ids_there_are_pass() -> None:
    check_ids([b"0-0", b"18446744073709551615-18446744073709551615"])


@pytest.mark.parametrize(
    "entries",
    [
        [entry(5)],  # it was read before
        [entry(6), entry(4)],
        [entry(6), entry(9), entry(7)],  # whoever goes on from the last one reads 9 again
        [entry(6), entry(6), entry(7)],
        [entry(9), entry(10), entry(9)],
        [(b"6-0", (b"event",))],
        [(b"6-0", (b"event", "added"))],
        [(b"6-0", (b"event", None))],
        [(b"6-0", ())],
        [(b"6", EVENT)],
    ],
)
def test_entries_that_cannot_follow_are_refused(entries: list[Entry]) -> None:
    check_entries([], b"5-0")
    check_entries([entry(6), entry(7)], b"5-0")
    check_entries([entry(8), entry(9), entry(10), entry(100)], b"5-0")
    with pytest.raises((ValueError, TypeError)):
        check_entries(entries, b"5-0")


def test_the_numbers_of_a_stream_are_checked() -> None:
    info = StreamInfo(1, b"5-0", b"5-0", 1)
    assert info.checked() is info
    # What no stream reaches by itself, or a server before Redis 7.0.
    for added in (-1, MAX_SAFE_INTEGER + 1, None):
        assert info._replace(added=added).checked().added is None
    for wrong in (
        info._replace(length=-1),
        info._replace(length=True),
        info._replace(added="1"),
        info._replace(first=b"6-0"),
        info._replace(last=b"no"),
    ):
        with pytest.raises(ValueError, match=r"XINFO|ids"):
            wrong.checked()
